package fleet_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
)

func TestSleepKeepsVariablesAndExecutions(t *testing.T) {
	f := newFleet(t, newPythonHost(t).Driver(), fleet.Template{PauseAfter: time.Hour}, 0)
	s := create(t, f, fleet.CreateRequest{})
	run(t, s, "x = 41")
	before, _, err := s.Execute(t.Context(), fleet.ExecuteRequest{Code: "print('before')"})
	if err != nil {
		t.Fatal(err)
	}
	late := before.Reader(0, true) // goes on after the end; must not keep the sandbox awake
	<-before.Done()
	changed := s.Changed()
	pause(t, s)
	<-changed
	v := s.View()
	if v.PausedAt.IsZero() || v.SavedBytes == 0 || f.Asleep() != 1 || f.Count() != 1 {
		t.Errorf("asleep %d of %d, %+v", f.Asleep(), f.Count(), v)
	}
	if got := output(t, before); got != "before\n" {
		t.Errorf("what an execution gave reads %q while it sleeps", got)
	}
	if _, err := late.Next(t.Context()); err != nil {
		t.Error(err)
	}
	pause(t, s) // again changes nothing; looking did not wake it
	if got := run(t, s, "print(x + 1)"); got != "42\n" {
		t.Errorf("after the sleep x + 1 = %q", got)
	}
	if v := s.View(); v.State != sandbox.StateRunning || !v.PausedAt.IsZero() || v.SavedBytes != 0 || v.Restarted != nil || f.Asleep() != 0 {
		t.Errorf("awake: %+v", v)
	}
}

