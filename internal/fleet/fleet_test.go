package fleet_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/sandbox/fake/faketest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// counted counts what would be written to disk.
type counted struct {
	*fake.Driver
	writes atomic.Int64
}

func (d *counted) SetLabels(ctx context.Context, id sandbox.ID, labels map[string]string) error {
	d.writes.Add(1)
	return d.Driver.SetLabels(ctx, id, labels)
}

func newHost(t testing.TB) *fake.Host {
	t.Helper()
	return faketest.NewWithoutPython(t)
}

func newFleet(t testing.TB, d sandbox.Driver, tmpl fleet.Template, most int) *fleet.Fleet {
	t.Helper()
	f, err := fleet.New(t.Context(), d, nil, fleet.Options{Templates: map[string]fleet.Template{"python": tmpl}, MaxSandboxes: most})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func create(t testing.TB, f *fleet.Fleet, req fleet.CreateRequest) *fleet.Sandbox {
	t.Helper()
	s, err := f.Create(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// goneFor waits until a sandbox is gone and gives the reason.
func goneFor(t testing.TB, f *fleet.Fleet, id sandbox.ID) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		_, err := f.Get(id)
		if gone, ok := errors.AsType[*fleet.GoneError](err); ok {
			return gone.Reason
		}
	}
	t.Fatal("the sandbox never went")
	return ""
}

func TestSandboxesEndByThemselves(t *testing.T) {
	h := newHost(t)
	t.Run("unused for too long", func(t *testing.T) {
		f := newFleet(t, h.Driver(), fleet.Template{IdleTimeout: 100 * time.Millisecond}, 0)
		if got := goneFor(t, f, create(t, f, fleet.CreateRequest{}).ID()); got != fleet.ReasonIdle {
			t.Errorf("reason = %q, want idle", got)
		}
	})
	t.Run("use keeps one alive", func(t *testing.T) {
		f := newFleet(t, h.Driver(), fleet.Template{IdleTimeout: 100 * time.Millisecond}, 0)
		s := create(t, f, fleet.CreateRequest{})
		done := s.Use()
		time.Sleep(400 * time.Millisecond)
		if _, err := f.Get(s.ID()); err != nil {
			t.Errorf("in use, but: %v", err)
		}
		done()
		if got := goneFor(t, f, s.ID()); got != fleet.ReasonIdle {
			t.Errorf("reason = %q, want idle", got)
		}
	})
	t.Run("after a farewell, which is a use and does not keep it", func(t *testing.T) {
		f := newFleet(t, h.Driver(), fleet.Template{IdleTimeout: 100 * time.Millisecond}, 0)
		said := make(chan sandbox.ID, 10)
		f.Farewell(func(_ context.Context, s *fleet.Sandbox) {
			defer s.Use()()
			said <- s.ID()
		})
		s := create(t, f, fleet.CreateRequest{})
		if got := goneFor(t, f, s.ID()); got != fleet.ReasonIdle {
			t.Errorf("reason = %q, want idle", got)
		}
		if got := <-said; got != s.ID() {
			t.Errorf("farewell to %s, want %s", got, s.ID())
		}
	})
	t.Run("at the end of its life, used or not", func(t *testing.T) {
		f := newFleet(t, h.Driver(), fleet.Template{Lifetime: 300 * time.Millisecond}, 0)
		s := create(t, f, fleet.CreateRequest{})
		defer s.Use()()
		if err := s.Extend(t.Context(), 200*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if got := goneFor(t, f, s.ID()); got != fleet.ReasonExpired {
			t.Errorf("reason = %q, want expired", got)
		}
	})
	t.Run("lost by the driver", func(t *testing.T) {
		f := newFleet(t, h.Driver(), fleet.Template{}, 0)
		s := create(t, f, fleet.CreateRequest{})
		if err := h.Kill(s.ID(), "out_of_memory"); err != nil {
			t.Fatal(err)
		}
		if got := goneFor(t, f, s.ID()); got != "out_of_memory" {
			t.Errorf("reason = %q", got)
		}
	})
	d := h.Driver()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		left, err := d.List(t.Context())
		if err == nil && len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("left with the driver: %v, %v", left, err)
		}
	}
}

func TestUseWritesNothingToDisk(t *testing.T) {
	d := &counted{Driver: newHost(t).Driver()}
	f := newFleet(t, d, fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{})
	for range 1000 {
		s.Use()()
	}
	time.Sleep(50 * time.Millisecond)
	if n := d.writes.Load(); n != 0 {
		t.Errorf("%d label writes for 1000 uses", n)
	}
}

