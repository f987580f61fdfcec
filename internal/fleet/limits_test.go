package fleet_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
)

var (
	ann = identity.Owner{User: "usr_ann", Org: "org_acme"}
	bob = identity.Owner{User: "usr_bob", Org: "org_acme"}
)

// allowance is Limits with figures for each user and for organisations.
type allowance struct {
	sandboxes, together int64         // 0: any
	mostCPU             time.Duration // 0: any
	executions          atomic.Int64
	cpu                 atomic.Int64
	creates             atomic.Int64
}

func (a *allowance) Hold(_ identity.Owner, more fleet.Holding, held fleet.Held) error {
	if a.sandboxes > 0 && more.Sandboxes+held.User.Sandboxes > a.sandboxes || a.together > 0 && more.Sandboxes+held.Organisation.Sandboxes > a.together {
		return errdefs.New(errdefs.ErrExhausted, "limit-sandboxes", "too many")
	}
	return nil
}

func (a *allowance) Create(_ context.Context, _ identity.Owner, n int) error {
	a.creates.Add(int64(n))
	return nil
}

func (a *allowance) Execute(context.Context, identity.Owner) error {
	if a.executions.Add(-1) < 0 {
		return errdefs.New(errdefs.ErrExhausted, "limit-executions", "too many")
	}
	return nil
}

func (a *allowance) UsedCPU(_ identity.Owner, d time.Duration) error {
	if used := time.Duration(a.cpu.Add(int64(d))); a.mostCPU > 0 && used >= a.mostCPU {
		return errdefs.New(errdefs.ErrExhausted, "limit-cpu", "too much")
	}
	return nil
}

func newLimited(t *testing.T, d sandbox.Driver, opts fleet.Options) *fleet.Fleet {
	t.Helper()
	opts.MaxSandboxes = -1
	if opts.Templates == nil {
		opts.Templates = map[string]fleet.Template{"python": {PauseAfter: time.Hour, Limits: sandbox.Limits{MemoryBytes: 1 << 30, DiskBytes: 2 << 30}}}
	}
	f, err := fleet.New(t.Context(), d, nil, opts)
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

// gated is a driver that starts a sandbox when it is told to, and notes whose
// it is when that is asked of it.
type gated struct {
	sandbox.Driver
	go1 chan struct{}

	mu    sync.Mutex
	order []string
}

func (d *gated) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Info, error) {
	d.mu.Lock()
	d.order = append(d.order, spec.Labels["caesarion.owner_user"])
	d.mu.Unlock()
	select {
	case <-d.go1:
	case <-ctx.Done():
		return sandbox.Info{}, context.Cause(ctx)
	}
	return sandbox.Info{}, errors.New("that was all")
}

func (d *gated) begun() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.order)
}

func awaitThat(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// A thousand creates of one user do not hold up another: his k-th begins after
// at most k of theirs, besides those that were under way.
func TestABurstOfCreatesHoldsUpNobodyElse(t *testing.T) {
	const slots, burst, few = 3, 1000, 10
	d := &gated{Driver: newHost(t).Driver(), go1: make(chan struct{})}
	f := newLimited(t, d, fleet.Options{Starts: slots})
	var wg sync.WaitGroup
	for range burst {
		wg.Go(func() { _, _ = f.Create(t.Context(), fleet.CreateRequest{Owner: ann}) })
	}
	awaitThat(t, "the burst never waits", func() bool { return d.begun() == slots && f.WaitingStarts(ann) == burst-slots })
	for range few {
		wg.Go(func() { _, _ = f.Create(t.Context(), fleet.CreateRequest{Owner: bob}) })
	}
	awaitThat(t, "the second user never waits", func() bool { return f.WaitingStarts(bob) == few })
	for i := range burst + few {
		d.go1 <- struct{}{} // one ends, one begins
		awaitThat(t, "nobody begins", func() bool { return d.begun() >= min(i+1+slots, burst+few) })
	}
	wg.Wait()
	anns, bobs := 0, 0
	for _, owner := range d.order {
		if owner == ann.User {
			anns++
			continue
		}
		bobs++
		if anns > slots+bobs {
			t.Errorf("the %d. of the second began after %d of the first, want at most %d", bobs, anns, slots+bobs)
		}
	}
	if anns != burst || bobs != few {
		t.Errorf("%d and %d began", anns, bobs)
	}
}

func TestWhoLeavesWaitsForNoStart(t *testing.T) {
	d := &gated{Driver: newHost(t).Driver(), go1: make(chan struct{})}
	f := newLimited(t, d, fleet.Options{Starts: 1})
	ctx, cancel := context.WithCancelCause(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := f.Create(ctx, fleet.CreateRequest{Owner: ann}); err == nil || !strings.Contains(err.Error(), "the client left") {
				t.Errorf("error = %v", err)
			}
		})
	}
	awaitThat(t, "nobody waits", func() bool { return f.WaitingStarts(ann) == 1 })
	cancel(errors.New("the client left"))
	wg.Wait()
}

