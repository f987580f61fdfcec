package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/servertest"
)

const (
	savedTime    = 45 * time.Second // of the whole, kills and starts included
	savedWorkers = 4
	savedMost    = 3 // sandboxes and snapshots of a worker
	savedBetween = 6 * time.Second
)

// counter is a sandbox, or a snapshot of one, that counts in memory and in a file.
type counter struct {
	id string
	n  int // what it counted to, as far as was acknowledged
	// more: one count further may have been done without an answer.
	more int
}

// shelf is what the server has acknowledged to one worker.
type shelf struct {
	live, kept map[string]*counter // sandboxes; snapshots
	done       map[string]int      // what was done, for the log
}

func newShelf() *shelf {
	return &shelf{live: map[string]*counter{}, kept: map[string]*counter{}, done: map[string]int{}}
}

func anyOf(m map[string]*counter) *counter {
	for _, c := range m {
		return c
	}
	return nil
}

const count = `n = globals().get("n", 0) + 1
with open("/workspace/n", "w") as f:
    f.write(str(n))
print(n)`

// step does one thing. An error says that the server has gone, or is wrong.
func (l *shelf) step(ctx context.Context, s *servertest.Server) (what string, err error) {
	c := anyOf(l.live)
	if c == nil {
		return "create", l.create(ctx, s, v1.CreateSandbox{}, 0)
	}
	switch i := rand.IntN(100); {
	case i < 12 && len(l.live) < savedMost:
		return "create", l.create(ctx, s, v1.CreateSandbox{}, 0)
	case i < 40:
		c.more = 1
		text, err := run(ctx, s, c.id, count)
		if err != nil {
			return "count", err
		}
		if want := fmt.Sprintln(c.n + 1); text != want {
			return "count", fmt.Errorf("%s counted to %q, want %q", c.id, text, want)
		}
		c.n, c.more = c.n+1, 0
		return "count", nil
	case i < 60:
		_, err := s.Pause(ctx, c.id)
		return "pause", err
	case i < 66:
		_, err := s.Resume(ctx, c.id)
		return "resume", err
	case i < 74 && len(l.live) < savedMost:
		copies, err := s.Fork(ctx, c.id, v1.ForkSandbox{Count: 1 + rand.IntN(2)})
		for _, f := range copies {
			l.live[f.ID] = &counter{id: f.ID, n: c.n}
		}
		return "fork", err
	case i < 80 && len(l.kept) < savedMost:
		snap, err := s.Snapshot(ctx, c.id, v1.SnapshotSandbox{})
		if err == nil {
			l.kept[snap.ID] = &counter{id: snap.ID, n: c.n}
		}
		return "snapshot", err
	case i < 86 && len(l.kept) > 0 && len(l.live) < savedMost:
		k := anyOf(l.kept)
		return "create from a snapshot", l.create(ctx, s, v1.CreateSandbox{Snapshot: k.id}, k.n)
	case i < 89 && len(l.kept) > 0:
		k := anyOf(l.kept)
		delete(l.kept, k.id)
		return "delete a snapshot", s.DeleteSnapshot(ctx, k.id)
	case i < 94:
		delete(l.live, c.id)
		return "delete", s.DeleteSandbox(ctx, c.id)
	}
	return "look", errors.Join(second(s.Sandbox(ctx, c.id)), second(s.Sandboxes(ctx)))
}

func second[T any](_ T, err error) error { return err }

func (l *shelf) create(ctx context.Context, s *servertest.Server, in v1.CreateSandbox, n int) error {
	sb, err := s.CreateSandbox(ctx, in)
	if err == nil {
		l.live[sb.ID] = &counter{id: sb.ID, n: n}
	}
	return err
}

