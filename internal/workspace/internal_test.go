package workspace

import (
	"os"
	"path/filepath"
	"testing"
)

// The name of the data directory is no pattern.
func TestFoldersWithBrackets(t *testing.T) {
	u := newUploads(filepath.Join(t.TempDir(), "a[b]"))
	if err := os.MkdirAll(u.folder("ses_a"), 0o700); err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(u.folder("ses_a"), "key.12")
	if err := os.WriteFile(want, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, total := u.find("ses_a", "key"); got != want || total != 12 {
		t.Errorf("found %q with %d bytes", got, total)
	}
	dir := filepath.Join(t.TempDir(), "[b]")
	left := filepath.Join(dir, tmpPrefix+"1")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := newStage(dir, folder{dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); err == nil {
		t.Error("what a killed process left is still there")
	}
}
