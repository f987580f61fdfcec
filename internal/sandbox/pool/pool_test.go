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
	"github.com/caesarion/caesarion/internal/sandbox"
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

func TestTheSnapshotIsMadeOnceAndFoundAgain(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(0))
		settled(t, p)
		shut(t, p)
		if len(h.snaps) != 1 || h.creates != 1 || len(h.boxes) != 0 {
			t.Fatalf("%d snapshots, %d creates, %d sandboxes left", len(h.snaps), h.creates, len(h.boxes))
		}
		for _, s := range h.snaps {
			if s.Name != "template/python" || s.Labels["caesarion.template"] != "python" {
				t.Errorf("snapshot %+v", s)
			}
		}
		p = open(t, h.full(), options(0))
		settled(t, p)
		shut(t, p)
		if h.creates != 1 || len(h.deleted) != 0 {
			t.Errorf("%d creates, deleted %v", h.creates, h.deleted)
		}
	})
}

func TestSnapshotsOfAnotherBuildAndOfGoneTemplatesAreDeletedButNobodyElses(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		other := func(name, label, key string) sandbox.SnapshotID {
			s := sandbox.Snapshot{ID: sandbox.NewSnapshotID(), Name: name, Key: key, Memory: true, CreatedAt: time.Now()}
			if label != "" {
				s.Labels = map[string]string{"caesarion.template": label}
			}
			h.snaps[s.ID] = s
			return s.ID
		}
		stale := other("template/python", "python", "old")
		gone := other("template/gone", "gone", "old")
		users := other("mine", "", "old")
		p := open(t, h.full(), options(0))
		settled(t, p)
		shut(t, p)
		if h.snaps[stale].ID != "" || h.snaps[gone].ID != "" || h.snaps[users].ID == "" || len(h.snaps) != 2 {
			t.Errorf("left: %v", h.snaps)
		}
	})
}

func TestAMissIsARestoreAndGoesOnWithTheSameKernel(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(0))
		defer shut(t, p)
		settled(t, p)
		for name, tt := range map[string]struct {
			change func(*sandbox.Limits)
			want   pool.Start
		}{
			"the same limits":         {func(*sandbox.Limits) {}, pool.StartRestore},
			"less memory":             {func(l *sandbox.Limits) { l.MemoryBytes = 256 << 20 }, pool.StartRestore},
			"too little for a copy":   {func(l *sandbox.Limits) { l.MemoryBytes = 64 << 20 }, pool.StartCold},
			"fewer cores":             {func(l *sandbox.Limits) { l.CPUs = 0.5 }, pool.StartRestore},
			"another disk limit":      {func(l *sandbox.Limits) { l.DiskBytes = 1 << 20 }, pool.StartCold},
			"more than the template":  {func(l *sandbox.Limits) { l.Processes = 1000 }, pool.StartCold},
			"no limit where one held": {func(l *sandbox.Limits) { l.CPUs = 0 }, pool.StartCold},
		} {
			req := request()
			tt.change(&req.Spec.Limits)
			l := lease(t, p, req)
			if l.Start != tt.want || l.KernelReady != (tt.want == pool.StartRestore) || l.Info.Limits != req.Spec.Limits || l.Info.ID != req.Spec.ID || l.Info.Pooled {
				t.Errorf("%s: %+v", name, l)
			}
		}
		other := request()
		other.Spec.Image = "another"
		if l := lease(t, p, other); l.Start != pool.StartCold {
			t.Errorf("another image: %+v", l)
		}
		other = request()
		other.Spec.Template = "unknown"
		if l := lease(t, p, other); l.Start != pool.StartCold {
			t.Errorf("another template: %+v", l)
		}
	})
}

