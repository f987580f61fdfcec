package workspace_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/workspace"
)

func TestBlobsGoWithTheLastWhoNamesThem(t *testing.T) {
	r := newRig(t, workspace.Options{})
	sb, root := r.sandbox()
	write(t, root+"/workspace/a", "same")
	write(t, root+"/workspace/b", "same")
	write(t, root+"/workspace/c", "other")
	r.sync(sb)
	if n := blobCount(t, r); n != 2 {
		t.Errorf("%d blobs, want 2: the same bytes are kept once", n)
	}
	if err := r.Copy(t.Context(), "ses_a", "ses_b"); err != nil {
		t.Fatal(err)
	}
	if err := r.Forget(t.Context(), "ses_a"); err != nil {
		t.Fatal(err)
	}
	if n := blobCount(t, r); n != 2 {
		t.Errorf("%d blobs, want 2: the copy has them", n)
	}
	if f, err := r.Stat(t.Context(), "ses_b", "/workspace"); err != nil || len(f.Entries) != 3 {
		t.Errorf("copy: %+v, %v", f, err)
	}
	if err := r.Forget(t.Context(), "ses_b"); err != nil {
		t.Fatal(err)
	}
	if n := blobCount(t, r); n != 0 {
		t.Errorf("%d blobs are left", n)
	}
	// What a crash leaves between blob and store goes at the next start.
	if r.store.DB() != nil {
		text := "nobody names me"
		sum := sha256.Sum256([]byte(text))
		if err := r.store.PutBlob(t.Context(), string(sum[:]), int64(len(text)), strings.NewReader(text)); err != nil {
			t.Fatal(err)
		}
	} else {
		write(t, filepath.Join(r.dir, "blobs", "ab", "ab"+strings.Repeat("0", 62)), "nobody names me")
	}
	if n := blobCount(t, r); n != 1 {
		t.Fatalf("%d blobs", n)
	}
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := blobCount(t, r); n != 0 {
		t.Error("garbage is still there")
	}
}

func TestDeletedFilesComeBack(t *testing.T) {
	for _, live := range []bool{true, false} {
		t.Run(fmt.Sprintf("live=%v", live), func(t *testing.T) {
			r := newRig(t, workspace.Options{})
			sb, root := r.sandbox()
			write(t, root+"/workspace/dir/a", "a")
			write(t, root+"/workspace/dir/sub/b", "b")
			write(t, root+"/workspace/dirt", "not in it")
			r.sync(sb)
			at := sb
			if live {
				write(t, root+"/workspace/dir/a", "newest") // not synced yet
			} else {
				at = nil
			}
			changes, err := r.Delete(t.Context(), "ses_a", "dir", at)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(changes); n < 2 {
				t.Errorf("told %v", told(changes))
			}
			if _, err := os.Stat(root + "/workspace/dir"); live != errors.Is(err, os.ErrNotExist) {
				t.Errorf("in the sandbox: %v", err)
			}
			_, err = r.Stat(t.Context(), "ses_a", "dir/a")
			wantCode(t, err, "file-not-found")
			if err := r.Sweep(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Undelete(t.Context(), "ses_a", "dir", at); err != nil {
				t.Fatal(err)
			}
			want := "a"
			if live {
				want = "newest"
				if got := contents(t, root+"/workspace"); !strings.HasSuffix(got["dir/a"], want) || !strings.HasSuffix(got["dir/sub/b"], "b") {
					t.Errorf("in the sandbox: %v", got)
				}
				wantTold(t, "after it came back", r.sync(sb))
			}
			k, err := r.Open(t.Context(), "ses_a", "dir/a")
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			if text, _ := io.ReadAll(k); string(text) != want {
				t.Errorf("got %q, want %q", text, want)
			}
			_, err = r.Undelete(t.Context(), "ses_a", "dir", at)
			wantCode(t, err, "not-in-bin")
			_, err = r.Delete(t.Context(), "ses_a", "/workspace", at)
			wantCode(t, err, "is-a-root")
			_, err = r.Delete(t.Context(), "ses_a", "nothing", at)
			wantCode(t, err, "file-not-found")
		})
	}
}

func TestTheBinIsEmptiedAfterADay(t *testing.T) {
	r := newRig(t, workspace.Options{BinFor: time.Nanosecond})
	sb, root := r.sandbox()
	write(t, root+"/workspace/a", "a")
	r.sync(sb)
	if _, err := r.Delete(t.Context(), "ses_a", "a", sb); err != nil {
		t.Fatal(err)
	}
	_, err := r.Undelete(t.Context(), "ses_a", "a", sb)
	wantCode(t, err, "not-in-bin")
	if err := r.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := blobCount(t, r); n != 0 {
		t.Errorf("%d blobs are left", n)
	}
}

func TestFilesWithoutASandbox(t *testing.T) {
	r := newRig(t, workspace.Options{})
	ctx := t.Context()
	put := func(path, text string) error {
		_, _, err := r.Upload(ctx, "ses_a", workspace.Part{Path: path, Length: int64(len(text)), Total: int64(len(text)), Body: strings.NewReader(text)}, noSandbox)
		return err
	}
	if err := errors.Join(put("plain.csv", "1"), put("/workspace/deep/er/f", "22"), put("/workspace/g", "")); err != nil {
		t.Fatal(err)
	}
	wantCode(t, put("plain.csv", "2"), "file-exists")
	wantCode(t, put("/workspace/g/below", "2"), "not-a-directory")
	wantCode(t, put("/workspace/deep", "2"), "is-a-directory")
	wantCode(t, put("/etc/passwd", "2"), "path-escapes")
	if _, _, err := r.Mkdir(ctx, "ses_a", "new/one", nil); err != nil {
		t.Error(err)
	}
	if f, _, err := r.Move(ctx, "ses_a", v1.MoveFile{From: "deep", To: "new/two/deep"}, nil); err != nil || f.Path != "/workspace/new/two/deep" {
		t.Errorf("move: %+v, %v", f, err)
	}
	_, _, err := r.Move(ctx, "ses_a", v1.MoveFile{From: "new/two", To: "g"}, nil)
	wantCode(t, err, "file-exists")
	_, _, err = r.Move(ctx, "ses_a", v1.MoveFile{From: "new", To: "new/two/x"}, nil)
	wantCode(t, err, "invalid-move")

	var buf bytes.Buffer
	send, err := r.Archive(ctx, "ses_a", "/workspace")
	if err == nil {
		err = send(&buf)
	}
	if err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(buf.Bytes()), int64(buf.Len()))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	if want := []string{"g", "new/", "new/one/", "new/two/", "new/two/deep/", "new/two/deep/er/", "new/two/deep/er/f"}; !slices.Equal(names, want) {
		t.Errorf("archive has %q, want %q", names, want)
	}
	sb, root := r.sandbox()
	if err := r.Restore(ctx, "ses_a", sb); err != nil {
		t.Fatal(err)
	}
	if got := contents(t, root+"/workspace"); !strings.HasSuffix(got["new/two/deep/er/f"], "22") {
		t.Errorf("restored: %v", got)
	}
	if got := contents(t, root+"/uploaded_files"); !strings.HasSuffix(got["plain.csv"], "1") {
		t.Errorf("restored: %v", got)
	}
	wantTold(t, "after restore", r.sync(sb))
}
