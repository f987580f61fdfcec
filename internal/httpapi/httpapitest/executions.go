package httpapitest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
)

// types gives the types of events that tell a test's story: streams and
// results, without what is only timing.
func types(list []event.Event) []string {
	var names []string
	for _, e := range list {
		if n := string(e.Type); len(names) == 0 || names[len(names)-1] != n {
			names = append(names, n)
		}
	}
	return names
}

var executionTests = []test{
	{"variables live from one execution to the next", func(t *testing.T, s *Server, id string) {
		a := s.run(t, id, "x = 41")
		b := s.run(t, id, "x + 1")
		if a.Status != "ok" || result(t, b) != "42" || b.ExecutionCount != a.ExecutionCount+1 || b.DurationMS <= 0 || b.StartedAt == nil || b.FinishedAt == nil {
			t.Errorf("executions = %+v, %+v", a, b)
		}
	}},
	{"outputs are a notebook's: streams joined, displays updated, clear_output applied", func(t *testing.T, s *Server, id string) {
		e := s.run(t, id, `
from IPython.display import display, clear_output, HTML
import sys, time
print("gone"); clear_output()
print("a"); sys.stdout.flush(); time.sleep(0.05); print("b"); sys.stdout.flush()
h = display(HTML("<b>1</b>"), display_id=True)
h.update(HTML("<b>2</b>"))
print("err", file=sys.stderr)
`)
		got, _ := json.Marshal(e.Outputs)
		if len(e.Outputs) != 3 || e.Outputs[0].Text != "a\nb\n" || string(e.Outputs[1].Data["text/html"]) != `"<b>2</b>"` || e.Outputs[2].Name != "stderr" {
			t.Errorf("outputs = %s", got)
		}
	}},
	{"an exception is an output and not a failure of the call", func(t *testing.T, s *Server, id string) {
		e := s.run(t, id, "1/0")
		last := e.Outputs[len(e.Outputs)-1]
		if e.Status != "error" || last.Type != "error" || last.ErrorName != "ZeroDivisionError" || last.ErrorValue != "division by zero" || len(last.Traceback) == 0 {
			t.Errorf("execution = %+v", e)
		}
	}},
	{"two executions at once on one kernel: the second waits and says so", func(t *testing.T, s *Server, id string) {
		first := s.start(t, id, v1.Execute{Code: "import time; time.sleep(1); order = ['first']"})
		resp := s.open(t, "POST", "/v1/sandboxes/"+id+"/executions", strings.NewReader(`{"code":"order + ['second']"}`),
			header{"Accept", "application/x-ndjson"}, header{"Content-Type", "application/json"})
		defer resp.Body.Close()
		list := events(t, resp.Body)
		if list[0].Type != event.ExecutionQueued || !bytes.Contains(list[0].Data, []byte(`"ahead":1`)) {
			t.Errorf("first event = %s %s, want execution.queued with 1 ahead", list[0].Type, list[0].Data)
		}
		if got := s.execution(t, id, resp.Header.Get(v1.HeaderExecutionID)); result(t, got) != "['first', 'second']" {
			t.Errorf("second = %+v", got)
		}
		// The two come on streams of their own: the first's end may be read later.
		if got := s.await(t, id, first.ID, finished); got.Status != "ok" {
			t.Errorf("first = %+v", got)
		}
	}},
	{"closing the connection does not stop the execution", func(t *testing.T, s *Server, id string) {
		resp := s.open(t, "POST", "/v1/sandboxes/"+id+"/executions", strings.NewReader(`{"code":"import time\nprint('a', flush=True)\ntime.sleep(0.5)\nprint('b')"}`),
			header{"Accept", "text/event-stream"}, header{"Content-Type", "application/json"})
		exe := resp.Header.Get(v1.HeaderExecutionID)
		_ = resp.Body.Close()
		if got := s.await(t, id, exe, finished); got.Status != "ok" || text(got, "stdout") != "a\nb\n" {
			t.Errorf("execution = %+v", got)
		}
	}},
	{"an Idempotency-Key runs the code once", func(t *testing.T, s *Server, id string) {
		path := "/v1/sandboxes/" + id + "/executions"
		s.run(t, id, "count = 0")
		key := header{v1.HeaderIdempotencyKey, "key-" + t.Name()}
		in := v1.Execute{Code: "count += 1; count"}
		type pair struct {
			e   v1.Execution
			err string
		}
		both := make(chan pair, 2)
		for range 2 {
			go func() {
				a := s.send(t, "POST", path, in, key)
				var e v1.Execution
				if err := json.Unmarshal(a.Body, &e); err != nil || a.Status != 200 {
					both <- pair{err: string(a.Body)}
					return
				}
				both <- pair{e: e}
			}()
		}
		x, y := <-both, <-both
		if x.err != "" || y.err != "" || x.e.ID != y.e.ID || result(t, x.e) != "1" || result(t, y.e) != "1" {
			t.Errorf("two with one key: %+v, %+v", x, y)
		}
		if got := into[v1.Execution](t, s.send(t, "POST", path, in, key), 200); got.ID != x.e.ID {
			t.Errorf("the key later = %s, want %s", got.ID, x.e.ID)
		}
		wantProblem(t, s.send(t, "POST", path, v1.Execute{Code: "count += 100"}, key), 409, "idempotency-key-reused")
		if got := s.run(t, id, "count"); result(t, got) != "1" {
			t.Errorf("count = %s, want 1", result(t, got))
		}
	}},
	{"an execution is interrupted, and the state stays", func(t *testing.T, s *Server, id string) {
		s.run(t, id, "kept = 'yes'")
		e := s.start(t, id, v1.Execute{Code: "while True: pass"})
		waiting := s.start(t, id, v1.Execute{Code: "1"})
		s.await(t, id, e.ID, running)
		if a := s.do(t, "POST", "/v1/sandboxes/"+id+"/executions/"+waiting.ID+"/interrupt", nil); a.Status != 204 {
			t.Fatalf("interrupt the waiting one = %d %s", a.Status, a.Body)
		}
		if got := s.await(t, id, waiting.ID, finished); got.Status != "aborted" && got.Status != "interrupted" {
			t.Errorf("waiting one = %+v, want aborted", got)
		}
		if a := s.do(t, "POST", "/v1/sandboxes/"+id+"/executions/"+e.ID+"/interrupt", nil); a.Status != 204 {
			t.Fatalf("interrupt = %d %s", a.Status, a.Body)
		}
		if got := s.await(t, id, e.ID, finished); got.Status != "interrupted" {
			t.Errorf("execution = %+v, want interrupted", got)
		}
		if a := s.do(t, "POST", "/v1/sandboxes/"+id+"/executions/"+e.ID+"/interrupt", nil); a.Status != 204 {
			t.Errorf("interrupt after the end = %d %s", a.Status, a.Body)
		}
		if got := s.run(t, id, "kept"); result(t, got) != "'yes'" {
			t.Errorf("state after interrupt = %+v", got)
		}
		wantProblem(t, s.do(t, "POST", "/v1/sandboxes/"+id+"/executions/exe_none/interrupt", nil), 404, "execution-not-found")
	}},
	{"an execution beyond its time ends with status timeout", func(t *testing.T, s *Server, id string) {
		e := into[v1.Execution](t, s.send(t, "POST", "/v1/sandboxes/"+id+"/executions", v1.Execute{Code: "import time; time.sleep(60)", TimeoutMS: 300}), 200)
		if e.Status != "timeout" || e.DurationMS < 300 || e.DurationMS > 20_000 {
			t.Errorf("execution = %+v", e)
		}
	}},
	{"input() is asked and answered", func(t *testing.T, s *Server, id string) {
		e := s.start(t, id, v1.Execute{Code: "import getpass\na = input('name? ')\nb = getpass.getpass('secret? ')\nprint(a, len(b))", AllowStdin: true})
		path := "/v1/sandboxes/" + id + "/executions/" + e.ID
		got := s.await(t, id, e.ID, func(e v1.Execution) bool { return e.Input != nil })
		if got.Input.Prompt != "name? " || got.Input.Password {
			t.Errorf("question = %+v", got.Input)
		}
		if a := s.send(t, "POST", path+"/input", v1.Input{Value: "Zoë"}); a.Status != 204 {
			t.Fatalf("answer = %d %s", a.Status, a.Body)
		}
		got = s.await(t, id, e.ID, func(e v1.Execution) bool { return e.Input != nil && e.Input.Password })
		if a := s.send(t, "POST", path+"/input", v1.Input{Value: "12345"}); a.Status != 204 {
			t.Fatalf("answer = %d %s", a.Status, a.Body)
		}
		got = s.await(t, id, e.ID, finished)
		if !strings.Contains(text(got, "stdout"), "Zoë 5") {
			t.Errorf("execution = %+v", got)
		}
		wantProblem(t, s.send(t, "POST", path+"/input", v1.Input{Value: "late"}), 409, "no-input-requested")
		if got := s.run(t, id, "input('x')"); got.Status != "error" {
			t.Errorf("input() without allow_stdin = %+v, want an error", got)
		}
	}},
	{"executions are listed newest first", func(t *testing.T, s *Server, id string) {
		a, b := s.run(t, id, "1"), s.run(t, id, "2")
		list := into[v1.ExecutionList](t, s.do(t, "GET", "/v1/sandboxes/"+id+"/executions", nil), 200).Executions
		if len(list) < 2 || list[0].ID != b.ID || list[1].ID != a.ID || len(list[0].Outputs) != 0 {
			t.Errorf("list = %+v", list[:min(2, len(list))])
		}
		wantProblem(t, s.do(t, "GET", "/v1/sandboxes/"+id+"/executions/exe_none", nil), 404, "execution-not-found")
	}},
	{"the kernel that dies says so, and the next execution runs", func(t *testing.T, s *Server, _ string) {
		sb := s.create(t, v1.CreateSandbox{})
		if got := s.run(t, sb.ID, "import os; os._exit(3)"); got.Status != "killed" || got.Reason != "kernel_died" || got.Message == "" {
			t.Errorf("execution = %+v", got)
		}
		if got := s.run(t, sb.ID, "1+1"); result(t, got) != "2" {
			t.Errorf("next = %+v", got)
		}
	}},
	{"much output is bounded, with head, tail and a file", func(t *testing.T, s *Server, id string) {
		start := time.Now()
		e := into[v1.Execution](t, s.send(t, "POST", "/v1/sandboxes/"+id+"/executions", v1.Execute{
			Code: "print('HEAD')\nfor i in range(300000): print('line', i)\nprint('TAIL')", OutputLimitBytes: 100_000,
		}), 200)
		out := text(e, "stdout")
		if e.Status != "ok" || !strings.HasPrefix(out, "HEAD\n") || !strings.HasSuffix(out, "TAIL\n") || e.DroppedBytes == 0 || e.OutputFile == "" || len(out) > 400_000 {
			t.Errorf("status %s, %d bytes, dropped %d, file %q", e.Status, len(out), e.DroppedBytes, e.OutputFile)
		}
		t.Logf("300,000 lines in %v", time.Since(start))
	}},
}

