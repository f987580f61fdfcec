package replicas_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// A server that hears nothing from the database for a while: another takes its
// sessions over, and when the first comes back it can write nothing. Then the
// same happens to the second.
func TestAFencedReplicaWritesNothing(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.start(t, "a"), w.start(t, "b"), w.start(t, "c")
	const lines = 500
	id, cell := a.newSession(t, counting(lines, 40*time.Millisecond))
	a.run(t, id, cell)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f, done := follow(ctx, id, cell, among(a, b, c))
	eventually(t, "the first output", func() bool { return f.count(cell) > 5 })

	owner, others := a, []*server{b, c}
	for len(others) > 0 {
		inMemory, err := owner.sessions.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		next := isolate(t, owner, others, id)
		seen := f.count(cell)
		eventually(t, "output by the next", func() bool { return f.count(cell) > seen+5 })

		// It is back, with all that it had waiting to be written.
		owner.db.Mend()
		wait(t, owner.name+" to learn that it is dead", owner.replicas.Fenced())
		if _, err := inMemory.AddItem(v1.CreateItem{Kind: "note", Text: "from the dead"}); err == nil {
			t.Errorf("%s wrote into the session", owner.name)
		} else {
			t.Logf("%s is told: %v", owner.name, err)
		}
		if code := errdefs.CodeOf(owner.replicas.Take(t.Context(), id)); code != "replica-fenced" {
			t.Errorf("%s may take a session: %q", owner.name, code)
		}
		got := owner.call(t, "GET", "/v1/sessions/"+id, nil, http.StatusServiceUnavailable)
		if !strings.Contains(string(got.body), "replica-fenced") {
			t.Errorf("%s says %s", owner.name, got.body)
		}
		owner = next
		others = slices.DeleteFunc(others, func(s *server) bool { return s == next })
	}
	wait(t, "the end of the cell", done)
	if f.err != nil || f.text(cell) != numbers(lines) {
		t.Errorf("the events have %d lines, and not each once: %v", f.count(cell), f.err)
	}
	d := owner.detail(t, id)
	for _, it := range d.Items {
		if it.Text == "from the dead" {
			t.Error("what one wrote that was dead is there")
		}
	}
	if it := cellOf(d, cell); it.Status != "ok" || textOf(it) != numbers(lines) {
		t.Errorf("the cell is %s (%s)", it.Status, it.Message)
	}
	if n := w.sandboxes(t); n != 1 {
		t.Errorf("there are %d sandboxes", n)
	}
}

// isolate takes the database from the owner of a session, which still reaches
// its sandbox and is reached by clients, and gives the next owner.
func isolate(t *testing.T, owner *server, others []*server, id string) (next *server) {
	t.Helper()
	owner.db.Hold()
	held := time.Now()
	eventually(t, owner.name+" to refuse", func() bool { return owner.replicas.Ready() != nil })
	if took := time.Since(held); took > ttl*3/4 {
		t.Errorf("%s served for %v without the database", owner.name, took)
	}
	got := owner.call(t, "GET", "/v1/sessions/"+id, nil, http.StatusServiceUnavailable)
	if got.header.Get("Retry-After") == "" || !strings.Contains(string(got.body), "replica-stale") {
		t.Errorf("%s says %v %s", owner.name, got.header, got.body)
	}
	owns := func(s *server) bool { return s.replicas.Owns(id) }
	if slices.ContainsFunc(others, owns) {
		t.Errorf("another owns the session before %s has stopped serving it", owner.name)
	}
	eventually(t, "another to own the session", func() bool { return slices.ContainsFunc(others, owns) })
	if took := time.Since(held); took < ttl*3/4 {
		t.Errorf("another took the session after %v", took)
	}
	return others[slices.IndexFunc(others, owns)]
}

// The database is away for everybody, for longer than any replica may be.
func TestADatabaseThatIsAwayChangesNothing(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.start(t, "a"), w.start(t, "b"), w.start(t, "c")
	const lines = 400
	ida, cella := a.newSession(t, counting(lines, 40*time.Millisecond))
	idb, cellb := b.newSession(t, counting(lines, 40*time.Millisecond))
	a.run(t, ida, cella)
	b.run(t, idb, cellb)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	fa, donea := follow(ctx, ida, cella, among(a, b, c))
	fb, doneb := follow(ctx, idb, cellb, among(a, b, c))
	eventually(t, "the first output", func() bool { return fa.count(cella) > 5 && fb.count(cellb) > 5 })
	for _, s := range []*server{a, b, c} {
		s.db.Hold()
	}
	time.Sleep(ttl * 5 / 2) // it is the time that is tested
	got := c.call(t, "GET", "/v1/sessions/"+ida, nil, http.StatusServiceUnavailable)
	if got.header.Get("Retry-After") == "" {
		t.Errorf("without Retry-After: %s", got.body)
	}
	for _, s := range []*server{c, a, b} {
		s.db.Mend()
		time.Sleep(ttl / 10) // not all at once
	}
	wait(t, "the end of both cells", donea)
	wait(t, "the end of both cells", doneb)
	if fa.err != nil || fb.err != nil || fa.text(cella) != numbers(lines) || fb.text(cellb) != numbers(lines) {
		t.Errorf("the events have %d and %d lines, and not each once: %v %v", fa.count(cella), fb.count(cellb), fa.err, fb.err)
	}
	for _, s := range []*server{a, b, c} {
		select {
		case <-s.replicas.Fenced():
			t.Errorf("%s was declared dead", s.name)
		default:
		}
	}
	if !a.replicas.Owns(ida) || !b.replicas.Owns(idb) {
		t.Error("sessions have changed hands")
	}
}