func TestTheColdPathTakesOverAndABadSnapshotIsMadeAnew(t *testing.T) {
	for name, tt := range map[string]struct {
		code  string
		after int
	}{
		"damaged":      {sandbox.CodeDamaged, 1},
		"incompatible": {sandbox.CodeIncompatible, 1},
		"anything":     {sandbox.CodeRestoreFailed, 3},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *host) {
				p := open(t, h.full(), options(0))
				defer shut(t, p)
				settled(t, p)
				var first sandbox.SnapshotID
				for id := range h.snaps {
					first = id
				}
				h.locked(func() {
					h.onRestore = func(context.Context, sandbox.Spec) error {
						return errdefs.New(errdefs.ErrUnavailable, tt.code, "scripted")
					}
				})
				for i := range tt.after {
					if i > 0 && p.Stats()["python"].Snapshot != "ready" {
						t.Fatalf("given up after %d failures", i)
					}
					if l := lease(t, p, request()); l.Start != pool.StartCold || l.KernelReady {
						t.Errorf("lease %+v", l)
					}
				}
				h.locked(func() { h.onRestore = nil })
				until(t, "there is another snapshot", func() bool { return p.Stats()["python"].Snapshot == "ready" })
				if l := lease(t, p, request()); l.Start != pool.StartRestore {
					t.Errorf("lease %+v", l)
				}
				h.locked(func() {
					if _, there := h.snaps[first]; there || len(h.snaps) != 1 {
						t.Errorf("snapshots %v, the bad one was %s", h.snaps, first)
					}
				})
			})
		})
	}
}

func TestWithoutASnapshotThePoolIsFilledCold(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.onSave = func() error { return errors.New("no space left") }
		p := open(t, h.full(), options(1))
		defer shut(t, p)
		until(t, "one is ready", func() bool { return p.Stats()["python"].Ready == 1 })
		until(t, "it is said why", func() bool {
			s := p.Stats()["python"]
			return s.Snapshot == "failed" && s.Message != ""
		})
		if l := lease(t, p, request()); l.Start != pool.StartWarm {
			t.Errorf("lease %+v", l)
		}
		var before int
		h.locked(func() { before, h.onSave = h.creates, nil })
		until(t, "the snapshot is made after all", func() bool { return p.Stats()["python"].Snapshot == "ready" })
		h.locked(func() {
			if n := h.creates - before; n > 20 {
				t.Errorf("%d cold starts meanwhile", n)
			}
		})
	})
}

func TestAnImageThatIsNotThereYet(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		h.noImage = true
		p := open(t, h.full(), options(1))
		defer shut(t, p)
		time.Sleep(10 * time.Minute)
		if s := p.Stats()["python"]; s.Ready != 0 || s.Message != "there is no image" || h.creates != 0 {
			t.Errorf("stats %+v, %d creates", s, h.creates)
		}
		if _, err := p.Lease(t.Context(), request()); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		h.locked(func() { h.noImage = false })
		begin := time.Now()
		settled(t, p)
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("it took %v to see it", took)
		}
	})
}

func TestAnImageThatIsBuiltAnewReplacesEverything(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(2))
		defer shut(t, p)
		settled(t, p)
		old := h.pooled()
		h.locked(func() { h.stateKey = "key-2" })
		until(t, "the old ones are gone", func() bool {
			return len(h.each(func(b *box) bool { return slices.Contains(old, b) })) == 0
		})
		settled(t, p)
		h.locked(func() {
			for _, s := range h.snaps {
				if s.Key != "key-2[numpy] 1073741824" {
					t.Errorf("snapshot of %s is left", s.Key)
				}
			}
			if len(h.snaps) != 1 {
				t.Errorf("%d snapshots", len(h.snaps))
			}
		})
	})
}

func TestADeadReadySandboxIsNotHandedOut(t *testing.T) {
	for name, breaks := range map[string]func(*box){
		"it is deaf": func(b *box) { b.host.locked(func() { b.deaf = true }) },
		"its driver has lost it": func(b *box) {
			b.host.locked(func() { delete(b.host.boxes, b.info.ID); b.endLocked() })
		},
		"somebody has claimed it": func(b *box) { b.host.locked(func() { b.info.Pooled = false }) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, h *host) {
				p := open(t, h.full(), options(2))
				defer shut(t, p)
				settled(t, p)
				bad := h.pooled()[0]
				breaks(bad)
				l := lease(t, p, request())
				if l.Start != pool.StartWarm || l.Info.ID == bad.info.ID {
					t.Errorf("lease %+v", l)
				}
				settled(t, p)
				if h.locked(func() {
					if h.boxes[bad.info.ID] != nil {
						t.Error("the bad one is still there")
					}
				}); len(h.pooled()) != 2 {
					t.Errorf("%d pooled", len(h.pooled()))
				}
			})
		})
	}
}

