package workspace_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/workspace"
)

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
