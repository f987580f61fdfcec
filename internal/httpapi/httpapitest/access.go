package httpapitest

import (
	"net/http"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// routes gives method and path of every operation in the OpenAPI.
func routes(t *testing.T, s *Server) map[string][]string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(s.API.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	list := map[string][]string{}
	for path, ops := range doc.Paths {
		for method := range ops {
			list[path] = append(list[path], strings.ToUpper(method))
		}
	}
	if len(list) < 30 {
		t.Fatalf("the OpenAPI has only %d paths", len(list))
	}
	return list
}

var accessTests = []test{
	{"every route but health wants the token", func(t *testing.T, s *Server, _ string) {
		fill := strings.NewReplacer("{", "", "}", "")
		for path, methods := range routes(t, s) {
			if path == "/v1/login" || path == "/v1/logout" {
				continue // they are about the token itself
			}
			public := path == "/" || path == "/health" || path == "/api/health" || path == "/healthz" || path == "/readyz"
			for _, m := range methods {
				for _, token := range []string{"", "Bearer wrong", "Basic " + Token, "Bearer " + Token + "x", "Bearer"} {
					a := s.do(t, m, fill.Replace(path), nil, header{"Authorization", token})
					switch {
					case public && a.Status != http.StatusOK:
						t.Errorf("%s %s without token = %d, want 200", m, path, a.Status)
					case !public && a.Status != http.StatusUnauthorized:
						t.Errorf("%s %s with %q = %d, want 401", m, path, token, a.Status)
					case !public && !strings.HasPrefix(a.Header.Get("WWW-Authenticate"), "Bearer"):
						t.Errorf("%s %s: no WWW-Authenticate", m, path)
					}
				}
			}
		}
		wantProblem(t, s.do(t, "GET", "/v1/sandboxes", nil, header{"Authorization", ""}), 401, "unauthenticated")
		if a := s.do(t, "GET", "/unknown", nil, header{"Authorization", ""}); a.Status != 401 {
			t.Errorf("unknown path without token = %d, want 401: what exists is nobody's business", a.Status)
		}
	}},
	{"the token is taken from X-API-Key, and from the query where a browser can't send headers", func(t *testing.T, s *Server, id string) {
		for _, tt := range []struct {
			path string
			key  string
			want int
		}{
			{"/v1/sandboxes", Token, 200},
			{"/v1/sandboxes", "wrong", 401},
			{"/v1/sandboxes?token=" + Token, "", 401},
			{"/docs?token=" + Token, "", 200},
			{"/openapi.json?token=" + Token, "", 200},
			{"/v1/sandboxes/" + id + "/executions/exe_x/events?token=" + Token, "", 404},
			{"/v1/sandboxes/" + id + "/executions/exe_x/events?token=wrong", "", 401},
		} {
			if a := s.do(t, "GET", tt.path, nil, header{"Authorization", ""}, header{"X-API-Key", tt.key}); a.Status != tt.want {
				t.Errorf("GET %s with key %q = %d, want %d", tt.path, tt.key, a.Status, tt.want)
			}
		}
	}},
	{"foreign names in Host are refused", func(t *testing.T, s *Server, _ string) {
		for host, ok := range map[string]bool{
			"localhost": true, "localhost:8000": true, "127.0.0.1:1": true, "[::1]:8000": true, "a.localhost": true,
			"sandboxes.example.com": true, "SANDBOXES.example.com:80": true, "10.1.2.3": true,
			"evil.example": false, "127.0.0.1.evil.example": false, "localhost.evil.example:8000": false, "example.com": false,
		} {
			a := s.do(t, "GET", "/v1/info", nil, header{"Host", host})
			if ok && a.Status != 200 {
				t.Errorf("Host %s = %d, want 200", host, a.Status)
			}
			if !ok {
				wantProblem(t, a, 421, "host-not-allowed")
			}
		}
		if a := s.do(t, "GET", "/health", nil, header{"Host", "evil.example"}); a.Status != 421 {
			t.Errorf("health with a foreign Host = %d, want 421", a.Status)
		}
	}},
	{"pages of other origins can't change anything", func(t *testing.T, s *Server, _ string) {
		for _, h := range []header{{"Origin", "http://evil.example"}, {"Sec-Fetch-Site", "cross-site"}, {"Origin", "null"}} {
			wantProblem(t, s.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{}, h), 403, "cross-origin")
			if a := s.send(t, "POST", "/sandboxes", map[string]string{"lang": "python"}, h); a.Status != 403 || !strings.HasPrefix(string(a.Body), `{"detail":"`) {
				t.Errorf("POST /sandboxes with %v = %d %s, want 403 with detail", h, a.Status, a.Body)
			}
		}
		if a := s.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{Template: "no"}, header{"Origin", s.URL}); a.Status != 400 {
			t.Errorf("own origin = %d, want 400 for the template", a.Status)
		}
		if a := s.do(t, "GET", "/v1/info", nil, header{"Origin", "http://evil.example"}); a.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Error("another origin may read answers")
		}
	}},
	{"the page and the spec load nothing from elsewhere", func(t *testing.T, s *Server, _ string) {
		a := s.do(t, "GET", "/docs", nil)
		if a.Status != 200 || !strings.Contains(a.Header.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("docs = %d, policy %q", a.Status, a.Header.Get("Content-Security-Policy"))
		}
		for _, bad := range []string{"<script", "src=", "<link", "@import", "url("} {
			if strings.Contains(string(a.Body), bad) {
				t.Errorf("the page has %q", bad)
			}
		}
		for path := range routes(t, s) {
			if !strings.Contains(string(a.Body), path) {
				t.Errorf("the page does not show %s", path)
			}
		}
		if a := s.do(t, "GET", "/openapi.json", nil); !strings.Contains(string(a.Body), `"openapi": "3.1.0"`) {
			t.Errorf("openapi.json = %d %.100s", a.Status, a.Body)
		}
		if a := s.do(t, "GET", "/openapi.yaml", nil); string(a.Body) != string(s.API.OpenAPI()) {
			t.Error("openapi.yaml is not the API's")
		}
	}},
}
