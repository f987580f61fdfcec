// Package crash kills a real server at random moments with sandboxes alive
// and checks that nothing that was acknowledged is lost and that nothing is
// left on the host.
package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/test/servertest"
)

const (
	kills   = 20
	workers = 3 // sandboxes being made, used and deleted at once
)

func TestMain(m *testing.M) { servertest.Main(m) }

// run runs code and gives what it printed.
func run(ctx context.Context, s *servertest.Server, id, code string) (string, error) {
	r, err := s.Run(ctx, id, code)
	if err == nil && r.Status != event.StatusOK {
		err = fmt.Errorf("status %s: %s", r.Status, r.Message)
	}
	return r.Text, err
}

// ledger is what the server has acknowledged.
type ledger struct {
	mu    sync.Mutex
	value map[string]int // sandbox → x that was set in it
	maybe map[string]bool
}

// work makes, uses and deletes sandboxes until the server is gone.
func (l *ledger) work(ctx context.Context, s *servertest.Server) {
	for ctx.Err() == nil {
		sb, err := s.CreateSandbox(ctx, v1.CreateSandbox{})
		if err != nil {
			return
		}
		x := rand.IntN(1 << 30)
		if _, err := run(ctx, s, sb.ID, fmt.Sprintf("x = %d", x)); err != nil {
			return
		}
		l.mu.Lock()
		l.value[sb.ID] = x
		var victim string
		if len(l.value) > workers { // keep some alive over the kill
			for victim = range l.value {
				break
			}
			delete(l.value, victim)
			l.maybe[victim] = true
		}
		l.mu.Unlock()
		if victim != "" {
			if s.DeleteSandbox(ctx, victim) != nil {
				return
			}
			l.mu.Lock()
			delete(l.maybe, victim)
			l.mu.Unlock()
		}
	}
}

func TestNothingIsLostOrLeftWhenTheServerIsKilled(t *testing.T) {
	data := servertest.DataDir(t)
	l := &ledger{value: map[string]int{}, maybe: map[string]bool{}}
	for i := range kills {
		s := servertest.Start(t, data)
		l.check(t, s, i)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() { l.work(ctx, s) })
		}
		time.Sleep(time.Duration(rand.Int64N(int64(2500 * time.Millisecond)))) // the random moment is the test's input
		s.Kill()
		cancel()
		wg.Wait()
		if t.Failed() {
			break
		}
	}
	s := servertest.Start(t, data)
	l.check(t, s, kills)
	all, err := s.Sandboxes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d sandboxes alive at the end", len(all))
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
}

// check compares the sandboxes of a server that has just started with what
// its predecessor acknowledged.
func (l *ledger) check(t *testing.T, s *servertest.Server, round int) {
	t.Helper()
	all, err := s.Sandboxes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, sb := range all {
		found[sb.ID] = true
		if _, known := l.value[sb.ID]; known {
			continue
		}
		// Its creation was cut before the answer, or its deletion: either is
		// allowed, and nobody will use it.
		if err := s.DeleteSandbox(t.Context(), sb.ID); err != nil {
			t.Errorf("round %d: delete %s: %v", round, sb.ID, err)
		}
	}
	clear(l.maybe)
	for id, x := range l.value {
		if !found[id] {
			t.Errorf("round %d: %s is lost", round, id)
			continue
		}
		got, err := run(t.Context(), s, id, "print(x)")
		if want := fmt.Sprintln(x); err != nil || got != want {
			t.Errorf("round %d: %s has x = %q (%v), want %q", round, id, got, err, want)
		}
	}
}
