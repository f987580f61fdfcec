package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What others free meanwhile hides what this sandbox took.
func TestAnOldCountIsDoubtedHoweverFreeTheDiskIs(t *testing.T) {
	dir := t.TempDir()
	roots := []fileRoot{{dir: "/workspace", real: dir}}
	const limit, more = 10 << 20, 8 << 20
	var u diskUse
	if used := u.read(roots, 0); used+more > limit {
		t.Fatalf("an empty folder takes %d bytes", used)
	}
	u.took = time.Hour
	if u.doubtful(roots, more, limit) {
		t.Error("it was counted just now")
	}
	if err := os.WriteFile(filepath.Join(dir, "big"), make([]byte, 8<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	u.free, u.took = 0, 0 // as if there was no room at all when it was counted
	if !u.doubtful(roots, more, limit) {
		t.Error("a count of before is taken for that of now")
	}
	if used := u.read(roots, 0); used+more <= limit {
		t.Errorf("counted anew: %d bytes", used)
	}
}
