package store_test

import (
	"bytes"
	"io"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

// As docs/operate/database.md says.
func TestABackupIsRestored(t *testing.T) {
	from, to := pgtest.New(t), pgtest.New(t)
	dump := filepath.Join(t.TempDir(), "caesarion.dump")
	s := openPostgres(t, from, store.Options{})
	text := "words to be found"
	data, hash := bytesOf(3<<20, 1)
	put(t, s, store.Batch{
		SessionID: "ses_a", Session: session("ses_a"), Events: []store.Event{{Seq: 1, Type: "a", Line: []byte("x")}},
		Items: []store.Item{{ID: "itm_1", Tree: []byte("{}"), Body: []byte("{}"), Search: &text}},
	})
	if err := s.PutBlob(t.Context(), hash, int64(len(data)), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"pg_dump", "--format=custom", "--file=" + dump, from},
		{"pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", "--dbname=" + to, dump},
	} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", args[0], err, out)
		}
	}
	r := openPostgres(t, to, store.Options{NoMigrate: true})
	if list, err := r.Sessions(t.Context(), store.List{Query: "FOUND", Limit: 9}); err != nil || len(list) != 1 || list[0].ID != "ses_a" {
		t.Errorf("sessions: %+v, %v", list, err)
	}
	put(t, r, store.Batch{
		SessionID: "ses_a", Events: []store.Event{{Seq: 2, Type: "a", Line: []byte("y")}},
		Items: []store.Item{{ID: "itm_2", Tree: []byte("{}"), Body: []byte("{}"), Search: &text}}, // numbers go on
	})
	b, err := r.OpenBlob(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
