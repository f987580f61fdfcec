package session_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/session"
)

func state(want string) func(v1.SessionDetail) bool {
	return func(d v1.SessionDetail) bool { return d.Sandbox.State == want }
}

// ran runs a cell to its end.
func ran(tb testing.TB, s *session.Session, code string) v1.Item {
	tb.Helper()
	id := addCell(tb, s, code)
	run(tb, s, id)
	d := await(tb, s, "the end of "+code, func(d v1.SessionDetail) bool {
		switch item(d, id).Status {
		case "idle", "queued", "running":
			return false
		}
		return d.Sandbox.State == "ready"
	})
	return item(d, id)
}

func putToSleep(tb testing.TB, s *session.Session) {
	tb.Helper()
	sb, ok := s.LiveSandbox()
	if !ok {
		tb.Fatal("the session has no sandbox")
	}
	if err := sb.Pause(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	await(tb, s, "sleep", state("paused"))
}

// count has the host count wakes; damaged lets only files come back.
func count(w *world, damaged bool) *atomic.Int32 {
	wakes := new(atomic.Int32)
	w.host.SetScript(fake.Script{BeforeResume: func(_ context.Context, _ sandbox.ID, filesOnly bool) error {
		if damaged && !filesOnly {
			return errdefs.New(errdefs.ErrUnavailable, sandbox.CodeDamaged, "bytes are missing")
		}
		wakes.Add(1)
		return nil
	}})
	return wakes
}

func TestWhoLooksWakesNobodyAndWhoRunsFindsTheVariables(t *testing.T) {
	w := newWorld(t, true)
	svc := w.start(t)
	s := create(t, svc)
	ran(t, s, "x = 41")
	wakes := count(w, false)
	putToSleep(t, s)

	s.Detail()
	s.DetailJSON()
	s.SyncFiles()
	if _, err := s.Items(t.Context()); err != nil {
		t.Error(err)
	}
	if list, err := svc.List(t.Context(), session.ListRequest{}); err != nil || list.Sessions[0].Sandbox.State != "paused" {
		t.Errorf("list = %+v, %v", list, err)
	}
	everything(t, s, s.Detail().LastSeq)
	if sb, ok := s.AwakeSandbox(); ok {
		t.Errorf("awake: %v", sb.View())
	}
	if n := wakes.Load(); n != 0 {
		t.Fatalf("looking woke it %d times", n)
	}
	if it := ran(t, s, "print(x + 1)"); text(it) != "42\n" {
		t.Errorf("x = %q", text(it))
	}
	if n := wakes.Load(); n != 1 {
		t.Errorf("woken %d times for one run", n)
	}
	for _, it := range s.Detail().Items {
		if it.Kind != "cell" {
			t.Errorf("nothing was lost, and yet: %+v", it)
		}
	}

	putToSleep(t, s)
	if _, err := s.EnsureSandbox(); err != nil {
		t.Fatal(err)
	}
	await(t, s, "being awake", state("ready"))
}

func TestASandboxThatSleepsIsNotCalledReadyByALateWord(t *testing.T) {
	w := newWorld(t, true)
	s := create(t, w.start(t))
	ran(t, s, "x = 41")
	putToSleep(t, s)
	session.Ready(s)
	if got := s.View().Sandbox.State; got != "paused" {
		t.Errorf("state = %q", got)
	}
	if it := ran(t, s, "print(x + 1)"); text(it) != "42\n" {
		t.Errorf("x = %q", text(it))
	}
}

func TestASleepingSandboxIsFoundAgainByTheNextServer(t *testing.T) {
	w := newWorld(t, true)
	svc := w.start(t)
	s := create(t, svc)
	ran(t, s, "x = 41")
	putToSleep(t, s)
	id := s.ID()
	svc.stop()

	wakes := count(w, false)
	svc = w.start(t)
	if list, err := svc.List(t.Context(), session.ListRequest{}); err != nil || list.Sessions[0].Sandbox.State != "paused" {
		t.Errorf("list = %+v, %v", list, err)
	}
	s, err := svc.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Detail().Sandbox; got.State != "paused" || got.ID == "" {
		t.Errorf("sandbox = %+v", got)
	}
	if n := wakes.Load(); n != 0 {
		t.Fatalf("the start of a server woke it %d times", n)
	}
	if it := ran(t, s, "print(x + 1)"); text(it) != "42\n" {
		t.Errorf("x = %q, %+v", text(it), it)
	}
}

func TestPeopleAreToldOnceWhenASandboxWakesWithoutItsVariables(t *testing.T) {
	w := newWorld(t, true)
	svc := w.start(t)
	s := create(t, svc)
	ran(t, s, "x = 41\nopen('kept.txt', 'w').write('here')")
	putToSleep(t, s)
	count(w, true)

	it := ran(t, s, "print(open('kept.txt').read())\nx")
	if it.Status != "error" || !strings.HasPrefix(text(it), "here\n") || it.ExecutionCount != 1 {
		t.Errorf("item = %+v", it)
	}
	notices := func(d v1.SessionDetail) (at []int) {
		for i, it := range d.Items {
			if it.Kind == "note" && it.Reason == sandbox.CodeDamaged && strings.Contains(it.Text, "could not be brought back") {
				at = append(at, i)
			}
		}
		return at
	}
	d := await(t, s, "the notice", func(d v1.SessionDetail) bool { return len(notices(d)) > 0 && d.Sandbox.Reason != "" })
	if at := notices(d); len(at) != 1 || at[0] != 1 {
		t.Errorf("notices at %v of %+v, want one before the cell that woke it", at, d.Items)
	}
	if d.Sandbox.State != "ready" || d.Sandbox.Reason != sandbox.CodeDamaged || d.Sandbox.Message == "" {
		t.Errorf("sandbox = %+v", d.Sandbox)
	}

	// Neither a good wake nor another server tells it again.
	count(w, false)
	putToSleep(t, s)
	if it := ran(t, s, "1"); it.Status != "ok" {
		t.Errorf("item = %+v", it)
	}
	id := s.ID()
	svc.stop()
	svc = w.start(t)
	s, err := svc.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if it := ran(t, s, "2"); it.Status != "ok" {
		t.Errorf("item = %+v", it)
	}
	if at := notices(s.Detail()); len(at) != 1 {
		t.Errorf("%d notices", len(at))
	}
}

func TestASandboxThatDoesNotWakeSaysSoAndStaysAsleep(t *testing.T) {
	w := newWorld(t, true)
	svc := w.start(t)
	s := create(t, svc)
	ran(t, s, "x = 41")
	putToSleep(t, s)
	w.host.SetScript(fake.Script{BeforeResume: func(context.Context, sandbox.ID, bool) error { return errors.New("the disk is gone") }})
	a := addCell(t, s, "x")
	run(t, s, a)
	d := await(t, s, "the failure", status(a, "aborted"))
	if it := item(d, a); it.Message == "" || it.Reason == "" {
		t.Errorf("item = %+v", it)
	}
	await(t, s, "sleep", state("paused"))
	count(w, false)
	if it := ran(t, s, "print(x + 1)"); text(it) != "42\n" {
		t.Errorf("x = %q", text(it))
	}
}

// filesOf counts the syncs of each session.
type filesOf struct {
	mu     sync.Mutex
	synced map[string]int
}

func (f *filesOf) Restore(context.Context, string, *fleet.Sandbox) error { return nil }

func (f *filesOf) Sync(_ context.Context, id string, _ *fleet.Sandbox) ([]v1.FileChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.synced[id]++
	return nil, nil
}

func (f *filesOf) count(id string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.synced[id]
}

func (f *filesOf) Copy(context.Context, string, string) error { return nil }
func (f *filesOf) Forget(context.Context, string) error       { return nil }

func TestBeforeSleepFilesAreKeptAlsoOfASessionThatNobodyHolds(t *testing.T) {
	w := newWorld(t, true)
	files := &filesOf{synced: map[string]int{}}
	w.opts.Files = files
	svc := w.start(t)
	s := create(t, svc)
	ran(t, s, "x = 41")
	sb, ok := s.LiveSandbox()
	if !ok {
		t.Fatal("the session has no sandbox")
	}
	for svc.InMemory(s.ID()) { // the sync after the run ends first
		session.Forget(s)
	}
	before := files.count(s.ID())
	if err := sb.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := files.count(s.ID()); n != before+1 {
		t.Errorf("files were kept %d times, want %d", n, before+1)
	}
	if svc.InMemory(s.ID()) {
		t.Error("the whole session was read for that")
	}
	again, err := svc.Get(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	if got := again.View().Sandbox.State; got != "paused" {
		t.Errorf("state = %q", got)
	}
	again.SyncFiles() // one that sleeps has nothing new
	if it := ran(t, again, "print(x + 1)"); text(it) != "42\n" {
		t.Errorf("x = %q", text(it))
	}
}
