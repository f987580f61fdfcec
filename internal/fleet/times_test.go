package fleet_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// shelf is a driver of sandboxes that do nothing but sleep and wake.
type shelf struct {
	mu    sync.Mutex
	boxes map[sandbox.ID]*sandbox.Info
	lost  map[sandbox.ID]chan struct{}
}

func newShelf() *shelf {
	return &shelf{boxes: map[sandbox.ID]*sandbox.Info{}, lost: map[sandbox.ID]chan struct{}{}}
}

func (d *shelf) Create(_ context.Context, spec sandbox.Spec) (sandbox.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	info := sandbox.Info{ID: spec.ID, Template: spec.Template, State: sandbox.StateRunning, Labels: spec.Labels, CreatedAt: time.Now()}
	d.boxes[spec.ID], d.lost[spec.ID] = &info, make(chan struct{})
	return info, nil
}

func (d *shelf) change(id sandbox.ID, f func(*sandbox.Info)) (sandbox.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.boxes[id]
	if b == nil {
		return sandbox.Info{}, errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "no")
	}
	f(b)
	return *b, nil
}

func (d *shelf) Get(_ context.Context, id sandbox.ID) (sandbox.Info, error) {
	return d.change(id, func(*sandbox.Info) {})
}

func (d *shelf) Dial(context.Context, sandbox.ID) (net.Conn, error) {
	return nil, errors.New("nobody there")
}

func (d *shelf) List(context.Context) (list []sandbox.Info, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.boxes {
		list = append(list, *b)
	}
	return list, nil
}

func (d *shelf) SetLabels(_ context.Context, id sandbox.ID, labels map[string]string) error {
	_, err := d.change(id, func(b *sandbox.Info) { b.Labels = labels })
	return err
}

func (d *shelf) Lost(id sandbox.ID) (<-chan struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lost[id], nil
}

func (d *shelf) Delete(_ context.Context, id sandbox.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.boxes, id)
	return nil
}

func (d *shelf) Capabilities() sandbox.Capabilities { return sandbox.Capabilities{} }
func (d *shelf) Close() error                       { return nil }

func (d *shelf) Pause(_ context.Context, id sandbox.ID) error {
	_, err := d.change(id, func(b *sandbox.Info) {
		b.State, b.PausedAt, b.MemoryBytes, b.FilesBytes = sandbox.StatePaused, time.Now(), 100, 10
	})
	return err
}

func (d *shelf) Resume(_ context.Context, id sandbox.ID, filesOnly bool) (sandbox.Info, error) {
	b, err := d.Get(context.Background(), id)
	if err == nil && b.MemoryBytes == 0 && !filesOnly {
		return b, errdefs.New(errdefs.ErrConflict, sandbox.CodeNoMemory, "no")
	}
	return d.change(id, func(b *sandbox.Info) {
		b.State, b.PausedAt, b.MemoryBytes, b.FilesBytes = sandbox.StateRunning, time.Time{}, 0, 0
	})
}

func (d *shelf) ForgetMemory(_ context.Context, id sandbox.ID) error {
	_, err := d.change(id, func(b *sandbox.Info) { b.MemoryBytes = 0 })
	return err
}