func TestWhenAllReadyOnesAreDeadTheNextIsRestored(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(2))
		defer shut(t, p)
		settled(t, p)
		h.locked(func() {
			for _, b := range h.boxes {
				b.deaf = true
			}
		})
		if l := lease(t, p, request()); l.Start != pool.StartRestore && l.Start != pool.StartWarm {
			t.Errorf("lease %+v", l)
		}
	})
}

func TestAReadySandboxThatEndsIsReplacedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(1))
		defer shut(t, p)
		settled(t, p)
		b := h.pooled()[0]
		b.kill()
		synctest.Wait()
		time.Sleep(time.Second)
		settled(t, p)
		if h.pooled()[0] == b {
			t.Error("it is still there")
		}
	})
}

func TestSlowAndDeafSandboxesAreEvicted(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(3))
		defer shut(t, p)
		settled(t, p)
		boxes := h.pooled()
		h.locked(func() { boxes[0].slow, boxes[1].deaf = 200*time.Millisecond, true })
		time.Sleep(70 * time.Second) // one check
		there := func(b *box) bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.boxes[b.info.ID] == b
		}
		if !there(boxes[0]) || there(boxes[1]) || !there(boxes[2]) {
			t.Errorf("after one check: slow %v, deaf %v, well %v", there(boxes[0]), there(boxes[1]), there(boxes[2]))
		}
		time.Sleep(60 * time.Second) // the next
		if there(boxes[0]) || !there(boxes[2]) {
			t.Errorf("after two checks: slow %v, well %v", there(boxes[0]), there(boxes[2]))
		}
		settled(t, p)
		h.locked(func() {
			if n := boxes[2].checks; n < 5 || n > 6 {
				t.Errorf("%d inert cells, want three at first and one a minute", n)
			}
		})
	})
}

func TestOldSandboxesAreReplacedOneAtATime(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(2))
		defer shut(t, p)
		settled(t, p)
		old := h.pooled()
		least := 2
		for begin := time.Now(); time.Since(begin) < time.Hour+time.Minute; time.Sleep(50 * time.Millisecond) {
			least = min(least, p.Stats()["python"].Ready)
		}
		for _, b := range h.pooled() {
			if slices.Contains(old, b) {
				t.Error("an old one is left")
			}
		}
		if least != 1 {
			t.Errorf("at worst %d were ready, want 1", least)
		}
	})
}

