package pool_test

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

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
