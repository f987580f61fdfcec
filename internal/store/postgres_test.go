package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
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

// eventually waits for a condition.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(60 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never came: %s", what)
		}
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
	migrations, err := os.ReadDir("migrations/postgres")
	if err != nil {
		t.Fatal(err)
	}
	if versions != len(migrations) || writers != 0 || !indexed {
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
