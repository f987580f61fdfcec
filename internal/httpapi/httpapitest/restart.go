package httpapitest

import (
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

// testRestart ends a server while code runs and starts another on the same driver.
func testRestart(t *testing.T, driver sandbox.Driver, opts Options) {
	opts.Data = t.TempDir()
	if opts.Postgres != "" {
		opts.Postgres = pgtest.New(t) // the suite's own replicas know nothing of this driver, and would take over what these leave
	}
	first := Start(t, driver, opts)
	sb := into[v1.Sandbox](t, first.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{Labels: map[string]string{"keep": "me"}}), 201)
	key := header{v1.HeaderIdempotencyKey, "over-a-restart"}
	first.run(t, sb.ID, "x = 1")
	done := first.run(t, sb.ID, "print('finished before')")
	counted := into[v1.Execution](t, first.send(t, "POST", "/v1/sandboxes/"+sb.ID+"/executions", v1.Execute{Code: "x += 1; x"}, key), 200)
	exe := first.start(t, sb.ID, v1.Execute{Code: "import time\nprint('a', flush=True)\ntime.sleep(3)\nprint('b')"})
	first.await(t, sb.ID, exe.ID, func(e v1.Execution) bool { return text(e, "stdout") != "" })
	session := into[struct {
		SandboxID string `json:"sandbox_id"`
	}](t, first.do(t, "POST", "/api/sessions/over-a-restart/initialize", nil), 200)

	stream := first.sse(t, "GET", "/v1/sandboxes/"+sb.ID+"/executions/"+exe.ID+"/events", nil)
	go first.API.Drain()
	var last sse
	for _, e := range stream.all(t) {
		last = e
	}
	stream.close()
	if last.typ != "stream.interrupted" {
		t.Errorf("the stream ends with %+v, want stream.interrupted", last)
	}
	first.Stop()

	second := Start(t, driver, opts)
	got := into[v1.Sandbox](t, second.do(t, "GET", "/v1/sandboxes/"+sb.ID, nil), 200)
	if got.Labels["keep"] != "me" || !got.ExpiresAt.Equal(sb.ExpiresAt) || got.KernelID == "" {
		t.Errorf("adopted = %+v, was %+v", got, sb)
	}
	if e := second.await(t, sb.ID, exe.ID, finished); e.Status != "ok" || text(e, "stdout") != "a\nb\n" {
		t.Errorf("the execution that went on = %+v", e)
	}
	if e := second.execution(t, sb.ID, done.ID); text(e, "stdout") != "finished before\n" {
		t.Errorf("the execution from before = %+v", e)
	}
	again := into[v1.Execution](t, second.send(t, "POST", "/v1/sandboxes/"+sb.ID+"/executions", v1.Execute{Code: "x += 1; x"}, key), 200)
	if again.ID != counted.ID {
		t.Errorf("the key gives %s, want %s", again.ID, counted.ID)
	}
	if e := second.run(t, sb.ID, "x"); result(t, e) != "2" {
		t.Errorf("x = %s, want 2", result(t, e))
	}
	exact(t, second.do(t, "POST", "/api/sessions/over-a-restart/initialize", nil), 200,
		`{"status":"exists","session_id":"over-a-restart","sandbox_id":"`+session.SandboxID+`"}`)
	for _, sb := range second.Fleet.List() {
		second.delete(t, string(sb.ID()))
	}
}
