package workspace_test

import (
	"archive/zip"
	"bytes"
	"context"
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

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
	"github.com/caesarion/caesarion/internal/workspace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Files are kept in a folder beside SQLite, and in Postgres.
func TestAllOnPostgres(t *testing.T) { pgtest.Again(t) }

// rig is a Workspace over real sandboxes (without Python) and a real store.
type rig struct {
	*workspace.Workspace
	t     testing.TB
	dir   string
	store *store.Store
	fleet *fleet.Fleet
	host  *fake.Host
	opts  workspace.Options
}

func newRig(t testing.TB, opts workspace.Options) *rig {
	t.Helper()
	host, err := fake.NewHost(fake.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = host.Close() })
	fl, err := fleet.New(t.Context(), host.Driver(), nil, fleet.Options{Templates: map[string]fleet.Template{"python": {Image: "none"}}, MaxSandboxes: 8})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fl.Close() })
	r := &rig{t: t, dir: t.TempDir(), fleet: fl, host: host, opts: opts}
	if pgtest.Wanted() {
		r.store, err = store.OpenPostgres(t.Context(), pgtest.New(t), store.Options{BlobsFor: time.Nanosecond})
	} else {
		r.store, err = store.Open(t.Context(), filepath.Join(r.dir, "db"), store.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.store.Close() })
	r.open()
	t.Cleanup(func() { _ = r.Close() })
	for _, id := range []string{"ses_a", "ses_b"} {
		now := time.Now()
		row := store.Session{ID: id, CreatedAt: now, UpdatedAt: now, View: []byte("{}"), State: []byte("{}")}
		if err := r.store.Commit(t.Context(), store.Batch{SessionID: id, Session: &row}); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *rig) open() {
	w, err := workspace.New(r.dir, r.store, r.opts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Workspace = w
}

// restart is what a server does that was killed and started again.
func (r *rig) restart() {
	if err := r.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

// sandbox makes a sandbox; the second value is its root on this machine.
func (r *rig) sandbox() (*fleet.Sandbox, string) {
	r.t.Helper()
	sb, err := r.fleet.Create(r.t.Context(), fleet.CreateRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	root, err := r.host.Root(sandbox.ID(sb.ID()))
	if err != nil {
		r.t.Fatal(err)
	}
	return sb, root
}

func (r *rig) sync(sb *fleet.Sandbox) []string {
	r.t.Helper()
	changes, err := r.Sync(r.t.Context(), "ses_a", sb)
	if err != nil {
		r.t.Fatalf("sync: %v", err)
	}
	return told(changes)
}

func told(changes []v1.FileChange) []string {
	list := []string{}
	for _, c := range changes {
		list = append(list, fmt.Sprintf("%s %s %d", c.Change, c.Path, c.SizeBytes))
	}
	return list
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// contents reads all that is below dir.
func contents(t testing.TB, dir string) map[string]string {
	t.Helper()
	m := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String()
		switch {
		case info.Mode().IsRegular():
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += info.ModTime().UTC().Format(" 2006-01-02T15:04:05.000000000 ") + string(text)
		case info.Mode()&os.ModeSymlink != 0:
			target, _ := os.Readlink(path)
			what += " " + target
		}
		m[path[len(dir)+1:]] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func blobCount(t testing.TB, r *rig) int {
	t.Helper()
	if db := r.store.DB(); db != nil {
		n := 0
		if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM blobs`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	found, err := filepath.Glob(filepath.Join(r.dir, "blobs", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

func wantCode(t testing.TB, err error, code string) {
	t.Helper()
	if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != code {
		t.Errorf("got %v, want code %s", err, code)
	}
}

func wantTold(t testing.TB, what string, got []string, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestSyncTellsWhatChangedAndRestoreBringsItBack(t *testing.T) {
	r := newRig(t, workspace.Options{})
	sb, root := r.sandbox()
	ws := filepath.Join(root, "workspace")
	wantTold(t, "an empty sandbox", r.sync(sb))

	write(t, ws+"/a.txt", "one")
	write(t, ws+"/dir/b \xff\n.txt", "two")
	write(t, ws+"/__pycache__/x.pyc", "cache")
	write(t, ws+"/.cache/x", "cache")
	write(t, ws+"/.caesarion/outputs/exe_1.txt", "output")
	write(t, root+"/uploaded_files/u.csv", "1,2\n")
	if err := errors.Join(os.Mkdir(ws+"/empty", 0o700), os.Symlink("/etc/passwd", ws+"/link"), os.Chmod(ws+"/a.txt", 0o751)); err != nil {
		t.Fatal(err)
	}
	wantTold(t, "first files", r.sync(sb),
		"created /uploaded_files/u.csv 4", "created /workspace/a.txt 3", "created /workspace/dir/b \uFFFD\n.txt 3", "created /workspace/empty 0", "created /workspace/link 0")
	wantTold(t, "nothing new", r.sync(sb))

	write(t, ws+"/a.txt", "ONE")
	if err := errors.Join(os.Remove(ws+"/empty"), os.Chtimes(root+"/uploaded_files/u.csv", time.Time{}, time.Unix(1e9, 5))); err != nil {
		t.Fatal(err)
	}
	wantTold(t, "a change, a removal, a touch", r.sync(sb), "modified /workspace/a.txt 3", "deleted /workspace/empty 0")
	want := contents(t, root+"/workspace")
	wantUploads := contents(t, root+"/uploaded_files")
	delete(want, "__pycache__")
	delete(want, "__pycache__/x.pyc")
	delete(want, ".cache")
	delete(want, ".cache/x")

	r.restart()
	if err := sb.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	sb2, root2 := r.sandbox()
	if err := r.Restore(t.Context(), "ses_a", sb2); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, contents(t, root2+"/workspace")); diff != "" {
		t.Errorf("workspace after restore (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantUploads, contents(t, root2+"/uploaded_files")); diff != "" {
		t.Errorf("uploads after restore (-want +got):\n%s", diff)
	}
	wantTold(t, "after restore", r.sync(sb2))
}

func TestAnotherSandboxHasNotDeletedTheFiles(t *testing.T) {
	r := newRig(t, workspace.Options{})
	sb, root := r.sandbox()
	write(t, root+"/workspace/a.txt", "old")
	write(t, root+"/workspace/b.txt", "old")
	r.sync(sb)
	sb2, root2 := r.sandbox()
	write(t, root2+"/workspace/b.txt", "newer")
	wantTold(t, "sync without restore", r.sync(sb2), "modified /workspace/b.txt 5")
	if got := contents(t, root2+"/workspace"); !strings.HasSuffix(got["a.txt"], "old") || !strings.HasSuffix(got["b.txt"], "newer") {
		t.Errorf("got %v", got)
	}
}

func TestBoundsAreToldAndTheRestIsKept(t *testing.T) {
	r := newRig(t, workspace.Options{FileBytes: 100, SessionBytes: 150})
	sb, root := r.sandbox()
	write(t, root+"/workspace/big", strings.Repeat("x", 101))
	write(t, root+"/workspace/m1", strings.Repeat("1", 80))
	write(t, root+"/workspace/m2", strings.Repeat("2", 90))
	write(t, root+"/workspace/small", "s")
	r.sync(sb)
	f, err := r.Stat(t.Context(), "ses_a", "/workspace")
	if err != nil {
		t.Fatal(err)
	}
	kept := map[string]bool{}
	for _, e := range f.Entries {
		kept[e.Name] = e.Kept == nil
	}
	if diff := cmp.Diff(map[string]bool{"big": false, "m1": true, "m2": false, "small": true}, kept); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	if !strings.Contains(f.Notice, "2 files") || !strings.Contains(f.Notice, "100 bytes") {
		t.Errorf("notice = %q", f.Notice)
	}
	_, err = r.Open(t.Context(), "ses_a", "big")
	wantCode(t, err, "file-not-kept")
	// What makes room lets the next one in.
	if err := os.Remove(root + "/workspace/m1"); err != nil {
		t.Fatal(err)
	}
	r.sync(sb)
	if k, err := r.Open(t.Context(), "ses_a", "m2"); err != nil {
		t.Errorf("m2 after m1 has gone: %v", err)
	} else {
		_ = k.Close()
	}
	if err := r.Restore(t.Context(), "ses_a", sb); err != nil {
		t.Fatal(err)
	}
	sb2, _ := r.sandbox()
	if err := r.Restore(t.Context(), "ses_a", sb2); err != nil {
		t.Fatal(err)
	}
	wantTold(t, "what was not kept is no news in a new sandbox", r.sync(sb2))
}

func TestASyncThatIsCutKeepsWhatHadArrivedAndTheRestOfBefore(t *testing.T) {
	r := newRig(t, workspace.Options{})
	sb, root := r.sandbox()
	for i := range 50 {
		write(t, fmt.Sprintf("%s/workspace/f%02d", root, i), "before")
	}
	r.sync(sb)
	for i := range 50 {
		write(t, fmt.Sprintf("%s/workspace/f%02d", root, i), strings.Repeat("after", 200_000))
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cut := errors.New("cut")
	go func() { // in the middle of the transfer
		for ctx.Err() == nil {
			found, _ := filepath.Glob(filepath.Join(r.dir, "blobs", "tmp-*"))
			if len(found) > 0 {
				cancel(cut)
				return
			}
		}
	}()
	_, err := r.Sync(ctx, "ses_a", sb)
	cancel(cut)
	if err == nil {
		t.Log("the sync was faster than its cut")
	}
	r.restart()
	if left, _ := filepath.Glob(filepath.Join(r.dir, "blobs", "tmp-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	for i := range 50 {
		k, err := r.Open(t.Context(), "ses_a", fmt.Sprintf("f%02d", i))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(k)
		_ = k.Close()
		if err != nil || string(text) != "before" && len(text) != 1_000_000 {
			t.Errorf("f%02d: %d bytes, %v", i, len(text), err)
		}
	}
	r.sync(sb)
	if k, err := r.Open(t.Context(), "ses_a", "f49"); err != nil {
		t.Error(err)
	} else {
		text, _ := io.ReadAll(k)
		_ = k.Close()
		if len(text) != 1_000_000 {
			t.Errorf("after the next sync: %d bytes", len(text))
		}
	}
}

// A sandbox whose agent lies must not keep the session from its files.
func TestAListingThatCannotBeTrueIsRestoredAsFarAsItCan(t *testing.T) {
	r := newRig(t, workspace.Options{})
	sb, root := r.sandbox()
	write(t, root+"/workspace/good", "good")
	r.sync(sb)
	files, _, err := r.store.Files(t.Context(), "ses_a")
	if err != nil || len(files) != 1 {
		t.Fatalf("%+v, %v", files, err)
	}
	file := func(path string) store.File {
		f := files[0]
		f.Path = path
		return f
	}
	err = r.store.ChangeFiles(t.Context(), "ses_a", store.FileChanges{Put: []store.File{
		file("/workspace/a"), file("/workspace/a/below"),
		{Path: "/workspace/out", Type: "symlink", Target: "/etc"},
		file("/workspace/out/hostile"),
		{Path: "/workspace/link", Type: "symlink"},
		file("/workspace/" + strings.Repeat("n", 300)), file("/etc/hostile"), file("/workspace/../../etc/hostile"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	r.restart()
	sb2, root2 := r.sandbox()
	if err := r.Restore(t.Context(), "ses_a", sb2); err != nil {
		t.Fatal(err)
	}
	got := contents(t, root2+"/workspace")
	if len(got) != 3 || !strings.HasSuffix(got["good"], "good") || !strings.HasSuffix(got["a"], "good") || got["out"] == "" {
		t.Errorf("got %v", got)
	}
	wantTold(t, "after it", r.sync(sb2))
}

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

func noSandbox() *fleet.Sandbox { return nil }

// BenchmarkSync measures what a run of a cell pays on a tree of 2,000 files.
func BenchmarkSync(b *testing.B) {
	for _, changed := range []int{0, 1, 2000} {
		b.Run(fmt.Sprintf("changed=%d", changed), func(b *testing.B) {
			r := newRig(b, workspace.Options{})
			sb, root := r.sandbox()
			for i := range 2000 {
				write(b, fmt.Sprintf("%s/workspace/d%02d/f%04d", root, i%40, i), fmt.Sprint("first ", i))
			}
			r.sync(sb)
			n := 0
			for b.Loop() {
				if changed > 0 {
					b.StopTimer()
					for i := range changed {
						write(b, fmt.Sprintf("%s/workspace/d%02d/f%04d", root, i%40, i), fmt.Sprint(n, " ", i))
					}
					n++
					b.StartTimer()
				}
				r.sync(sb)
			}
		})
	}
}

func BenchmarkRestore(b *testing.B) {
	r := newRig(b, workspace.Options{})
	sb, root := r.sandbox()
	for i := range 2000 {
		write(b, fmt.Sprintf("%s/workspace/d%02d/f%04d", root, i%40, i), strings.Repeat("x", 10_000))
	}
	r.sync(sb)
	for b.Loop() {
		b.StopTimer()
		_ = sb.Delete(b.Context())
		sb, _ = r.sandbox()
		b.StartTimer()
		if err := r.Restore(b.Context(), "ses_a", sb); err != nil {
			b.Fatal(err)
		}
	}
}