// TestSleepersCopiesAndSnapshotsOutliveKills does all that can be done with
// sandboxes while the server is killed again and again.
func TestSleepersCopiesAndSnapshotsOutliveKills(t *testing.T) {
	data := servertest.DataDir(t)
	var shelves []*shelf
	for range savedWorkers {
		shelves = append(shelves, newShelf())
	}
	begin := time.Now()
	for round := 0; time.Since(begin) < savedTime && !t.Failed(); round++ {
		s := servertest.Start(t, data, "--snapshots", "--on-exit=delete")
		checkShelves(t, s, shelves, round)
		var killed sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, l := range shelves {
			wg.Go(func() {
				for ctx.Err() == nil {
					what, err := l.step(ctx, s)
					if p, ok := errors.AsType[*v1.Problem](err); ok {
						t.Errorf("round %d: %s: %v", round, what, p) // the server lives
					}
					if err != nil {
						return
					}
					l.done[what]++
				}
			})
		}
		killed.Go(func() {
			time.Sleep(time.Duration(rand.Int64N(int64(savedBetween)))) // the random moment is the test's input
			s.Kill()
			cancel()
		})
		wg.Wait()
		killed.Wait()
		cancel()
		if t.Failed() {
			t.Logf("the server's log:\n%s", s.Log())
		}
	}
	s := servertest.Start(t, data, "--snapshots", "--on-exit=delete")
	checkShelves(t, s, shelves, -1)
	for _, l := range shelves {
		t.Log(l.done)
		for _, k := range l.kept {
			if err := s.DeleteSnapshot(t.Context(), k.id); err != nil {
				t.Error(err)
			}
		}
	}
	s.DeleteAll(t)
	s.Stop(t)
	if t.Failed() {
		t.Logf("the server's log:\n%s", s.Log())
	}
	servertest.WantNothingLeft(t, data)
	// The template's own snapshot is all that may be left.
	if left := stateEntries(t, data); len(left) > 1 {
		t.Errorf("snapshots left: %q", left)
	}
}

func stateEntries(t *testing.T, data string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(data, "state", "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// checkShelves compares what a server that has just started has with what was
// acknowledged, and deletes what was not.
func checkShelves(t *testing.T, s *servertest.Server, shelves []*shelf, round int) {
	t.Helper()
	ctx := t.Context()
	live, kept := map[string]*counter{}, map[string]*counter{}
	for _, l := range shelves {
		maps.Copy(live, l.live)
		maps.Copy(kept, l.kept)
	}
	all, err := s.Sandboxes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, sb := range all {
		found[sb.ID] = true
		if live[sb.ID] == nil {
			if err := s.DeleteSandbox(ctx, sb.ID); err != nil {
				t.Errorf("round %d: delete %s: %v", round, sb.ID, err)
			}
		}
		if sb.Restarted != nil {
			t.Errorf("round %d: %s was started anew: %+v", round, sb.ID, sb.Restarted)
		}
	}
	snaps, err := s.Snapshots(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, snap := range snaps {
		found[snap.ID] = true
		if kept[snap.ID] == nil {
			if err := s.DeleteSnapshot(ctx, snap.ID); err != nil {
				t.Errorf("round %d: delete %s: %v", round, snap.ID, err)
			}
		}
	}
	for id := range kept {
		if !found[id] {
			t.Errorf("round %d: snapshot %s is lost", round, id)
		}
	}
	var wg sync.WaitGroup
	for id, c := range live {
		if !found[id] {
			t.Errorf("round %d: sandbox %s is lost", round, id)
			continue
		}
		wg.Go(func() { c.check(ctx, t, s, round) })
	}
	wg.Wait()
}

func (c *counter) check(ctx context.Context, t *testing.T, s *servertest.Server, round int) {
	t.Helper()
	r, err := s.Run(ctx, c.id, `n = globals().get("n", 0); print(n, open("/workspace/n").read() if n else 0)`)
	for n := c.n; n <= c.n+c.more; n++ {
		if r.Text == fmt.Sprintf("%d %d\n", n, n) {
			c.n, c.more = n, 0
			return
		}
	}
	t.Errorf("round %d: %s says %q (%v %+v), want %d (or up to %d more)", round, c.id, r.Text, err, r.Errors, c.n, c.more)
}
