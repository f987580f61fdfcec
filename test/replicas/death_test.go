package replicas_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
)

// among gives the next of the servers each time, as a load balancer does that
// has not noticed yet who is dead.
func among(servers ...*server) func() *server {
	var n atomic.Int64
	return func() *server { return servers[int(n.Add(1))%len(servers)] }
}

func TestAServerThatIsKilledInMidStreamLosesNothing(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.start(t, "a"), w.start(t, "b"), w.start(t, "c")
	const lines = 400
	id, cell := a.newSession(t, counting(lines, 40*time.Millisecond)) // 16 s and more
	a.run(t, id, cell)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f, done := follow(ctx, id, cell, among(a, b, c))
	eventually(t, "the first output", func() bool { return f.count(cell) > 5 })
	box := a.detail(t, id).Sandbox.ID
	// The same without a session.
	var sb v1.Sandbox
	a.call(t, "POST", "/v1/sandboxes", map[string]any{}, 201).into(t, &sb)
	var exec v1.Execution
	a.start(t, sb.ID, counting(lines, 40*time.Millisecond)).into(t, &exec)
	fx, donex := followPath(ctx, "/v1/sandboxes/"+sb.ID+"/executions/"+exec.ID+"/events", "", among(c, b, a))
	eventually(t, "its first output", func() bool { return fx.count("") > 5 })
	owner := func(s *server) bool { return s.replicas.Owns(id) }
	if !owner(a) {
		t.Fatal("a does not own what it made")
	}
	a.kill()
	killed := time.Now()
	eventually(t, "another owner", func() bool { return owner(b) || owner(c) })
	if took := time.Since(killed); took > ttl+2*time.Second {
		t.Errorf("it took %v until another owned the session", took)
	}
	next, last := b, c
	if owner(c) {
		next, last = c, b
	}
	seen := f.count(cell)
	eventually(t, "output by the new owner", func() bool { return f.count(cell) > seen })
	next.kill()
	wait(t, "the end of the cell, with two of three dead", done)
	wait(t, "the end of the execution, with two of three dead", donex)
	if f.err != nil || fx.err != nil {
		t.Fatal(f.err, fx.err)
	}
	if got := fx.text(""); got != numbers(lines) {
		t.Errorf("the execution's events have %d lines, and not each once: %.2000s", fx.count(""), got)
	}
	if got := f.text(cell); got != numbers(lines) {
		t.Errorf("the events have %d lines, and not each once: %.2000s", f.count(cell), got)
	}
	if f.breaks == 0 {
		t.Error("no stream broke: nothing was tested")
	}
	d := last.detail(t, id)
	if it := cellOf(d, cell); it.Status != "ok" || textOf(it) != numbers(lines) {
		t.Errorf("the cell is %s (%s): %.500s", it.Status, it.Message, textOf(it))
	}
	if d.Sandbox.ID != box || w.sandboxes(t) != 2 {
		t.Errorf("the session has sandbox %s, had %s; there are %d", d.Sandbox.ID, box, w.sandboxes(t))
	}
}

// Nobody reads, and nobody asks: what ran is followed to its end all the same.
func TestWhatRunsIsTakenOverThoughNobodyReadsIt(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(t, "a"), w.start(t, "b")
	id, cell := a.newSession(t, counting(100, 50*time.Millisecond))
	next, second := a.newSession(t, "print('second')")
	a.run(t, id, cell)
	a.run(t, next, second)
	eventually(t, "both to run", func() bool {
		return cellOf(a.detail(t, id), cell).Status == "running" && cellOf(a.detail(t, next), second).Status == "ok"
	})
	a.kill()
	eventually(t, "the row of the session to say that nothing runs", func() bool {
		row, err := b.store.Session(t.Context(), id)
		return err == nil && !row.Open
	})
	if it := cellOf(b.detail(t, id), cell); it.Status != "ok" || textOf(it) != numbers(100) {
		t.Errorf("the cell is %s (%s): %.500s", it.Status, it.Message, textOf(it))
	}
	// Variables are there: it is the same kernel.
	var item v1.Item
	b.call(t, "POST", "/v1/sessions/"+id+"/items", v1.CreateItem{Kind: "cell", Code: "print(i)"}, 201).into(t, &item)
	b.run(t, id, item.ID)
	eventually(t, "the next cell", func() bool { return textOf(cellOf(b.detail(t, id), item.ID)) == "99\n" })
}