func TestBoundHoldsForCreatesAtOnce(t *testing.T) {
	h := newHost(t)
	f := newFleet(t, h.Driver(), fleet.Template{}, 3)
	var wg sync.WaitGroup
	var made, refused atomic.Int64
	for range 12 {
		wg.Go(func() {
			switch _, err := f.Create(t.Context(), fleet.CreateRequest{}); {
			case err == nil:
				made.Add(1)
			case errors.Is(err, errdefs.ErrExhausted):
				refused.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 3 || refused.Load() != 9 {
		t.Errorf("made %d, refused %d, want 3 and 9", made.Load(), refused.Load())
	}
}

func TestFailedCreateGivesItsPlaceBack(t *testing.T) {
	h := newHost(t)
	f := newFleet(t, h.Driver(), fleet.Template{}, 1)
	why := errors.New("scripted")
	h.SetScript(fake.Script{BeforeCreate: func(context.Context, sandbox.Spec) error { return why }})
	for range 3 {
		if _, err := f.Create(t.Context(), fleet.CreateRequest{}); !errors.Is(err, why) {
			t.Fatalf("create = %v, want the script's error", err)
		}
	}
	h.SetScript(fake.Script{})
	create(t, f, fleet.CreateRequest{})
}

func TestDeleteIsTriedAgain(t *testing.T) {
	h := newHost(t)
	f := newFleet(t, h.Driver(), fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{})
	var tries atomic.Int64
	h.SetScript(fake.Script{BeforeDelete: func(context.Context, sandbox.ID) error {
		if tries.Add(1) < 3 {
			return errors.New("busy")
		}
		return nil
	}})
	if err := s.Delete(t.Context()); err != nil || tries.Load() != 3 {
		t.Errorf("delete = %v after %d tries", err, tries.Load())
	}
	if err := s.Delete(t.Context()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("second delete = %v, want gone", err)
	}
}

func TestNextProcessAdopts(t *testing.T) {
	h := newHost(t)
	tmpl := fleet.Template{IdleTimeout: time.Hour, Lifetime: 2 * time.Hour}
	first := newFleet(t, h.Driver(), tmpl, 0)
	kept := create(t, first, fleet.CreateRequest{Labels: map[string]string{"a/b": "c"}, Session: "ses", IdleTimeout: time.Minute})
	short := create(t, first, fleet.CreateRequest{Lifetime: 200 * time.Millisecond})
	stopped := create(t, first, fleet.CreateRequest{})
	want := kept.View()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if err := h.Kill(stopped.ID(), "out_of_memory"); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(short.View().ExpiresAt) + 10*time.Millisecond)

	second := newFleet(t, h.Driver(), tmpl, 0)
	list := second.List()
	if len(list) != 1 || list[0].ID() != kept.ID() {
		t.Fatalf("adopted %d sandboxes, want the one that lives", len(list))
	}
	got := list[0].View()
	if got.Labels["a/b"] != "c" || !got.ExpiresAt.Equal(want.ExpiresAt) || got.IdleTimeout != time.Minute || got.SeedID != want.SeedID || !got.CreatedAt.Equal(want.CreatedAt) {
		t.Errorf("adopted %+v\nwas     %+v", got, want)
	}
	if s, ok := second.BySession("ses"); !ok || s.ID() != kept.ID() {
		t.Error("the session has lost its sandbox")
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		left, err := h.Driver().List(t.Context())
		if err == nil && len(left) == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the driver still has %d sandboxes", len(left))
		}
	}
}

func TestCreateThatIsGivenUpLeavesNothing(t *testing.T) {
	h := newHost(t)
	f := newFleet(t, h.Driver(), fleet.Template{}, 1)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the client left")
	h.SetScript(fake.Script{BeforeCreate: func(ctx context.Context, _ sandbox.Spec) error {
		cancel(why)
		<-ctx.Done()
		return context.Cause(ctx)
	}})
	if _, err := f.Create(ctx, fleet.CreateRequest{}); !errors.Is(err, why) {
		t.Errorf("create = %v, want the cause", err)
	}
	if left, err := h.Driver().List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	h.SetScript(fake.Script{})
	create(t, f, fleet.CreateRequest{})
}

func TestNextProcessDeletesWhatDoesNotAnswer(t *testing.T) {
	h := newHost(t)
	first := newFleet(t, h.Driver(), fleet.Template{}, 0)
	id := create(t, first, fleet.CreateRequest{}).ID()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	h.SetScript(fake.Script{BeforeDial: func(context.Context, sandbox.ID) error { return errors.New("no answer") }})
	second := newFleet(t, h.Driver(), fleet.Template{}, 0)
	if got := goneFor(t, second, id); got != fleet.ReasonUnresponsive {
		t.Errorf("reason = %q, want unresponsive", got)
	}
	if left, err := h.Driver().List(t.Context()); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
