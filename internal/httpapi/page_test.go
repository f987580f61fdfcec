package httpapi_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/caesarion/caesarion/internal/httpapi"
)

const pageToken = "a-token-of-some-length"

var script = strings.Repeat("console.log('the page');\n", 100)

func pageAPI(opts httpapi.Options) http.Handler {
	opts.Page = fstest.MapFS{
		"index.html":       {Data: []byte("<!doctype html><title>the page</title>")},
		"assets/index.js":  {Data: []byte(script)},
		"assets/dot.png":   {Data: []byte("\x89PNG\r\n\x1a\n")},
		"frame/index.html": {Data: []byte("the frame")},
		"secret.txt":       {Data: []byte("nothing for browsers")},
	}
	return httpapi.New(nil, opts)
}

// ask sends a request with headers given as "Name: value".
func ask(h http.Handler, method, target, body string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, "http://127.0.0.1:8000"+target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, header := range headers {
		name, value, _ := strings.Cut(header, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func bodyOf(t *testing.T, r *http.Response) string {
	t.Helper()
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const browser = "Accept: text/html,application/xhtml+xml,*/*;q=0.8"

func TestThePageIsForBrowsersAndNeedsNoToken(t *testing.T) {
	h := pageAPI(httpapi.Options{Token: pageToken})
	for _, tt := range []struct {
		target, accept string
		status         int
		contains       string
	}{
		{"/", browser, 200, "the page"},
		{"/s/ses_1", browser, 200, "the page"},
		{"/", "Accept: */*", 200, `{"status":"healthy","service":"api"}`},
		{"/assets/index.js", "Accept: */*", 200, "console.log"},
		{"/assets/none.js", "Accept: */*", 404, ""},
		{"/assets/../secret.txt", "Accept: */*", 404, ""},
		{"/assets/%2e%2e/secret.txt", "Accept: */*", 404, ""},
		{"/assets/", "Accept: */*", 404, ""},
		{"/frame/", browser, 200, "the frame"},
		{"/v1/sandboxes", browser, 401, "unauthenticated"},
	} {
		r := ask(h, http.MethodGet, tt.target, "", tt.accept)
		if got := bodyOf(t, r); r.StatusCode != tt.status || !strings.Contains(got, tt.contains) || strings.Contains(got, "nothing for browsers") {
			t.Errorf("%s (%s): got %d %.80q, want %d %q", tt.target, tt.accept, r.StatusCode, got, tt.status, tt.contains)
		}
	}
}

func TestThePagesPolicyIsStrict(t *testing.T) {
	r := ask(pageAPI(httpapi.Options{Token: pageToken}), http.MethodGet, "/", "", browser)
	policy := r.Header.Get("Content-Security-Policy")
	if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || strings.Contains(policy, "http") {
		t.Errorf("policy lets too much in: %s", policy)
	}
	for _, part := range []string{"default-src 'self'", "script-src 'self'", "style-src 'self'", "object-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("policy lacks %s: %s", part, policy)
		}
	}
	for name, want := range map[string]string{
		"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin",
		"X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestAssetsAreSmallAndSentOnce(t *testing.T) {
	h := pageAPI(httpapi.Options{Token: pageToken})
	r := ask(h, http.MethodGet, "/assets/index.js", "", "Accept-Encoding: br, gzip")
	if r.Header.Get("Content-Encoding") != "gzip" || r.ContentLength >= int64(len(script)/2) {
		t.Fatalf("got encoding %q, length %d", r.Header.Get("Content-Encoding"), r.ContentLength)
	}
	zr, err := gzip.NewReader(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(zr); err != nil || string(got) != script {
		t.Errorf("got %.40q, %v", got, err)
	}
	etag := r.Header.Get("Etag")
	if again := ask(h, http.MethodGet, "/assets/index.js", "", "Accept-Encoding: gzip", "If-None-Match: "+etag); again.StatusCode != http.StatusNotModified {
		t.Errorf("the same file again: got %d", again.StatusCode)
	}
	plain := ask(h, http.MethodGet, "/assets/index.js", "", "Accept-Encoding: gzip;q=0")
	if plain.Header.Get("Content-Encoding") != "" || plain.Header.Get("Etag") == etag || bodyOf(t, plain) != script {
		t.Errorf("who takes no gzip gets it plain, under another tag")
	}
	if png := ask(h, http.MethodGet, "/assets/dot.png", "", "Accept-Encoding: gzip"); png.Header.Get("Content-Encoding") != "" {
		t.Errorf("a picture is packed already")
	}
}

// cookieOf gives the cookie of an answer as a header to send, "" if it has none.
func cookieOf(t *testing.T, r *http.Response) string {
	t.Helper()
	cookies := r.Cookies()
	if len(cookies) == 0 {
		return ""
	}
	c := cookies[0]
	if len(cookies) > 1 || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.MaxAge <= 0 || strings.Contains(c.Value, pageToken) {
		t.Errorf("cookies %+v", cookies)
	}
	return "Cookie: " + c.Name + "=" + c.Value
}

func TestTheTokenLeavesTheAddress(t *testing.T) {
	h := pageAPI(httpapi.Options{Token: pageToken})
	for _, tt := range []struct{ target, to string }{
		{"/?token=" + pageToken, "/"},
		{"/s/ses_1?token=" + pageToken + "&panel=files", "/s/ses_1?panel=files"},
	} {
		r := ask(h, http.MethodGet, tt.target, "", browser, "Sec-Fetch-Site: cross-site")
		if r.StatusCode != http.StatusSeeOther || r.Header.Get("Location") != tt.to || cookieOf(t, r) == "" {
			t.Errorf("%s: got %d to %q, cookie %q", tt.target, r.StatusCode, r.Header.Get("Location"), cookieOf(t, r))
		}
	}
	r := ask(h, http.MethodGet, "/?token=wrong", "", browser)
	if r.Header.Get("Location") != "/#token-refused" || cookieOf(t, r) != "" {
		t.Errorf("a wrong token: got %q, cookie %q", r.Header.Get("Location"), cookieOf(t, r))
	}
}

func TestLogin(t *testing.T) {
	h := pageAPI(httpapi.Options{Token: pageToken})
	r := ask(h, http.MethodPost, "/v1/login", `{"token":"wrong"}`, "Sec-Fetch-Site: same-origin")
	if got := bodyOf(t, r); r.StatusCode != http.StatusUnauthorized || !strings.Contains(got, `"token-wrong"`) || !strings.Contains(got, `"hint"`) || cookieOf(t, r) != "" {
		t.Errorf("a wrong token: got %d %s", r.StatusCode, got)
	}
	if r := ask(h, http.MethodPost, "/v1/login", `{"token":"`+pageToken+`"}`, "Sec-Fetch-Site: cross-site", "Origin: http://evil.example"); r.StatusCode != http.StatusForbidden {
		t.Errorf("from a foreign page: got %d", r.StatusCode)
	}
	r = ask(h, http.MethodPost, "/v1/login", `{"token":"`+pageToken+`"}`, "Sec-Fetch-Site: same-origin")
	cookie := cookieOf(t, r)
	if r.StatusCode != http.StatusNoContent || cookie == "" {
		t.Fatalf("got %d, cookie %q", r.StatusCode, cookie)
	}

	// A path that is nothing: whoever is let in gets 404.
	const inside = "/v1/nothing"
	for name, tt := range map[string]struct {
		headers []string
		status  int
	}{
		"the page itself":                       {[]string{cookie, "Sec-Fetch-Site: same-origin"}, 404},
		"an address that a person opens":        {[]string{cookie, "Sec-Fetch-Site: none"}, 404},
		"another origin":                        {[]string{cookie, "Sec-Fetch-Site: cross-site"}, 401},
		"another port of the same host":         {[]string{cookie, "Sec-Fetch-Site: same-site"}, 401},
		"an old browser, from here":             {[]string{cookie, "Origin: http://127.0.0.1:8000"}, 404},
		"an old browser, from elsewhere":        {[]string{cookie, "Origin: http://127.0.0.1:9000"}, 401},
		"a document without an origin":          {[]string{cookie, "Origin: null"}, 401},
		"no cookie":                             {[]string{"Sec-Fetch-Site: same-origin"}, 401},
		"the token itself, whoever it comes by": {[]string{"Authorization: Bearer " + pageToken, "Sec-Fetch-Site: cross-site"}, 404},
		"a cookie that was tampered with":       {[]string{cookie + "x", "Sec-Fetch-Site: same-origin"}, 401},
		"an output's frame":                     {[]string{cookie, "Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: iframe"}, 403},
	} {
		if r := ask(h, http.MethodGet, inside, "", tt.headers...); r.StatusCode != tt.status {
			t.Errorf("%s: got %d, want %d", name, r.StatusCode, tt.status)
		}
	}

	other := pageAPI(httpapi.Options{Token: "another-token-of-the-host"})
	theirs := cookieOf(t, ask(other, http.MethodPost, "/v1/login", `{"token":"another-token-of-the-host"}`))
	if name, _, _ := strings.Cut(theirs, "="); strings.HasPrefix(cookie, name+"=") {
		t.Errorf("two servers of one host share the cookie %s", name)
	}
	if r := ask(other, http.MethodGet, inside, "", cookie, theirs, "Sec-Fetch-Site: same-origin"); r.StatusCode != 404 {
		t.Errorf("both servers' cookies: got %d", r.StatusCode)
	}
	if r := ask(other, http.MethodGet, inside, "", cookie, "Sec-Fetch-Site: same-origin"); r.StatusCode != 401 {
		t.Errorf("another server's cookie: got %d", r.StatusCode)
	}

	r = ask(h, http.MethodPost, "/v1/logout", "", cookie, "Sec-Fetch-Site: same-origin")
	if c := r.Cookies(); r.StatusCode != http.StatusNoContent || len(c) != 1 || c[0].MaxAge >= 0 || c[0].Value != "" {
		t.Errorf("logout: got %d %v", r.StatusCode, c)
	}
}

func TestWithoutTokensForeignPagesStayOut(t *testing.T) {
	h := pageAPI(httpapi.Options{AuthNone: true})
	for name, tt := range map[string]struct {
		headers []string
		status  int
	}{
		"a program":                    {nil, 404},
		"the page itself":              {[]string{"Sec-Fetch-Site: same-origin"}, 404},
		"another origin":               {[]string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"}, 403},
		"a link that a person follows": {[]string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}, 404},
		"an output's frame":            {[]string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: iframe"}, 403},
	} {
		if r := ask(h, http.MethodGet, "/v1/nothing", "", tt.headers...); r.StatusCode != tt.status {
			t.Errorf("%s: got %d, want %d", name, r.StatusCode, tt.status)
		}
	}
	if r := ask(h, http.MethodGet, "/?token=whatever", "", browser); r.Header.Get("Location") != "/" || len(r.Cookies()) != 0 {
		t.Errorf("got %q, %v", r.Header.Get("Location"), r.Cookies())
	}
}

// A name that was made to resolve to this machine gets neither the page nor
// what it is made of, and the token in the address gives it no cookie.
func TestReboundNamesGetNothingOfThePage(t *testing.T) {
	for name, opts := range map[string]httpapi.Options{"with a token": {Token: pageToken}, "without": {AuthNone: true}} {
		h := pageAPI(opts)
		for _, path := range []string{"/", "/s/ses_x", "/assets/index.js", "/assets/dot.png", "/frame/", "/frame/index.html", "/?token=" + pageToken, "/v1/info", "/docs"} {
			r := httptest.NewRequest(http.MethodGet, "http://rebound.example:8000"+path, nil)
			r.Header.Set("Accept", "text/html")
			r.Header.Set("Sec-Fetch-Site", "same-origin") // so the browser sees it
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusMisdirectedRequest || w.Header().Get("Set-Cookie") != "" || strings.Contains(w.Body.String(), "the page") {
				t.Errorf("%s: GET %s: %d %q", name, path, w.Code, w.Body)
			}
		}
	}
}
