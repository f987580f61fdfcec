package httpapitest

import (
	"slices"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
)

var kernelTests = []test{
	{"kernels of one sandbox share files and not variables", func(t *testing.T, s *Server, id string) {
		path := "/v1/sandboxes/" + id + "/kernels"
		a := s.send(t, "POST", path, v1.CreateKernel{})
		k := into[v1.Kernel](t, a, 201)
		if a.Header.Get("Location") != path+"/"+k.ID || k.Default || k.State != "idle" {
			t.Errorf("created = %+v", k)
		}
		s.run(t, id, "only_here = 1; open('shared.txt', 'w').write('hello')")
		e := into[v1.Execution](t, s.send(t, "POST", "/v1/sandboxes/"+id+"/executions",
			v1.Execute{KernelID: k.ID, Code: "print('only_here' in globals(), open('shared.txt').read())"}), 200)
		if text(e, "stdout") != "False hello\n" || e.KernelID != k.ID {
			t.Errorf("second kernel = %+v", e)
		}
		list := into[v1.KernelList](t, s.do(t, "GET", path, nil), 200).Kernels
		if len(list) != 2 || !slices.ContainsFunc(list, func(k v1.Kernel) bool { return k.Default }) {
			t.Errorf("kernels = %+v", list)
		}
		if a := s.do(t, "DELETE", path+"/"+k.ID, nil); a.Status != 204 {
			t.Errorf("delete = %d %s", a.Status, a.Body)
		}
		wantProblem(t, s.do(t, "GET", path+"/"+k.ID, nil), 404, "kernel-not-found")
	}},
	{"a restarted kernel is fresh, a deleted default one is replaced", func(t *testing.T, s *Server, _ string) {
		sb := s.create(t, v1.CreateSandbox{})
		path := "/v1/sandboxes/" + sb.ID + "/kernels"
		s.run(t, sb.ID, "v = 1")
		k := into[v1.Kernel](t, s.do(t, "POST", path+"/default/restart", nil), 200)
		if !k.Default || k.Restarts != 1 {
			t.Errorf("restarted = %+v", k)
		}
		if got := s.run(t, sb.ID, "'v' in globals()"); result(t, got) != "False" {
			t.Errorf("after restart = %+v", got)
		}
		if a := s.do(t, "DELETE", path+"/default", nil); a.Status != 204 {
			t.Fatalf("delete = %d %s", a.Status, a.Body)
		}
		if got := s.run(t, sb.ID, "1"); got.Status != "ok" || got.KernelID == k.ID {
			t.Errorf("after delete = %+v", got)
		}
	}},
	{"completion, inspection and is_complete answer", func(t *testing.T, s *Server, id string) {
		path := "/v1/sandboxes/" + id + "/kernels/default"
		comp := into[struct {
			Matches []string `json:"matches"`
		}](t, s.send(t, "POST", path+"/complete", v1.Complete{Code: "impor"}), 200)
		if !slices.Contains(comp.Matches, "import") {
			t.Errorf("matches = %v", comp.Matches)
		}
		insp := into[struct {
			Found bool           `json:"found"`
			Data  map[string]any `json:"data"`
		}](t, s.send(t, "POST", path+"/inspect", v1.Inspect{Code: "print"}), 200)
		if !insp.Found || insp.Data["text/plain"] == nil {
			t.Errorf("inspection = %+v", insp)
		}
		for code, want := range map[string]string{"1+1": "complete", "for i in x:": "incomplete", "1+*": "invalid"} {
			got := into[struct {
				Status string `json:"status"`
			}](t, s.send(t, "POST", path+"/is_complete", v1.IsComplete{Code: code}), 200)
			if got.Status != want {
				t.Errorf("%q is %s, want %s", code, got.Status, want)
			}
		}
	}},
	{"a kernel is interrupted by its own route", func(t *testing.T, s *Server, id string) {
		e := s.start(t, id, v1.Execute{Code: "import time; time.sleep(600)"})
		s.await(t, id, e.ID, running)
		if a := s.do(t, "POST", "/v1/sandboxes/"+id+"/kernels/default/interrupt", nil); a.Status != 204 {
			t.Fatalf("interrupt = %d %s", a.Status, a.Body)
		}
		if got := s.await(t, id, e.ID, finished); got.Status != "interrupted" {
			t.Errorf("execution = %+v", got)
		}
	}},
	{"an unknown kernel is not found", func(t *testing.T, s *Server, id string) {
		for _, r := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"POST", "/interrupt"}, {"POST", "/restart"}} {
			wantProblem(t, s.do(t, r[0], "/v1/sandboxes/"+id+"/kernels/krn_none"+r[1], nil), 404, "kernel-not-found")
		}
	}},
}
