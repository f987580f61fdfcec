package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

// raw opens a database for what a test does behind the store's back.
func raw(tb testing.TB, at string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("pgx", at)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = db.Close() })
	return db
}

func do(tb testing.TB, db *sql.DB, query string, args ...any) {
	tb.Helper()
	if _, err := db.ExecContext(tb.Context(), query, args...); err != nil {
		tb.Fatalf("%s: %v", query, err)
	}
}

func openPostgres(tb testing.TB, at string, opts store.Options) *store.Store {
	tb.Helper()
	return database{"Postgres", at}.open(tb, opts)
}

// load is sessions that are written to, and what of them was acknowledged.
type load struct {
	s     *store.Store
	acked []atomic.Int64 // the last number, by session
	stop  chan struct{}
	wg    sync.WaitGroup
}

// newLoad has n sessions written, each as fast as it is acknowledged.
func newLoad(tb testing.TB, s *store.Store, n int) *load {
	tb.Helper()
	l := &load{s: s, acked: make([]atomic.Int64, n), stop: make(chan struct{})}
	for i := range n {
		id := fmt.Sprintf("ses_%d", i)
		put(tb, s, store.Batch{SessionID: id, Session: session(id)})
		l.wg.Go(func() {
			for seq := int64(1); ; seq += 2 {
				select {
				case <-l.stop:
					return
				default:
				}
				err := s.Commit(context.Background(), store.Batch{SessionID: id, Events: []store.Event{
					{Seq: seq, Type: "a", Line: fmt.Appendf(nil, "%s %d", id, seq)},
					{Seq: seq + 1, Type: "a", Line: fmt.Appendf(nil, "%s %d", id, seq+1)},
				}})
				if err != nil {
					tb.Errorf("session %d, event %d: %v", i, seq, err)
					return
				}
				l.acked[i].Store(seq + 1)
			}
		})
	}
	return l
}

func (l *load) total() (n int64) {
	for i := range l.acked {
		n += l.acked[i].Load()
	}
	return n
}

// end stops the load and checks that all that was acknowledged is there once.
func (l *load) end(tb testing.TB) {
	tb.Helper()
	close(l.stop)
	l.wg.Wait()
	for i := range l.acked {
		id := fmt.Sprintf("ses_%d", i)
		want := l.acked[i].Load()
		next := int64(1)
		for next <= want {
			events, err := l.s.Events(tb.Context(), id, next-1, 1<<40, 1<<20)
			if err != nil || len(events) == 0 {
				tb.Fatalf("%s: events after %d of %d: %v", id, next-1, want, err)
			}
			for _, e := range events {
				if e.Seq != next || string(e.Line) != fmt.Sprintf("%s %d", id, next) {
					tb.Fatalf("%s: event %d is number %d, %q", id, next, e.Seq, e.Line)
				}
				next++
			}
		}
		if next != want+1 {
			tb.Errorf("%s has %d events, and %d were acknowledged", id, next-1, want)
		}
		if row, err := l.s.Session(tb.Context(), id); err != nil || row.LastSeq != want {
			tb.Errorf("%s: last number %d, want %d: %v", id, row.LastSeq, want, err)
		}
	}
}

// eventually waits for a condition.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never came: %s", what)
		}
	}
}

func (l *load) more(tb testing.TB, n int64) {
	tb.Helper()
	start := l.total()
	eventually(tb, "more events", func() bool { return tb.Failed() || l.total() >= start+n })
}

func TestAKilledServerLosesNoEventAndKeepsNoneTwice(t *testing.T) {
	server := pgtest.Start(t)
	s := openPostgres(t, server.Database(t), store.Options{RetryFor: 60 * time.Second})
	l := newLoad(t, s, 4)
	for range 3 {
		l.more(t, 200)
		server.Kill()
		before := l.total()
		if err := server.Run(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "writes after the start", func() bool { return t.Failed() || l.total() > before })
	}
	l.end(t)
}

