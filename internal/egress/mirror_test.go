package egress

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// index is a package index: pages in JSON and HTML, files on a host of their
// own, redirects, ranges and metadata.
type index struct {
	*httptest.Server
	filesAt *httptest.Server
	mu      sync.Mutex
	files   map[string][]byte // by path
	asked   []string
	html    bool          // speaks HTML only
	down    bool          // answers nothing but 500
	gate    chan struct{} // if set, files wait for it half-way
	wrong   bool          // pages tell other hashes
	user    string
	links   []string // further links, as they are
	leaked  atomic.Bool
}

func newIndex(tb testing.TB) *index {
	ix := &index{files: make(map[string][]byte)}
	ix.Server = httptest.NewServer(http.HandlerFunc(ix.pages))
	ix.filesAt = httptest.NewServer(http.HandlerFunc(ix.file))
	tb.Cleanup(ix.Server.Close)
	tb.Cleanup(ix.filesAt.Close)
	return ix
}

func (ix *index) options(dir string) Options {
	u, _ := url.Parse(ix.filesAt.URL)
	return Options{Index: Index{URL: ix.Server.URL + "/root/simple", Files: []string{u.Host}}, CacheDir: dir}
}

func (ix *index) note(r *http.Request) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.asked = append(ix.asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Range"))
}

func (ix *index) count(part string) int {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	n := 0
	for _, a := range ix.asked {
		if strings.Contains(a, part) {
			n++
		}
	}
	return n
}