func TestMemoryBoundsThePool(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		var others atomic.Int64 // what everybody else takes
		opts := options(8).WithMemory(func() (int64, int64) {
			return 4 << 30, 2<<30 - others.Load() - int64(len(h.pooled()))*200<<20
		})
		p := open(t, h.full(), opts)
		defer shut(t, p)
		time.Sleep(time.Minute)
		s := p.Stats()["python"]
		if s.Ready != 5 || s.Message == "" { // 5 · 200 MiB of the 1 GiB that are not reserved
			t.Errorf("stats %+v", s)
		}
		others.Store(500 << 20)
		time.Sleep(time.Minute)
		if s := p.Stats()["python"]; s.Ready != 2 {
			t.Errorf("short of memory: %+v", s)
		}
		others.Store(-2 << 30)
		time.Sleep(time.Minute)
		if s := p.Stats()["python"]; s.Ready != 8 || s.Message != "" {
			t.Errorf("with enough: %+v", s)
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

func TestRefillsGoOnUnderSustainedLoad(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(2))
		defer shut(t, p)
		settled(t, p)
		// Five a second: half of what one slot can restore.
		for range 100 {
			lease(t, p, request())
			time.Sleep(200 * time.Millisecond)
		}
		if s := p.Stats()["python"]; s.Hits < 95 {
			t.Errorf("stats %+v", s)
		}
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

func TestCloseDeletesWhatIsReady(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		p := open(t, h.full(), options(3))
		settled(t, p)
		l := lease(t, p, request())
		time.Sleep(50 * time.Millisecond) // a refill is under way
		shut(t, p)
		shut(t, p)
		if all := h.each(func(*box) bool { return true }); len(all) != 1 || all[0].info.ID != l.Info.ID {
			t.Errorf("left are %d", len(all))
		}
		if _, err := p.Lease(t.Context(), request()); !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("lease after close: %v", err)
		}
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

func TestTheNextProcessAdoptsWhatFits(t *testing.T) {
	bubble(t, func(t *testing.T, h *host) {
		opts := options(3)
		opts.KeepReady = true
		p := open(t, h.full(), opts)
		settled(t, p)
		shut(t, p)
		boxes := h.pooled()
		if len(boxes) != 3 {
			t.Fatalf("%d were kept", len(boxes))
		}
		h.locked(func() {
			boxes[1].deaf = true
			// And one of a template that is no more.
			b := &box{host: h, lost: make(chan struct{}), info: sandbox.Info{ID: sandbox.NewID(), Template: "gone", Pooled: true, State: sandbox.StateRunning, CreatedAt: time.Now()}}
			h.boxes[b.info.ID] = b
			h.restores = 0
		})
		opts.Templates["python"] = func(t pool.Template) pool.Template { t.Size = 2; return t }(opts.Templates["python"])
		p = open(t, h.full(), opts)
		settled(t, p)
		if got := h.pooled(); len(got) != 2 || got[0] != boxes[0] || got[1] != boxes[2] || h.restores != 0 {
			t.Errorf("%d pooled, %d restores", len(got), h.restores)
		}
		if l := lease(t, p, request()); l.Info.ID != boxes[0].info.ID {
			t.Errorf("lease %+v, want the oldest", l)
		}
		settled(t, p)
		shut(t, p)

		// Another configuration: nothing fits any more.
		old := h.pooled()
		opts.Templates["python"] = func(t pool.Template) pool.Template { t.Limits.MemoryBytes /= 2; return t }(opts.Templates["python"])
		p = open(t, h.full(), opts)
		settled(t, p)
		for _, b := range h.pooled() {
			if slices.Contains(old, b) {
				t.Error("one of the old limits is left")
			}
		}
		opts.KeepReady = false
		p2 := p
		shut(t, p2)
	})
}

func TestDriversThatCanDoLess(t *testing.T) {
	t.Run("no snapshots", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *host) {
			p := open(t, h.claiming(), options(1))
			defer shut(t, p)
			settled(t, p)
			if l := lease(t, p, request()); l.Start != pool.StartWarm || !l.KernelReady {
				t.Errorf("lease %+v", l)
			}
			if l := lease(t, p, request()); l.Start == pool.StartRestore {
				t.Errorf("lease %+v", l)
			}
		})
	})
	t.Run("snapshots are not wanted", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *host) {
			opts := options(0)
			opts.Snapshots = false
			p := open(t, h.full(), opts)
			defer shut(t, p)
			time.Sleep(time.Minute)
			if l := lease(t, p, request()); l.Start != pool.StartCold || len(h.snaps) != 0 {
				t.Errorf("lease %+v, snapshots %v", l, h.snaps)
			}
		})
	})
	t.Run("nothing", func(t *testing.T) {
		bubble(t, func(t *testing.T, h *host) {
			p := open(t, h.plain(), options(3))
			defer shut(t, p)
			time.Sleep(time.Minute)
			if s := p.Stats()["python"]; s.Size != 0 || h.creates != 0 {
				t.Errorf("stats %+v, %d creates", s, h.creates)
			}
			if l := lease(t, p, request()); l.Start != pool.StartCold {
				t.Errorf("lease %+v", l)
			}
		})
	})
}