func TestConnectionsThatAreCutLoseNoEventAndKeepNoneTwice(t *testing.T) {
	at := pgtest.New(t)
	db := raw(t, at)
	s := openPostgres(t, at, store.Options{RetryFor: 60 * time.Second})
	l := newLoad(t, s, 4)
	for range 100 {
		l.more(t, 4)
		do(t, db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'caesarion writer %' AND datname=current_database()`)
	}
	l.more(t, 4)
	l.end(t)
}

// cutter stands between a store and its server, and does to connections what
// networks do.
type cutter struct {
	net.Listener
	server string

	mu    sync.Mutex
	mode  string        // "": all passes; answers: the next answer is lost, and the connection; late: so is the next request, which arrives later
	match string        // of requests that have this
	held  chan<- func() // gets what delivers a late request
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newCutter(tb testing.TB, server string) *cutter {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	c := &cutter{Listener: l, server: server, conns: map[net.Conn]bool{}}
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.serve(conn) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		c.mu.Lock()
		for conn := range c.conns {
			_ = conn.Close()
		}
		c.mu.Unlock()
		c.wg.Wait()
	})
	return c
}

func (c *cutter) url(tb testing.TB, at string) string {
	tb.Helper()
	u, err := url.Parse(at)
	if err != nil {
		tb.Fatal(err)
	}
	u.Host = c.Addr().String()
	return u.String()
}

// set chooses what happens to the next transaction of a writer.
func (c *cutter) set(mode string, held chan<- func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mode, c.held = mode, held
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", c.server)
	if err != nil {
		return
	}
	c.mu.Lock()
	c.conns[client], c.conns[server] = true, true
	c.mu.Unlock()
	var deaf atomic.Bool // answers are lost from now on
	c.wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil || deaf.Load() {
				_ = client.Close()
				if !deaf.Load() || err != nil {
					return
				}
				continue // the server must be able to go on
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	keep := false
	defer func() {
		if !keep {
			_ = server.Close()
		}
	}()
	buf := make([]byte, 1<<20)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		mode, held := c.mode, c.held
		isBatch := n > 300 // all else that a writer sends is short
		if mode != "" && isBatch {
			c.mode = ""
		}
		c.mu.Unlock()
		if mode == "" || !isBatch {
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
			continue
		}
		deaf.Store(true)
		keep = true
		request := append([]byte(nil), buf[:n]...)
		deliver := func() {
			_, _ = server.Write(request) // the server may be gone
		}
		if mode == "late" {
			held <- deliver
		} else {
			deliver()
		}
		return
	}
}

// The answer to a commit is lost: it was kept, and must not be kept again.
func TestACommitWhoseAnswerIsLost(t *testing.T) {
	at := pgtest.New(t)
	u, _ := url.Parse(at)
	c := newCutter(t, u.Host)
	s := openPostgres(t, c.url(t, at), store.Options{})
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a"), Events: []store.Event{{Seq: 1, Type: "a", Line: []byte("x")}}})
	put(t, s, store.Batch{SessionID: "ses_a", Events: []store.Event{{Seq: 2, Type: "a", Line: []byte("x")}}}) // all is prepared
	line := []byte(strings.Repeat("long enough to be seen ", 20))
	for seq := int64(3); seq < 13; seq++ {
		c.set("answers", nil)
		put(t, s, store.Batch{SessionID: "ses_a", Events: []store.Event{{Seq: seq, Type: "a", Line: line}}})
	}
	if n, _, err := s.EventsSize(t.Context(), "ses_a", 0); err != nil || n != 12 {
		t.Errorf("%d events, %v", n, err)
	}
}

// A transaction that everybody has given up arrives at the server after all.
// Ending its connection, which the writer tries, must not be what prevents it.
func TestATransactionThatArrivesLate(t *testing.T) {
	at := pgtest.New(t)
	db := raw(t, at)
	// Found before the real one, it hides the connection from the writer.
	do(t, db, `CREATE TABLE public.pg_stat_activity (pid INT, application_name TEXT)`)
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	c := newCutter(t, u.Host)
	s := openPostgres(t, c.url(t, at)+"&search_path=public,pg_catalog", store.Options{})
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a"), Events: []store.Event{{Seq: 1, Type: "a", Line: []byte("x")}}})
	// An upsert would not fail the second time, but take back what came in between.
	text := func(text string) store.Batch {
		return store.Batch{SessionID: "ses_a", Items: []store.Item{{ID: "itm_1", Tree: []byte("{}"), Body: []byte(strings.Repeat(text, 300))}}}
	}
	put(t, s, text("a"))
	held := make(chan func(), 1)
	c.set("late", held)
	put(t, s, text("b"))
	deliver := <-held
	put(t, s, text("c"))
	deliver()
	eventually(t, "it is refused", func() bool {
		var n int
		if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname=current_database()
			AND application_name LIKE 'caesarion writer %' AND state='idle in transaction (aborted)'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
	items, err := s.Items(t.Context(), "ses_a")
	if err != nil || len(items) != 1 || items[0].Body[0] != 'c' {
		t.Errorf("what was given up came late and won: %.20s, %v", items[0].Body, err)
	}
}

func TestADatabaseThatStaysAway(t *testing.T) {
	server := pgtest.Start(t)
	s := openPostgres(t, server.Database(t), store.Options{RetryFor: 300 * time.Millisecond})
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a")})
	server.Kill()
	event := store.Batch{SessionID: "ses_a", Events: []store.Event{{Seq: 1, Type: "a", Line: []byte("x")}}}
	start := time.Now()
	err := s.Commit(t.Context(), event)
	if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != "store-failed" || !strings.Contains(e.Hint, "Try again") || !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d < 300*time.Millisecond || d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Session(ctx, "ses_a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a reader that gives up gets %v", err)
	}
	if _, err := s.Session(t.Context(), "ses_a"); codeOf(err) != "store-failed" {
		t.Errorf("a patient reader gets %v", err)
	}
	if err := server.Run(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the database is back", func() bool { return s.Commit(t.Context(), event) == nil })
	if n, _, err := s.EventsSize(t.Context(), "ses_a", 0); err != nil || n != 1 {
		t.Errorf("%d events, %v", n, err)
	}
}

func TestADeadlockIsTriedAgain(t *testing.T) {
	at := pgtest.New(t)
	db := raw(t, at)
	s := openPostgres(t, at, store.Options{})
	for _, id := range []string{"ses_a", "ses_b"} {
		put(t, s, store.Batch{SessionID: id, Session: session(id)})
	}
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	lock := func(id string) {
		if _, err := tx.ExecContext(t.Context(), `UPDATE sessions SET title='other' WHERE id=$1`, id); err != nil {
			t.Errorf("the other transaction was chosen: %v", err)
		}
	}
	if _, err := tx.ExecContext(t.Context(), `SET LOCAL deadlock_timeout='60s'`); err != nil { // the writer finds it
		t.Fatal(err)
	}
	lock("ses_b")
	// Both in one transaction: the first holds up the writer until both wait.
	results := make(chan error, 2)
	ev := []store.Event{{Seq: 1, Type: "a", Line: []byte("x")}}
	gate := make(chan struct{})
	s.Submit(store.Batch{SessionID: "ses_a", PruneTo: 1}, func(error) { <-gate })
	s.Submit(store.Batch{SessionID: "ses_a", Events: ev}, func(err error) { results <- err })
	s.Submit(store.Batch{SessionID: "ses_b", Events: ev}, func(err error) { results <- err })
	close(gate)
	waiting(t, db)
	lock("ses_a")
	if err := tx.Commit(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

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

func TestPostgresDatabasesThatCantBeUsed(t *testing.T) {
	at := pgtest.New(t)
	if err := store.Migrate(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	parsed, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*url.URL)) string {
		u := *parsed
		change(&u)
		return u.String()
	}
	newer := pgtest.New(t)
	if err := store.Migrate(t.Context(), newer); err != nil {
		t.Fatal(err)
	}
	do(t, raw(t, newer), `INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, true)`)
	latin := pgtest.New(t)
	admin := raw(t, latin)
	do(t, admin, `CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`)
	t.Cleanup(func() { _, _ = raw(t, at).Exec(`DROP DATABASE latin WITH (FORCE)`) }) //nolint:noctx // the test's has ended; the server ends anyway
	do(t, admin, `CREATE ROLE guest LOGIN PASSWORD 'guest'`)
	closed, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := closed.Addr().String()
	_ = closed.Close()
	for name, tt := range map[string]struct {
		url, code string
		opts      store.Options
	}{
		"no URL":             {url: "postgres://user:" + "sec%zz" + "@h/db", code: "database-url-invalid"},
		"nobody there":       {url: with(func(u *url.URL) { u.Host = nobody }), code: "store-unreachable"},
		"no such host":       {url: with(func(u *url.URL) { u.Host = "nowhere.invalid:5432" }), code: "store-unreachable"},
		"a wrong password":   {url: with(func(u *url.URL) { u.User = url.UserPassword("postgres", "wrong-secret") }), code: "store-login-refused"},
		"an unknown user":    {url: with(func(u *url.URL) { u.User = url.UserPassword("nobody", "wrong-secret") }), code: "store-login-refused"},
		"no such database":   {url: with(func(u *url.URL) { u.Path = "/absent" }), code: "store-missing"},
		"no rights":          {url: with(func(u *url.URL) { u.User = url.UserPassword("guest", "guest"); u.Path = "/template1" }), code: "store-forbidden"},
		"no TLS":             {url: with(func(u *url.URL) { u.RawQuery = "sslmode=require" }), code: "store-unreachable"},
		"newer":              {url: newer, code: "store-newer"},
		"newer, not changed": {url: newer, code: "store-newer", opts: store.Options{NoMigrate: true}},
		"never migrated":     {url: pgtest.New(t), code: "store-older", opts: store.Options{NoMigrate: true}},
		"another encoding":   {url: with(func(u *url.URL) { u.Path = "/latin" }), code: "store-encoding"},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := store.OpenPostgres(t.Context(), tt.url, tt.opts)
			if err == nil {
				_ = s.Close()
			}
			e, ok := errors.AsType[*errdefs.Error](err)
			if !ok || e.Code != tt.code || e.Hint == "" {
				t.Fatalf("got %v, want %s and what to do", err, tt.code)
			}
			t.Logf("%s: %s (%s)", e.Code, e.Msg, e.Hint)
			said := fmt.Sprintf("%v %+v %s", err, e, errors.Unwrap(e))
			for _, secret := range []string{pgtest.Password(), url.QueryEscape(pgtest.Password()), "wrong-secret", "sec%zz"} {
				if strings.Contains(said, secret) {
					t.Errorf("it tells the password: %s", said)
				}
			}
		})
	}
}

func TestSeveralServersStartAtOnce(t *testing.T) {
	at := pgtest.New(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			s, err := store.OpenPostgres(t.Context(), at, store.Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Go(func() {
		if err := store.Migrate(t.Context(), at); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	db := raw(t, at)
	var versions, writers int
	var indexed bool
	if err := db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM goose_db_version WHERE version_id > 0), (SELECT count(*) FROM writers), to_regclass('search_text') IS NOT NULL`).Scan(&versions, &writers, &indexed); err != nil {
		t.Fatal(err)
	}
	if versions != 4 || writers != 0 || !indexed {
		t.Errorf("%d versions, %d writers are left, indexed: %v", versions, writers, indexed)
	}
	s := openPostgres(t, at, store.Options{NoMigrate: true})
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a")})
}

