package image

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/images/python"
)

// smallWheel makes a wheel of one module, with the given text in it.
func smallWheel(t *testing.T, file, text string) (hash string) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, f := range []struct{ name, content string }{
		{"small.py", text},
		{"small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n"},
		{"small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
		{"small-1.0.dist-info/RECORD", "small.py,,\nsmall-1.0.dist-info/METADATA,,\nsmall-1.0.dist-info/WHEEL,,\nsmall-1.0.dist-info/RECORD,,\n"},
	} {
		w, err := z.Create(f.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b.Bytes()))
}

// needPip skips where the host has none; with CI=true that is a failure.
func needPip(t *testing.T) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "python3", "-m", "pip", "--version").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no pip: %v\n%s", err, out)
		}
		t.Skip("this machine has no pip")
	}
}

// Whoever answers for the index may send what he likes: what is not of the locked
// hash does not even come into the cache.
func TestAChangedWheelIsNotDownloaded(t *testing.T) {
	needPip(t)
	index := t.TempDir()
	wheel := filepath.Join(index, "small-1.0-py3-none-any.whl")
	locked := smallWheel(t, wheel, "x = 1\n")
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	t.Setenv("PIP_NO_INDEX", "1")
	t.Setenv("PIP_FIND_LINKS", index)

	download := func(requirements string) (cache string, log string, err error) {
		s, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		build := &builder{store: s, work: t.TempDir(), log: &b, progress: func(Update) {}}
		if err := os.WriteFile(filepath.Join(build.work, "requirements.txt"), []byte(requirements), 0o644); err != nil {
			t.Fatal(err)
		}
		arch, err := machine()
		if err != nil {
			t.Fatal(err)
		}
		cache = s.path("cache/wheels-test")
		err = build.download(t.Context(), arch, 1, cache)
		return cache, b.String(), err
	}

	if cache, log, err := download("small==1.0 --hash=sha256:" + locked + "\n"); err != nil {
		t.Fatalf("the wheel that is locked: %v\n%s", err, log)
	} else if _, err := os.Stat(filepath.Join(cache, filepath.Base(wheel))); err != nil {
		t.Error(err)
	}
	smallWheel(t, wheel, "x = 'another'\n")
	for name, requirements := range map[string]string{
		"changed":        "small==1.0 --hash=sha256:" + locked + "\n",
		"without a hash": "small==1.0\n",
	} {
		cache, log, err := download(requirements)
		if err == nil || !strings.Contains(log, "hash") {
			t.Errorf("%s: got %v, want a refusal that names the hash:\n%s", name, err, log)
		}
		if _, err := os.Stat(cache); err == nil {
			t.Errorf("%s: something was left in the cache", name)
		}
	}
}

// Nor is it installed, should somebody change the cache: the very pip command of
// setup.sh is run, into a folder.
func TestAChangedWheelIsNotInstalled(t *testing.T) {
	needPip(t)
	setup, err := python.Files.ReadFile("setup.sh")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile(`(?m)^python3 -m pip install .*(\n\t.*)*`).Find(setup)
	if command == nil || bytes.Count(setup, []byte("pip install")) != 2 { // the command, and a remark
		t.Fatal("setup.sh does not call pip once any more: look at what it installs, then at this test")
	}
	work := t.TempDir()
	if err := os.Mkdir(filepath.Join(work, "wheels"), 0o755); err != nil {
		t.Fatal(err)
	}
	wheel := filepath.Join(work, "wheels/small-1.0-py3-none-any.whl")
	locked := smallWheel(t, wheel, "x = 1\n")
	if err := os.WriteFile(filepath.Join(work, "requirements.txt"), []byte("small==1.0 --hash=sha256:"+locked+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	install := func(target string) (string, error) {
		script := strings.ReplaceAll(string(command), "/build/", work+"/") + ` --target="$1"`
		cmd := exec.CommandContext(t.Context(), "sh", "-eu", "-c", script, "sh", target)
		cmd.Env = append(os.Environ(), "PIP_CONFIG_FILE="+os.DevNull)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	good, bad := filepath.Join(work, "good"), filepath.Join(work, "bad")
	if out, err := install(good); err != nil {
		t.Fatalf("the wheel that is locked: %v\n%s", err, out)
	}
	smallWheel(t, wheel, "x = 'another'\n")
	if out, err := install(bad); err == nil || !strings.Contains(out, "HASHES") {
		t.Errorf("a changed wheel: got %v, want a refusal:\n%s", err, out)
	}
	if _, err := os.Stat(filepath.Join(bad, "small.py")); err == nil {
		t.Error("a changed wheel was installed")
	}
}
