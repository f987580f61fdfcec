package store_test

import (
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestOnlyTheOwnerWritesASession(t *testing.T) {
	at := pgtest.New(t)
	a := openPostgres(t, at, store.Options{Replica: "a"})
	b := openPostgres(t, at, store.Options{Replica: "b"})
	db := a.DB()
	moved := func(what string, err error) {
		t.Helper()
		if codeOf(err) != "session-moved" || !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	event := func(seq int64) store.Batch {
		return store.Batch{SessionID: "ses_1", Events: []store.Event{{Seq: seq, Type: "a", Line: []byte("x")}}}
	}
	moved("nobody owns it", a.Commit(t.Context(), store.Batch{SessionID: "ses_1", Session: session("ses_1")}))
	do(t, db, `INSERT INTO owners (key, replica) VALUES ('ses_1', 'a'), ('ses_2', 'a')`)
	put(t, a, store.Batch{SessionID: "ses_1", Session: session("ses_1")})
	put(t, a, store.Batch{SessionID: "ses_2", Session: session("ses_2")})
	put(t, a, event(1))
	moved("another's", b.Commit(t.Context(), event(2)))
	moved("another's files", b.ChangeFiles(t.Context(), "ses_1", store.FileChanges{Put: []store.File{{Path: "/workspace/f", Type: "file"}}}))
	moved("a copy to another's", b.CopyFiles(t.Context(), "ses_2", "ses_1"))

	// The owner changes while the old one writes in a burst: what it writes is
	// there before, or refused.
	var last atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		for seq := int64(2); ; seq++ {
			if err := a.Commit(t.Context(), event(seq)); err != nil {
				moved("after it was taken over", err)
				return
			}
			last.Store(seq)
		}
	})
	// Others of the same transaction are not concerned.
	wg.Go(func() {
		for seq := int64(1); seq <= 200; seq++ {
			if err := a.Commit(t.Context(), store.Batch{SessionID: "ses_2", Events: []store.Event{{Seq: seq, Type: "a", Line: []byte("x")}}}); err != nil {
				t.Errorf("a session that it still owns: %v", err)
				return
			}
		}
	})
	eventually(t, "a burst", func() bool { return last.Load() > 20 })
	do(t, db, `UPDATE owners SET replica='b' WHERE key='ses_1'`)
	n, _, err := b.EventsSize(t.Context(), "ses_1", 0)
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, event(n+1)) // would fail if another came in between
	wg.Wait()
	if got := last.Load(); got > n {
		t.Errorf("the old owner wrote %d after the new one saw %d", got, n)
	}
	if end, _, err := b.EventsSize(t.Context(), "ses_1", 0); err != nil || end != n+1 {
		t.Errorf("%d events, want %d: %v", end, n+1, err)
	}
}

// waiting waits until a transaction in the store's database waits for another.
func waiting(tb testing.TB, db *sql.DB) {
	tb.Helper()
	eventually(tb, "one waits for the other", func() bool {
		var n int
		if err := db.QueryRowContext(tb.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname=current_database() AND wait_event_type='Lock'`).Scan(&n); err != nil {
			tb.Fatal(err)
		}
		return n == 1
	})
}

// A session changes hands in the middle of a write: one waits for the other.
func TestATakeoverInTheMiddleOfAWrite(t *testing.T) {
	at := pgtest.New(t)
	s := openPostgres(t, at, store.Options{Replica: "a"})
	db := s.DB()
	do(t, db, `INSERT INTO owners (key, replica) VALUES ('ses_1', 'a')`)
	put(t, s, store.Batch{SessionID: "ses_1", Session: session("ses_1")})
	event := func(seq int64) <-chan error {
		done := make(chan error, 1)
		s.Submit(store.Batch{SessionID: "ses_1", Events: []store.Event{{Seq: seq, Type: "a", Line: []byte("x")}}}, func(err error) { done <- err })
		return done
	}
	hold := func(query string) *sql.Tx {
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
		return tx
	}
	// The write is first, and can't end yet.
	busy := hold(`SELECT 1 FROM sessions WHERE id='ses_1' FOR UPDATE`)
	written := event(1)
	waiting(t, db)
	took, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := took.ExecContext(t.Context(), `SET LOCAL lock_timeout='50ms'`); err != nil {
		t.Fatal(err)
	}
	if _, err := took.ExecContext(t.Context(), `UPDATE owners SET replica='b' WHERE key='ses_1'`); err == nil {
		t.Error("it was taken over in the middle of a write")
	}
	if err := errors.Join(took.Rollback(), busy.Rollback(), <-written); err != nil {
		t.Error(err)
	}
	// The takeover is first.
	takeover := hold(`UPDATE owners SET replica='b' WHERE key='ses_1'`)
	written = event(2)
	waiting(t, db)
	if err := takeover.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-written; codeOf(err) != "session-moved" {
		t.Errorf("a write after the takeover: %v", err)
	}
}
