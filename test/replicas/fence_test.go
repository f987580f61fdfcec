package replicas_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// A server that hears nothing from the database for a while: another takes its
// sessions over, and when the first comes back it can write nothing.
func TestAFencedReplicaWritesNothing(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(t, "a"), w.start(t, "b")
	const lines = 300
	id, cell := a.newSession(t, counting(lines, 40*time.Millisecond))
	a.run(t, id, cell)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f, done := follow(ctx, id, cell, among(b))
	onA, err := a.sessions.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first output", func() bool { return f.count(cell) > 5 })

	a.db.Hold() // a still reaches the sandbox, and clients reach a
	held := time.Now()
	eventually(t, "a to refuse", func() bool { return a.replicas.Ready() != nil })
	if took := time.Since(held); took > ttl*3/4 {
		t.Errorf("a served for %v without the database", took)
	}
	got := a.call(t, "GET", "/v1/sessions/"+id, nil, http.StatusServiceUnavailable)
	if got.header.Get("Retry-After") == "" || !strings.Contains(string(got.body), "replica-stale") {
		t.Errorf("a says %v %s", got.header, got.body)
	}
	if b.replicas.Owns(id) {
		t.Error("b owns the session before a has stopped serving it")
	}
	eventually(t, "b to own the session", func() bool { return b.replicas.Owns(id) })
	if took := time.Since(held); took < ttl*3/4 {
		t.Errorf("b took the session after %v", took)
	}
	seen := f.count(cell)
	eventually(t, "output by b", func() bool { return f.count(cell) > seen+5 })

	// a is back, with all that it had waiting to be written.
	a.db.Mend()
	wait(t, "a to learn that it is dead", a.replicas.Fenced())
	if _, err := onA.AddItem(v1.CreateItem{Kind: "note", Text: "from the dead"}); err == nil {
		t.Error("a wrote into the session")
	} else {
		t.Logf("a is told: %v", err)
	}
	if code := errdefs.CodeOf(a.replicas.Take(t.Context(), id)); code != "replica-fenced" {
		t.Errorf("a may take a session: %q", code)
	}
	got = a.call(t, "GET", "/v1/sessions/"+id, nil, http.StatusServiceUnavailable)
	if !strings.Contains(string(got.body), "replica-fenced") {
		t.Errorf("a says %s", got.body)
	}
	wait(t, "the end of the cell", done)
	if f.err != nil || f.text(cell) != numbers(lines) {
		t.Errorf("the events have %d lines, and not each once: %v", f.count(cell), f.err)
	}
	d := b.detail(t, id)
	for _, it := range d.Items {
		if it.Text == "from the dead" {
			t.Error("what a wrote is there")
		}
	}
	if it := cellOf(d, cell); it.Status != "ok" || textOf(it) != numbers(lines) {
		t.Errorf("the cell is %s (%s)", it.Status, it.Message)
	}
	if n := w.sandboxes(t); n != 1 {
		t.Errorf("there are %d sandboxes", n)
	}
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
