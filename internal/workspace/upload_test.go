package workspace_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/workspace"
)

func TestAnUploadIsResumedAfterACutAndARestart(t *testing.T) {
	r := newRig(t, workspace.Options{})
	sb, root := r.sandbox()
	live := func() *fleet.Sandbox { return sb }
	part := func(start, length int64, body io.Reader) (workspace.Progress, error) {
		p, _, err := r.Upload(t.Context(), "ses_a", workspace.Part{Path: "up.txt", ID: "id-1", Start: start, Length: length, Total: 10, Body: body}, live)
		return p, err
	}
	p, err := part(0, 4, strings.NewReader("0123"))
	if err != nil || p.Offset != 4 || p.File != nil {
		t.Fatalf("first part: %+v, %v", p, err)
	}
	p, err = part(4, 6, io.MultiReader(strings.NewReader("45"), iotest.ErrReader(errors.New("cut"))))
	wantCode(t, err, "upload-incomplete")
	if p.Offset != 6 {
		t.Errorf("after the cut: %+v", p)
	}
	r.restart()
	if p, err := r.Uploaded("ses_a", "up.txt", "id-1"); err != nil || p.Offset != 6 || p.Total != 10 {
		t.Errorf("asked: %+v, %v", p, err)
	}
	_, err = part(5, 5, strings.NewReader("56789"))
	wantCode(t, err, "upload-offset")
	if e, ok := errors.AsType[*workspace.OffsetError](err); !ok || e.Offset != 6 {
		t.Errorf("offset error: %+v", e)
	}
	_, _, err = r.Upload(t.Context(), "ses_a", workspace.Part{Path: "up.txt", ID: "id-1", Start: 6, Length: 1, Total: 11, Body: strings.NewReader("6")}, live)
	wantCode(t, err, "upload-changed")
	p, err = part(6, 4, strings.NewReader("6789"))
	if err != nil || p.File == nil || p.File.Path != "/uploaded_files/up.txt" || p.File.SizeBytes != 10 {
		t.Fatalf("last part: %+v, %v", p, err)
	}
	if got, err := os.ReadFile(root + "/uploaded_files/up.txt"); err != nil || string(got) != "0123456789" {
		t.Errorf("in the sandbox: %q, %v", got, err)
	}
	wantTold(t, "what was uploaded is no news", r.sync(sb))
	_, err = r.Uploaded("ses_a", "up.txt", "id-1")
	wantCode(t, err, "upload-not-found")
	_, err = part(4, 6, strings.NewReader("456789"))
	wantCode(t, err, "upload-offset")
	_, err = part(0, 4, strings.NewReader("0123"))
	wantCode(t, err, "file-exists")
	if !strings.Contains(err.Error(), "up (2).txt") {
		t.Errorf("no name to take instead: %v", err)
	}
}

func TestUploadsThatAreRefused(t *testing.T) {
	r := newRig(t, workspace.Options{UploadMaxBytes: 20, SessionBytes: 30, UploadExtensions: []string{"csv", ".TXT", "tar.gz"}})
	put := func(p workspace.Part, text string) error {
		p.Body = strings.NewReader(text)
		_, _, err := r.Upload(t.Context(), "ses_a", p, noSandbox)
		return err
	}
	wantCode(t, put(workspace.Part{Path: "a.exe", Length: 1, Total: 1}, "x"), "upload-extension")
	wantCode(t, put(workspace.Part{Path: "a.gz", Length: 1, Total: 1}, "x"), "upload-extension")
	wantCode(t, put(workspace.Part{Path: "csv", Length: 1, Total: 1}, "x"), "upload-extension")
	if err := put(workspace.Part{Path: "a.tar.gz", Length: 1, Total: 1}, "x"); err != nil {
		t.Error(err)
	}
	wantCode(t, put(workspace.Part{Path: "a.csv", Length: 21, Total: 21}, strings.Repeat("x", 21)), "upload-too-large")
	wantCode(t, put(workspace.Part{Path: "a.csv", Length: -1, Total: -1}, strings.Repeat("x", 21)), "upload-too-large")
	wantCode(t, put(workspace.Part{Path: "a.csv", Start: 2, Length: 2, Total: 4}, "xx"), "upload-id-missing")
	wantCode(t, put(workspace.Part{Path: "a.csv", ID: strings.Repeat("i", 200), Length: 2, Total: 4}, "xx"), "invalid-upload-id")
	wantCode(t, put(workspace.Part{Path: "/uploaded_files", Length: 2, Total: 2}, "xx"), "is-a-directory")
	if err := errors.Join(put(workspace.Part{Path: "a.CSV", Length: -1, Total: -1}, "x"), put(workspace.Part{Path: "b.txt", Length: 19, Total: 19}, strings.Repeat("x", 19))); err != nil {
		t.Error(err)
	}
	wantCode(t, put(workspace.Part{Path: "c.txt", Length: 19, Total: 19}, strings.Repeat("x", 19)), "session-full")
	if err := put(workspace.Part{Path: "b.txt", Length: 20, Total: 20, Overwrite: true}, strings.Repeat("y", 20)); err != nil {
		t.Errorf("replacing counts the new one only: %v", err)
	}
	left, _ := filepath.Glob(filepath.Join(r.dir, "uploads", "*", "*"))
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestUnfinishedUploadsAreDroppedAfterADay(t *testing.T) {
	r := newRig(t, workspace.Options{UploadsFor: time.Nanosecond})
	if _, _, err := r.Upload(t.Context(), "ses_a", workspace.Part{Path: "f", ID: "i", Length: 1, Total: 2, Body: strings.NewReader("x")}, noSandbox); err != nil {
		t.Fatal(err)
	}
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := r.Uploaded("ses_a", "f", "i")
	wantCode(t, err, "upload-not-found")
}

// Whoever only looks at files does not wait for those who move them.
func TestLookingDoesNotWait(t *testing.T) {
	r := newRig(t, workspace.Options{})
	put := func(name string, live func() *fleet.Sandbox) error {
		_, _, err := r.Upload(t.Context(), "ses_a", workspace.Part{Path: name, Length: 1, Total: 1, Body: strings.NewReader("x")}, live)
		return err
	}
	if err := put("first", noSandbox); err != nil {
		t.Fatal(err)
	}
	entered, leave, done := make(chan struct{}, 2), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- put("second", func() *fleet.Sandbox { // called while the session's files are its own
			entered <- struct{}{}
			<-leave
			return nil
		})
	}()
	<-entered
	f, err := r.Stat(t.Context(), "ses_a", "/uploaded_files")
	if err != nil || len(f.Entries) != 1 {
		t.Errorf("stat: %+v, %v", f, err)
	}
	k, err := r.Open(t.Context(), "ses_a", "/uploaded_files/first")
	if err != nil {
		t.Fatal(err)
	}
	_ = k.Close()
	close(leave)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
