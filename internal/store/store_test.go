package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// database is one of the two that a test runs on.
type database struct {
	name string
	at   string // path or URL
}

// open opens a database that is closed with the test.
func (d database) open(tb testing.TB, opts store.Options) *store.Store {
	tb.Helper()
	s, err := d.tryOpen(tb, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func (d database) tryOpen(tb testing.TB, opts store.Options) (*store.Store, error) {
	if d.name == "Postgres" {
		return store.OpenPostgres(tb.Context(), d.at, opts)
	}
	return store.Open(tb.Context(), d.at, opts)
}

// onBoth runs a test on a fresh database of each sort.
func onBoth(t *testing.T, test func(*testing.T, database)) {
	t.Run("SQLite", func(t *testing.T) {
		test(t, database{"SQLite", filepath.Join(t.TempDir(), "a b?.db")}) // a name that an address must escape
	})
	t.Run("Postgres", func(t *testing.T) { test(t, database{"Postgres", pgtest.New(t)}) })
}

func session(id string) *store.Session {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return &store.Session{ID: id, CreatedAt: now, UpdatedAt: now, View: []byte("{}"), State: []byte("{}")}
}

func put(tb testing.TB, s *store.Store, b store.Batch) {
	tb.Helper()
	if err := s.Commit(tb.Context(), b); err != nil {
		tb.Fatal(err)
	}
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	onBoth(t, whatIsWrittenIsReadAgain)
}

func whatIsWrittenIsReadAgain(t *testing.T, d database) {
	s := d.open(t, store.Options{})
	want := session("ses_a")
	want.ClientID, want.Title, want.Pinned, want.Open = "client", "Title", true, true
	text := "some words"
	put(t, s, store.Batch{
		SessionID: "ses_a", Session: want,
		Items: []store.Item{
			{ID: "itm_2", Seq: 1, Tree: []byte("t2"), Body: []byte("b2"), Outputs: []byte("all"), Short: []byte("cut"), Search: &text},
			{ID: "itm_1", Seq: 2, Tree: []byte("t1"), Body: []byte("b1")},
		},
		Events:     []store.Event{{Seq: 1, Type: "a", Line: []byte("one")}, {Seq: 2, Type: "b", Line: []byte("two")}},
		Executions: []store.Execution{{ID: "exe_1", ItemID: "itm_2", SandboxID: "sbx", Seq: 7}},
	})
	put(t, s, store.Batch{
		SessionID: "ses_a", Items: []store.Item{{ID: "itm_2", Seq: 3, Tree: []byte("t3"), Body: []byte("b3"), Keep: true}},
		Events: []store.Event{{Seq: 3, Type: "c", Line: []byte("three")}},
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = d.open(t, store.Options{})
	got, err := s.SessionByClientID(t.Context(), "client")
	if err != nil || got.ID != "ses_a" || got.LastSeq != 3 || !got.Pinned || !got.Open || !got.CreatedAt.Equal(want.CreatedAt) {
		t.Errorf("session = %+v, %v", got, err)
	}
	items, err := s.Items(t.Context(), "ses_a")
	if err != nil || len(items) != 2 || items[0].ID != "itm_2" || string(items[0].Body) != "b3" || string(items[0].Short) != "cut" || items[1].Outputs != nil {
		t.Errorf("items = %+v, %v", items, err)
	}
	if out, err := s.Outputs(t.Context(), "ses_a", "itm_2"); err != nil || string(out) != "all" {
		t.Errorf("outputs = %s, %v", out, err)
	}
	if x, err := s.Executions(t.Context(), "ses_a"); err != nil || len(x) != 1 || x[0].Seq != 7 {
		t.Errorf("executions = %+v, %v", x, err)
	}
	put(t, s, store.Batch{SessionID: "ses_a", Ended: []string{"exe_1"}, PruneTo: 2})
	events, err := s.Events(t.Context(), "ses_a", 0, 100, 1)
	if err != nil || len(events) != 1 || string(events[0].Line) != "three" {
		t.Errorf("events = %+v, %v", events, err)
	}
	if list, err := s.Sessions(t.Context(), store.List{Query: "WORDS", Limit: 9}); err != nil || len(list) != 1 {
		t.Errorf("search = %+v, %v", list, err)
	}
	if err := s.Purge(t.Context(), "ses_a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Session(t.Context(), "ses_a"); codeOf(err) != "session-not-found" {
		t.Errorf("purged: %v", err)
	}
	if items, err := s.Items(t.Context(), "ses_a"); err != nil || len(items) != 0 {
		t.Errorf("items of a purged session: %+v, %v", items, err)
	}
}

func TestABatchIsWholeOrNotAtAll(t *testing.T) { onBoth(t, aBatchIsWholeOrNotAtAll) }

func aBatchIsWholeOrNotAtAll(t *testing.T, d database) {
	s := d.open(t, store.Options{})
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a"), Events: []store.Event{{Seq: 1, Type: "a", Line: []byte("x")}}})
	// Many at once share a transaction; the one that can't be written fails alone.
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			b := store.Batch{SessionID: fmt.Sprintf("ses_%d", i), Session: session(fmt.Sprintf("ses_%d", i)), Events: []store.Event{{Seq: 1, Type: "a"}}}
			if i == 20 {
				b.Events = []store.Event{{Seq: 1, Type: "a", Line: []byte("x")}, {Seq: 1, Type: "a", Line: []byte("again")}}
			} else {
				b.Events[0].Line = []byte("x")
			}
			err := s.Commit(t.Context(), b)
			if (err != nil) != (i == 20) {
				t.Errorf("batch %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if _, err := s.Session(t.Context(), "ses_20"); codeOf(err) != "session-not-found" {
		t.Errorf("half of a batch is there: %v", err)
	}
	if list, err := s.Sessions(t.Context(), store.List{Limit: 100}); err != nil || len(list) != 40 {
		t.Errorf("%d sessions, %v", len(list), err)
	}
}

func TestCallbacksComeInOrderAndAfterTheCommit(t *testing.T) {
	onBoth(t, callbacksComeInOrderAndAfterTheCommit)
}

func callbacksComeInOrderAndAfterTheCommit(t *testing.T, d database) {
	s := d.open(t, store.Options{})
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a")})
	const n = 2000
	order := make(chan int64, n)
	for i := range int64(n) {
		s.Submit(store.Batch{SessionID: "ses_a", Events: []store.Event{{Seq: i + 1, Type: "a", Line: []byte("x")}}}, func(err error) {
			if err != nil {
				t.Error(err)
			}
			order <- i + 1
		})
	}
	for want := range int64(n) {
		got := <-order
		if got != want+1 {
			t.Fatalf("callback %d came at %d", got, want+1)
		}
		if want%500 == 0 {
			if e, err := s.Events(t.Context(), "ses_a", got-1, got, 1); err != nil || len(e) != 1 {
				t.Fatalf("called back for %d, but it is not there: %v", got, err)
			}
		}
	}
}

func TestUnusableDatabases(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.db")
	if err := (database{"SQLite", path}).open(t, store.Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode = %v, %v: others can read sessions", info.Mode(), err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		make func(string) error
		code string
	}{
		"not a database": {func(p string) error { return os.WriteFile(p, []byte(strings.Repeat("x", 9000)), 0o600) }, "store-corrupt"},
		"torn": {func(p string) error {
			torn := append([]byte(nil), whole...)
			copy(torn[100:8192], make([]byte, 8092))
			return os.WriteFile(p, torn, 0o600)
		}, "store-corrupt"},
		"newer": {func(p string) error {
			if err := os.WriteFile(p, whole, 0o600); err != nil {
				return err
			}
			db, err := sql.Open("sqlite", p)
			if err != nil {
				return err
			}
			defer db.Close()
			_, err = db.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`)
			return err
		}, "store-newer"},
		"a folder": {func(p string) error { return os.Mkdir(p, 0o700) }, "store-unusable"},
	} {
		t.Run(name, func(t *testing.T) {
			p := filepath.Join(t.TempDir(), "a.db")
			if err := tt.make(p); err != nil {
				t.Fatal(err)
			}
			s, err := store.Open(t.Context(), p, store.Options{})
			if err == nil {
				_ = s.Close()
			}
			e, ok := errors.AsType[*errdefs.Error](err)
			if !ok || e.Code != tt.code || e.Hint == "" || !strings.Contains(e.Msg, p) {
				t.Errorf("got %v, want %s with the path and what to do", err, tt.code)
			}
		})
	}
}

func TestAClosedStoreAnswersNobodyUnderTheirLock(t *testing.T) {
	onBoth(t, aClosedStoreAnswersNobodyUnderTheirLock)
}

func aClosedStoreAnswersNobodyUnderTheirLock(t *testing.T, d database) {
	s := d.open(t, store.Options{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	done := make(chan error, 1)
	mu.Lock()
	s.Submit(store.Batch{SessionID: "ses_a"}, func(err error) {
		mu.Lock()
		defer mu.Unlock()
		done <- err
	})
	mu.Unlock()
	if err := <-done; !errors.Is(err, store.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestAfterCloseNothingIsWritten(t *testing.T) { onBoth(t, afterCloseNothingIsWritten) }

func afterCloseNothingIsWritten(t *testing.T, d database) {
	s := d.open(t, store.Options{})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), store.Batch{SessionID: "x"}); !errors.Is(err, store.ErrClosed) {
		t.Errorf("got %v", err)
	}
	if err := s.Write(t.Context(), func(context.Context, *sql.Tx) error { return nil }); !errors.Is(err, store.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

// A search never fails and never finds what does not have the words, whatever
// people type.
func TestAnySearch(t *testing.T) { onBoth(t, anySearch) }

func anySearch(t *testing.T, d database) {
	s := d.open(t, store.Options{})
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringN(0, 40, 200).Draw(rt, "text")
		query := rapid.OneOf(rapid.StringN(0, 12, 60), rapid.SampledFrom([]string{`"`, `a"b`, "NEAR(a b)", "a* -b", "%", "_", `\`, "OR", "text:abc", "abc*"})).Draw(rt, "query")
		row := session("ses_1")
		row.Title = text
		put(t, s, store.Batch{SessionID: "ses_1", Session: row, Items: []store.Item{{ID: "itm_1", Tree: []byte("{}"), Body: []byte("{}"), Search: &text}}})
		list, err := s.Sessions(t.Context(), store.List{Query: query, Limit: 10})
		if err != nil {
			rt.Fatalf("search %q: %v", query, err)
		}
		words := strings.FieldsFunc(query, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) })
		has := true
		for _, w := range words {
			has = has && strings.Contains(text, w)
		}
		if has && len(list) != 1 && !strings.ContainsRune(text+query, 0) {
			rt.Errorf("search %q does not find %q", query, text)
		}
	})
}
