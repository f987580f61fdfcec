package badinput

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/servertest"
)

// saved gives what lies in a data directory beside sandboxes that run.
func saved(t *testing.T, data string) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(data, "state", "s*", "snp_*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func testSavedNames(t *testing.T, s *servertest.Server, data string) {
	id := create(t, s, v1.CreateSandbox{})
	wantValue(t, s, id, "kept = 1; kept", "1")
	before := len(saved(t, data))
	for _, name := range []string{"..", "../../x", "/etc/x", "a/b", "template/python", "a\x00b", "-rf", "snp_aaaaaaaaaaaaaaaaaaaaaaaaaa"} {
		_, err := s.Snapshot(t.Context(), id, v1.SnapshotSandbox{Name: name})
		wantProblem(t, err, http.StatusBadRequest, "snapshot-name-invalid")
		_, err = s.GetSnapshot(t.Context(), name)
		if err == nil {
			t.Errorf("there is a snapshot %q", name)
		}
		if err := s.DeleteSnapshot(t.Context(), name); err == nil {
			t.Errorf("snapshot %q was deleted", name)
		}
	}
	_, err := s.Snapshot(t.Context(), "sbx_aaaaaaaaaaaaaaaaaaaaaaaaaa", v1.SnapshotSandbox{})
	if err == nil || !strings.Contains(err.Error(), "sandbox") {
		t.Errorf("a snapshot of no sandbox: %v", err)
	}
	if after := saved(t, data); len(after) != before {
		t.Errorf("left behind: %v", after)
	}
	wantValue(t, s, id, "kept", "1")
	if _, err := os.Stat(filepath.Join(data, "state")); err != nil {
		t.Error(err)
	}
}

// The smallest quota that is allowed holds no sandbox with pandas twice.
func TestAFullQuota(t *testing.T) {
	data := servertest.DataDir(t)
	s := servertest.Start(t, data, "--disk-quota", "64MiB")
	id := create(t, s, v1.CreateSandbox{})
	wantValue(t, s, id, "kept = __import__('random').randbytes(40 << 20); len(kept)", "41943040")
	var made []string
	var err error
	for range 3 {
		var snap v1.Snapshot
		if snap, err = s.Snapshot(t.Context(), id, v1.SnapshotSandbox{}); err != nil {
			break
		}
		made = append(made, snap.ID)
	}
	t.Log(err)
	wantProblem(t, err, http.StatusInsufficientStorage, "disk-quota")
	if list, err := s.Snapshots(t.Context()); err != nil || len(list) != len(made) || len(saved(t, data)) != len(made) {
		t.Errorf("%d were made, listed are %+v, on disk are %v, %v", len(made), list, saved(t, data), err)
	}
	wantValue(t, s, id, "len(kept)", "41943040")
	for _, snap := range made {
		if err := s.DeleteSnapshot(t.Context(), snap); err != nil {
			t.Error(err)
		}
	}
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
}