func TestEachCallWakes(t *testing.T) {
	f := newFleet(t, newPythonHost(t).Driver(), fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{})
	run(t, s, "x = 1")
	kernelID := s.View().KernelID
	for name, call := range map[string]func(context.Context) error{
		"resume":  s.Resume,
		"usage":   func(ctx context.Context) error { _, err := s.Agent().Usage(ctx); return err },
		"kernels": func(ctx context.Context) error { _, err := s.Agent().Kernels(ctx); return err },
		"complete": func(ctx context.Context) error {
			_, err := s.Agent().Request(ctx, kernelID, agentapi.Request{Type: "is_complete_request", Content: json.RawMessage(`{"code":"1"}`)})
			return err
		},
		"process": func(ctx context.Context) error {
			stream, err := s.Agent().Run(ctx, agentapi.Run{ID: "prc_" + sandbox.RandomSuffix(), Command: "true"})
			if err != nil {
				return err
			}
			for err == nil {
				_, err = stream.Next()
			}
			return stream.Close()
		},
		"kernel": func(ctx context.Context) error {
			_, err := s.StartKernel(ctx, agentapi.StartKernel{Language: "python"})
			return err
		},
		"execute": func(context.Context) error { run(t, s, "x"); return nil },
	} {
		pause(t, s)
		if err := call(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if st := s.View().State; st != sandbox.StateRunning {
			t.Errorf("%s leaves it %s", name, st)
		}
	}
}

func TestManyWakeItOnce(t *testing.T) {
	h := newHost(t)
	f := newFleet(t, h.Driver(), fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{})
	pause(t, s)
	var wakes atomic.Int64
	go1 := make(chan struct{})
	h.SetScript(fake.Script{BeforeResume: func(context.Context, sandbox.ID, bool) error {
		wakes.Add(1)
		<-go1
		return nil
	}})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := s.Agent().Health(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	inState(t, s, fleet.StateResuming)
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Resume(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a caller without time: %v", err)
	}
	close(go1)
	wg.Wait()
	if n := wakes.Load(); n != 1 {
		t.Errorf("woken %d times", n)
	}
}

func TestBusySandboxesStayAwake(t *testing.T) {
	f := newFleet(t, newPythonHost(t).Driver(), fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{})
	e, _, err := s.Execute(t.Context(), fleet.ExecuteRequest{Code: "print(input('?'))", AllowStdin: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pause(t.Context()); codeOf(err) != "sandbox-busy" || !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("a pause while code runs: %v", err)
	}
	for e.State().Input == nil {
		time.Sleep(time.Millisecond)
	}
	if err := e.Input(t.Context(), "still here"); err != nil {
		t.Fatal(err)
	}
	if got := output(t, e); got != "still here\n" {
		t.Errorf("output = %q", got)
	}
	stream, err := s.Agent().Run(t.Context(), agentapi.Run{ID: "prc_" + sandbox.RandomSuffix(), Command: "sleep 100"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pause(t.Context()); codeOf(err) != "sandbox-busy" {
		t.Errorf("a pause while a process runs: %v", err)
	}
	if st := s.View().State; st != sandbox.StateRunning {
		t.Errorf("state = %s", st)
	}
	_ = stream.Close()
	run(t, s, "1")
}

func TestPauseUnderLoad(t *testing.T) {
	f := newFleet(t, newPythonHost(t).Driver(), fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{})
	run(t, s, "n = 0")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	pauses := 0 // those that find it asleep count too
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			switch err := s.Pause(t.Context()); {
			case err == nil:
				pauses++
			case codeOf(err) != "sandbox-busy":
				t.Error(err)
			}
		}
	})
	for i := 1; i <= 60; i++ {
		if got, want := run(t, s, "n += 1; print(n)"), fmt.Sprintln(i); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
		if i%3 == 0 {
			time.Sleep(5 * time.Millisecond) // so that some pauses find it idle
		}
	}
	close(stop)
	wg.Wait()
	if pauses == 0 {
		t.Error("it was never put to sleep")
	}
	t.Logf("%d pauses", pauses)
}

func TestMemoryThatCannotBeUsed(t *testing.T) {
	h := newPythonHost(t)
	f := newFleet(t, h.Driver(), fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{})
	e, _, err := s.Execute(t.Context(), fleet.ExecuteRequest{Code: "x = 1; open('kept.txt', 'w').write('kept'); print('done')"})
	if err != nil {
		t.Fatal(err)
	}
	<-e.Done()
	kernelID := s.View().KernelID
	pause(t, s)
	h.SetScript(fake.Script{BeforeResume: func(_ context.Context, _ sandbox.ID, filesOnly bool) error {
		if !filesOnly {
			return errdefs.New(errdefs.ErrUnavailable, sandbox.CodeDamaged, "scripted")
		}
		return nil
	}})
	if _, err := s.Agent().Kernel(t.Context(), kernelID); err != nil {
		t.Errorf("the kernel is not there again under its name: %v", err)
	}
	if got := run(t, s, "print(open('kept.txt').read(), 'x' in globals())"); got != "kept False\n" {
		t.Errorf("after a start with its files: %q", got)
	}
	v := s.View()
	if v.Restarted == nil || v.Restarted.Reason != sandbox.CodeDamaged || !strings.Contains(v.Restarted.Message, "damaged") || v.KernelID != kernelID {
		t.Errorf("view = %+v, restarted = %+v", v, v.Restarted)
	}
	old, err := s.Execution(e.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, old); got != "done\n" {
		t.Errorf("an older execution reads %q", got)
	}
}

func TestOneFailedRestoreDoesNotGiveUpVariables(t *testing.T) {
	h := newPythonHost(t)
	f := newFleet(t, h.Driver(), fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{})
	run(t, s, "x = 1")
	pause(t, s)
	var tries atomic.Int64
	h.SetScript(fake.Script{BeforeResume: func(context.Context, sandbox.ID, bool) error {
		if tries.Add(1) == 1 {
			return errdefs.New(errdefs.ErrUnavailable, sandbox.CodeRestoreFailed, "scripted")
		}
		return nil
	}})
	if got := run(t, s, "print(x)"); got != "1\n" || s.View().Restarted != nil {
		t.Errorf("x = %q, restarted %+v", got, s.View().Restarted)
	}
}

func TestASandboxThatNeverWakesKeepsItsFiles(t *testing.T) {
	h := newPythonHost(t)
	f := newFleet(t, h.Driver(), fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{})
	run(t, s, "open('kept.txt', 'w').write('kept')")
	pause(t, s)
	h.SetScript(fake.Script{BeforeResume: func(_ context.Context, _ sandbox.ID, filesOnly bool) error {
		if !filesOnly {
			return errdefs.New(errdefs.ErrUnavailable, "sandbox-start-timeout", "scripted")
		}
		return nil
	}})
	for range 2 {
		if err := s.Resume(t.Context()); codeOf(err) != "sandbox-start-timeout" || s.View().State != sandbox.StatePaused {
			t.Fatalf("resume = %v, and it is %s", err, s.View().State)
		}
	}
	if got := run(t, s, "print(open('kept.txt').read())"); got != "kept\n" {
		t.Errorf("its files: %q", got)
	}
	if r := s.View().Restarted; r == nil || r.Reason != sandbox.CodeRestoreFailed {
		t.Errorf("restarted: %+v", r)
	}
}

func TestFailuresLeaveItAsItWas(t *testing.T) {
	h := newHost(t)
	f := newFleet(t, h.Driver(), fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{})
	why := errors.New("scripted")
	h.SetScript(fake.Script{
		BeforePause:  func(context.Context, sandbox.ID) error { return why },
		BeforeResume: func(context.Context, sandbox.ID, bool) error { return why },
	})
	if err := s.Pause(t.Context()); !errors.Is(err, why) {
		t.Errorf("pause = %v", err)
	}
	if _, err := s.Agent().Health(t.Context()); err != nil || s.View().State != sandbox.StateRunning {
		t.Errorf("after a pause that failed: %s, %v", s.View().State, err)
	}
	h.SetScript(fake.Script{BeforeResume: func(context.Context, sandbox.ID, bool) error { return why }})
	pause(t, s)
	paused := s.View()
	if err := s.Resume(t.Context()); !errors.Is(err, why) {
		t.Errorf("resume = %v", err)
	}
	if v := s.View(); v.State != sandbox.StatePaused || !v.PausedAt.Equal(paused.PausedAt) {
		t.Errorf("after a wake that failed: %+v", v)
	}
	h.SetScript(fake.Script{})
	if err := s.Resume(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestEndsWhilePausing(t *testing.T) {
	for name, end := range map[string]func(*fake.Host, *fleet.Sandbox) error{
		"deleted": func(_ *fake.Host, s *fleet.Sandbox) error { return s.Delete(context.Background()) },
		"killed":  func(h *fake.Host, s *fleet.Sandbox) error { return h.Kill(s.ID(), "out_of_memory") },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			f := newFleet(t, h.Driver(), fleet.Template{}, 0)
			s := create(t, f, fleet.CreateRequest{})
			begun, goOn := make(chan struct{}), make(chan struct{})
			h.SetScript(fake.Script{BeforePause: func(context.Context, sandbox.ID) error {
				close(begun)
				<-goOn
				return nil
			}})
			got := make(chan error, 1)
			go func() { got <- s.Pause(context.Background()) }()
			select {
			case <-begun:
			case err := <-got:
				t.Fatal(err)
			}
			if err := end(h, s); err != nil {
				t.Error(err)
			}
			close(goOn)
			if err := <-got; !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("pause = %v, want gone", err)
			}
			goneFor(t, f, s.ID())
			if f.Asleep() != 0 {
				t.Error("it counts among those that sleep")
			}
		})
	}
}

func TestCloseWhilePausingAndAdoption(t *testing.T) {
	h := newPythonHost(t)
	tmpl := fleet.Template{Lifetime: time.Hour, PauseAfter: time.Minute}
	first := newFleet(t, h.Driver(), tmpl, 0)
	s := create(t, first, fleet.CreateRequest{Session: "ses"})
	run(t, s, "x = 7")
	want := s.View()
	begun, goOn := make(chan struct{}), make(chan struct{})
	h.SetScript(fake.Script{BeforePause: func(context.Context, sandbox.ID) error {
		close(begun)
		<-goOn
		return nil
	}})
	go func() { _ = s.Pause(context.Background()) }()
	<-begun
	closed := make(chan error, 1)
	go func() { closed <- first.Close() }()
	close(goOn)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	h.SetScript(fake.Script{BeforeDial: func(context.Context, sandbox.ID) error { return errors.New("it must sleep on") }})
	second := newFleet(t, h.Driver(), tmpl, 0)
	got, ok := second.BySession("ses")
	if !ok {
		t.Fatal("the session has lost its sandbox")
	}
	v := got.View()
	if v.State != sandbox.StatePaused || v.PausedAt.IsZero() || v.SavedBytes == 0 || v.PauseAfter != time.Minute || v.Start != "cold" {
		t.Errorf("adopted %+v", v)
	}
	if d := v.ExpiresAt.Sub(want.ExpiresAt); d < 0 || d > time.Minute {
		t.Errorf("its life moved by %s", d)
	}
	h.SetScript(fake.Script{})
	if got := run(t, got, "print(x)"); got != "7\n" {
		t.Errorf("x = %q", got)
	}
}

func TestHostsWithoutSleep(t *testing.T) {
	f := newFleet(t, struct{ sandbox.Driver }{newHost(t).Driver()}, fleet.Template{IdleTimeout: 100 * time.Millisecond, PauseAfter: 20 * time.Millisecond}, 0)
	s := create(t, f, fleet.CreateRequest{})
	if v := s.View(); v.PauseAfter != 0 {
		t.Errorf("it is said to sleep after %s", v.PauseAfter)
	}
	if err := s.Pause(t.Context()); codeOf(err) != "pause-unsupported" {
		t.Errorf("pause = %v", err)
	}
	if _, err := s.Snapshot(t.Context(), ""); codeOf(err) != "snapshot-unsupported" {
		t.Errorf("snapshot = %v", err)
	}
	if got := goneFor(t, f, s.ID()); got != fleet.ReasonIdle {
		t.Errorf("reason = %q", got)
	}
}

func TestASleeperOfAnEarlierProcessMayGoBackToSleepAtOnce(t *testing.T) {
	h := newPythonHost(t)
	f := newFleet(t, h.Driver(), fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{Session: "ses"})
	for range 10 {
		run(t, s, "print('x' * 1000)")
	}
	for i := range 6 {
		pause(t, s)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		h.SetScript(fake.Script{BeforeDial: func(context.Context, sandbox.ID) error {
			time.Sleep(20 * time.Millisecond) // so that asking for its executions takes a while
			return nil
		}})
		f = newFleet(t, h.Driver(), fleet.Template{}, 0)
		s, _ = f.BySession("ses")
		if err := s.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i) * 15 * time.Millisecond) // the moment is the test's input
	}
	pause(t, s)
}
