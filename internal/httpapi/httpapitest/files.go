package httpapitest

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// listing gives the names in a folder.
func (s *Server) listing(t testing.TB, id, path string) []string {
	t.Helper()
	f := into[v1.File](t, s.do(t, "GET", "/v1/sandboxes/"+id+"/files?path="+url.QueryEscape(path), nil), 200)
	names := []string{}
	for _, e := range f.Entries {
		names = append(names, e.Name)
	}
	return names
}

// awaitListing waits until a folder holds exactly these names: the agent
// learns of a cut upload a moment after the server.
func (s *Server) awaitListing(t testing.TB, id, path string, want ...string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		got := s.listing(t, id, path)
		if slices.Equal(got, want) || len(got)+len(want) == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s holds %q, want %q", path, got, want)
		}
	}
}

var fileTests = []test{
	{"a file goes in and comes out, whole and in ranges", func(t *testing.T, s *Server, id string) {
		data := bytes.Repeat([]byte("0123456789abcdef"), 200_000)
		path := fileURL(id, "/workspace/a/b/data.bin")
		f := into[v1.File](t, s.do(t, "PUT", path, bytes.NewReader(data)), 200)
		if f.Path != "/workspace/a/b/data.bin" || f.SizeBytes != int64(len(data)) || f.Type != "file" {
			t.Errorf("written = %+v", f)
		}
		a := s.do(t, "GET", path, nil)
		if a.Status != 200 || !bytes.Equal(a.Body, data) {
			t.Errorf("read = %d, %d bytes", a.Status, len(a.Body))
		}
		for name, want := range map[string]string{
			"Content-Type": "application/octet-stream", "X-Content-Type-Options": "nosniff", "Accept-Ranges": "bytes",
			"Content-Security-Policy": "sandbox; default-src 'none'", "Content-Disposition": `attachment; filename="data.bin"; filename*=UTF-8''data.bin`,
		} {
			if got := a.Header.Get(name); got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
		for r, want := range map[string]string{"bytes=0-3": "0123", "bytes=16-19": "0123", "bytes=-4": "cdef", "bytes=3199998-": "ef"} {
			if got := s.do(t, "GET", path, nil, header{"Range", r}); got.Status != 206 || string(got.Body) != want || got.Header.Get("Content-Range") == "" {
				t.Errorf("%s = %d %q, want %q", r, got.Status, got.Body, want)
			}
		}
		wantProblem(t, s.do(t, "GET", path, nil, header{"Range", "bytes=99999999-"}), 416, "invalid-range")
		if got := s.do(t, "GET", path, nil, header{"Range", "bytes=0-3"}, header{"If-Range", `"other"`}); got.Status != 200 || len(got.Body) != len(data) {
			t.Errorf("If-Range of another version = %d, %d bytes", got.Status, len(got.Body))
		}
		head := s.do(t, "HEAD", path, nil)
		if head.Status != 200 || head.Header.Get("Content-Length") != number(len(data)) || len(head.Body) != 0 {
			t.Errorf("HEAD = %d %v", head.Status, head.Header)
		}
		e := s.run(t, id, "import hashlib; print(hashlib.sha256(open('a/b/data.bin','rb').read()).hexdigest())")
		sum := sha256.Sum256(data)
		if text(e, "stdout") != hex.EncodeToString(sum[:])+"\n" {
			t.Errorf("the kernel sees %q", text(e, "stdout"))
		}
	}},
	{"an empty file, a replaced file and a file of unknown length", func(t *testing.T, s *Server, id string) {
		path := fileURL(id, "small.txt")
		for _, body := range []string{"", "first", "second, longer", "x"} {
			f := into[v1.File](t, s.do(t, "PUT", path, strings.NewReader(body)), 200)
			if got := s.do(t, "GET", path, nil); string(got.Body) != body || f.SizeBytes != int64(len(body)) {
				t.Errorf("wrote %q, read %q, %+v", body, got.Body, f)
			}
		}
		into[v1.File](t, s.do(t, "PUT", path, io.MultiReader(strings.NewReader("chun"), strings.NewReader("ked"))), 200)
		if got := s.do(t, "GET", path, nil); string(got.Body) != "chunked" {
			t.Errorf("chunked = %q", got.Body)
		}
	}},
	{"any name is a name", func(t *testing.T, s *Server, id string) {
		dir := "/workspace/names"
		for _, name := range []string{
			"-rf", "--help", ";rm -rf *", "new\nline", "tab\there", "quote\"'`", "$(touch x)", "ünï 文件 😀", " ", "%2e%2e", "a?b#c&d=e",
			strings.Repeat("n", 255), "...", "CON", "\x7f", "<b onclick=x>",
		} {
			path := fileURL(id, dir+"/"+name)
			if f := into[v1.File](t, s.do(t, "PUT", path, strings.NewReader(name)), 200); f.Name != name {
				t.Errorf("%q became %q", name, f.Name)
			}
			a := s.do(t, "GET", path, nil)
			if string(a.Body) != name {
				t.Errorf("%q holds %q", name, a.Body)
			}
			if _, params, err := mime.ParseMediaType(a.Header.Get("Content-Disposition")); err != nil || params["filename"] != name {
				t.Errorf("%q is offered as %q, %v", name, params["filename"], err)
			}
			if got := s.listing(t, id, dir); len(got) != 1 || got[0] != name {
				t.Errorf("folder = %q, want only %q", got, name)
			}
			if a := s.do(t, "DELETE", "/v1/sandboxes/"+id+"/files?path="+url.QueryEscape(dir+"/"+name), nil); a.Status != 204 {
				t.Errorf("delete %q = %d %s", name, a.Status, a.Body)
			}
		}
	}},
	{"paths that are none or lead outside are refused, and nothing is made", func(t *testing.T, s *Server, id string) {
		s.run(t, id, "import os\nos.makedirs('links', exist_ok=True)\nos.path.lexists('links/out') or os.symlink('/etc', 'links/out')")
		before := s.listing(t, id, "/workspace")
		for path, want := range map[string]struct {
			status int
			code   string
		}{
			"":                                     {400, "invalid-path"},
			"a\x00b":                               {400, "invalid-path"},
			strings.Repeat("n", 300):               {400, "name-too-long"},
			strings.Repeat("d/", 3000) + "x":       {400, "path-too-long"},
			"../../etc/passwd":                     {403, "path-escapes"},
			"/etc/passwd":                          {403, "path-escapes"},
			"/workspace/../etc/passwd":             {403, "path-escapes"},
			"/proc/1/environ":                      {403, "path-escapes"},
			"links/out/passwd":                     {403, "path-escapes"},
			"/uploaded_files/../workspace/../etc/": {403, "path-escapes"},
		} {
			for _, m := range []string{"GET", "PUT"} {
				a := s.do(t, m, fileURL(id, path), strings.NewReader("x"))
				if path == "" && a.Status == 422 {
					continue // huma: a required parameter is missing
				}
				wantProblem(t, a, want.status, want.code)
			}
		}
		for _, r := range []struct{ method, path string }{
			{"GET", "/files?path=../../etc"}, {"DELETE", "/files?path=/etc"}, {"GET", "/files/archive?path=/etc"}, {"DELETE", "/files?path=/workspace/.."},
		} {
			wantProblem(t, s.do(t, r.method, "/v1/sandboxes/"+id+r.path, nil), 403, "path-escapes")
		}
		wantProblem(t, s.send(t, "POST", "/v1/sandboxes/"+id+"/files/move", v1.MoveFile{From: "links", To: "/etc/x"}), 403, "path-escapes")
		wantProblem(t, s.send(t, "POST", "/v1/sandboxes/"+id+"/files/mkdir", v1.MakeFolder{Path: "links/out/x"}), 403, "path-escapes")
		if after := s.listing(t, id, "/workspace"); strings.Join(before, "|") != strings.Join(after, "|") {
			t.Errorf("before %q, after %q", before, after)
		}
		wantProblem(t, s.do(t, "GET", fileURL(id, "nothing.txt"), nil), 404, "file-not-found")
		wantProblem(t, s.do(t, "GET", fileURL(id, "links"), nil), 400, "is-a-directory")
	}},
	{"an upload that is cut leaves the file as it was", func(t *testing.T, s *Server, id string) {
		into[v1.File](t, s.do(t, "PUT", fileURL(id, "cut/keep.txt"), strings.NewReader("before")), 200)
		for name, length := range map[string]int64{"known length": 10 << 20, "unknown length": -1} {
			t.Run(name, func(t *testing.T) {
				for _, file := range []string{"cut/keep.txt", "cut/new.txt"} {
					pr, pw := io.Pipe()
					go func() {
						_, _ = pw.Write(make([]byte, 3<<20))
						_ = pw.CloseWithError(errors.New("cut"))
					}()
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.at("PUT", "")+fileURL(id, file), pr)
					if err != nil {
						t.Fatal(err)
					}
					req.ContentLength = length
					req.Header.Set("Authorization", "Bearer "+Token)
					if resp, err := http.DefaultClient.Do(req); err == nil {
						_ = resp.Body.Close()
						t.Errorf("a cut upload was answered: %d", resp.StatusCode)
					}
				}
				s.awaitListing(t, id, "cut", "keep.txt")
				if got := s.do(t, "GET", fileURL(id, "cut/keep.txt"), nil); string(got.Body) != "before" {
					t.Errorf("the file now has %d bytes", len(got.Body))
				}
			})
		}
	}},
	{"folders are made, listed, moved, packed and deleted", func(t *testing.T, s *Server, id string) {
		base := "/v1/sandboxes/" + id + "/files"
		into[v1.File](t, s.send(t, "POST", base+"/mkdir", v1.MakeFolder{Path: "tree/sub"}), 200)
		into[v1.File](t, s.send(t, "POST", base+"/mkdir", v1.MakeFolder{Path: "tree/sub"}), 200)
		for name, body := range map[string]string{"tree/1.txt": "one", "tree/sub/2.txt": "two"} {
			into[v1.File](t, s.do(t, "PUT", fileURL(id, name), strings.NewReader(body)), 200)
		}
		wantProblem(t, s.send(t, "POST", base+"/move", v1.MoveFile{From: "tree/1.txt", To: "tree/sub/2.txt"}), 409, "file-exists")
		f := into[v1.File](t, s.send(t, "POST", base+"/move", v1.MoveFile{From: "tree/1.txt", To: "tree/sub/3.txt"}), 200)
		if f.Path != "/workspace/tree/sub/3.txt" {
			t.Errorf("moved = %+v", f)
		}
		a := s.do(t, "GET", base+"/archive?path=tree", nil)
		zr, err := zip.NewReader(bytes.NewReader(a.Body), int64(len(a.Body)))
		if err != nil || a.Header.Get("Content-Type") != "application/zip" {
			t.Fatalf("archive: %v, %v", err, a.Header)
		}
		held := map[string]string{}
		for _, zf := range zr.File {
			if r, err := zf.Open(); err == nil {
				text, _ := io.ReadAll(r)
				held[zf.Name] = string(text)
			}
		}
		found := 0
		for name, body := range held {
			if strings.HasSuffix(name, "sub/2.txt") && body == "two" || strings.HasSuffix(name, "sub/3.txt") && body == "one" {
				found++
			}
		}
		if found != 2 {
			t.Errorf("archive holds %q", held)
		}
		if a := s.do(t, "DELETE", base+"?path=tree", nil); a.Status != 204 {
			t.Errorf("delete = %d %s", a.Status, a.Body)
		}
		wantProblem(t, s.do(t, "GET", base+"?path=tree", nil), 404, "file-not-found")
	}},
}