// A user who may not add extensions gets the same answers, only slower.
func TestSearchWithoutTheExtension(t *testing.T) {
	at := pgtest.New(t)
	admin := raw(t, at)
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	do(t, admin, `CREATE ROLE plain LOGIN PASSWORD 'plain'`)
	do(t, admin, `CREATE SCHEMA AUTHORIZATION plain`)
	do(t, admin, `ALTER ROLE plain SET search_path = plain`)
	u.User = url.UserPassword("plain", "plain")
	var log strings.Builder
	s := openPostgres(t, u.String(), store.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if !strings.Contains(log.String(), "pg_trgm") {
		t.Errorf("nothing is said in the log: %s", &log)
	}
	text := "Some Words stand here"
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a"), Items: []store.Item{{ID: "itm_1", Tree: []byte("{}"), Body: []byte("{}"), Search: &text}}})
	if list, err := s.Sessions(t.Context(), store.List{Query: "words HERE", Limit: 9}); err != nil || len(list) != 1 {
		t.Errorf("search: %+v, %v", list, err)
	}
	do(t, admin, `DROP OWNED BY plain CASCADE`)
}

func TestNoticesReachAllWhoListen(t *testing.T) {
	at := pgtest.New(t)
	a, b := openPostgres(t, at, store.Options{}), openPostgres(t, at, store.Options{})
	heard := make(chan string, 100)
	ctx, cancel := context.WithCancelCause(t.Context())
	over := errors.New("over")
	done := make(chan error, 1)
	go func() { done <- b.Listen(ctx, "ses\"sions", func(p string) { heard <- p }) }()
	next := func(want string) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Fatalf("heard %q, want %q", got, want)
			}
		case <-time.After(60 * time.Second):
			t.Fatalf("never heard %q", want)
		}
	}
	next("")
	tell := func(p string) {
		t.Helper()
		if err := a.Notify(t.Context(), "ses\"sions", p); err != nil {
			t.Fatal(err)
		}
	}
	tell("one")
	tell("two\x00\xff")
	next("one")
	next("two\x00\xff")
	if err := a.Notify(t.Context(), "ses\"sions", strings.Repeat("x", 8000)); codeOf(err) != "notice-too-large" {
		t.Errorf("too long: %v", err)
	}
	do(t, raw(t, at), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=current_database() AND query LIKE 'LISTEN%'`)
	next("") // what was told meanwhile is not known
	tell("three")
	next("three")
	cancel(over)
	if err := <-done; !errors.Is(err, over) {
		t.Errorf("ended with %v", err)
	}
}

// Much that waits goes into several transactions, in its order.
func TestBatchesTooLargeForOneTransaction(t *testing.T) {
	s := openPostgres(t, pgtest.New(t), store.Options{})
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a")})
	const n, size = 12, 5 << 20
	line := make([]byte, size)
	var order []int64
	done := make(chan error, n)
	for i := range int64(n) {
		events := []store.Event{{Seq: i + 1, Type: "a", Line: line}}
		if i == 7 {
			events = append(events, events[0]) // can't be written, and is alone in that
		}
		s.Submit(store.Batch{SessionID: "ses_a", Events: events}, func(err error) {
			order = append(order, i)
			if (err != nil) != (i == 7) {
				t.Errorf("batch %d: %v", i, err)
			}
			done <- err
		})
	}
	for range n {
		<-done
	}
	for i, got := range order {
		if got != int64(i) {
			t.Fatalf("called back in the order %v", order)
		}
	}
	if count, bytes, err := s.EventsSize(t.Context(), "ses_a", 0); err != nil || count != n-1 || bytes != (n-1)*size {
		t.Errorf("%d events of %d bytes, %v", count, bytes, err)
	}
}

// Whoever stops a server whose database is away does not wait for long.
func TestClosingWhileTheDatabaseIsAway(t *testing.T) {
	server := pgtest.Start(t)
	s, err := store.OpenPostgres(t.Context(), server.Database(t), store.Options{RetryFor: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a")})
	server.Kill()
	done := make(chan error, 2)
	for seq := range int64(2) {
		s.Submit(store.Batch{SessionID: "ses_a", Events: []store.Event{{Seq: seq + 1, Type: "a", Line: []byte("x")}}}, func(err error) { done <- err })
	}
	start := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	for range 2 {
		if err := <-done; codeOf(err) != "store-failed" {
			t.Errorf("got %v", err)
		}
	}
}

// Bytes of files come in spite of connections that are cut.
func TestBytesThroughCutConnections(t *testing.T) {
	at := pgtest.New(t)
	s, db := openPostgres(t, at, store.Options{}), raw(t, at)
	for i := range 20 {
		data, hash := bytesOf(3<<20+i, byte(i))
		done := make(chan error, 1)
		go func() { done <- s.PutBlob(t.Context(), hash, int64(len(data)), bytes.NewReader(data)) }()
		cut := func() {
			do(t, db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name='caesarion' AND datname=current_database()`)
		}
		for range 5 { // somewhere on its way
			cut()
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		b, err := s.OpenBlob(t.Context(), hash)
		if err != nil {
			t.Fatal(err)
		}
		cut()
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(data), err)
		}
	}
}
