package kube

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/caesarion/caesarion/internal/metrics"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// registry stands for what the rest of the server knows of owners.
type registry struct {
	mu    sync.Mutex
	owned map[string]bool // by session
	dead  map[string]bool // replicas
	err   error
}

func (r *registry) set(change func(*registry)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r)
}

// options of a reaper for which a sandbox is over when its label says so.
func (r *registry) options() ReaperOptions {
	return ReaperOptions{
		Expired: func(info sandbox.Info, _ time.Time) (string, bool) { return "it is over", info.Labels["over"] == "yes" },
		Owned: func(_ context.Context, _ sandbox.ID, session string) (bool, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.owned[session], r.err
		},
		Alive: func(_ context.Context, replica string) (bool, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			return !r.dead[replica], r.err
		},
		Every: 50 * time.Millisecond, grace: 300 * time.Millisecond, orphan: 500 * time.Millisecond, force: 500 * time.Millisecond,
	}
}

func newRegistry() *registry {
	return &registry{owned: map[string]bool{}, dead: map[string]bool{}}
}

// lease makes a sandbox of a session.
func (r *replica) lease(t testing.TB, session string, labels ...string) sandbox.ID {
	t.Helper()
	m := map[string]string{labelSession: session}
	for i := 0; i < len(labels); i += 2 {
		m[labels[i]] = labels[i+1]
	}
	lease, err := r.w.Lease(t.Context(), request(m))
	if err != nil {
		t.Fatal(err)
	}
	return lease.Info.ID
}

func (c *cell) there(id sandbox.ID) bool {
	_, err := c.client.getPod(context.Background(), podName(id))
	return err == nil
}

// rounds waits until the reaper has looked at everything a few times.
func (r *registry) rounds(t testing.TB, asked *atomic.Int64, n int64) {
	t.Helper()
	begin := asked.Load()
	eventually(t, "the reaper has looked again", func() bool { return asked.Load() >= begin+n })
}

func TestWhatIsOverAndNobodysIsReaped(t *testing.T) {
	c, reg := newCell(t), newRegistry()
	opts := reg.options()
	var asked atomic.Int64
	inner := opts.Owned
	opts.Owned = func(ctx context.Context, id sandbox.ID, session string) (bool, error) {
		asked.Add(1)
		return inner(ctx, id, session)
	}
	reg.owned["owned"] = true
	m := metrics.New()
	a := c.replica("a", WarmOptions{Templates: templates(2), Reaper: opts, Metrics: m})
	a.full(t)
	reg.set(func(r *registry) { r.err = errors.New("the database is away") })
	lost := a.lease(t, "lost", "over", "yes")
	mine := a.lease(t, "owned", "over", "yes")
	used := a.lease(t, "used")
	reg.rounds(t, &asked, 10)
	if !c.there(lost) {
		t.Fatal("it was deleted though nobody knew whether it had an owner")
	}
	reg.set(func(r *registry) { r.err = nil })
	eventually(t, "the one that is over is gone", func() bool { return !c.there(lost) })
	reg.rounds(t, &asked, 10) // "owned" is asked for each time
	if !c.there(mine) || !c.there(used) {
		t.Error("one that was not to go is gone")
	}
	a.full(t)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if !strings.Contains(w.Body.String(), `caesarion_sandboxes_reaped_total{reason="it is over",template="python"} 1`) {
		t.Error("it is not counted")
	}
}

func TestOneThatIsUsedMeanwhileIsNotReaped(t *testing.T) {
	c, reg := newCell(t), newRegistry()
	opts := reg.options()
	a := c.replica("a", WarmOptions{Templates: templates(1), Reaper: ReaperOptions{Every: time.Hour}})
	a.full(t)
	id := a.lease(t, "s", "over", "yes")
	a.close()
	// Between the reaper's look and its delete somebody begins to use it.
	var asked atomic.Int64
	user := c.replica("user", WarmOptions{})
	opts.Owned = func(ctx context.Context, id sandbox.ID, _ string) (bool, error) {
		if asked.Add(1) == 1 {
			if err := user.d.SetLabels(ctx, id, map[string]string{"over": "no"}); err != nil {
				t.Error(err)
			}
		}
		return false, nil
	}
	user.w.Close()
	b := c.replica("b", WarmOptions{Templates: templates(1), Reaper: opts})
	eventually(t, "the reaper has looked", func() bool { return asked.Load() > 0 })
	over := b.lease(t, "t", "over", "yes") // the next one that is over shows that rounds go on
	eventually(t, "it reaps", func() bool { return !c.there(over) })
	if !c.there(id) {
		t.Error("one in use was taken")
	}
}