// atTimes runs a test in which time passes by itself.
func atTimes(t *testing.T, tmpl fleet.Template, test func(t *testing.T, d *shelf, f *fleet.Fleet)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		d := newShelf()
		f, err := fleet.New(t.Context(), d, nil, fleet.Options{Templates: map[string]fleet.Template{"python": tmpl}, MaxSandboxes: -1})
		if err != nil {
			t.Fatal(err)
		}
		test(t, d, f)
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

const day = 24 * time.Hour

func TestTheTimesOfSleep(t *testing.T) {
	tmpl := fleet.Template{PauseAfter: 10 * time.Minute, IdleTimeout: time.Hour, Lifetime: day}
	t.Run("ten minutes, a week, a month", func(t *testing.T) {
		atTimes(t, tmpl, func(t *testing.T, _ *shelf, f *fleet.Fleet) {
			var farewells int
			f.Farewell(func(context.Context, *fleet.Sandbox) { farewells++ })
			s := create(t, f, fleet.CreateRequest{})
			left := time.Until(s.View().ExpiresAt)
			pass(9 * time.Minute)
			if st := s.View().State; st != sandbox.StateRunning {
				t.Fatalf("after 9 minutes it is %s", st)
			}
			pass(2 * time.Minute)
			if v := s.View(); v.State != sandbox.StatePaused || v.SavedBytes != 110 || farewells != 1 {
				t.Fatalf("after 11 minutes: %+v, %d farewells", v, farewells)
			}
			pass(6 * day)
			if v := s.View(); v.SavedBytes != 110 || time.Until(v.ExpiresAt) != left-10*time.Minute {
				t.Fatalf("after 6 days: %+v, %s of its life left", v, time.Until(v.ExpiresAt))
			}
			pass(day)
			if v := s.View(); v.SavedBytes != 10 {
				t.Fatalf("after a week it takes %d bytes", v.SavedBytes)
			}
			pass(22 * day)
			if _, err := f.Get(s.ID()); err != nil {
				t.Fatal(err)
			}
			pass(2 * day)
			if _, err := f.Get(s.ID()); err == nil || farewells != 1 {
				t.Errorf("after a month: %v, %d farewells", err, farewells)
			}
		})
	})
	t.Run("a wake gives it the life it had left", func(t *testing.T) {
		atTimes(t, tmpl, func(t *testing.T, d *shelf, f *fleet.Fleet) {
			s := create(t, f, fleet.CreateRequest{})
			pass(3 * day)
			if err := s.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			if left := time.Until(s.View().ExpiresAt); left != day-10*time.Minute {
				t.Errorf("%s left", left)
			}
			labels := func() string {
				info, _ := d.Get(t.Context(), s.ID())
				return info.Labels["caesarion.expires"]
			}
			if got := labels(); got != s.View().ExpiresAt.Format(time.RFC3339Nano) {
				t.Errorf("written down is %s, not %s", got, s.View().ExpiresAt)
			}
			done := s.Use() // keeps it awake
			pass(day)
			done()
			if _, err := f.Get(s.ID()); err == nil {
				t.Error("it lives for ever")
			}
		})
	})
	t.Run("extend does not wake it", func(t *testing.T) {
		atTimes(t, tmpl, func(t *testing.T, _ *shelf, f *fleet.Fleet) {
			s := create(t, f, fleet.CreateRequest{})
			pass(time.Hour)
			if err := s.Extend(t.Context(), 5*time.Hour); err != nil {
				t.Fatal(err)
			}
			pass(day)
			if v := s.View(); v.State != sandbox.StatePaused || time.Until(v.ExpiresAt) != 5*time.Hour {
				t.Errorf("it is %s with %s left", v.State, time.Until(v.ExpiresAt))
			}
		})
	})
	t.Run("an idle time that was asked for holds, asleep or awake", func(t *testing.T) {
		atTimes(t, tmpl, func(t *testing.T, _ *shelf, f *fleet.Fleet) {
			s := create(t, f, fleet.CreateRequest{IdleTimeout: 30 * time.Minute})
			pass(20 * time.Minute)
			if st := s.View().State; st != sandbox.StatePaused {
				t.Fatalf("it is %s", st)
			}
			pass(time.Hour)
			if got := goneFor(t, f, s.ID()); got != fleet.ReasonIdle {
				t.Errorf("reason = %q", got)
			}
		})
	})
	t.Run("one that must not sleep is deleted when it is idle", func(t *testing.T) {
		atTimes(t, tmpl, func(t *testing.T, _ *shelf, f *fleet.Fleet) {
			s := create(t, f, fleet.CreateRequest{PauseAfter: -1})
			pass(30 * time.Minute)
			if v := s.View(); v.State != sandbox.StateRunning || v.PauseAfter != 0 {
				t.Fatalf("%+v", v)
			}
			pass(time.Hour)
			if got := goneFor(t, f, s.ID()); got != fleet.ReasonIdle {
				t.Errorf("reason = %q", got)
			}
		})
	})
	t.Run("its own time", func(t *testing.T) {
		atTimes(t, tmpl, func(t *testing.T, _ *shelf, f *fleet.Fleet) {
			s := create(t, f, fleet.CreateRequest{PauseAfter: time.Minute})
			pass(2 * time.Minute)
			if st := s.View().State; st != sandbox.StatePaused {
				t.Fatalf("it is %s", st)
			}
		})
	})
}
