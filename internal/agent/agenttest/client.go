// Package agenttest is what every agent must do in every kind of sandbox: a
// suite that internal/agent runs against an agent in its own process, and the
// drivers' tests against a real one.
package agenttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Patience bounds each wait of a test: a busy machine may be slow, but what
// takes this long is broken.
const Patience = 90 * time.Second

// Sandbox is an agent under test and a kernel in it.
type Sandbox struct {
	*agentapi.Client
	KernelID string
	T        testing.TB
}

// New starts a kernel on the agent behind client.
func New(t testing.TB, client *agentapi.Client) *Sandbox {
	t.Helper()
	s := &Sandbox{Client: client, KernelID: NewID("krn"), T: t}
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if _, err := client.StartKernel(ctx, agentapi.StartKernel{ID: s.KernelID, Language: "python"}); err != nil {
		t.Fatalf("start kernel: %v", err)
	}
	return s
}

// NewID makes an id with a prefix.
func NewID(prefix string) string { return prefix + "_" + sandbox.RandomSuffix() }

// Result is what an execution did.
type Result struct {
	ID       string
	Events   []event.Event
	Finished event.Finished
}

// Text gives what was written to the streams named, "" for both.
func (r *Result) Text(name string) string {
	var b strings.Builder
	for _, e := range r.Events {
		var s event.Stream
		if e.Type == event.OutputStream && json.Unmarshal(e.Data, &s) == nil && (name == "" || s.Name == name) {
			b.WriteString(s.Text)
		}
	}
	return b.String()
}

// All gives the data of all events of a type.
func (r *Result) All(typ event.Type) []string {
	var list []string
	for _, e := range r.Events {
		if e.Type == typ {
			list = append(list, string(e.Data))
		}
	}
	return list
}

// Running is an execution whose events are being gathered.
type Running struct {
	ID   string
	s    *Sandbox
	done chan struct{}

	mu      sync.Mutex
	changed chan struct{} // closed and replaced with each event
	result  Result
	err     error
}

// Start starts an execution. Change may be nil.
func (s *Sandbox) Start(code string, change func(*agentapi.Execute)) *Running {
	s.T.Helper()
	req := agentapi.Execute{ID: NewID("exe"), Code: code, StoreHistory: true}
	if change != nil {
		change(&req)
	}
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	stream, err := s.Execute(ctx, s.KernelID, req)
	if err != nil {
		cancel()
		s.T.Fatalf("execute: %v", err)
	}
	r := &Running{ID: req.ID, s: s, done: make(chan struct{}), changed: make(chan struct{})}
	r.result.ID = req.ID
	go func() {
		defer cancel()
		defer close(r.done)
		r.gather(stream)
	}()
	s.T.Cleanup(func() { cancel(); <-r.done })
	return r
}

func (r *Running) gather(stream *agentapi.Stream) {
	defer stream.Close()
	for {
		rec, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		r.mu.Lock()
		var e event.Event
		if err == nil {
			err = json.Unmarshal(rec.Line, &e)
		}
		if err == nil && e.Type == event.ExecutionFinished {
			err = json.Unmarshal(e.Data, &r.result.Finished)
		}
		if err != nil {
			r.err = err
			r.mu.Unlock()
			return
		}
		r.result.Events = append(r.result.Events, e)
		close(r.changed)
		r.changed = make(chan struct{})
		r.mu.Unlock()
	}
}

// Until waits for an event of this type whose data contains text.
func (r *Running) Until(typ event.Type, text string) event.Event {
	r.s.T.Helper()
	for seen := 0; ; {
		r.mu.Lock()
		for ; seen < len(r.result.Events); seen++ {
			if e := r.result.Events[seen]; e.Type == typ && strings.Contains(string(e.Data), text) {
				r.mu.Unlock()
				return e
			}
		}
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-r.done:
			r.mu.Lock()
			n, err := len(r.result.Events), r.err
			r.mu.Unlock()
			if n == seen {
				r.s.T.Fatalf("the execution ended (%v) without %s %q; its events: %s", err, typ, text, r.describe())
			}
		}
	}
}

func (r *Running) describe() string {
	var b strings.Builder
	for i, e := range r.result.Events {
		if i > 20 {
			b.WriteString(" …")
			break
		}
		data := string(e.Data)
		if len(data) > 300 {
			data = data[:300] + "…"
		}
		b.WriteString("\n\t" + string(e.Type) + " " + data)
	}
	return b.String()
}

// Wait waits for the end.
func (r *Running) Wait() *Result {
	r.s.T.Helper()
	<-r.done
	if r.err != nil {
		r.s.T.Fatalf("execution: %v; its events: %s", r.err, r.describe())
	}
	return &r.result
}

// Run runs code and waits for its end.
func (s *Sandbox) Run(code string) *Result {
	s.T.Helper()
	return s.Start(code, nil).Wait()
}

// Expect checks how an execution ended.
func (r *Result) Expect(t testing.TB, status event.Status, reason event.Reason) *Result {
	t.Helper()
	if r.Finished.Status != status || r.Finished.Reason != reason {
		text := r.Text("")
		if len(text) > 2000 {
			text = text[:2000] + "…"
		}
		t.Errorf("finished with %q %q (%s), want %q %q; errors %v, output %q",
			r.Finished.Status, r.Finished.Reason, r.Finished.Message, status, reason, r.All(event.OutputError), text)
	}
	if reason != "" && r.Finished.Message == "" {
		t.Errorf("reason %q without a sentence", reason)
	}
	return r
}

// Usable checks that the kernel runs code now.
func (s *Sandbox) Usable() {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	r := s.Run("print(6*7)")
	if got := r.Text("stdout"); r.Finished.Status != event.StatusOK || got != "42\n" {
		k, err := s.Kernel(ctx, s.KernelID)
		s.T.Errorf("afterwards print(6*7) gives %q, %+v; kernel %+v, %v", got, r.Finished, k, err)
	}
}

// code gives the code of an error of the client.
func code(err error) string {
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		return e.Code
	}
	return ""
}

func names(f agentapi.File) string {
	var list []string
	for _, e := range f.Entries {
		list = append(list, e.Name)
	}
	return strings.Join(list, " ")
}

// Output runs code on an agent whose kernel is there already, and gives what
// it printed. An exception is an error.
func Output(ctx context.Context, client *agentapi.Client, kernelID, code string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	stream, err := client.Execute(ctx, kernelID, agentapi.Execute{ID: NewID("exe"), Code: code, StoreHistory: true})
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var out strings.Builder
	for {
		rec, err := stream.Next()
		if err != nil {
			return out.String(), err
		}
		switch rec.Type {
		case event.OutputStream:
			var e struct{ Data event.Stream }
			if err := json.Unmarshal(rec.Line, &e); err != nil {
				return "", err
			}
			out.WriteString(e.Data.Text)
		case event.OutputError:
			return "", fmt.Errorf("%s", rec.Line)
		case event.ExecutionFinished:
			return out.String(), nil
		}
	}
}
