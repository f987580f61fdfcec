package workspace_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/sandbox/fake/faketest"
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
	host := faketest.NewWithoutPython(t)
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

func noSandbox() *fleet.Sandbox { return nil }
