package httpapitest

import (
	"net/http"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// loginCookie logs in as the page does and gives the cookie.
func (s *Server) loginCookie(t *testing.T) string {
	t.Helper()
	a := s.send(t, "POST", "/v1/login", v1.Login{Token: Token}, header{"Authorization", ""})
	if a.Status != http.StatusNoContent {
		t.Fatalf("login: %d %s", a.Status, a.Body)
	}
	cookie, _, _ := strings.Cut(a.Header.Get("Set-Cookie"), ";")
	return cookie
}

var originTests = []test{
	{"a cookie is good for this server's own page only, on every route", func(t *testing.T, s *Server, sandbox string) {
		cookie := s.loginCookie(t)
		id := s.newSession(t, v1.CreateSession{})
		item := s.cell(t, id, "1")
		fill := strings.NewReplacer("{session_id}", id, "{item_id}", item, "{id}", sandbox, "{", "", "}", "")
		foreign := [][]header{
			{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://evil.example"}},
			{{"Sec-Fetch-Site", "cross-site"}}, // a GET, which sends no Origin
			{{"Sec-Fetch-Site", "same-site"}, {"Origin", "http://127.0.0.1:1"}},
			{{"Sec-Fetch-Site", "same-site"}},  // a page of another port
			{{"Origin", "http://127.0.0.1:1"}}, // of an old browser
			{{"Origin", "null"}},               // a sandboxed frame
			{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Dest", "iframe"}, {"Sec-Fetch-Mode", "navigate"}},
			{{"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Dest", "document"}, {"Sec-Fetch-Mode", "navigate"}},
		}
		for path, methods := range routes(t, s) {
			public := path == "/" || path == "/health" || path == "/api/health" || path == "/healthz" || path == "/readyz" || path == "/v1/login" || path == "/v1/logout"
			for _, m := range methods {
				for _, h := range foreign {
					a := s.do(t, m, fill.Replace(path), nil, append([]header{{"Authorization", ""}, {"Cookie", cookie}}, h...)...)
					if a.Status != http.StatusForbidden && a.Status != http.StatusUnauthorized && (!public || m != http.MethodGet) {
						t.Errorf("%s %s with %v: %d", m, path, h, a.Status)
					}
					if a.Header.Get("Access-Control-Allow-Origin") != "" {
						t.Errorf("%s %s with %v: another origin may read the answer", m, path, h)
					}
				}
			}
		}
		own := []header{{"Authorization", ""}, {"Cookie", cookie}, {"Sec-Fetch-Site", "same-origin"}, {"Origin", s.URL}}
		if a := s.do(t, "GET", "/v1/sessions/"+id, nil, own...); a.Status != 200 {
			t.Errorf("the own page: %d %s", a.Status, a.Body)
		}
		if a := s.do(t, "PATCH", "/v1/sessions/"+id, strings.NewReader(`{"title":"x"}`), append(own, header{"Content-Type", "application/json"})...); a.Status != 200 {
			t.Errorf("the own page: %d %s", a.Status, a.Body)
		}
		for _, bad := range []string{cookie + "x", cookie[:len(cookie)-1], strings.SplitN(cookie, "=", 2)[0] + "=", "caesarion_x=" + strings.SplitN(cookie, "=", 2)[1], strings.SplitN(cookie, "=", 2)[0] + "=" + Token} {
			if a := s.do(t, "GET", "/v1/sessions", nil, header{"Authorization", ""}, header{"Cookie", bad}); a.Status != 401 {
				t.Errorf("cookie %q: %d", bad, a.Status)
			}
		}
	}},
	{"every route refuses a name that was made to resolve to this machine", func(t *testing.T, s *Server, _ string) {
		fill := strings.NewReplacer("{", "", "}", "")
		for path, methods := range routes(t, s) {
			for _, m := range methods {
				if a := s.do(t, m, fill.Replace(path), nil, header{"Host", "rebound.example"}); a.Status != http.StatusMisdirectedRequest {
					t.Errorf("%s %s: %d", m, path, a.Status)
				}
			}
		}
		for _, path := range []string{"/", "/s/x", "/assets/index.js", "/frame/", "/frame/plotly.js"} {
			if a := s.do(t, "GET", path, nil, header{"Host", "rebound.example"}, header{"Accept", "text/html"}); a.Status != http.StatusMisdirectedRequest {
				t.Errorf("GET %s: %d", path, a.Status)
			}
		}
	}},
	{"a session's files are nothing that a browser runs", func(t *testing.T, s *Server, _ string) {
		id := s.newSession(t, v1.CreateSession{})
		base := "/v1/sessions/" + id + "/files/content?path="
		for name, body := range map[string]string{
			"a.html": "<script>1</script>", "a.svg": `<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>`, "a.js": "1", "a.pdf": "%PDF-1.7", "a.xml": "<a/>",
			"a.png": "<html><script>1</script>", "a.txt": "<script>1</script>", `<img src=x onerror=1>.html`: "x", "a\r\nX-Injected: 1.html": "x", `a".html`: "x",
		} {
			path := base + strings.NewReplacer("%", "%25", "<", "%3C", ">", "%3E", " ", "%20", "\r", "%0d", "\n", "%0a", `"`, "%22").Replace("/workspace/"+name)
			if a := s.do(t, "PUT", path, strings.NewReader(body)); a.Status != 201 {
				t.Errorf("upload %q: %d %s", name, a.Status, a.Body)
				continue
			}
			for _, inline := range []string{"", "&inline=true"} {
				a := s.do(t, "GET", path+inline, nil)
				h := a.Header
				shown := inline != "" && name == "a.txt"
				if a.Status != 200 || h.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(h.Get("Content-Security-Policy"), "sandbox") || h.Get("X-Injected") != "" ||
					strings.HasPrefix(h.Get("Content-Disposition"), "attachment") == shown ||
					!shown && h.Get("Content-Type") != "application/octet-stream" || shown && h.Get("Content-Type") != "text/plain; charset=utf-8" {
					t.Errorf("%q %s: %d %v", name, inline, a.Status, h)
				}
			}
		}
	}},
}
