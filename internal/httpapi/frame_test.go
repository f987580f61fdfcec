package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

func TestFrameFiles(t *testing.T) {
	library := strings.Repeat("draw();\n", 1000)
	files := frameFiles(&pageFiles{files: fstest.MapFS{
		"index.html":       {Data: []byte("the page")},
		"assets/index.js":  {Data: []byte("the page's script")},
		"frame/index.html": {Data: []byte("the frame")},
		"frame/plotly.js":  {Data: []byte(library)},
		"frame/vega.js":    {Data: []byte("a library")},
		"frame/notes.txt":  {Data: []byte("nothing for browsers")},
	}})
	get := func(target string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		files(w, r)
		return w
	}

	t.Run("the document runs what is written into it and loads nothing", func(t *testing.T) {
		w := get("/frame/")
		if w.Code != http.StatusOK || w.Body.String() != "the frame" {
			t.Fatalf("got %d %q", w.Code, w.Body)
		}
		policy := map[string]string{}
		for part := range strings.SplitSeq(w.Header().Get("Content-Security-Policy"), ";") {
			name, value, _ := strings.Cut(strings.TrimSpace(part), " ")
			policy[name] = value
		}
		for name, want := range map[string]string{
			"sandbox": "allow-scripts", "default-src": "'none'", "script-src": "'unsafe-inline'", "connect-src": "'none'",
			"frame-src": "'none'", "form-action": "'none'", "base-uri": "'none'", "frame-ancestors": "'self'",
		} {
			if got := policy[name]; got != want {
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
		for name, value := range policy {
			if strings.Contains(value, "http") || strings.Contains(value, "*") || strings.Contains(value, "'self'") && name != "frame-ancestors" {
				t.Errorf("%s %s: reaches something outside of the document", name, value)
			}
		}
		if got := w.Header().Get("Content-Type"); got != "text/html; charset=utf-8" {
			t.Errorf("Content-Type: got %q", got)
		}
	})

	t.Run("a library is text for the page alone", func(t *testing.T) {
		w := get("/frame/vega.js")
		if w.Code != http.StatusOK || w.Body.String() != "a library" {
			t.Fatalf("got %d %q", w.Code, w.Body)
		}
		if got := w.Header().Get("Cross-Origin-Resource-Policy"); got != "same-origin" {
			t.Errorf("Cross-Origin-Resource-Policy: got %q", got)
		}
		again := get("/frame/vega.js", "If-None-Match", w.Header().Get("Etag"))
		if again.Code != http.StatusNotModified {
			t.Errorf("asked again: got %d, want 304", again.Code)
		}
	})

	t.Run("a library comes compressed", func(t *testing.T) {
		w := get("/frame/plotly.js", "Accept-Encoding", "gzip")
		if got := w.Header().Get("Content-Encoding"); got != "gzip" || w.Body.Len() > len(library)/2 {
			t.Errorf("got %d bytes as %q, want gzip of %d bytes", w.Body.Len(), got, len(library))
		}
		if got := w.Header().Get("Content-Type"); got != "text/javascript; charset=utf-8" {
			t.Errorf("Content-Type: got %q", got)
		}
		if w := get("/frame/plotly.js"); w.Body.String() != library {
			t.Errorf("without gzip: got %d bytes, want %d", w.Body.Len(), len(library))
		}
	})

	for _, target := range []string{"/frame/notes.txt", "/frame/index.html", "/frame/missing.js", "/frame/../index.html", "/frame/../assets/index.js", "/frame//index.html"} {
		t.Run("nothing at "+target, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.URL.Path = target // as it would come from a client that cleans nothing
			w := httptest.NewRecorder()
			files(w, r)
			if w.Code != http.StatusNotFound {
				t.Errorf("got %d %q, want 404", w.Code, w.Body)
			}
		})
	}
}

func TestFramed(t *testing.T) {
	for _, tt := range []struct {
		name, dest, site string
		want             bool
	}{
		{"a program sends neither header", "", "", false},
		{"the page shows its frame", "iframe", "same-origin", false},
		{"a person opens an address", "document", "none", false},
		{"an output sends its frame to the API", "iframe", "cross-site", true},
		{"another site embeds the page", "iframe", "cross-site", true},
		{"another site embeds a file", "object", "same-site", true},
		{"a script asks", "empty", "same-origin", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, "/v1/sessions", nil)
			r.Header.Set("Sec-Fetch-Dest", tt.dest)
			r.Header.Set("Sec-Fetch-Site", tt.site)
			if got := framed(r); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
