package pool_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

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
