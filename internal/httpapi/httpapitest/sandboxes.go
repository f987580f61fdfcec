package httpapitest

import (
	"io"
	"net/http"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// post sends a body that may fail on the way.
func post(t testing.TB, s *Server, path string, body io.Reader, headers ...header) (*http.Response, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+Token)
	req.Header.Set("Content-Type", "application/json")
	for _, h := range headers {
		req.Header.Set(h[0], h[1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		_ = resp.Body.Close()
	}
	return resp, err
}

var sandboxTests = []test{
	{"a sandbox is created, listed, extended and deleted", func(t *testing.T, s *Server, _ string) {
		a := s.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{Labels: map[string]string{"who": "me"}, Env: map[string]string{"GREETING": "hello"}, LifetimeMS: 7_200_000})
		sb := into[v1.Sandbox](t, a, 201)
		if a.Header.Get("Location") != "/v1/sandboxes/"+sb.ID || sb.State != "running" || sb.Template != "python" || sb.Labels["who"] != "me" || sb.ExecutionTimeoutMS != 300_000 {
			t.Errorf("created = %+v", sb)
		}
		list := into[v1.SandboxList](t, s.do(t, "GET", "/v1/sandboxes", nil), 200)
		if len(list.Sandboxes) < 2 || list.Sandboxes[0].ID != sb.ID {
			t.Errorf("list does not begin with the newest: %+v", list)
		}
		if got := s.run(t, sb.ID, "import os; print(os.environ['GREETING'])"); text(got, "stdout") != "hello\n" {
			t.Errorf("environment: %+v", got)
		}
		got := into[v1.Sandbox](t, s.do(t, "GET", "/v1/sandboxes/"+sb.ID, nil), 200)
		if got.KernelID == "" {
			t.Error("no default kernel after an execution")
		}
		ext := into[v1.Sandbox](t, s.send(t, "POST", "/v1/sandboxes/"+sb.ID+"/extend", v1.ExtendSandbox{LifetimeMS: 60_000}), 200)
		if left := time.Until(ext.ExpiresAt); left > time.Minute || left < 50*time.Second {
			t.Errorf("extended to %v from now, want a minute", left)
		}
		wantProblem(t, s.send(t, "POST", "/v1/sandboxes/"+sb.ID+"/extend", v1.ExtendSandbox{LifetimeMS: 1 << 60}), 400, "limit-too-high")
		usage := into[v1.Usage](t, s.do(t, "GET", "/v1/sandboxes/"+sb.ID+"/usage", nil), 200)
		if usage.MemoryBytes <= 0 {
			t.Errorf("usage = %+v", usage)
		}
		exe := s.run(t, sb.ID, "print(7)")
		if a := s.do(t, "DELETE", "/v1/sandboxes/"+sb.ID, nil); a.Status != 204 {
			t.Fatalf("delete = %d %s", a.Status, a.Body)
		}
		for _, r := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"GET", "/kernels"}, {"GET", "/usage"}, {"GET", "/files?path=/workspace"}} {
			if p := wantProblem(t, s.do(t, r[0], "/v1/sandboxes/"+sb.ID+r[1], nil), 410, "sandbox-gone"); p.Reason != "deleted" {
				t.Errorf("reason = %q, want deleted", p.Reason)
			}
		}
		wantProblem(t, s.send(t, "POST", "/v1/sandboxes/"+sb.ID+"/executions", v1.Execute{Code: "1"}), 410, "sandbox-gone")
		if got := s.execution(t, sb.ID, exe.ID); text(got, "stdout") != "7\n" {
			t.Errorf("execution of a deleted sandbox = %+v", got)
		}
		if _, err := s.Driver.Get(t.Context(), sandbox.ID(sb.ID)); err == nil {
			t.Error("the driver still has it")
		}
	}},
	{"what a template does not allow is refused, and nothing is made", func(t *testing.T, s *Server, _ string) {
		before := s.Fleet.Count()
		for name, tt := range map[string]struct {
			in   v1.CreateSandbox
			code string
		}{
			"template":     {v1.CreateSandbox{Template: "cobol"}, "template-unknown"},
			"memory":       {v1.CreateSandbox{Limits: &v1.Limits{MemoryBytes: 1 << 50}}, "limit-too-high"},
			"life":         {v1.CreateSandbox{LifetimeMS: 1 << 62}, "limit-too-high"},
			"idle":         {v1.CreateSandbox{IdleTimeoutMS: 1 << 40}, "limit-too-high"},
			"label":        {v1.CreateSandbox{Labels: map[string]string{"a\nb": ""}}, "invalid-labels"},
			"label length": {v1.CreateSandbox{Labels: map[string]string{"a": string(make([]byte, 300))}}, "invalid-labels"},
			"env":          {v1.CreateSandbox{Env: map[string]string{"A=B": "c"}}, "invalid-env"},
			"env NUL":      {v1.CreateSandbox{Env: map[string]string{"A": "\x00"}}, "invalid-env"},
		} {
			t.Run(name, func(t *testing.T) {
				wantProblem(t, s.send(t, "POST", "/v1/sandboxes", tt.in), 400, tt.code)
			})
		}
		if after := s.Fleet.Count(); before != after {
			t.Errorf("%d sandboxes before, %d after", before, after)
		}
	}},
	{"unknown sandboxes are not found, whatever their id looks like", func(t *testing.T, s *Server, _ string) {
		for _, id := range []string{"sbx_aaaaaaaaaaaaaaaaaaaaaaaaaa", "nothing", "..%2f..%2fetc", "%00", "sbx_%0a"} {
			wantProblem(t, s.do(t, "GET", "/v1/sandboxes/"+id, nil), 404, "sandbox-not-found")
		}
	}},
	{"too many sandboxes are refused with a time to wait", func(t *testing.T, s *Server, _ string) {
		for s.Fleet.Count() < s.Fleet.MaxSandboxes() {
			s.create(t, v1.CreateSandbox{})
		}
		a := s.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{})
		wantProblem(t, a, 429, "too-many-sandboxes")
		if a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}},
	{"a sandbox that vanishes ends its executions with the reason", func(t *testing.T, s *Server, _ string) {
		sb := s.create(t, v1.CreateSandbox{})
		exe := s.start(t, sb.ID, v1.Execute{Code: "print('before', flush=True)\nimport time; time.sleep(600)"})
		s.await(t, sb.ID, exe.ID, func(e v1.Execution) bool { return text(e, "stdout") != "" })
		want := "out_of_memory"
		if s.opts.Kill != nil {
			if err := s.opts.Kill(s.Driver, sandbox.ID(sb.ID)); err != nil {
				t.Fatal(err)
			}
		} else {
			want = "sandbox_lost"
			if err := s.Driver.Delete(t.Context(), sandbox.ID(sb.ID)); err != nil {
				t.Fatal(err)
			}
		}
		// An agent that is told to end has the last word on its kernels.
		got := s.await(t, sb.ID, exe.ID, finished)
		if got.Status != "killed" || got.Reason != want && got.Reason != "kernel_restarted" || got.Message == "" || text(got, "stdout") != "before\n" {
			t.Errorf("execution = %+v", got)
		}
		if p := wantProblem(t, s.do(t, "GET", "/v1/sandboxes/"+sb.ID, nil), 410, "sandbox-gone"); p.Reason != want {
			t.Errorf("reason = %q, want %q", p.Reason, want)
		}
		if _, err := s.Driver.Get(t.Context(), sandbox.ID(sb.ID)); err == nil {
			t.Error("the driver still has it")
		}
	}},
	{"info tells what is enforced and what is not", func(t *testing.T, s *Server, _ string) {
		info := into[v1.Info](t, s.do(t, "GET", "/v1/info", nil), 200)
		if info.Version != "test" || info.Driver == "" || len(info.Templates) != 1 || !info.Templates[0].Default || info.Limits.CodeBytes != 4<<20 {
			t.Errorf("info = %+v", info)
		}
	}},
}
