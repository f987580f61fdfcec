// Package sandboxtest is the suite that every sandbox driver passes.
package sandboxtest

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Patience bounds each wait: a busy machine may be slow, but what takes this
// long is broken.
const Patience = 90 * time.Second

// Harness is one installation of a driver.
type Harness struct {
	// Open gives a driver over the installation. Called again after Close, it
	// is the server's restart. The suite closes what it opened.
	Open func(testing.TB) sandbox.Driver
	// Spec is what sandboxes are made from; its ID and Labels are the suite's.
	Spec sandbox.Spec
	// Kill ends the agent of a sandbox from outside, as a crash would.
	Kill func(testing.TB, sandbox.Driver, sandbox.ID)
	// Concurrent is how many sandboxes are made at once; default 4.
	Concurrent int
}

// Run runs the suite. NewHarness makes a new and empty installation, which is
// removed by t.Cleanup.
func Run(t *testing.T, newHarness func(testing.TB) Harness) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, Harness)
	}{
		{"create, dial, get, list, delete", testLife},
		{"unknown ids", testUnknown},
		{"invalid and taken ids", testIDs},
		{"create that is cancelled leaves nothing", testCancel},
		{"a restart finds sandboxes and labels", testRestart},
		{"lost is closed by delete and by a crash", testLost},
		{"many at once", testConcurrent},
		{"limits are enforced or said not to be", testCapabilities},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, newHarness(t)) })
	}
	optional(t, newHarness)
}

func patient(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	return ctx
}

func (h Harness) open(t testing.TB) sandbox.Driver {
	t.Helper()
	d := h.Open(t)
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func (h Harness) create(t testing.TB, d sandbox.Driver, labels map[string]string) sandbox.Info {
	t.Helper()
	spec := h.Spec
	spec.ID, spec.Labels = "", labels
	info, err := d.Create(patient(t), spec)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), Patience)
		defer cancel()
		if err := d.Delete(ctx, info.ID); err != nil && !errors.Is(err, errdefs.ErrUnavailable) { // closed meanwhile: another driver has deleted it
			t.Errorf("delete: %v", err)
		}
	})
	return info
}

// Client speaks to the agent of a sandbox of d.
func Client(t testing.TB, d sandbox.Driver, info sandbox.Info) *agentapi.Client {
	c := agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, info.ID) }, info.AgentToken)
	t.Cleanup(c.CloseIdle)
	return c
}

func healthy(t testing.TB, d sandbox.Driver, info sandbox.Info) {
	t.Helper()
	c := Client(t, d, info)
	health, err := c.Health(patient(t))
	if err != nil || !health.Configured {
		t.Errorf("health: %+v, %v", health, err)
	}
	if _, err := c.Usage(patient(t)); err != nil {
		t.Errorf("usage with the sandbox's token: %v", err)
	}
}

func testLife(t *testing.T, h Harness) {
	d := h.open(t)
	info := h.create(t, d, map[string]string{"a": "1"})
	if !info.ID.Valid() || info.State != sandbox.StateRunning || info.AgentToken == "" || info.CreatedAt.IsZero() {
		t.Errorf("create gave %+v", info)
	}
	healthy(t, d, info)
	got, err := d.Get(patient(t), info.ID)
	if err != nil || got.ID != info.ID || got.State != sandbox.StateRunning || got.AgentToken != info.AgentToken || got.Labels["a"] != "1" || got.Template != h.Spec.Template {
		t.Errorf("get: %+v, %v", got, err)
	}
	if list := listed(t, d); len(list) != 1 || list[0].ID != info.ID {
		t.Errorf("list: %+v", list)
	}
	stranger := info
	stranger.AgentToken = "wrong"
	if _, err := Client(t, d, stranger).Usage(patient(t)); err == nil {
		t.Error("the agent takes a wrong token")
	}
	for range 2 {
		if err := d.Delete(patient(t), info.ID); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
	if list := listed(t, d); len(list) != 0 {
		t.Errorf("after delete: %+v", list)
	}
	if _, err := d.Get(patient(t), info.ID); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("get after delete: %v", err)
	}
}

func listed(t testing.TB, d sandbox.Driver) []sandbox.Info {
	t.Helper()
	list, err := d.List(patient(t))
	if err != nil {
		t.Fatalf("list: %v", err)
	}
	return list
}

func testUnknown(t *testing.T, h Harness) {
	d := h.open(t)
	for _, id := range []sandbox.ID{sandbox.NewID(), "../../etc", ""} {
		if _, err := d.Get(patient(t), id); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("get %q: %v", id, err)
		}
		if _, err := d.Dial(patient(t), id); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("dial %q: %v", id, err)
		}
		if _, err := d.Lost(id); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("lost %q: %v", id, err)
		}
		if err := d.SetLabels(patient(t), id, nil); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("set labels of %q: %v", id, err)
		}
		if err := d.Delete(patient(t), id); err != nil {
			t.Errorf("delete %q: %v", id, err)
		}
	}
}

