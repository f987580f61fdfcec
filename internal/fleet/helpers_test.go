package fleet_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/sandbox/fake/faketest"
)

func newPythonHost(t testing.TB) *fake.Host {
	t.Helper()
	return faketest.New(t)
}

// run runs code to its end and gives what it printed.
func run(t testing.TB, s *fleet.Sandbox, code string) string {
	t.Helper()
	e, _, err := s.Execute(t.Context(), fleet.ExecuteRequest{Code: code})
	if err != nil {
		t.Fatalf("%s: %v", code, err)
	}
	return output(t, e)
}

func output(t testing.TB, e *fleet.Execution) string {
	t.Helper()
	var out bytes.Buffer
	for r := e.Reader(0, false); ; {
		batch, err := r.Next(t.Context())
		if err != nil {
			break
		}
		for _, rec := range batch {
			var ev struct {
				Data struct{ Text, Evalue string }
			}
			if err := json.Unmarshal(rec.Line, &ev); err != nil {
				t.Error(err)
			}
			if rec.Type == event.OutputStream || rec.Type == event.OutputError {
				out.WriteString(ev.Data.Text + ev.Data.Evalue)
			}
		}
	}
	<-e.Done()
	return out.String()
}

func pause(t testing.TB, s *fleet.Sandbox) {
	t.Helper()
	if err := s.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := s.View().State; st != sandbox.StatePaused {
		t.Fatalf("state = %s, want paused", st)
	}
}

// inState waits for a state.
func inState(t testing.TB, s *fleet.Sandbox, want sandbox.State) {
	t.Helper()
	end := time.After(20 * time.Second)
	for {
		changed := s.Changed()
		if s.View().State == want {
			return
		}
		select {
		case <-changed:
		case <-end:
			t.Fatalf("state = %s, want %s", s.View().State, want)
		}
	}
}

func codeOf(err error) string {
	e, _ := errors.AsType[*errdefs.Error](err)
	if e == nil {
		return ""
	}
	return e.Code
}
