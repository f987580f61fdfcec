package replicas_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
)

func TestAnExecutionIsFollowedThroughAnyReplica(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.start(t, "a"), w.start(t, "b"), w.start(t, "c")

	var sb v1.Sandbox
	a.call(t, "POST", "/v1/sandboxes", map[string]any{}, 201).into(t, &sb)
	path := "/v1/sandboxes/" + sb.ID
	var exec v1.Execution
	b.start(t, sb.ID, counting(20, 20*time.Millisecond)).into(t, &exec)
	stories := map[string][]byte{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, s := range []*server{a, b, c} {
		wg.Go(func() {
			req, err := s.request(t.Context(), "GET", path+"/executions/"+exec.ID+"/events", nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Accept", v1.MediaNDJSON)
			resp, err := client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Error(err)
			}
			if got := resp.Header.Values("X-Request-Id"); len(got) != 1 {
				t.Errorf("%s: X-Request-Id is %q", s.name, got)
			}
			mu.Lock()
			defer mu.Unlock()
			stories[s.name] = body
		})
	}
	wg.Wait()
	for name, story := range stories {
		if !bytes.Equal(story, stories["a"]) {
			t.Errorf("through %s: %.300s\nthrough a: %.300s", name, story, stories["a"])
		}
	}
	if !bytes.Contains(stories["a"], []byte(`execution.finished`)) || !bytes.Contains(stories["a"], []byte(`19`)) {
		t.Errorf("the story is not whole: %.500s", stories["a"])
	}

	// Each lists it; one that is gone has its reason everywhere.
	for _, s := range []*server{a, b, c} {
		var list v1.SandboxList
		s.call(t, "GET", "/v1/sandboxes", nil, 200).into(t, &list)
		if len(list.Sandboxes) != 1 || list.Sandboxes[0].ID != sb.ID || list.Sandboxes[0].KernelID == "" {
			t.Errorf("%s lists %+v", s.name, list.Sandboxes)
		}
	}
	c.call(t, "DELETE", path, nil, 204)
	for _, s := range []*server{a, b, c} {
		if got := s.call(t, "GET", path, nil, http.StatusGone); !bytes.Contains(got.body, []byte(`"deleted"`)) {
			t.Errorf("%s: %s", s.name, got.body)
		}
	}
}

func TestTheOriginalsNamesWorkThroughAnyReplica(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(t, "a"), w.start(t, "b")
	var made struct{ ID string }
	a.call(t, "POST", "/sandboxes", map[string]string{"lang": "python"}, 200).into(t, &made)
	got := b.call(t, "POST", "/sandboxes/"+made.ID+"/execute", map[string]string{"code": "print('from b')"}, 200)
	if !bytes.Contains(got.body, []byte("from b")) {
		t.Errorf("got %s", got.body)
	}
	if got := b.call(t, "GET", "/api/sandboxes", nil, 200); !bytes.Contains(got.body, []byte(made.ID)) {
		t.Errorf("b lists %s", got.body)
	}
	b.call(t, "GET", "/sandboxes/sandbox-00000000", nil, 404)
	b.call(t, "DELETE", "/sandboxes/"+made.ID, nil, 200)
	if n := w.sandboxes(t); n != 0 {
		t.Errorf("%d sandboxes are left", n)
	}
}

func TestReplicasAskedAtOnceForTheSameSessionMakeOneSandbox(t *testing.T) {
	w := newWorld(t)
	all := []*server{w.start(t, "a"), w.start(t, "b"), w.start(t, "c")}
	for round := range 5 {
		name := fmt.Sprintf("client %d", round)
		ids := make([]string, 12)
		var wg sync.WaitGroup
		for i := range ids {
			wg.Go(func() {
				var out struct {
					Status    string `json:"status"`
					SandboxID string `json:"sandbox_id"`
					Error     string
				}
				s := all[i%len(all)]
				got, err := s.try(t.Context(), "POST", "/api/sessions/"+strings.ReplaceAll(name, " ", "%20")+"/initialize", nil)
				if err != nil {
					t.Error(err)
					return
				}
				got.into(t, &out)
				if out.SandboxID == "" {
					t.Errorf("through %s: %s", s.name, got.body)
				}
				ids[i] = out.SandboxID
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != ids[0] {
				t.Fatalf("round %d: sandboxes %q", round, ids)
			}
		}
		if n := w.sandboxes(t); n != round+1 {
			t.Errorf("round %d: there are %d sandboxes", round, n)
		}
	}
	var list v1.SessionList
	all[1].call(t, "GET", "/v1/sessions", nil, 200).into(t, &list)
	if len(list.Sessions) != 5 {
		t.Errorf("there are %d sessions, want 5", len(list.Sessions))
	}
	for _, s := range list.Sessions {
		if s.Sandbox.State == "none" {
			t.Errorf("session %s is shown without its sandbox", s.ID)
		}
	}
}

func TestAllReplicasHearThatTheListOfSessionsChanged(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(t, "a"), w.start(t, "b")
	id, _ := b.newSession(t, "1")
	req, err := b.request(t.Context(), "GET", "/v1/sessions/"+id+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		buf, all := make([]byte, 4096), ""
		for !strings.Contains(all, "sessions.changed") {
			n, err := resp.Body.Read(buf)
			if all += string(buf[:n]); err != nil {
				t.Errorf("the stream ended: %v", err)
				return
			}
		}
	}()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { // b may not listen yet
		for {
			a.newSession(t, "2")
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	wait(t, "sessions.changed", heard)
	close(stop)
	wg.Wait()
}
