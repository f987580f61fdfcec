package replicas_test

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
)

// slowStart has sandboxes begin to start and go no further until it is called.
func (w *world) slowStart(tb testing.TB) (release func()) {
	tb.Helper()
	gate := make(chan struct{})
	w.host.SetScript(fake.Script{BeforeCreate: func(context.Context, sandbox.Spec) error {
		<-gate // whoever wants it is not asked: a process that is dead notices nothing either
		return nil
	}})
	return func() {
		w.host.SetScript(fake.Script{})
		close(gate)
	}
}

// create has a server make a sandbox, and gives its id as soon as it is there.
func (s *server) create(tb testing.TB, w *world) (id string, done <-chan answer) {
	tb.Helper()
	answers := make(chan answer, 1)
	go func() {
		a, _ := s.try(context.WithoutCancel(tb.Context()), "POST", "/v1/sandboxes", map[string]any{}) // without an answer: status 0
		answers <- a
	}()
	eventually(tb, "the sandbox to be starting", func() bool {
		list, err := w.host.Driver().List(tb.Context())
		if err != nil {
			tb.Fatal(err)
		}
		for _, info := range list {
			if info.State == sandbox.StateStarting {
				id = string(info.ID)
			}
		}
		return id != ""
	})
	return id, answers
}

func TestWhatIsBeingMadeIsItsMakersHoweverLongThatTakes(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(t, "a"), w.start(t, "b")
	release := w.slowStart(t)
	id, done := a.create(t, w)
	// Each server that starts looks at once for what has no owner.
	c, d := w.start(t, "c"), w.start(t, "d")
	for _, s := range []*server{a, b, c, d} {
		var list v1.SandboxList
		s.call(t, "GET", "/v1/sandboxes", nil, 200).into(t, &list)
		if len(list.Sandboxes) != 1 || list.Sandboxes[0].ID != id || list.Sandboxes[0].State != "starting" {
			t.Errorf("%s lists %+v", s.name, list.Sandboxes)
		}
		for _, method := range []string{"GET", "DELETE"} {
			got := s.call(t, method, "/v1/sandboxes/"+id, nil, 503)
			if !bytes.Contains(got.body, []byte(`"sandbox-starting"`)) || got.header.Get("Retry-After") == "" {
				t.Errorf("%s %s: %s", s.name, method, got.body)
			}
		}
	}
	release()
	var made v1.Sandbox
	got := <-done
	if got.status != 201 {
		t.Fatalf("its maker could not have it: %d %s", got.status, got.body)
	}
	if got.into(t, &made); made.ID != id || w.sandboxes(t) != 1 {
		t.Errorf("made %s, not %s; there are %d", made.ID, id, w.sandboxes(t))
	}
	if !a.replicas.Owns(id) {
		t.Error("its maker does not own it")
	}
	for _, s := range []*server{d, c, b, a} {
		var exec v1.Execution
		s.start(t, id, "1").into(t, &exec)
		eventually(t, "the execution through "+s.name, func() bool {
			s.call(t, "GET", "/v1/sandboxes/"+id+"/executions/"+exec.ID, nil, 200).into(t, &exec)
			return exec.Status == "ok"
		})
	}
}

func TestWhatADeadMakerLeavesHalfMadeIsDeleted(t *testing.T) {
	for _, test := range []struct {
		name string
		next func(*testing.T, *world)
	}{
		{"by one that lives", nil},
		{"by the first that starts", func(t *testing.T, w *world) { w.start(t, "c") }},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			a := w.start(t, "a")
			if test.next == nil {
				w.start(t, "b")
			}
			release := w.slowStart(t)
			defer release()
			_, done := a.create(t, w)
			id, cell := a.newSession(t, "1")
			a.run(t, id, cell)
			eventually(t, "the session's sandbox to be starting, too", func() bool { return w.sandboxes(t) == 2 })
			a.kill()
			<-done
			died := time.Now()
			if test.next != nil {
				test.next(t, w)
			}
			eventually(t, "nothing to be left", func() bool {
				list, err := w.host.Driver().List(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				n := 0
				for _, info := range list {
					if info.State == sandbox.StateStarting && info.CreatedAt.Before(died) {
						n++
					}
				}
				return n == 0
			})
			if took := time.Since(died); took > 3*ttl+5*time.Second { // who starts waits twice: until it may judge, and until its turn
				t.Errorf("it took %v", took)
			}
		})
	}
}

