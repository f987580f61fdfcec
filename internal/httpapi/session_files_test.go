package httpapi_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/httpapi"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/session"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/workspace"
)

// sessionRig is the API with one session, over a real socket.
type sessionRig struct {
	t    *testing.T
	url  string
	base string // of the session's routes
	s    *session.Session
	svc  *session.Service
}

func newSessionRig(t *testing.T, files workspace.Options) *sessionRig {
	t.Helper()
	dir := t.TempDir()
	fl, err := fleet.New(t.Context(), newDriver(t), nil, fleet.Options{Templates: map[string]fleet.Template{"python": {Image: "python", Limits: sandbox.Limits{MemoryBytes: 2 << 30}}}, MaxSandboxes: 4})
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(t.Context(), filepath.Join(dir, "db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ws, err := workspace.New(filepath.Join(dir, "sessions"), st, files)
	if err != nil {
		t.Fatal(err)
	}
	svc, err := session.New(t.Context(), fl, st, session.Options{Files: ws})
	if err != nil {
		t.Fatal(err)
	}
	api := httpapi.New(fl, httpapi.Options{AuthNone: true, Version: "test", Sessions: svc, Files: ws})
	server := httptest.NewUnstartedServer(api)
	server.Config = api.Server()
	server.Start()
	t.Cleanup(func() {
		api.Drain()
		server.Close()
		http.DefaultClient.CloseIdleConnections()
		if err := errors.Join(svc.Close(), ws.Close(), st.Close(), fl.Close()); err != nil {
			t.Error(err)
		}
	})
	s, err := svc.Create(t.Context(), v1.CreateSession{})
	if err != nil {
		t.Fatal(err)
	}
	return &sessionRig{t: t, url: server.URL, base: server.URL + "/v1/sessions/" + s.ID(), s: s, svc: svc}
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

// ask makes a request; headers are names and values in turn.
func (r *sessionRig) ask(method, path string, body io.Reader, headers ...string) reply {
	r.t.Helper()
	req, err := http.NewRequestWithContext(context.WithoutCancel(r.t.Context()), method, r.base+path, body)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatalf("%s %s: %v", method, path, err)
	}
	return reply{resp.StatusCode, resp.Header, text}
}

func (r *sessionRig) json(method, path string, body any) reply {
	r.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	return r.ask(method, path, bytes.NewReader(text), "Content-Type", "application/json")
}

func (r *sessionRig) want(a reply, status int, code string) {
	r.t.Helper()
	var p v1.Problem
	if a.status != status || json.Unmarshal(a.body, &p) != nil && code != "" || p.Code != code {
		r.t.Errorf("got %d %.300s, want %d %s", a.status, a.body, status, code)
	}
}

func get[T any](r *sessionRig, path string) T {
	r.t.Helper()
	a := r.ask("GET", path, nil)
	var v T
	if err := json.Unmarshal(a.body, &v); err != nil || a.status != 200 {
		r.t.Fatalf("GET %s: %d %.300s, %v", path, a.status, a.body, err)
	}
	return v
}

// run runs code in a cell of the session and waits for its end.
func (r *sessionRig) run(code string) v1.Item {
	r.t.Helper()
	item, err := r.s.AddItem(v1.CreateItem{Kind: "cell", Code: code})
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := r.s.Run(v1.RunItems{Items: []string{item.ID}}); err != nil {
		r.t.Fatal(err)
	}
	return r.wait(item.ID, func(it v1.Item) bool { return it.FinishedAt != nil })
}

func (r *sessionRig) wait(id string, until func(v1.Item) bool) v1.Item {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	reader := r.s.Reader(0)
	defer reader.Close()
	for {
		it, err := r.s.Item(ctx, id)
		if err != nil {
			r.t.Fatal(err)
		}
		if until(it) {
			return it
		}
		if _, err := reader.Next(ctx); err != nil {
			r.t.Fatal(err)
		}
	}
}

func content(path string, more ...string) string {
	return "/files/content?path=" + url.QueryEscape(path) + strings.Join(more, "")
}

func names(f v1.File) []string {
	list := []string{}
	for _, e := range f.Entries {
		list = append(list, e.Name)
	}
	return list
}

func TestFilesOfASessionOutliveItsSandbox(t *testing.T) {
	r := newSessionRig(t, workspace.Options{FileBytes: 1 << 20})
	r.want(r.ask("PUT", content("data.csv"), strings.NewReader("a,b\n1,2\n")), 201, "")
	if f := get[v1.File](r, "/files?path=/uploaded_files"); !slices.Equal(names(f), []string{"data.csv"}) {
		t.Errorf("without a sandbox: %+v", f)
	}
	item := r.run("print(open('../uploaded_files/data.csv').read())\nopen('made.txt', 'w').write('made'); open('big.bin', 'wb').write(bytes(2 << 20))")
	if item.Status != "ok" {
		t.Fatalf("the cell does not find the upload: %+v", item)
	}
	item = r.wait(item.ID, func(it v1.Item) bool { return len(it.Changes) > 0 })
	want := []v1.FileChange{{Path: "/workspace/big.bin", Change: "created", SizeBytes: 2 << 20}, {Path: "/workspace/made.txt", Change: "created", SizeBytes: 4}}
	if diff := cmp.Diff(want, item.Changes); diff != "" {
		t.Errorf("marked changes (-want +got):\n%s", diff)
	}
	f := get[v1.File](r, "/files?path=/workspace")
	if i := slices.IndexFunc(f.Entries, func(e v1.File) bool { return e.Name == "big.bin" }); i < 0 || f.Entries[i].Kept == nil || *f.Entries[i].Kept || f.Notice == "" {
		t.Errorf("the file that is not kept is not marked: %+v", f)
	}
	r.want(r.ask("DELETE", "/files?path=made.txt", nil), 204, "")
	r.want(r.ask("GET", content("made.txt"), nil), 404, "file-not-found")
	r.want(r.ask("POST", "/files/restore?path=made.txt", nil), 204, "")
	r.want(r.json("POST", "/files/mkdir", v1.MakeFolder{Path: "sub/deep"}), 200, "")
	r.want(r.json("POST", "/files/move", v1.MoveFile{From: "made.txt", To: "sub/deep/moved.txt"}), 200, "")
	if a := r.ask("GET", content("sub/deep/moved.txt"), nil, "Range", "bytes=1-2"); a.status != 206 || string(a.body) != "ad" {
		t.Errorf("range of a live file: %d %q", a.status, a.body)
	}

	r.want(r.ask("DELETE", "/sandbox", nil), 204, "")
	if f := get[v1.File](r, "/files?path=sub/deep"); !slices.Equal(names(f), []string{"moved.txt"}) {
		t.Errorf("kept: %+v", f)
	}
	a := r.ask("GET", content("sub/deep/moved.txt"), nil, "Range", "bytes=1-2")
	if a.status != 206 || string(a.body) != "ad" || a.header.Get("Content-Range") != "bytes 1-2/4" || a.header.Get("Etag") == "" {
		t.Errorf("range of a kept file: %d %q %v", a.status, a.body, a.header)
	}
	r.want(r.ask("GET", content("sub/deep/moved.txt"), nil, "Range", "bytes=9-"), 416, "invalid-range")
	if a := r.ask("HEAD", content("sub/deep/moved.txt"), nil); a.status != 200 || a.header.Get("Content-Length") != "4" {
		t.Errorf("head: %d %v", a.status, a.header)
	}
	r.want(r.ask("GET", content("big.bin"), nil), 404, "file-not-kept")
	r.want(r.ask("GET", content("/etc/passwd"), nil), 403, "path-escapes")
	a = r.ask("GET", "/files/archive?path=/workspace", nil)
	if z, err := zip.NewReader(bytes.NewReader(a.body), int64(len(a.body))); err != nil || len(z.File) != 3 {
		t.Errorf("archive: %v, %+v", err, z)
	}
	if item := r.run("print(open('sub/deep/moved.txt').read(), open('../uploaded_files/data.csv').read())"); item.Status != "ok" {
		t.Errorf("files are not back in a new sandbox: %+v", item)
	}
}

func TestUploadsAreResumed(t *testing.T) {
	r := newSessionRig(t, workspace.Options{UploadMaxBytes: 1 << 20})
	id := []string{"Upload-Id", "u1"}
	with := func(more ...string) []string { return append(slices.Clone(id), more...) }
	a := r.ask("PUT", content("f.txt"), strings.NewReader("0123"), with("Content-Range", "bytes 0-3/10")...)
	if a.status != 308 || a.header.Get("Range") != "bytes=0-3" || a.header.Get("Location") != "" {
		t.Fatalf("first part: %d %v", a.status, a.header)
	}
	a = r.ask("HEAD", "/files/upload?path=f.txt", nil, id...)
	if a.status != 200 || a.header.Get("Range") != "bytes=0-3" || a.header.Get("Upload-Length") != "10" {
		t.Errorf("asked: %d %v", a.status, a.header)
	}
	a = r.ask("PUT", content("f.txt"), strings.NewReader("56"), with("Content-Range", "bytes 5-6/10")...)
	r.want(a, 409, "upload-offset")
	if a.header.Get("Range") != "bytes=0-3" {
		t.Errorf("a wrong place: %v", a.header)
	}
	for value, code := range map[string]string{
		"bytes 4-5/9": "upload-changed", "bytes 4-6/10": "content-range", "bytes 5-4/10": "content-range", "4-5": "content-range", "bytes 4-5/4": "content-range",
	} {
		if a := r.ask("PUT", content("f.txt"), strings.NewReader("45"), with("Content-Range", value)...); !strings.Contains(string(a.body), code) {
			t.Errorf("%s: %d %s, want %s", value, a.status, a.body, code)
		}
	}
	// A connection that is cut: what came is there.
	u, err := url.Parse(r.base)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "PUT %s%s HTTP/1.1\r\nHost: %s\r\nUpload-Id: u1\r\nContent-Range: bytes 4-9/10\r\nContent-Length: 6\r\n\r\n45", u.Path, content("f.txt"), u.Host); err != nil {
		t.Fatal(err)
	}
	for r.ask("HEAD", "/files/upload?path=f.txt", nil, id...).header.Get("Range") != "bytes=0-5" && t.Context().Err() == nil {
		time.Sleep(time.Millisecond) // until it has arrived
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		a = r.ask("PUT", content("f.txt"), strings.NewReader("6789"), with("Content-Range", "bytes 6-9/10")...)
		if a.status == 201 {
			break
		}
		if !strings.Contains(string(a.body), "upload-busy") {
			break // the cut request is still being read, else
		}
	}
	if a.status != 201 {
		t.Fatalf("the rest: %d %s", a.status, a.body)
	}
	if a := r.ask("GET", content("/uploaded_files/f.txt"), nil); string(a.body) != "0123456789" {
		t.Errorf("got %q", a.body)
	}
	r.want(r.ask("HEAD", "/files/upload?path=f.txt", nil, id...), 404, "")
	r.want(r.ask("PUT", content("f.txt"), strings.NewReader("x")), 409, "file-exists")
	r.want(r.ask("PUT", content("f.txt", "&overwrite=true"), strings.NewReader("x")), 201, "")
	r.want(r.ask("PUT", content("g.txt"), bytes.NewReader(make([]byte, 2<<20))), 413, "upload-too-large")
	r.want(r.ask("PUT", content("g.txt"), strings.NewReader("x"), "Content-Type", "multipart/form-data; boundary=x"), 415, "media-type-unknown")
}

// What a file says it is must not make it a page of this server.
func TestFilesComeAsWhatTheyAre(t *testing.T) {
	png := "\x89PNG\r\n\x1a\n" + strings.Repeat("\x00", 20)
	for _, live := range []bool{false, true} {
		t.Run(fmt.Sprintf("live=%v", live), func(t *testing.T) {
			r := newSessionRig(t, workspace.Options{})
			if live {
				if _, err := r.s.Sandbox(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for _, tt := range []struct{ name, text, query, media string }{
				{"a.png", png, "", ""},
				{"a.png", png, "&inline=true", "image/png"},
				{"b.png", "<script>alert(1)</script>", "&inline=true", ""},
				{"c.svg", "<svg onload=alert(1)>", "&inline=true", ""},
				{"d.html", "<script>alert(1)</script>", "&inline=true", ""},
				{"e.pdf", "%PDF-1.7", "&inline=true", ""},
				{"f.txt", "<script>alert(1)</script> é", "&inline=true", "text/plain; charset=utf-8"},
				{"g.txt", "a\x00b", "&inline=true", ""},
				{"h.txt", strings.Repeat("x", 511) + "é", "&inline=true", "text/plain; charset=utf-8"},
				{"i.mp4", "<html>", "&inline=true", ""},
				{"j.mp3", "ID3\x04", "&inline=true", "audio/mpeg"},
				{"k.txt", "", "&inline=true", "text/plain; charset=utf-8"},
				{"l\".png\n", png, "&inline=true", ""},
			} {
				if a := r.ask("PUT", content(tt.name, "&overwrite=true"), strings.NewReader(tt.text)); a.status != 201 {
					t.Errorf("put %q: %d %s", tt.name, a.status, a.body)
				}
				a := r.ask("GET", content("/uploaded_files/"+tt.name, tt.query), nil)
				media, disposition := "application/octet-stream", "attachment; "
				if tt.media != "" {
					media, disposition = tt.media, "inline; "
				}
				if a.status != 200 || string(a.body) != tt.text || a.header.Get("Content-Type") != media || !strings.HasPrefix(a.header.Get("Content-Disposition"), disposition) {
					t.Errorf("%q%s: %d %v", tt.name, tt.query, a.status, a.header)
				}
				if a.header.Get("Content-Security-Policy") != "sandbox; default-src 'none'" || a.header.Get("X-Content-Type-Options") != "nosniff" {
					t.Errorf("%q%s: %v", tt.name, tt.query, a.header)
				}
			}
		})
	}
}

func TestVariablesAndTablesOfASession(t *testing.T) {
	r := newSessionRig(t, workspace.Options{})
	if l := get[v1.VariableList](r, "/variables"); len(l.Variables) != 0 {
		t.Errorf("without a sandbox: %+v", l)
	}
	if _, ok := r.s.LiveSandbox(); ok {
		t.Error("asking for variables has started a sandbox")
	}
	r.want(r.ask("GET", "/table?variable=df", nil), 404, "variable-not-found")
	r.want(r.ask("GET", "/table?frame=frm_1", nil), 404, "frame-gone")
	r.want(r.ask("GET", "/table", nil), 400, "invalid-table")
	r.want(r.ask("GET", "/table?path=a&variable=b", nil), 400, "invalid-table")
	r.want(r.ask("PUT", content("t.csv"), strings.NewReader("city,n\nUlm,3\nRom,1\n")), 201, "")

	item := r.run("import pandas as pd\ndf = pd.DataFrame({'n': range(1000), 't': ['x', None] * 500})\ndf")
	var table v1.Table
	for _, o := range item.Outputs {
		text, _ := json.Marshal(o)
		var bundle struct {
			Data map[string]json.RawMessage `json:"data"`
		}
		_ = json.Unmarshal(text, &bundle)
		if raw := bundle.Data["application/vnd.caesarion.table+json"]; raw != nil {
			if err := json.Unmarshal(raw, &table); err != nil {
				t.Fatal(err)
			}
		}
	}
	if table.ID == "" || table.TotalRows != 1000 || len(table.Rows) != 200 {
		t.Fatalf("shown: %+v in %+v", table.ID, item)
	}
	for _, query := range []string{"frame=" + table.ID, "variable=df"} {
		page := get[v1.Table](r, "/table?"+query+"&offset=2&limit=2&sort=n&descending=true")
		if len(page.Rows) != 2 || string(page.Rows[0][0]) != "997" || string(page.Rows[0][1]) != "null" || page.Offset != 2 || string(page.Index[1]) != "996" {
			t.Errorf("%s: %+v", query, page)
		}
	}
	page := get[v1.Table](r, "/table?path="+url.QueryEscape("/uploaded_files/t.csv")+"&sort=n")
	if page.TotalRows != 2 || string(page.Rows[0][0]) != `"Rom"` || page.Columns[1].Type != "int64" {
		t.Errorf("file: %+v", page)
	}
	r.want(r.ask("GET", "/table?path=missing.csv", nil), 404, "file-not-found")
	r.want(r.ask("GET", "/table?variable=nothing", nil), 404, "variable-not-found")
	l := get[v1.VariableList](r, "/variables")
	if len(l.Variables) != 1 || l.Variables[0].Name != "df" || l.Variables[0].Shape != "1000 × 2" || l.Variables[0].SizeBytes == 0 || !l.Variables[0].Table {
		t.Errorf("variables: %+v", l)
	}

	// Busy: files are paged all the same.
	cell, err := r.s.AddItem(v1.CreateItem{Kind: "cell", Code: "print('on', flush=True)\nimport time\nwhile True: time.sleep(0.1)"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.s.Run(v1.RunItems{Items: []string{cell.ID}}); err != nil {
		t.Fatal(err)
	}
	r.wait(cell.ID, func(it v1.Item) bool { return len(it.Outputs) > 0 })
	r.want(r.ask("GET", "/variables", nil), 409, "kernel-busy")
	r.want(r.ask("GET", "/table?variable=df", nil), 409, "kernel-busy")
	if page := get[v1.Table](r, "/table?path="+url.QueryEscape("/uploaded_files/t.csv")); page.TotalRows != 2 {
		t.Errorf("while busy: %+v", page)
	}
	r.s.Interrupt()
	r.wait(cell.ID, func(it v1.Item) bool { return it.FinishedAt != nil })

	// What the kernel answers is foreign.
	r.run("from caesarion_kernel import replies\nreplies.HANDLERS['table_request'] = lambda k, c: {'status': 'ok', 'table': {'columns': [{'name': 'a', 'dtype': 'x'}], 'rows': [[{'evil': 1}]]}}\n" +
		"replies.HANDLERS['variables_request'] = lambda k, c: {'status': 'error', 'problem': {'status': 401, 'code': 'UNAUTHORIZED <b>', 'detail': 'x'}}")
	r.want(r.ask("GET", "/table?variable=df", nil), 503, "kernel-bad-answer")
	r.want(r.ask("GET", "/variables", nil), 503, "kernel-bad-answer")
}

func TestWhatClientsOfTheOriginalUploadIsKept(t *testing.T) {
	r := newSessionRig(t, workspace.Options{})
	r.base = r.url
	r.want(r.ask("POST", "/api/sessions/client-1/initialize", nil), 200, "")
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", "up.csv")
	if err == nil {
		_, err = io.WriteString(part, "a,b\n")
	}
	if err = errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	r.want(r.ask("POST", "/api/sandboxes/upload?session_id=client-1", &form, "Content-Type", w.FormDataContentType()), 200, "")
	s, err := r.svc.ByClientID(t.Context(), "client-1", false)
	if err != nil {
		t.Fatal(err)
	}
	sb, ok := s.LiveSandbox()
	if !ok {
		t.Fatal("the session has no sandbox")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for reader := s.Reader(0); ; { // the sandbox ends without a farewell only once the file is kept
		lines, err := reader.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if slices.ContainsFunc(lines, func(l event.Record) bool { return l.Type == event.FilesChanged }) {
			reader.Close()
			break
		}
	}
	if err := sb.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.base = r.url + "/v1/sessions/" + s.ID()
	if a := r.ask("GET", content("/uploaded_files/up.csv"), nil); string(a.body) != "a,b\n" {
		t.Errorf("got %d %q", a.status, a.body)
	}
}