func (ix *index) pages(w http.ResponseWriter, r *http.Request) {
	ix.note(r)
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if u, _, _ := r.BasicAuth(); u != ix.user {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if ix.down {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/root/simple/"), "/")
	if name == "moved" {
		http.Redirect(w, r, "/root/simple/six/", http.StatusFound)
		return
	}
	if name == "metadata-thief" {
		http.Redirect(w, r, "http://169.254.169.254/simple/six/", http.StatusFound)
		return
	}
	if name != "six" {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", `"v1"`)
	if r.Header.Get("If-None-Match") == `"v1"` {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	var files []map[string]any
	var anchors strings.Builder
	for p, b := range ix.files {
		if strings.HasSuffix(p, ".metadata") {
			continue
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(b))
		if ix.wrong {
			sum = strings.Repeat("ab", 32)
		}
		f := map[string]any{"filename": filepath.Base(p), "url": ix.filesAt.URL + p, "hashes": map[string]string{"sha256": sum}, "requires-python": ">=3.8", "yanked": false, "size": len(b), "gpg-sig": true}
		attrs := ` data-requires-python="&gt;=3.8"`
		if m, ok := ix.files[p+".metadata"]; ok {
			ms := fmt.Sprintf("%x", sha256.Sum256(m))
			f["core-metadata"] = map[string]string{"sha256": ms}
			attrs += ` data-core-metadata="sha256=` + ms + `"`
		}
		files = append(files, f)
		fmt.Fprintf(&anchors, `<a href="%s%s#sha256=%s"%s>%s</a><script>alert(1)</script>`, ix.filesAt.URL, p, sum, attrs, filepath.Base(p))
	}
	for _, l := range ix.links {
		files = append(files, map[string]any{"filename": "x", "url": l, "hashes": map[string]string{}})
		fmt.Fprintf(&anchors, `<a href="%s">x</a>`, l)
	}
	if ix.html {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, "<!DOCTYPE html><html><body>%s</body></html>", anchors.String())
		return
	}
	w.Header().Set("Content-Type", typeJSON)
	json.NewEncoder(w).Encode(map[string]any{"meta": map[string]string{"api-version": "1.1"}, "name": name, "files": files, "versions": []string{"1.0"}})
}

func (ix *index) file(w http.ResponseWriter, r *http.Request) {
	ix.note(r)
	if _, _, ok := r.BasicAuth(); ok {
		ix.leaked.Store(true)
	}
	ix.mu.Lock()
	b, ok := ix.files[r.URL.Path]
	gate := ix.gate
	ix.mu.Unlock()
	if !ok {
		http.NotFound(w, r)
		return
	}
	if gate != nil {
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.Write(b[:len(b)/2])
		w.(http.Flusher).Flush()
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
		w.Write(b[len(b)/2:])
		return
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

func installing() Client {
	return Client{Sandbox: "sbx_p", Policy: func() Policy { return Policy{Packages: true} }}
}

const simple = "http://" + MirrorHost + "/simple/"

// linksOf reads a page in JSON.
func linksOf(tb testing.TB, body string) map[string]string {
	tb.Helper()
	var p struct {
		Files []struct{ Filename, URL string }
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		tb.Fatalf("%v in %s", err, body)
	}
	at, _ := url.Parse(simple + "six/")
	out := make(map[string]string)
	for _, f := range p.Files {
		u, err := at.Parse(f.URL)
		if err != nil {
			tb.Fatal(err)
		}
		out[f.Filename] = u.String()
	}
	return out
}

const wheel = "six-1.0-py3-none-any.whl"

func TestPagesAndFilesComeThroughTheMirror(t *testing.T) {
	for _, htmlOnly := range []bool{false, true} {
		t.Run(fmt.Sprintf("html=%v", htmlOnly), func(t *testing.T) {
			ix := newIndex(t)
			ix.html = htmlOnly
			big := make([]byte, 3<<20)
			rand.Read(big)
			ix.files["/a/b/"+wheel] = big
			ix.files["/a/b/"+wheel+".metadata"] = []byte("Name: six\n")
			ix.files["/a/six 1.0+x.tar.gz"] = []byte("no")
			dir := t.TempDir()
			a := open(t, newGateway(t, ix.options(dir)), installing())

			page := a.do(http.MethodGet, simple+"six/", nil, "Accept", typeJSON+", text/html;q=0.01")
			var link string
			if htmlOnly {
				if page.Status != 200 || !strings.HasPrefix(page.Header.Get("Content-Type"), "text/html") || strings.Contains(page.Body, "script") || strings.Contains(page.Body, "127.0.0.1") {
					t.Fatalf("%+v", page)
				}
				mustContain(t, page.Body, "#sha256=", `data-requires-python="&gt;=3.8"`, `data-core-metadata="sha256=`)
				m := regexp.MustCompile(`href="\.\./\.\.(/files/[^"#]+\.whl)#`).FindStringSubmatch(page.Body)
				if m == nil {
					t.Fatal(page.Body)
				}
				link = "http://" + MirrorHost + m[1]
			} else {
				if page.Status != 200 || page.Header.Get("Content-Type") != typeJSON || strings.Contains(page.Body, "127.0.0.1") || strings.Contains(page.Body, "gpg-sig") {
					t.Fatalf("%+v", page)
				}
				mustContain(t, page.Body, `"core-metadata":{"sha256":`, `"requires-python":"\u003e=3.8"`, `"versions":["1.0"]`)
				links := linksOf(t, page.Body)
				link = links[wheel]
				if len(links) != 1 {
					t.Errorf("links %v", links)
				}
				asHTML := a.do(http.MethodGet, simple+"six/", nil)
				mustContain(t, asHTML.Body, "#sha256=", `data-requires-python="&gt;=3.8"`, `data-core-metadata="sha256=`)
			}
			again := a.do(http.MethodGet, simple+"Six/", nil, "If-None-Match", page.Header.Get("ETag"), "Accept", typeJSON)
			if again.Status != http.StatusNotModified {
				t.Errorf("%+v", again)
			}
			if n := ix.count("GET /root/simple/six/"); n != 1 {
				t.Errorf("the index was asked %d times", n)
			}
			if got := a.do(http.MethodGet, link+".metadata", nil); got.Status != 200 || got.Body != "Name: six\n" {
				t.Errorf("metadata: %+v", got)
			}
			// A range of what is not there yet goes through.
			if got := a.do(http.MethodGet, link, nil, "Range", "bytes=-100"); got.Status != http.StatusPartialContent || got.Body != string(big[len(big)-100:]) {
				t.Errorf("range: %d, %d bytes", got.Status, len(got.Body))
			}
			if got := a.do(http.MethodHead, link, nil); got.Status != 200 || got.Header.Get("Content-Length") != fmt.Sprint(len(big)) {
				t.Errorf("head: %+v", got)
			}
			for i := range 3 {
				got := a.do(http.MethodGet, link, nil)
				if got.Status != 200 || got.Body != string(big) {
					t.Fatalf("%d: %d, %d bytes", i, got.Status, len(got.Body))
				}
				until(t, "the file is kept", func() bool { return len(kepts(t, dir)) == 2 })
			}
			if n := ix.count("GET /a/b/" + wheel + " "); n != 2 { // one range, one whole
				t.Errorf("the file was fetched %d times", n)
			}
			if got := a.do(http.MethodGet, link, nil, "Range", "bytes=0-9"); got.Status != http.StatusPartialContent || got.Body != string(big[:10]) {
				t.Errorf("range from disk: %d", got.Status)
			}
			// Another server finds what this one kept.
			g2 := newGateway(t, ix.options(dir))
			if g2.mirror.files.size != int64(len(big)+len("Name: six\n")) {
				t.Errorf("found %d bytes", g2.mirror.files.size)
			}
		})
	}
}

func kepts(tb testing.TB, dir string) []string {
	tb.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "??", strings.Repeat("?", 64)))
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

func TestTheMirrorFollowsRedirectsWithTheSameGuard(t *testing.T) {
	ix := newIndex(t)
	ix.files["/"+wheel] = []byte("wheel")
	ix.links = []string{"http://169.254.169.254/latest/x-1.0.tar.gz", "http://127.0.0.1:1/x-1.1.tar.gz", "file:///etc/x-1.2.tar.gz", "http://localhost/x-1.3.tar.gz", "javascript:x-1.tar.gz"}
	a := open(t, newGateway(t, ix.options(t.TempDir())), installing())
	if got := a.do(http.MethodGet, simple+"moved/", nil, "Accept", typeJSON); got.Status != 200 || !strings.Contains(got.Body, wheel) {
		t.Errorf("%+v", got)
	}
	if got := a.do(http.MethodGet, simple+"metadata-thief/", nil); got.Code != codeAddress || !strings.Contains(got.Body, "egress.package_hosts") {
		t.Errorf("%+v", got)
	}
	page := a.do(http.MethodGet, simple+"six/", nil)
	n := 0
	for _, m := range regexp.MustCompile(`href="\.\./\.\.(/files/[^"#]+\.tar\.gz)"`).FindAllStringSubmatch(page.Body, -1) {
		n++
		if got := a.do(http.MethodGet, "http://"+MirrorHost+m[1], nil); got.Status < 400 || got.Code != codeAddress && got.Code != codeName && got.Code != codeLookup {
			t.Errorf("%s: %+v", m[1], got)
		}
	}
	if n != 3 {
		t.Errorf("%d links of http in %s", n, page.Body)
	}
}

func TestTheMirrorGivesOnlyWhatPagesNamed(t *testing.T) {
	ix := newIndex(t)
	ix.files["/"+wheel] = []byte("wheel")
	g := newGateway(t, ix.options(t.TempDir()))
	a := open(t, g, installing())
	link := linksOf(t, a.do(http.MethodGet, simple+"six/", nil, "Accept", typeJSON).Body)[wheel]
	other, err := g.mirror.token("http://169.254.169.254/"+wheel, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	forged := []byte(other)
	forged[len(forged)-3] ^= 1
	elsewhere := newGateway(t, ix.options(t.TempDir()))
	foreign, err := elsewhere.mirror.token(ix.filesAt.URL+"/"+wheel, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, u := range map[string]string{
		"forged":              "http://" + MirrorHost + "/files/" + string(forged) + "/" + wheel,
		"of another":          "http://" + MirrorHost + "/files/" + foreign + "/" + wheel,
		"another name":        strings.Replace(link, wheel, "evil.whl", 1),
		"above":               strings.Replace(link, wheel, "../"+wheel, 1),
		"nothing":             "http://" + MirrorHost + "/files/",
		"no token":            "http://" + MirrorHost + "/files//" + wheel,
		"a plain address":     "http://" + MirrorHost + "/files/" + ix.filesAt.URL,
		"all projects":        simple,
		"a project in a path": simple + "../../etc/passwd",
		"not a name":          simple + "a%2fb/",
		"a long name":         simple + strings.Repeat("a", 200) + "/",
		"elsewhere":           "http://" + MirrorHost + "/etc/passwd",
	} {
		if got := a.do(http.MethodGet, u, nil); got.Status != http.StatusNotFound {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	if got := a.do(http.MethodPost, simple+"six/", strings.NewReader("x")); got.Status != http.StatusMethodNotAllowed {
		t.Errorf("%+v", got)
	}
	// A sealed link to what the guard refuses is refused all the same.
	if got := a.do(http.MethodGet, "http://"+MirrorHost+"/files/"+other+"/"+wheel, nil); got.Code != codeAddress {
		t.Errorf("%+v", got)
	}
}

func TestAFileThatIsNotWhatTheIndexSaysIsNeverWhole(t *testing.T) {
	ix := newIndex(t)
	b := make([]byte, 1<<20)
	rand.Read(b)
	ix.files["/"+wheel], ix.wrong = b, true
	dir := t.TempDir()
	a := open(t, newGateway(t, ix.options(dir)), installing())
	link := linksOf(t, a.do(http.MethodGet, simple+"six/", nil, "Accept", typeJSON).Body)[wheel]
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, link, nil)
	resp, err := a.conn.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := new(bytes.Buffer).ReadFrom(resp.Body)
	if resp.StatusCode == 200 && (err == nil || n >= int64(len(b))) {
		t.Errorf("%d bytes came, %v", n, err)
	}
	if got := kepts(t, dir); len(got) != 0 {
		t.Errorf("kept %v", got)
	}
	until(t, "the part is removed", func() bool {
		parts, _ := filepath.Glob(filepath.Join(dir, "??", "*"+partial))
		return len(parts) == 0
	})
}

func TestManyAskersOneDownload(t *testing.T) {
	ix := newIndex(t)
	b := make([]byte, 1<<20)
	rand.Read(b)
	ix.files["/"+wheel], ix.gate = b, make(chan struct{})
	dir := t.TempDir()
	g := newGateway(t, ix.options(dir))
	a := open(t, g, installing())
	link := linksOf(t, a.do(http.MethodGet, simple+"six/", nil, "Accept", typeJSON).Body)[wheel]
	var wg sync.WaitGroup
	halves := make(chan bool, 20)
	for range 20 {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, link, nil)
			resp, err := a.conn.RoundTrip(req)
			if err != nil {
				t.Error(err)
				halves <- false
				return
			}
			defer resp.Body.Close()
			first := make([]byte, 1000)
			_, err = resp.Body.Read(first)
			halves <- err == nil // bytes come before the download has ended
			n, err := new(bytes.Buffer).ReadFrom(resp.Body)
			if err != nil || n < int64(len(b))-1000 {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	for range 20 {
		if !<-halves {
			t.Error("nothing came before the download ended")
		}
	}
	close(ix.gate)
	wg.Wait()
	if n := ix.count("GET /" + wheel); n != 1 {
		t.Errorf("%d downloads", n)
	}
	// When nobody is left, the download ends and leaves nothing.
	ix.mu.Lock()
	ix.gate = make(chan struct{})
	ix.files["/six-2.0.tar.gz"] = append([]byte("2"), b...)
	ix.mu.Unlock()
	g.mirror.pages.put("six", &page{})
	link = linksOf(t, a.do(http.MethodGet, simple+"six/", nil, "Accept", typeJSON).Body)["six-2.0.tar.gz"]
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, link, nil)
	resp, err := a.conn.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	until(t, "the download nobody wants ends", func() bool {
		g.mirror.files.mu.Lock()
		defer g.mirror.files.mu.Unlock()
		parts, _ := filepath.Glob(filepath.Join(dir, "??", "*"+partial))
		return len(g.mirror.files.flights) == 0 && len(parts) == 0
	})
}

func TestTheCacheHasABound(t *testing.T) {
	ix := newIndex(t)
	for i := range 6 {
		b := make([]byte, 100<<10)
		rand.Read(b)
		ix.files[fmt.Sprintf("/six-%d.tar.gz", i)] = b
	}
	dir := t.TempDir()
	o := ix.options(dir)
	o.CacheBytes = 250 << 10
	g := newGateway(t, o)
	a := open(t, g, installing())
	for name, link := range linksOf(t, a.do(http.MethodGet, simple+"six/", nil, "Accept", typeJSON).Body) {
		if got := a.do(http.MethodGet, link, nil); got.Body != string(ix.files["/"+name]) {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
	until(t, "two files are left", func() bool { return len(kepts(t, dir)) == 2 })
	// What is larger than all of it is passed on.
	ix.mu.Lock()
	ix.files["/six-9.tar.gz"] = make([]byte, 300<<10)
	ix.mu.Unlock()
	g.mirror.pages.put("six", &page{})
	link := linksOf(t, a.do(http.MethodGet, simple+"six/", nil, "Accept", typeJSON).Body)["six-9.tar.gz"]
	if got := a.do(http.MethodGet, link, nil); got.Status != 200 || len(got.Body) != 300<<10 {
		t.Errorf("%d, %d bytes", got.Status, len(got.Body))
	}
	if n := len(kepts(t, dir)); n != 2 || g.mirror.files.coming != 0 {
		t.Errorf("%d files, %d bytes coming", n, g.mirror.files.coming)
	}
	// A file that was taken away by hand is fetched again.
	for _, f := range kepts(t, dir) {
		os.Remove(f)
	}
	for name, link := range linksOf(t, a.do(http.MethodGet, simple+"six/", nil, "Accept", typeJSON).Body) {
		if got := a.do(http.MethodGet, link, nil); got.Body != string(ix.files["/"+name]) {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
}

func TestAnIndexThatIsDown(t *testing.T) {
	ix := newIndex(t)
	ix.files["/"+wheel] = []byte("wheel")
	g := newGateway(t, ix.options(t.TempDir()))
	a := open(t, g, installing())
	link := linksOf(t, a.do(http.MethodGet, simple+"six/", nil, "Accept", typeJSON).Body)[wheel]
	if got := a.do(http.MethodGet, link, nil); got.Body != "wheel" {
		t.Fatal(got)
	}
	ix.mu.Lock()
	ix.down = true
	ix.mu.Unlock()
	old := *g.mirror.pages.get("six")
	old.at = time.Now().Add(-time.Hour)
	g.mirror.pages.put("six", &old)
	if got := a.do(http.MethodGet, simple+"six/", nil, "Accept", typeJSON); got.Status != 200 {
		t.Errorf("an old page is better than none: %+v", got)
	}
	until(t, "the file is on disk", func() bool { return len(kepts(t, g.mirror.files.dir)) == 1 })
	if got := a.do(http.MethodGet, link, nil); got.Body != "wheel" {
		t.Errorf("%+v", got)
	}
	if got := a.do(http.MethodGet, simple+"flask/", nil); got.Status != http.StatusBadGateway || got.Kind != "unreachable" || !strings.Contains(got.Body, "the package index gives no page now") {
		t.Errorf("%+v", got)
	}
	ix.mu.Lock()
	ix.down = false
	ix.mu.Unlock()
	if got := a.do(http.MethodGet, simple+"flask/", nil); got.Status != 404 {
		t.Errorf("%+v", got)
	}
}

func TestCredentialsGoToTheIndexAlone(t *testing.T) {
	ix := newIndex(t)
	ix.user = "company"
	ix.files["/"+wheel] = []byte("wheel")
	o := ix.options(t.TempDir())
	o.Index.URL = strings.Replace(o.Index.URL, "http://", "http://company:hunter22@", 1)
	a := open(t, newGateway(t, o), installing())
	page := a.do(http.MethodGet, simple+"moved/", nil, "Accept", typeJSON)
	if page.Status != 200 || strings.Contains(page.Body, "hunter22") {
		t.Fatalf("%+v", page)
	}
	if got := a.do(http.MethodGet, linksOf(t, page.Body)[wheel], nil); got.Body != "wheel" {
		t.Errorf("%+v", got)
	}
	if ix.leaked.Load() {
		t.Error("the host of files got the index's credentials")
	}
}

func TestWhoMayInstall(t *testing.T) {
	ix := newIndex(t)
	ix.files["/"+wheel] = []byte("wheel")
	u, _ := url.Parse(ix.Server.URL)
	for name, c := range map[string]struct {
		p    Policy
		code string
	}{
		"none":                 {Policy{}, codeOff},
		"packages":             {Policy{Packages: true}, ""},
		"open":                 {Policy{Mode: Open}, ""},
		"a list without":       {Policy{Mode: List, Allow: rules(t, "example.com")}, codeMirrorOff},
		"a list with packages": {Policy{Mode: List, Packages: true}, ""},
		"a list of the index":  {Policy{Mode: List, Allow: rules(t, u.Host)}, ""},
		"used up":              {Policy{Packages: true, MaxBytes: 1}, codeBytes},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, ix.options(t.TempDir()))
			a := open(t, g, Client{Sandbox: "s", Policy: func() Policy { return c.p }})
			got := a.do(http.MethodGet, simple+"six/", nil)
			if got.Code != c.code || (got.Status == 200) != (c.code == "") {
				t.Errorf("%+v", got)
			}
			if c.code != "" {
				if got := a.refused(MirrorHost + ":80"); got.Code != c.code {
					t.Errorf("tunnel: %+v", got)
				}
				return
			}
			// Through a tunnel, as from SOCKS.
			conn := a.tunnel(MirrorHost + ":80")
			fmt.Fprintf(conn, "GET /simple/six/ HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", MirrorHost)
			var b bytes.Buffer
			if _, err := b.ReadFrom(conn); err != nil || !strings.Contains(b.String(), wheel) {
				t.Errorf("%v %s", err, b.String())
			}
			if got := a.refused(MirrorHost + ":443"); got.Code != codeMirrorOff {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestThePublicIndexMeansItsFiles(t *testing.T) {
	for index, want := range map[string]bool{"": true, "https://pypi.org/simple/": true, "https://pypi.example.org/simple": false, "http://pypi.org/simple": false} {
		if g := newGateway(t, Options{Index: Index{URL: index}}); g.mirror.trusted[publicFiles] != want {
			t.Errorf("%q: %v", index, !want)
		}
	}
}