// The reason outlives whoever knew it.
func TestWhyASandboxIsGoneIsSaidByAll(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(t, "a"), w.start(t, "b")
	reasons := map[string]string{} // by id
	fresh := func(reason string) string {
		var sb v1.Sandbox
		a.call(t, "POST", "/v1/sandboxes", map[string]any{}, 201).into(t, &sb)
		reasons[sb.ID] = reason
		return sb.ID
	}
	said := map[string]string{}
	check := func(s *server) {
		t.Helper()
		for id, reason := range reasons {
			var p struct{ Code, Reason, Detail string }
			s.call(t, "GET", "/v1/sandboxes/"+id, nil, 410).into(t, &p)
			if p.Code != "sandbox-gone" || p.Reason != reason || p.Detail == "" {
				t.Errorf("%s says %+v of %s, which is %s", s.name, p, id, reason)
			}
			if said[id] == "" {
				said[id] = p.Detail
			} else if said[id] != p.Detail {
				t.Errorf("%s says %q, another %q", s.name, p.Detail, said[id])
			}
			s.call(t, "DELETE", "/v1/sandboxes/"+id, nil, 410)
		}
	}
	gone := func(id string) func() bool {
		return func() bool {
			got, err := b.try(t.Context(), "GET", "/v1/sandboxes/"+id, nil)
			return err == nil && got.status == 410
		}
	}
	deleted, lost := fresh("deleted"), fresh("node-lost")
	b.call(t, "DELETE", "/v1/sandboxes/"+deleted, nil, 204)
	if err := w.host.Kill(sandbox.ID(lost), "node-lost"); err != nil {
		t.Fatal(err)
	}
	session, cell := a.newSession(t, "1")
	a.run(t, session, cell)
	eventually(t, "the cell to run", func() bool { return cellOf(a.detail(t, session), cell).Status == "ok" })
	inSession := a.detail(t, session).Sandbox.ID
	reasons[inSession] = "out_of_memory"
	if err := w.host.Kill(sandbox.ID(inSession), "out_of_memory"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lost ones to be gone", func() bool { return gone(lost)() && gone(inSession)() })
	check(a)
	check(b)

	// Nobody was there to see it.
	stopped, vanished := fresh("evicted"), fresh("sandbox_lost")
	delete(reasons, stopped)
	delete(reasons, vanished)
	a.kill()
	// What is left of a in this process must not tidy up, as the dead don't.
	w.host.SetScript(fake.Script{BeforeDelete: func(_ context.Context, id sandbox.ID) error {
		if string(id) == stopped {
			return errors.New("not now")
		}
		return nil
	}})
	if err := w.host.Kill(sandbox.ID(stopped), "evicted"); err != nil {
		t.Fatal(err)
	}
	if err := w.host.Driver().Delete(t.Context(), sandbox.ID(vanished)); err != nil {
		t.Fatal(err)
	}
	check(b) // which waits until it may
	eventually(t, "b to have what a had", func() bool { return b.replicas.Owns(stopped) && b.replicas.Owns(vanished) })
	w.host.SetScript(fake.Script{})
	reasons[stopped], reasons[vanished] = "evicted", "sandbox_lost"
	check(b)
	b.stop(t)
	check(w.start(t, "c"))
	var p struct{ Code string }
	w.start(t, "d").call(t, "GET", "/v1/sandboxes/"+string(sandbox.NewID()), nil, 404).into(t, &p)
	if p.Code != "sandbox-not-found" {
		t.Errorf("of one that never was: %+v", p)
	}
}