func TestAServerThatStopsHandsOverAtOnce(t *testing.T) {
	w := newWorld(t)
	w.ttl = 30 * time.Second // nobody waits for it
	a, b := w.start(t, "a"), w.start(t, "b")
	const lines = 60
	id, cell := a.newSession(t, counting(lines, 40*time.Millisecond))
	a.run(t, id, cell)
	var sb v1.Sandbox
	a.call(t, "POST", "/v1/sandboxes", map[string]any{}, 201).into(t, &sb)
	var exec v1.Execution
	a.start(t, sb.ID, counting(lines, 40*time.Millisecond)).into(t, &exec)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	f, done := follow(ctx, id, cell, among(b))
	eventually(t, "the first output", func() bool { return f.count(cell) > 5 })
	a.stop(t)
	wait(t, "the end of the cell", done)
	if f.err != nil || f.text(cell) != numbers(lines) {
		t.Errorf("the events have %d lines, and not each once: %v %.500s", f.count(cell), f.err, f.text(cell))
	}
	if it := cellOf(b.detail(t, id), cell); it.Status != "ok" {
		t.Errorf("the cell is %s (%s)", it.Status, it.Message)
	}
	eventually(t, "the execution of the sandbox without a session", func() bool {
		var x v1.Execution
		b.call(t, "GET", "/v1/sandboxes/"+sb.ID+"/executions/"+exec.ID, nil, 200).into(t, &x)
		return x.Status == "ok"
	})
	// The next one finds it all, though nobody is left.
	b.stop(t)
	c := w.start(t, "c")
	if d := c.detail(t, id); textOf(cellOf(d, cell)) != numbers(lines) || d.Sandbox.State != "ready" {
		t.Errorf("after a restart of all: %+v", d.Sandbox)
	}
	c.call(t, "GET", "/v1/sandboxes/"+sb.ID, nil, 200)
}

// Requests that reach a server while the owner dies are answered, or refused in
// a way that says to come back; reads are all answered.
func TestRequestsWhileTheOwnerDies(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.start(t, "a"), w.start(t, "b"), w.start(t, "c")
	id, cell := a.newSession(t, "x = 1")
	a.run(t, id, cell)
	eventually(t, "the cell to run", func() bool { return cellOf(b.detail(t, id), cell).Status == "ok" })

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var reads, writes, refused atomic.Int64
	var longest atomic.Int64
	for i, s := range []*server{b, c, b, c} {
		wg.Go(func() {
			for ctx.Err() == nil {
				start := time.Now()
				if i < 2 {
					got, err := s.try(context.WithoutCancel(ctx), "GET", "/v1/sessions/"+id, nil)
					if err != nil || got.status != http.StatusOK {
						t.Errorf("%s: GET: %d %v %.300s", s.name, got.status, err, got.body)
						return
					}
					reads.Add(1)
				} else {
					got, err := s.try(context.WithoutCancel(ctx), "POST", "/v1/sessions/"+id+"/items", v1.CreateItem{Kind: "note", Text: "n"})
					switch {
					case err != nil:
						t.Errorf("%s: POST: %v", s.name, err)
						return
					case got.status == http.StatusCreated:
						writes.Add(1)
					case got.status == http.StatusServiceUnavailable && got.header.Get("Retry-After") != "":
						refused.Add(1)
					default:
						t.Errorf("%s: POST: %d %.300s", s.name, got.status, got.body)
						return
					}
				}
				took := int64(time.Since(start))
				for old := longest.Load(); took > old && !longest.CompareAndSwap(old, took); old = longest.Load() {
				}
			}
		})
	}
	eventually(t, "some answers", func() bool { return reads.Load() > 20 && writes.Load() > 20 })
	a.kill()
	before := writes.Load()
	eventually(t, "answers by the new owner", func() bool { return b.replicas.Owns(id) || c.replicas.Owns(id) })
	eventually(t, "writes by the new owner", func() bool { return writes.Load() > before+20 })
	cancel()
	wg.Wait()
	t.Logf("%d reads, %d writes, %d refused, the longest took %v", reads.Load(), writes.Load(), refused.Load(), time.Duration(longest.Load()))
	notes := 0
	for _, it := range b.detail(t, id).Items {
		if it.Kind == "note" {
			notes++
		}
	}
	// What was refused may have been done, what was answered has been.
	if n := int64(notes); n < writes.Load() || n > writes.Load()+refused.Load() {
		t.Errorf("%d notes, of %d answered and %d refused", n, writes.Load(), refused.Load())
	}
}

// Who takes over asks many agents at once, on a cluster that has just lost a
// node: one that does not answer at first keeps its sandbox.
func TestAnAgentThatDoesNotAnswerAtOnceIsAskedAgain(t *testing.T) {
	for _, test := range []struct {
		name  string
		fails int64
		left  int
	}{
		{"twice", 2, 1},
		{"never", 1 << 60, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			a, b := w.start(t, "a"), w.start(t, "b")
			id, cell := a.newSession(t, "x = 42")
			a.run(t, id, cell)
			eventually(t, "the cell to run", func() bool { return cellOf(a.detail(t, id), cell).Status == "ok" })
			box := a.detail(t, id).Sandbox.ID
			var dials atomic.Int64
			w.host.SetScript(fake.Script{BeforeDial: func(context.Context, sandbox.ID) error {
				if dials.Add(1) <= test.fails {
					return errors.New("no route to the pod")
				}
				return nil
			}})
			a.kill()
			eventually(t, "b to own the session", func() bool { return b.replicas.Owns(id) })
			w.host.SetScript(fake.Script{})
			if n := dials.Load(); n < 3 {
				t.Errorf("the agent was asked %d times", n)
			}
			eventually(t, "the sandboxes that should be left", func() bool { return w.sandboxes(t) == test.left })
			d := b.detail(t, id)
			if got := d.Sandbox.ID == box; got != (test.left == 1) {
				t.Errorf("the session has %+v, had %s", d.Sandbox, box)
			}
		})
	}
}