var streamTests = []test{
	{"the events of an execution come live, in order, as SSE and NDJSON", func(t *testing.T, s *Server, id string) {
		code := `{"code":"print(1)\n2"}`
		js := header{"Content-Type", "application/json"}
		want := []string{"execution.started", "output.stream", "output.execute_result", "execution.finished"}
		resp := s.open(t, "POST", "/v1/sandboxes/"+id+"/executions", strings.NewReader(code), js, header{"Accept", "application/x-ndjson"})
		list := events(t, resp.Body)
		_ = resp.Body.Close()
		if got := types(list); !slices.Equal(got, want) || resp.Header.Get("Content-Type") != v1.MediaNDJSON {
			t.Errorf("NDJSON = %v, %s", got, resp.Header.Get("Content-Type"))
		}
		for i, e := range list {
			if e.Seq != int64(i+1) {
				t.Errorf("event %d has number %d", i+1, e.Seq)
			}
		}
		stream := s.sse(t, "POST", "/v1/sandboxes/"+id+"/executions", strings.NewReader(code), js)
		defer stream.close()
		got := stream.all(t)
		if len(got) != 4 || got[0].id != "1" || got[1].typ != "output.stream" || got[3].typ != "execution.finished" {
			t.Errorf("SSE = %+v", got)
		}
		var e event.Event
		if err := json.Unmarshal([]byte(got[1].data), &e); err != nil || e.Type != event.OutputStream || e.Seq != 2 {
			t.Errorf("data = %s", got[1].data)
		}
	}},
	{"the first output is there before the end", func(t *testing.T, s *Server, id string) {
		stream := s.sse(t, "POST", "/v1/sandboxes/"+id+"/executions", strings.NewReader(`{"code":"import time\nprint('now', flush=True)\ntime.sleep(3)"}`), header{"Content-Type", "application/json"})
		defer stream.close()
		start := time.Now()
		for {
			e, err := nextSSE(stream.r, &stream.comments)
			if err != nil {
				t.Fatal(err)
			}
			if e.typ == "output.stream" {
				break
			}
		}
		if d := time.Since(start); d > 2*time.Second {
			t.Errorf("first output after %v", d)
		}
		stream.all(t)
		if stream.comments == 0 {
			t.Error("no heartbeat in 3 silent seconds")
		}
	}},
	{"a cut stream resumes after Last-Event-ID, and nothing is lost or twice", func(t *testing.T, s *Server, id string) {
		js := header{"Content-Type", "application/json"}
		stream := s.sse(t, "POST", "/v1/sandboxes/"+id+"/executions",
			strings.NewReader(`{"code":"import time\nfor i in range(40):\n print(i, flush=True); time.sleep(0.02)"}`), js)
		exe := stream.header.Get(v1.HeaderExecutionID)
		var got []string
		last := ""
		for cuts := 0; ; cuts++ {
			for range 5 {
				e, err := nextSSE(stream.r, &stream.comments)
				if err != nil {
					break
				}
				got, last = append(got, e.id), e.id
			}
			stream.close()
			stream = s.sse(t, "GET", "/v1/sandboxes/"+id+"/executions/"+exe+"/events", nil, header{"Last-Event-ID", last})
			if stream.status == http.StatusNoContent {
				break
			}
			if cuts > 100 {
				t.Fatal("it never ends")
			}
		}
		stream.close()
		for i, n := range got {
			if n != number(i+1) {
				t.Fatalf("numbers = %v", got)
			}
		}
		whole := s.sse(t, "GET", "/v1/sandboxes/"+id+"/executions/"+exe+"/events", nil)
		defer whole.close()
		if all := whole.all(t); len(all) != len(got) {
			t.Errorf("%d events in pieces, %d at once", len(got), len(all))
		}
		resp := s.open(t, "GET", "/v1/sandboxes/"+id+"/executions/"+exe+"/events?after=3", nil, header{"Accept", "application/x-ndjson"})
		defer resp.Body.Close()
		if list := events(t, resp.Body); list[0].Seq != 4 {
			t.Errorf("after=3 begins with %d", list[0].Seq)
		}
		wantProblem(t, s.do(t, "GET", "/v1/sandboxes/"+id+"/executions/"+exe+"/events", nil, header{"Last-Event-ID", "x"}), 400, "invalid-event-id")
	}},
	{"two readers see the same, one of them slow", func(t *testing.T, s *Server, id string) {
		e := s.start(t, id, v1.Execute{Code: "for i in range(20000): print('x' * 100)"})
		path := "/v1/sandboxes/" + id + "/executions/" + e.ID + "/events"
		slow := s.open(t, "GET", path, nil, header{"Accept", "application/x-ndjson"})
		defer slow.Body.Close()
		fast := s.open(t, "GET", path, nil, header{"Accept", "application/x-ndjson"})
		defer fast.Body.Close()
		a := events(t, fast.Body)
		time.Sleep(200 * time.Millisecond)
		b := events(t, slow.Body)
		if len(a) != len(b) || a[len(a)-1].Type != event.ExecutionFinished {
			t.Errorf("fast reader saw %d events, slow one %d", len(a), len(b))
		}
	}},
	{"late output of threads follows on request", func(t *testing.T, s *Server, id string) {
		e := s.run(t, id, "import threading, time\ndef f():\n time.sleep(1); print('late', flush=True)\nthreading.Thread(target=f).start()")
		stream := s.sse(t, "GET", "/v1/sandboxes/"+id+"/executions/"+e.ID+"/events?follow=true", nil)
		defer stream.close()
		for end := time.Now().Add(10 * time.Second); ; {
			ev, err := nextSSE(stream.r, &stream.comments)
			if err != nil || time.Now().After(end) {
				t.Fatalf("no late output: %v", err)
			}
			if ev.typ == "output.stream" && strings.Contains(ev.data, "late") {
				break
			}
		}
		s.run(t, id, "1")
		if got := s.execution(t, id, e.ID); text(got, "stdout") != "late\n" {
			t.Errorf("outputs with the late one = %+v", got.Outputs)
		}
	}},
	{"Accept chooses the form", func(t *testing.T, s *Server, id string) {
		for accept, want := range map[string]string{
			"": v1.MediaJSON, "*/*": v1.MediaJSON, "text/html, */*;q=0.1": v1.MediaJSON, "application/json": v1.MediaJSON,
			"text/event-stream": v1.MediaSSE, "application/json;q=0.5, text/event-stream": v1.MediaSSE,
			"application/x-ndjson": v1.MediaNDJSON, "application/ndjson": v1.MediaNDJSON, "text/event-stream;q=0, application/json": v1.MediaJSON,
		} {
			a := s.send(t, "POST", "/v1/sandboxes/"+id+"/executions", v1.Execute{Code: "1"}, header{"Accept", accept})
			if got := a.Header.Get("Content-Type"); got != want {
				t.Errorf("Accept %q gives %s, want %s", accept, got, want)
			}
		}
	}},
}
