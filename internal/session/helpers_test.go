package session_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/sandbox/fake/faketest"
	"github.com/caesarion/caesarion/internal/session"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	kerneltest.Main(m)
}

// world is a machine with a database, on which services start and stop.
type world struct {
	host *fake.Host
	path string
	opts session.Options
	tmpl fleet.Template
}

func newWorld(tb testing.TB, withPython bool) *world {
	tb.Helper()
	newHost := faketest.NewWithoutPython
	if withPython {
		newHost = faketest.New
	}
	return &world{host: newHost(tb), path: newDatabase(tb)}
}

// server is one process's view of the world.
type server struct {
	*session.Service
	fleet *fleet.Fleet
	store *store.Store
	stop  func()
}

func (w *world) start(tb testing.TB) *server {
	tb.Helper()
	fl, err := fleet.New(context.WithoutCancel(tb.Context()), w.host.Driver(), nil, fleet.Options{Templates: map[string]fleet.Template{"python": w.tmpl}})
	if err != nil {
		tb.Fatal(err)
	}
	st, err := openDatabase(tb.Context(), w.path)
	if err != nil {
		tb.Fatal(err)
	}
	svc, err := session.New(tb.Context(), fl, st, w.opts)
	if err != nil {
		tb.Fatal(err)
	}
	s := &server{Service: svc, fleet: fl, store: st}
	s.stop = sync.OnceFunc(func() {
		for _, c := range []interface{ Close() error }{svc, fl, st} {
			if err := c.Close(); err != nil {
				tb.Error(err)
			}
		}
	})
	tb.Cleanup(s.stop)
	return s
}

const patience = 60 * time.Second

// await waits until a session is as wanted.
func await(tb testing.TB, s *session.Session, what string, ready func(v1.SessionDetail) bool) v1.SessionDetail {
	tb.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		d := s.Detail()
		if ready(d) {
			return d
		}
		if time.Now().After(end) {
			text, _ := json.MarshalIndent(d, "", " ")
			tb.Fatalf("never came: %s: %.4000s", what, text)
		}
	}
}

func item(d v1.SessionDetail, id string) v1.Item {
	for _, it := range d.Items {
		if it.ID == id {
			return it
		}
	}
	return v1.Item{}
}

func status(id, want string) func(v1.SessionDetail) bool {
	return func(d v1.SessionDetail) bool { return item(d, id).Status == want }
}

func create(tb testing.TB, svc *server) *session.Session {
	tb.Helper()
	s, err := svc.Create(tb.Context(), v1.CreateSession{})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func addCell(tb testing.TB, s *session.Session, code string) string {
	tb.Helper()
	it, err := s.AddItem(v1.CreateItem{Kind: "cell", Code: code})
	if err != nil {
		tb.Fatal(err)
	}
	return it.ID
}

func run(tb testing.TB, s *session.Session, ids ...string) {
	tb.Helper()
	if _, err := s.Run(v1.RunItems{Items: ids}); err != nil {
		tb.Fatal(err)
	}
}

// everything reads all events of a session up to a number.
func everything(tb testing.TB, s *session.Session, to int64) [][]byte {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	r := s.Reader(0)
	defer r.Close()
	var lines [][]byte
	for last := int64(0); last < to; {
		batch, err := r.Next(ctx)
		if err != nil {
			tb.Fatalf("after %d: %v", last, err)
		}
		for _, rec := range batch {
			if rec.Seq == 0 {
				continue
			}
			if rec.Seq != last+1 {
				tb.Fatalf("number %d follows %d", rec.Seq, last)
			}
			if last = rec.Seq; last <= to {
				lines = append(lines, rec.Line)
			}
		}
	}
	return lines
}

type rawJSON = json.RawMessage

func openStore(tb testing.TB, path string) (*store.Store, error) {
	tb.Helper()
	return openDatabase(tb.Context(), path)
}

// Sessions are kept in SQLite and in Postgres. What breaks a file of SQLite on
// purpose has nothing to break there.
func TestAllOnPostgres(t *testing.T) {
	pgtest.Again(t, "TestWhatCantBeKeptIsNotShown")
}

// newDatabase gives the path or the URL of a fresh database.
func newDatabase(tb testing.TB) string {
	tb.Helper()
	if pgtest.Wanted() {
		return pgtest.New(tb)
	}
	return filepath.Join(tb.TempDir(), "caesarion.db")
}

func openDatabase(ctx context.Context, at string) (*store.Store, error) {
	if strings.HasPrefix(at, "postgres://") {
		return store.OpenPostgres(ctx, at, store.Options{})
	}
	return store.Open(ctx, at, store.Options{})
}
