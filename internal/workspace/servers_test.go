package workspace_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
	"github.com/caesarion/caesarion/internal/workspace"
)

// Two servers have a session in turn: each knows what the other did with its
// files, and reads the bytes that the other kept.
func TestAnotherServerHadTheSession(t *testing.T) {
	at := pgtest.New(t)
	server := func() *workspace.Workspace {
		st, err := store.OpenPostgres(t.Context(), at, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		w, err := workspace.New(t.TempDir(), st, workspace.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(w.Close(), st.Close()); err != nil {
				t.Error(err)
			}
		})
		now := time.Now()
		row := store.Session{ID: "ses_a", CreatedAt: now, UpdatedAt: now, View: []byte("{}"), State: []byte("{}")}
		if err := st.Commit(t.Context(), store.Batch{SessionID: "ses_a", Session: &row}); err != nil {
			t.Fatal(err)
		}
		return w
	}
	a, b := server(), server()
	upload := func(w *workspace.Workspace, text string) {
		t.Helper()
		n := int64(len(text))
		if _, _, err := w.Upload(t.Context(), "ses_a", workspace.Part{Path: "f.txt", Length: n, Total: n, Overwrite: true, Body: strings.NewReader(text)}, noSandbox); err != nil {
			t.Fatal(err)
		}
	}
	read := func(w *workspace.Workspace) string {
		t.Helper()
		k, err := w.Open(t.Context(), "ses_a", "/uploaded_files/f.txt")
		if err != nil {
			return err.Error()
		}
		text, err := io.ReadAll(k)
		if err := errors.Join(err, k.Close()); err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for _, text := range []string{"one", "of the other " + strings.Repeat("long", 1<<20), "three"} {
		upload(a, text)
		for name, w := range map[string]*workspace.Workspace{"the writer": a, "the other": b} {
			if got := read(w); got != text {
				t.Errorf("%s reads %.40q, want %.40q", name, got, text)
			}
		}
		a, b = b, a
	}
	if _, err := a.Delete(t.Context(), "ses_a", "/uploaded_files/f.txt", nil); err != nil {
		t.Fatal(err)
	}
	if f, err := b.Stat(t.Context(), "ses_a", "/uploaded_files"); err != nil || len(f.Entries) != 0 {
		t.Errorf("deleted by the other: %+v, %v", f.Entries, err)
	}
	if _, err := b.Undelete(t.Context(), "ses_a", "/uploaded_files/f.txt", nil); err != nil {
		t.Error(err)
	}
	if got := read(a); got != "three" {
		t.Errorf("had back by the other: %.40q", got)
	}
}