func testIDs(t *testing.T, h Harness) {
	d := h.open(t)
	spec := h.Spec
	spec.ID = "sbx_../../x"
	if _, err := d.Create(patient(t), spec); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("create with an invalid id: %v", err)
	}
	info := h.create(t, d, nil)
	spec.ID = info.ID
	if _, err := d.Create(patient(t), spec); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("create with a taken id: %v", err)
	}
	healthy(t, d, info)
}

func testCancel(t *testing.T, h Harness) {
	d := h.open(t)
	why := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := d.Create(ctx, h.Spec); !errors.Is(err, why) {
		t.Errorf("create with a context that has ended: %v, want its cause", err)
	}
	// At several moments on the way; some may be too late, which is fine too.
	for delay := time.Millisecond; delay < 2*time.Second; delay *= 4 {
		ctx, cancel := context.WithTimeoutCause(t.Context(), delay, why)
		info, err := d.Create(ctx, h.Spec)
		cancel()
		switch {
		case err == nil:
			if err := d.Delete(patient(t), info.ID); err != nil {
				t.Errorf("delete: %v", err)
			}
		case !errors.Is(err, why):
			t.Errorf("create cancelled after %v: %v, want the cause", delay, err)
		}
		if list := listed(t, d); len(list) != 0 {
			t.Fatalf("create cancelled after %v left %+v", delay, list)
		}
	}
}

func testRestart(t *testing.T, h Harness) {
	first := h.Open(t)
	info := func() sandbox.Info {
		spec := h.Spec
		spec.ID, spec.Labels = "", map[string]string{"old": "1"}
		info, err := first.Create(patient(t), spec)
		if err != nil {
			t.Fatalf("create: %v", err)
		}
		return info
	}()
	labels := map[string]string{"session": "ses_1", "ü": "ö\n"}
	if err := first.SetLabels(patient(t), info.ID, labels); err != nil {
		t.Errorf("set labels: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	d := h.open(t)
	list := listed(t, d)
	if len(list) != 1 || list[0].ID != info.ID || list[0].State != sandbox.StateRunning || list[0].AgentToken != info.AgentToken {
		t.Fatalf("after the restart: %+v, want %+v", list, info)
	}
	if diff := cmp.Diff(labels, list[0].Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if !list[0].CreatedAt.Equal(info.CreatedAt) || list[0].Limits != info.Limits {
		t.Errorf("after the restart: %+v, want %+v", list[0], info)
	}
	healthy(t, d, list[0])
	lost, err := d.Lost(info.ID)
	if err != nil {
		t.Fatalf("lost: %v", err)
	}
	if err := d.Delete(patient(t), info.ID); err != nil {
		t.Errorf("delete: %v", err)
	}
	closedSoon(t, lost)
}

func closedSoon(t testing.TB, lost <-chan struct{}) {
	t.Helper()
	select {
	case <-lost:
	case <-time.After(Patience):
		t.Error("lost is not closed")
	}
}

func testLost(t *testing.T, h Harness) {
	d := h.open(t)
	info := h.create(t, d, nil)
	lost, err := d.Lost(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-lost:
		t.Fatal("lost is closed though the sandbox runs")
	default:
	}
	if h.Kill != nil {
		h.Kill(t, d, info.ID)
		closedSoon(t, lost)
		got, err := d.Get(patient(t), info.ID)
		if err != nil || got.State != sandbox.StateStopped {
			t.Errorf("get after a crash: %+v, %v", got, err)
		}
		if conn, err := d.Dial(patient(t), info.ID); err == nil {
			_ = conn.Close()
			t.Error("a stopped sandbox can be dialled")
		}
	}
	if err := d.Delete(patient(t), info.ID); err != nil {
		t.Errorf("delete: %v", err)
	}
	closedSoon(t, lost)
}

func testConcurrent(t *testing.T, h Harness) {
	d := h.open(t)
	n := h.Concurrent
	if n == 0 {
		n = 4
	}
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			info, err := d.Create(patient(t), h.Spec)
			if err != nil {
				t.Errorf("create: %v", err)
				return
			}
			healthy(t, d, info)
			var both sync.WaitGroup
			for range 2 { // at once, too
				both.Go(func() {
					if err := d.Delete(patient(t), info.ID); err != nil {
						t.Errorf("delete: %v", err)
					}
				})
			}
			both.Wait()
		})
	}
	wg.Wait()
	if list := listed(t, d); len(list) != 0 {
		t.Errorf("left: %+v", list)
	}
}

func testCapabilities(t *testing.T, h Harness) {
	c := h.open(t).Capabilities()
	if c.Driver == "" {
		t.Error("the driver has no name")
	}
	for _, limit := range []string{"memory_bytes", "cpus", "processes", "disk_bytes", "network"} {
		by, why := c.Enforces[limit], c.Missing[limit]
		if (by == "") == (why == "") {
			t.Errorf("%s: enforced by %q, missing because %q; want one of them", limit, by, why)
		}
	}
}