// However many ask at once, none gets more than the limit says.
func TestSandboxesAtOnce(t *testing.T) {
	a := &allowance{sandboxes: 3, together: 5}
	f := newLimited(t, newHost(t).Driver(), fleet.Options{Limits: a})
	var made atomic.Int64
	try := func(owner identity.Owner, n int) int64 {
		made.Store(0)
		var wg sync.WaitGroup
		for range n {
			wg.Go(func() {
				if _, err := f.Create(t.Context(), fleet.CreateRequest{Owner: owner}); err == nil {
					made.Add(1)
				} else if errdefs.CodeOf(err) != "limit-sandboxes" {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		return made.Load()
	}
	if got := try(ann, 20); got != 3 {
		t.Errorf("%d were made, want 3", got)
	}
	if got := try(bob, 20); got != 2 {
		t.Errorf("%d of a colleague's were made, want what the organisation has left: 2", got)
	}
	if got := try(identity.Owner{}, 3); got != 3 {
		t.Errorf("%d of another were made, want 3", got)
	}
	held, err := f.Held(t.Context(), ann)
	if want := (fleet.Held{User: fleet.Holding{Sandboxes: 3, MemoryBytes: 3 << 30, DiskBytes: 6 << 30}, Organisation: fleet.Holding{Sandboxes: 5, MemoryBytes: 5 << 30, DiskBytes: 10 << 30}}); err != nil || held != want {
		t.Errorf("held = %+v, %v; want %+v", held, err, want)
	}
	for _, s := range f.List() {
		if s.Owner() == ann {
			if err := s.Delete(t.Context()); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	if got := try(ann, 5); got != 1 {
		t.Errorf("%d were made after one was deleted, want 1", got)
	}
	all, err := f.Holdings(t.Context())
	if err != nil || all[ann].Sandboxes != 3 || all[identity.Owner{Org: ann.Org}].Sandboxes != 5 || all[identity.Owner{}].Sandboxes != 3 {
		t.Errorf("holdings = %+v, %v", all, err)
	}
}

// Who wakes one beyond his limit has another of his own, that nobody uses, put
// to sleep; and never a colleague's.
func TestAWakeBeyondTheLimit(t *testing.T) {
	a := &allowance{sandboxes: 1}
	f := newLimited(t, newHost(t).Driver(), fleet.Options{Limits: a})
	first := create(t, f, fleet.CreateRequest{Owner: ann})
	pause(t, first)
	second := create(t, f, fleet.CreateRequest{Owner: ann})
	other := create(t, f, fleet.CreateRequest{Owner: bob})
	if err := first.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if fleet.StateOf(first) != sandbox.StateRunning || fleet.StateOf(second) != sandbox.StatePaused || fleet.StateOf(other) != sandbox.StateRunning {
		t.Errorf("states are %s, %s and %s", fleet.StateOf(first), fleet.StateOf(second), fleet.StateOf(other))
	}
	done := first.Use()
	if err := second.Resume(t.Context()); errdefs.CodeOf(err) != "limit-sandboxes" {
		t.Errorf("while the other is in use: %v", err)
	}
	done()
	if err := second.Resume(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestExecutionsAreCountedOnce(t *testing.T) {
	a := &allowance{}
	a.executions.Store(2)
	f := newLimited(t, newPythonHost(t).Driver(), fleet.Options{Limits: a})
	s := create(t, f, fleet.CreateRequest{Owner: ann})
	for range 3 { // one execution, asked for three times
		e, _, err := s.Execute(t.Context(), fleet.ExecuteRequest{Code: "1", IdempotencyKey: "k"})
		if err != nil {
			t.Fatal(err)
		}
		<-e.Done()
	}
	if got := run(t, s, "print(2)"); got != "2\n" {
		t.Errorf("output = %q", got)
	}
	if _, _, err := s.Execute(t.Context(), fleet.ExecuteRequest{Code: "3"}); errdefs.CodeOf(err) != "limit-executions" {
		t.Errorf("error = %v", err)
	}
	if n := len(s.Executions()); n != 2 {
		t.Errorf("%d executions are remembered, want 2", n)
	}
}

// metered is a driver that counts CPU time.
type metered struct {
	*fake.Driver
	used atomic.Int64
}

func (d *metered) CPUTime(context.Context, sandbox.ID) (time.Duration, error) {
	return time.Duration(d.used.Load()), nil
}

func TestCPUTimeIsCounted(t *testing.T) {
	a := &allowance{}
	d := &metered{Driver: newHost(t).Driver()}
	d.used.Store(int64(3 * time.Second)) // before it had an owner
	f := newLimited(t, d, fleet.Options{Limits: a})
	s := create(t, f, fleet.CreateRequest{Owner: ann})
	d.used.Store(int64(10 * time.Second))
	if err := s.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := time.Duration(a.cpu.Load()); got != 7*time.Second {
		t.Errorf("counted %v, want 7 s", got)
	}
}

// What goes on in the background when its owner has no CPU time left sleeps, and
// what does nothing stays awake.
func TestWithoutCPUTimeLeft(t *testing.T) {
	a := &allowance{mostCPU: 20 * time.Second}
	d := &metered{Driver: newHost(t).Driver()}
	f := newLimited(t, d, fleet.Options{Limits: a})
	s := create(t, f, fleet.CreateRequest{Owner: ann})
	d.used.Store(int64(15 * time.Second))
	f.MeterOnce()
	if fleet.StateOf(s) != sandbox.StateRunning {
		t.Error("it sleeps before its time")
	}
	d.used.Store(int64(25 * time.Second))
	f.MeterOnce()
	awaitThat(t, "it goes on", func() bool { return fleet.StateOf(s) == sandbox.StatePaused })
	if err := s.Resume(t.Context()); err != nil { // to look for one's files
		t.Fatal(err)
	}
	f.MeterOnce()
	f.MeterOnce()
	if got := fleet.StateOf(s); got != sandbox.StateRunning {
		t.Errorf("one that does nothing is %s", got)
	}
}

// What a turn costs an execution when nobody waits, beside the check itself.
func BenchmarkTurn(b *testing.B) {
	a := &allowance{}
	a.executions.Store(1 << 60)
	f, err := fleet.New(b.Context(), newHost(b).Driver(), nil, fleet.Options{Limits: a})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() }) // nothing is kept
	s := create(b, f, fleet.CreateRequest{Owner: ann})
	for b.Loop() {
		if err := s.TakeTurn(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