func TestReapingBeginsAtTheStart(t *testing.T) {
	c, reg := newCell(t), newRegistry()
	a := c.replica("a", WarmOptions{Templates: templates(1), Reaper: ReaperOptions{Every: time.Hour}})
	a.full(t)
	id := a.lease(t, "s", "over", "yes")
	a.close()
	opts := reg.options()
	opts.Every = time.Hour
	c.replica("b", WarmOptions{Templates: templates(1), Reaper: opts})
	eventually(t, "it is gone", func() bool { return !c.there(id) })
}

func TestEndedPodsAreReapedWhenTheirOwnerHasSeenIt(t *testing.T) {
	c, reg := newCell(t), newRegistry()
	opts := reg.options()
	opts.grace = 2 * time.Second
	reg.owned["s"] = true
	a := c.replica("a", WarmOptions{Templates: templates(1), Reaper: opts})
	a.full(t)
	id := a.lease(t, "s")
	lost, err := a.d.Lost(id)
	if err != nil {
		t.Fatal(err)
	}
	c.end(c.of(id).pod, "OOMKilled")
	<-lost
	info, err := a.d.Get(t.Context(), id)
	if err != nil || info.State != sandbox.StateStopped || info.Reason != ReasonOutOfMemory {
		t.Errorf("got %+v %v", info, err)
	}
	if !c.there(id) {
		t.Error("it is gone before its owner could ask")
	}
	eventually(t, "it is gone", func() bool { return !c.there(id) })
	// A ready one that ends is replaced.
	a.full(t)
	ready := c.pooled()[0]
	c.end(&ready, "Error")
	eventually(t, "it is gone", func() bool { return !c.there(idOf(ready.Name)) })
	a.full(t)
}

func TestAStartWhoseMakerIsGoneIsReaped(t *testing.T) {
	c, reg := newCell(t), newRegistry()
	c.start = func(*corev1.Pod) bool { return false }
	opts := reg.options()
	var asked atomic.Int64
	alive := opts.Alive
	opts.Alive = func(ctx context.Context, replica string) (bool, error) {
		asked.Add(1)
		return alive(ctx, replica)
	}
	a := c.replica("a", WarmOptions{Reaper: opts})
	eventually(t, "a leads", a.leads)
	b := c.replica("b", WarmOptions{})
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	req := request(nil)
	go func() {
		defer close(done)
		b.w.Lease(ctx, req)
	}()
	eventually(t, "b starts one", func() bool { return c.there(req.Spec.ID) })
	reg.rounds(t, &asked, 5)
	if !c.there(req.Spec.ID) {
		t.Fatal("it was taken from a maker that lives")
	}
	b.cut.Store(true) // killed: it deletes nothing
	reg.set(func(r *registry) { r.dead["b"] = true })
	eventually(t, "it is gone", func() bool { return !c.there(req.Spec.ID) })
	cancel()
	b.cut.Store(false)
	<-done
}

func TestAPodWhoseNodeDoesNotAnswerIsForced(t *testing.T) {
	c, reg := newCell(t), newRegistry()
	a := c.replica("a", WarmOptions{Templates: templates(1), Reaper: reg.options()})
	a.full(t)
	id := a.lease(t, "s")
	c.deaf.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := a.d.Delete(ctx, id); err == nil {
		t.Error("it was gone at once")
	}
	if !c.there(id) {
		t.Error("it is gone though its node has said nothing")
	}
	eventually(t, "it is gone", func() bool { return !c.there(id) })
}
