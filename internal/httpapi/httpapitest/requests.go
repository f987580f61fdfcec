package httpapitest

import (
	"bytes"
	"io"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
)

var requestTests = []test{
	{"unknown paths and methods are problems", func(t *testing.T, s *Server, id string) {
		wantProblem(t, s.do(t, "GET", "/v1/nothing", nil), 404, "route-not-found")
		a := s.do(t, "PUT", "/v1/sandboxes", nil)
		wantProblem(t, a, 405, "method-not-allowed")
		if allow := a.Header.Get("Allow"); !strings.Contains(allow, "POST") {
			t.Errorf("Allow = %q", allow)
		}
		if a := s.do(t, "PATCH", "/sandboxes/"+id, nil); a.Status != 405 || string(a.Body) != `{"detail":"Method Not Allowed"}` {
			t.Errorf("original's 405 = %d %s", a.Status, a.Body)
		}
		if a := s.do(t, "GET", "/api/sandboxes/x/y/z", nil); a.Status != 404 || string(a.Body) != `{"detail":"Not Found"}` {
			t.Errorf("original's 404 = %d %s", a.Status, a.Body)
		}
	}},
	{"bodies that are not what is asked for are problems", func(t *testing.T, s *Server, id string) {
		path := "/v1/sandboxes/" + id + "/executions"
		js := header{"Content-Type", "application/json"}
		for name, tt := range map[string]struct {
			body   string
			head   header
			status int
			code   string
		}{
			"no JSON":        {`{"code":`, js, 400, "invalid-request"},
			"no body":        {``, js, 400, "invalid-request"},
			"wrong type":     {`{"code":1}`, js, 422, "invalid-request"},
			"missing field":  {`{}`, js, 422, "invalid-request"},
			"unknown field":  {`{"code":"1","cod":"2"}`, js, 422, "invalid-request"},
			"not an object":  {`[1]`, js, 422, "invalid-request"},
			"negative time":  {`{"code":"1","timeout_ms":-1}`, js, 422, "invalid-request"},
			"too long":       {`{"code":"1","timeout_ms":300001}`, js, 400, "limit-too-high"},
			"form":           {`code=1`, header{"Content-Type", "application/x-www-form-urlencoded"}, 415, "media-type-unknown"},
			"unknown kernel": {`{"code":"1","kernel_id":"krn_nothing"}`, js, 404, "kernel-not-found"},
		} {
			t.Run(name, func(t *testing.T) {
				wantProblem(t, s.do(t, "POST", path, strings.NewReader(tt.body), tt.head), tt.status, tt.code)
			})
		}
		secret := `{"code":1,"x":"hunter2"}`
		if a := s.do(t, "POST", path, strings.NewReader(secret), js); bytes.Contains(a.Body, []byte("hunter2")) {
			t.Errorf("the problem repeats the request: %s", a.Body)
		}
		if got := s.run(t, id, "print('still here')"); text(got, "stdout") != "still here\n" {
			t.Errorf("after bad requests: %+v", got)
		}
	}},
	{"code that can't be run is refused with its reason", func(t *testing.T, s *Server, id string) {
		big := strings.Repeat("x = 1 # 345678901\n", 10<<20/18)
		bad := []byte(`{"code":"print('` + "\xff\xfe" + `')"}`)
		js := header{"Content-Type", "application/json"}
		for name, tt := range map[string]struct {
			body   []byte
			status int
			code   string
		}{
			"empty":            {[]byte(`{"code":""}`), 400, "code-empty"},
			"blank":            {[]byte(`{"code":" \n\t "}`), 400, "code-empty"},
			"not UTF-8":        {bad, 400, "code-not-utf8"},
			"half a surrogate": {[]byte(`{"code":"'\ud800'"}`), 400, "code-not-utf8"},
			"NUL":              {[]byte(`{"code":"1\u0000"}`), 400, "code-has-nul"},
			"10 MB":            {[]byte(`{"code":"` + strings.ReplaceAll(big, "\n", `\n`) + `"}`), 413, "code-too-large"},
			"5 MB":             {[]byte(`{"code":"` + strings.Repeat("#", 5<<20) + `"}`), 413, "code-too-large"},
		} {
			t.Run(name, func(t *testing.T) {
				before := len(into[v1.ExecutionList](t, s.do(t, "GET", "/v1/sandboxes/"+id+"/executions", nil), 200).Executions)
				wantProblem(t, s.do(t, "POST", "/v1/sandboxes/"+id+"/executions", bytes.NewReader(tt.body), js), tt.status, tt.code)
				after := len(into[v1.ExecutionList](t, s.do(t, "GET", "/v1/sandboxes/"+id+"/executions", nil), 200).Executions)
				if before != after {
					t.Errorf("%d executions before, %d after", before, after)
				}
			})
		}
		if got := s.run(t, id, `print("\ufffd é \U0001F600")`); text(got, "stdout") != "\ufffd é \U0001F600\n" {
			t.Errorf("characters beyond ASCII: %+v", got)
		}
		if got := s.run(t, id, "'"+strings.Repeat("é", 1<<20)+"'; 1"); got.Status != "ok" {
			t.Errorf("2 MB of code: %s %s", got.Status, got.Message)
		}
	}},
	{"a body whose end never comes is cut", func(t *testing.T, s *Server, id string) {
		pr, pw := io.Pipe()
		go func() {
			_, _ = pw.Write([]byte(`{"code":"`))
			_ = pw.CloseWithError(io.ErrUnexpectedEOF)
		}()
		before := len(into[v1.ExecutionList](t, s.do(t, "GET", "/v1/sandboxes/"+id+"/executions", nil), 200).Executions)
		if _, err := post(t, s, "/v1/sandboxes/"+id+"/executions", pr); err == nil {
			t.Error("a cut request was answered")
		}
		after := len(into[v1.ExecutionList](t, s.do(t, "GET", "/v1/sandboxes/"+id+"/executions", nil), 200).Executions)
		if before != after {
			t.Errorf("%d executions before, %d after", before, after)
		}
	}},
}
