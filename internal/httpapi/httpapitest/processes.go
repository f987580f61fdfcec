package httpapitest

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
)

var processTests = []test{
	{"a command runs and its output is gathered", func(t *testing.T, s *Server, id string) {
		path := "/v1/sandboxes/" + id + "/processes"
		p := into[v1.Process](t, s.send(t, "POST", path, v1.RunProcess{Command: "echo out; echo err >&2; cat; exit 3", Stdin: "in\n"}), 200)
		if p.ExitCode != 3 || p.Status != "error" || p.Stdout != "out\nin\n" || p.Stderr != "err\n" || p.ID == "" {
			t.Errorf("process = %+v", p)
		}
		p = into[v1.Process](t, s.send(t, "POST", path, v1.RunProcess{Args: []string{"printf", "%s|", "a b", ";rm -rf /", "$HOME"}, Env: map[string]string{"X": "1"}}), 200)
		if p.Stdout != "a b|;rm -rf /|$HOME|" || p.ExitCode != 0 {
			t.Errorf("args = %+v", p)
		}
		p = into[v1.Process](t, s.send(t, "POST", path, v1.RunProcess{Command: "sleep 60", TimeoutMS: 200}), 200)
		if p.Status != "timeout" {
			t.Errorf("timeout = %+v", p)
		}
	}},
	{"output is streamed, and a process is killed by its id", func(t *testing.T, s *Server, id string) {
		path := "/v1/sandboxes/" + id + "/processes"
		stream := s.sse(t, "POST", path, strings.NewReader(`{"command":"echo start; sleep 600"}`), header{"Content-Type", "application/json"})
		defer stream.close()
		for {
			e, err := nextSSE(stream.r, &stream.comments)
			if err != nil {
				t.Fatal(err)
			}
			if e.typ == "output.stream" {
				break
			}
		}
		if a := s.do(t, "DELETE", path+"/"+stream.header.Get(v1.HeaderProcessID), nil); a.Status != 204 {
			t.Errorf("kill = %d %s", a.Status, a.Body)
		}
		rest := stream.all(t)
		if n := len(rest); n == 0 || rest[n-1].typ != "process.finished" || !strings.Contains(rest[n-1].data, "SIGKILL") && !strings.Contains(rest[n-1].data, "killed") {
			t.Errorf("rest = %+v", rest)
		}
		wantProblem(t, s.do(t, "DELETE", path+"/prc_none", nil), 404, "process-not-found")
		resp := s.open(t, "POST", path, strings.NewReader(`{"command":"echo 1"}`), header{"Content-Type", "application/json"}, header{"Accept", v1.MediaNDJSON})
		defer resp.Body.Close()
		if got := types(events(t, resp.Body)); !slices.Equal(got, []string{"process.started", "output.stream", "process.finished"}) {
			t.Errorf("NDJSON = %v", got)
		}
	}},
	{"a process whose client leaves is killed", func(t *testing.T, s *Server, id string) {
		path := "/v1/sandboxes/" + id + "/processes"
		stream := s.sse(t, "POST", path, strings.NewReader(`{"command":"echo $$ > pid; echo go; exec sleep 600"}`), header{"Content-Type", "application/json"})
		for e, err := nextSSE(stream.r, &stream.comments); e.typ != "output.stream"; e, err = nextSSE(stream.r, &stream.comments) {
			if err != nil {
				t.Fatal(err)
			}
		}
		prc := stream.header.Get(v1.HeaderProcessID)
		stream.close()
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			if a := s.do(t, "DELETE", path+"/"+prc, nil); a.Status == http.StatusNotFound {
				break
			} else if time.Now().After(end) {
				t.Fatalf("it still runs: %d", a.Status)
			}
		}
	}},
	{"commands that are none are refused", func(t *testing.T, s *Server, id string) {
		path := "/v1/sandboxes/" + id + "/processes"
		for code, in := range map[string][]v1.RunProcess{
			"invalid-command":     {{}, {Command: "  "}, {Command: "a\x00b"}, {Args: []string{""}}, {Command: "a", Args: []string{"b"}}},
			"invalid-env":         {{Command: "true", Env: map[string]string{"A=": "1"}}},
			"invalid-cwd":         {{Command: "true", Dir: "/nowhere"}},
			"limit-too-high":      {{Command: "true", TimeoutMS: 1 << 50}},
			"command-not-started": {{Args: []string{"no-such-program"}}},
		} {
			for _, r := range in {
				wantProblem(t, s.send(t, "POST", path, r), 400, code)
			}
		}
	}},
}
