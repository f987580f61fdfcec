package gvisor_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
)

func wantCode(t testing.TB, what string, err error, code string) {
	t.Helper()
	if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

// mangle changes one byte in the middle of a file.
func mangle(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOneWrongBitIsFoundBeforeAnythingStarts(t *testing.T) {
	opts := options(t, gvisortest.Image(t), gvisortest.StateDir(t))
	d := open(t, opts)
	p := newPython(t, d)
	p.run("open('/workspace/f', 'w').write('kept'); x = 1")
	if err := d.Pause(t.Context(), p.id); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(opts.StateDir, "sandboxes", string(p.id), "saved")
	for _, name := range []string{"checkpoint.img", "pages_meta.img", "pages.img"} {
		mangle(t, filepath.Join(saved, name))
		_, err := d.Resume(t.Context(), p.id, false)
		wantCode(t, name, err, sandbox.CodeDamaged)
		mangle(t, filepath.Join(saved, name)) // as it was
	}
	for _, name := range []string{"fscheckpoint.pb", "multitar.img", "pages_meta.img", "pages.img"} {
		mangle(t, filepath.Join(saved, "files", name))
		_, err := d.Resume(t.Context(), p.id, true)
		wantCode(t, name, err, sandbox.CodeDamaged)
		mangle(t, filepath.Join(saved, "files", name))
	}
	if err := os.Truncate(filepath.Join(saved, "pages.img"), 4096); err != nil {
		t.Fatal(err)
	}
	_, err := d.Resume(t.Context(), p.id, false)
	wantCode(t, "a file that ends early", err, sandbox.CodeDamaged)
	if err := os.Remove(filepath.Join(saved, "pages.img")); err != nil {
		t.Fatal(err)
	}
	_, err = d.Resume(t.Context(), p.id, false)
	wantCode(t, "a file that is missing", err, sandbox.CodeDamaged)
	if _, err := d.Resume(t.Context(), p.id, true); err != nil {
		t.Fatal(err)
	}
	if got := output(t, p.c, "cat /workspace/f"); got != "kept" {
		t.Errorf("got %q", got)
	}
}

func TestAStateOfAnotherBuildOrMachineIsRefusedAndItsFilesStay(t *testing.T) {
	opts := options(t, gvisortest.Image(t), gvisortest.StateDir(t))
	d := open(t, opts)
	p := newPython(t, d)
	p.run("open('/workspace/f', 'w').write('kept')")
	s := snapshot(t, d, p.id, sandbox.SnapshotOptions{Files: true})
	if err := d.Pause(t.Context(), p.id); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for _, manifest := range []string{
		filepath.Join(opts.StateDir, "sandboxes", string(p.id), "saved", "manifest.json"),
		filepath.Join(opts.StateDir, "snapshots", string(s.ID), "manifest.json"),
	} {
		b, err := os.ReadFile(manifest)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(b), s.Key) {
			t.Fatal("the manifest has no key")
		}
		if err := os.WriteFile(manifest, []byte(strings.ReplaceAll(string(b), s.Key, strings.Repeat("0", len(s.Key)))), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d = open(t, opts)
	p.d, p.c = d, client(d, sandbox.Info{ID: p.id})
	_, err := d.Resume(t.Context(), p.id, false)
	wantCode(t, "resume", err, sandbox.CodeIncompatible)
	_, err = d.Restore(t.Context(), s.ID, sandbox.Spec{Limits: smallLimits}, false)
	wantCode(t, "restore", err, sandbox.CodeIncompatible)
	info, err := d.Resume(t.Context(), p.id, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, client(d, info), "cat /workspace/f"); got != "kept" {
		t.Errorf("got %q", got)
	}
	info, err = d.Restore(t.Context(), s.ID, sandbox.Spec{Limits: smallLimits}, true)
	if err != nil {
		t.Fatal(err)
	}
	if got := output(t, client(d, info), "cat /workspace/f"); got != "kept" {
		t.Errorf("got %q", got)
	}
}

// TestFilesComeBackAsTheyWere looks at what a cold start with saved files has.
func TestFilesComeBackAsTheyWere(t *testing.T) {
	d := open(t, options(t, gvisortest.Image(t), gvisortest.StateDir(t)))
	info, err := d.Create(t.Context(), sandbox.Spec{Limits: smallLimits})
	if err != nil {
		t.Fatal(err)
	}
	c := client(d, info)
	look := `cd /workspace && find . ! -type s -printf '%p %y %m %U:%G %s %n %l\n' | LC_ALL=C sort; stat -c %Y old; find . -type f -size -1M -exec sha256sum {} + | LC_ALL=C sort; ls -A ~; stat -c %b sparse`
	if got := output(t, c, `cd /workspace && umask 022 && echo hi > plain && chmod 0750 plain && mkdir -p deep/er && echo x > deep/er/x && chmod 0500 deep/er &&
ln -s plain link && ln -s /no/where dangling && ln plain hard && mkfifo fifo && touch -d 2001-02-03T04:05:06 old && : > empty &&
touch "$(printf 'bad\377name')" "$(printf 'n%.0s' $(seq 200))" 'a=b' && truncate -s 300G sparse && echo end >> sparse && head -c 5000000 /dev/urandom > big && cp plain gone && rm gone && echo z > ~/.z; echo done`); !strings.HasSuffix(got, "done\n") {
		t.Fatal(got)
	}
	before := output(t, c, look)
	c.CloseIdle()
	if err := d.Pause(t.Context(), info.ID); err != nil {
		t.Fatal(errors.Unwrap(err), err)
	}
	if got, _ := d.Get(t.Context(), info.ID); got.FilesBytes > 32<<20 {
		t.Errorf("the files take %d bytes on disk", got.FilesBytes)
	}
	if _, err := d.Resume(t.Context(), info.ID, true); err != nil {
		t.Fatal(errors.Unwrap(err), err)
	}
	defer c.CloseIdle()
	if after := output(t, c, look); after != before || strings.Count(after, "\n") < 15 {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if got := output(t, c, "cd /workspace && cmp big big && tail -c 4 sparse && echo more >> plain && cat hard"); got != "end\nhi\nmore\n" {
		t.Errorf("got %q", got)
	}
}

// TestAFullDiskCostsNothing saves where there is no room.
func TestAFullDiskCostsNothing(t *testing.T) {
	img := gvisortest.Image(t)
	state := gvisortest.StateDir(t)
	if err := unix.Mount("tmpfs", state, "tmpfs", 0, "size=48m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(state, unix.MNT_DETACH) })
	opts := options(t, img, state)
	d := open(t, opts)
	p := newPython(t, d)
	p.run("x = 41; block = b'x' * (64 << 20); import os")
	for range 2 {
		wantCode(t, "pause", d.Pause(t.Context(), p.id), "host-disk-full")
		_, err := d.Snapshot(t.Context(), p.id, sandbox.SnapshotOptions{Files: true})
		wantCode(t, "snapshot", err, "host-disk-full")
		p.want("x += 1; print(x > 41)", "True")
	}
	for _, pattern := range []string{"sandboxes/*/.tmp-*", "sandboxes/*/saved", "snapshots/*", "snapshots/.tmp-*"} {
		if left, _ := filepath.Glob(filepath.Join(state, pattern)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	}
	if err := unix.Mount("", state, "", unix.MS_REMOUNT, "size=512m"); err != nil {
		t.Fatal(err)
	}
	if err := d.Pause(t.Context(), p.id); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Resume(t.Context(), p.id, false); err != nil {
		t.Fatal(err)
	}
	p.want("print(x, len(block))", "43 67108864")
}

func TestAPassingShortageIsNotTakenForDamage(t *testing.T) {
	opts := options(t, gvisortest.Image(t), gvisortest.StateDir(t))
	d := open(t, opts)
	p := newPython(t, d)
	p.run("x = 1")
	if err := d.Pause(t.Context(), p.id); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, err := d.Resume(t.Context(), p.id, false)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "no file can be opened", err, "host-short")
	if _, err := d.Resume(t.Context(), p.id, false); err != nil {
		t.Error(err)
	}
}
