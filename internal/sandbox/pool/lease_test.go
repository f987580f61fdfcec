package pool_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// A server that is killed between the two would otherwise hand a sandbox that
// has seen one owner's environment to the next.
func TestAReadySandboxSeesNothingOfItsOwnerBeforeItIsClaimed(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(1))
		defer shut(t, p)
		settled(t, p)
		if l := lease(t, p, request()); l.Start != pool.StartWarm {
			t.Fatalf("start = %s", l.Start)
		}
		for _, b := range h.owned() {
			if len(b.conf) != 1 || b.unowned != 0 {
				t.Errorf("configured %d times, %d of them while it was still called ready", len(b.conf), b.unowned)
			}
		}
	})
}

func TestAHitIsOneRoundTripAndAClaim(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(1))
		defer shut(t, p)
		settled(t, p)
		b := h.pooled()[0]
		var before []string
		var started int
		h.locked(func() { before, started = slices.Clone(b.calls), h.creates+h.restores })

		l := lease(t, p, request())
		h.locked(func() {
			if got := b.calls[len(before):]; !cmp.Equal(got, []string{"POST /configure"}) {
				t.Errorf("calls on the way: %v", got)
			}
			if h.creates+h.restores != started {
				t.Error("a sandbox was started")
			}
			want := agentapi.Configure{
				Token: b.info.AgentToken, SandboxID: string(b.info.ID), Env: map[string]string{"A": "1"}, MemoryBytes: 1 << 30, Processes: 128,
				DiskBytes: 1 << 30, DataBytes: 1 << 30, UnixTimeNanos: time.Now().UnixNano(), KernelID: "krn_mine",
			}
			if diff := cmp.Diff(want, b.conf[len(b.conf)-1]); diff != "" {
				t.Error(diff)
			}
			if b.info.Pooled || b.info.Labels["owner"] != "me" || len(b.info.Labels) != 1 {
				t.Errorf("claimed: %+v", b.info)
			}
		})
		if l.Start != pool.StartWarm || !l.KernelReady || l.Info.ID != b.info.ID || l.Info.Pooled {
			t.Errorf("lease %+v", l)
		}
		settled(t, p)
		if s := p.Stats()["python"]; s.Hits != 1 || s.Misses != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestABurstSucceedsInOrderAndIsNotDisturbed(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(10))
		defer shut(t, p)
		settled(t, p)
		h.locked(func() { h.most, h.restores = 0, 0 })
		var wg sync.WaitGroup
		var mu sync.Mutex
		starts := map[pool.Start]int{}
		begin := time.Now()
		var last time.Duration
		for range 100 {
			wg.Go(func() {
				l, err := p.Lease(t.Context(), request())
				if err != nil {
					t.Error(err)
					return
				}
				l.Client.CloseIdle()
				mu.Lock()
				defer mu.Unlock()
				starts[l.Start]++
				last = time.Since(begin)
			})
		}
		wg.Wait()
		if starts[pool.StartWarm] < 10 || starts[pool.StartWarm]+starts[pool.StartRestore] != 100 {
			t.Errorf("starts %v", starts)
		}
		h.locked(func() {
			if h.most != 2 {
				t.Errorf("%d starts at once, want 2", h.most)
			}
			if h.restores > 92 {
				t.Errorf("%d restores for 90 requests: the pool was refilled meanwhile", h.restores)
			}
		})
		if last > 4700*time.Millisecond { // 90 restores of 100 ms, two at a time
			t.Errorf("the last came after %v", last)
		}
		settled(t, p)
	})
}

func TestAWaitingRequestTakesWhatBecomesReady(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		opts := options(1)
		p := open(t, h.full(), opts)
		defer shut(t, p)
		settled(t, p)
		first := lease(t, p, request())
		time.Sleep(60 * time.Millisecond) // the refill is under way, with 100 ms to go
		if p.Stats()["python"].Starting != 1 {
			t.Fatal("no refill is under way")
		}
		other := request()
		other.Spec.Limits.DiskBytes = 1 // cold: takes the other slot for a second
		var wg sync.WaitGroup
		wg.Go(func() { lease(t, p, other) })
		synctest.Wait()
		begin := time.Now()
		l := lease(t, p, request())
		if l.Start != pool.StartWarm || time.Since(begin) > 100*time.Millisecond || l.Info.ID == first.Info.ID {
			t.Errorf("lease %+v after %v", l, time.Since(begin))
		}
		wg.Wait()
	})
}

func TestACallerWhoLeavesLeavesNothing(t *testing.T) {
	left := errors.New("left")
	for name, prepare := range map[string]func(*host) (size int){
		"while a ready one is handed over": func(h *host) int { return 1 },
		"while one is restored":            func(h *host) int { h.takes = time.Second; return 0 },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *host) {
				size := prepare(h)
				p := open(t, h.full(), options(size))
				settled(t, p)
				for _, b := range h.pooled() {
					h.locked(func() { b.deaf = true })
				}
				ctx, cancel := context.WithCancelCause(t.Context())
				time.AfterFunc(50*time.Millisecond, func() { cancel(left) })
				if _, err := p.Lease(ctx, request()); !errors.Is(err, left) {
					t.Errorf("got %v", err)
				}
				if size > 0 {
					settled(t, p)
				}
				shut(t, p)
				if all := h.each(func(*box) bool { return true }); len(all) != 0 {
					t.Errorf("%d sandboxes are left", len(all))
				}
			})
		})
	}
	t.Run("in the queue", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *host) {
			h.takes = time.Second
			p := open(t, h.full(), options(0))
			defer shut(t, p)
			settled(t, p)
			var wg sync.WaitGroup
			for range 2 {
				wg.Go(func() { lease(t, p, request()) })
			}
			synctest.Wait()
			ctx, cancel := context.WithTimeoutCause(t.Context(), 100*time.Millisecond, left)
			defer cancel()
			if _, err := p.Lease(ctx, request()); !errors.Is(err, left) {
				t.Errorf("got %v", err)
			}
			wg.Wait()
			if n := p.WaitingForTurn(); n != 0 || len(h.owned()) != 2 {
				t.Errorf("%d wait, %d sandboxes", n, len(h.owned()))
			}
		})
	})
}

func TestCloseSendsAwayWhoWaits(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(0))
		settled(t, p)
		var ok, closed atomic.Int32
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				switch l, err := p.Lease(t.Context(), request()); {
				case err == nil:
					l.Client.CloseIdle()
					ok.Add(1)
				case errors.Is(err, errdefs.ErrUnavailable):
					closed.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		shut(t, p)
		wg.Wait()
		if ok.Load() != 2 || closed.Load() != 8 {
			t.Errorf("%d got one, %d were sent away", ok.Load(), closed.Load())
		}
	})
}
