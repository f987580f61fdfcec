package replicas_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/chat"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/httpapi"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/sandbox/fake/faketest"
	"github.com/caesarion/caesarion/internal/session"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
	"github.com/caesarion/caesarion/internal/workspace"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

const (
	patience = 60 * time.Second
	token    = "token-of-the-installation"
	secret   = "secret-of-the-installation-32-bytes"
	// ttl is shorter than in use: the tests wait for it many times.
	ttl = 3 * time.Second
)

// world is one installation: a database and a machine with sandboxes.
type world struct {
	host *fake.Host
	url  string
	ttl  time.Duration

	mu      sync.Mutex
	servers []*server
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	return &world{host: faketest.New(tb), url: pgtest.New(tb), ttl: ttl}
}

// sandboxes counts those that there are.
func (w *world) sandboxes(tb testing.TB) int {
	tb.Helper()
	list, err := w.host.Driver().List(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return len(list)
}

// server is one replica.
type server struct {
	name     string
	url      string
	db       *link
	store    *store.Store
	replicas *replica.Registry
	fleet    *fleet.Fleet
	sessions *session.Service
	api      *httpapi.API
	http     *http.Server
	served   chan error
	files    *workspace.Workspace
	chat     *chat.Service
	end      func(kill bool) error
}

func (w *world) start(tb testing.TB, name string) *server {
	tb.Helper()
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("REPLICAS_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo})).With("server", name)
	}
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	ctx := context.WithoutCancel(tb.Context())
	u, err := url.Parse(w.url)
	must(err)
	s := &server{name: name, db: newLink(tb, u.Host), served: make(chan error, 1)}
	u.Host = s.db.Address()
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	must(err)
	s.url = "http://" + ln.Addr().String()
	id := replica.NewID(name)
	s.store, err = store.OpenPostgres(ctx, u.String(), store.Options{Replica: id, RetryFor: 20 * time.Second, Logger: log})
	must(err)
	s.replicas, err = replica.Open(ctx, s.store.DB(), replica.Options{ID: id, Address: ln.Addr().String(), TTL: w.ttl, Logger: log})
	must(err)
	driver := w.host.Driver()
	s.fleet, err = fleet.New(ctx, driver, nil, fleet.Options{Replicas: s.replicas, MaxSandboxes: -1, Logger: log})
	must(err)
	s.files, err = workspace.New(tb.TempDir(), s.store, workspace.Options{Logger: log})
	must(err)
	s.sessions, err = session.New(ctx, s.fleet, s.store, session.Options{Files: s.files, Replicas: s.replicas, Logger: log})
	must(err)
	s.chat, err = chat.New(s.sessions, llm.NewRegistry(nil, llm.RegistryOptions{}), chat.Options{})
	must(err)
	s.api = httpapi.New(s.fleet, httpapi.Options{
		Token: token, Version: "test", Heartbeat: time.Second, Sessions: s.sessions, Files: s.files, Chat: s.chat,
		Replicas: s.replicas, Secret: []byte(secret), Logger: log,
	})
	s.http = s.api.Server()
	s.replicas.Start(ctx, s.sessions)
	go func() { s.served <- s.http.Serve(ln) }()
	var once sync.Once
	s.end = func(kill bool) (err error) {
		once.Do(func() {
			if kill {
				_ = s.http.Close()
			} else {
				ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
				defer cancel()
				if e := s.http.Shutdown(ctx); e != nil {
					_ = s.http.Close()
				}
			}
			<-s.served
			s.chat.Close()
			err = errors.Join(s.sessions.Close(), s.files.Close(), s.fleet.Close(), s.replicas.Close(), s.store.Close(), driver.Close())
		})
		return err
	}
	tb.Cleanup(func() {
		s.db.Mend()     // else it would try long to write what it has
		_ = s.end(true) // a test that stops it looks at what that gives
		s.api.CloseIdle()
	})
	w.mu.Lock()
	w.servers = append(w.servers, s)
	w.mu.Unlock()
	return s
}

// stop ends a server as a signal does.
func (s *server) stop(tb testing.TB) {
	tb.Helper()
	if err := s.end(false); err != nil {
		tb.Errorf("stop %s: %v", s.name, err)
	}
}

// kill has a server die as by a signal it can't catch, as far as others can
// tell: its connections break, its address refuses, the database hears nothing
// more. What it has in memory goes on without knowing, as a process that was
// only thought dead would.
func (s *server) kill() {
	s.db.Cut()
	_ = s.http.Close()
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) into(tb testing.TB, v any) {
	tb.Helper()
	if err := json.Unmarshal(a.body, v); err != nil {
		tb.Fatalf("%d %.500s: %v", a.status, a.body, err)
	}
}

func (s *server) request(ctx context.Context, method, path string, body any) (*http.Request, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		r = b
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	if r != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// try sends a request; the connection may fail.
func (s *server) try(ctx context.Context, method, path string, body any) (answer, error) {
	req, err := s.request(ctx, method, path, body)
	if err != nil {
		return answer{}, err
	}
	return do(req)
}

func do(req *http.Request) (answer, error) {
	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, text}, err
}

// call sends a request that must be answered with a status.
func (s *server) call(tb testing.TB, method, path string, body any, want int) answer {
	tb.Helper()
	a, err := s.try(context.WithoutCancel(tb.Context()), method, path, body)
	if err != nil {
		tb.Fatalf("%s %s %s: %v", s.name, method, path, err)
	}
	if a.status != want {
		tb.Fatalf("%s %s %s: got %d, want %d: %.500s", s.name, method, path, a.status, want, a.body)
	}
	return a
}

// start has a sandbox run code and does not wait for it.
func (s *server) start(tb testing.TB, sandbox, code string) answer {
	tb.Helper()
	req, err := s.request(context.WithoutCancel(tb.Context()), "POST", "/v1/sandboxes/"+sandbox+"/executions", map[string]any{"code": code})
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Prefer", "respond-async")
	a, err := do(req)
	if err != nil || a.status != http.StatusAccepted {
		tb.Fatalf("%s: %d %.300s %v", s.name, a.status, a.body, err)
	}
	return a
}

// newSession makes a session with one cell and gives both ids.
func (s *server) newSession(tb testing.TB, code string) (session, cell string) {
	tb.Helper()
	var sess v1.Session
	s.call(tb, "POST", "/v1/sessions", map[string]any{}, 201).into(tb, &sess)
	var item v1.Item
	s.call(tb, "POST", "/v1/sessions/"+sess.ID+"/items", v1.CreateItem{Kind: "cell", Code: code}, 201).into(tb, &item)
	return sess.ID, item.ID
}

func (s *server) run(tb testing.TB, session string, cells ...string) {
	tb.Helper()
	s.call(tb, "POST", "/v1/sessions/"+session+"/run", v1.RunItems{Items: cells}, 202)
}

func (s *server) detail(tb testing.TB, session string) v1.SessionDetail {
	tb.Helper()
	var d v1.SessionDetail
	s.call(tb, "GET", "/v1/sessions/"+session, nil, 200).into(tb, &d)
	return d
}

// eventually waits for a condition.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never came: %s", what)
		}
	}
}

func cellOf(d v1.SessionDetail, id string) v1.Item {
	for _, it := range d.Items {
		if it.ID == id {
			return it
		}
	}
	return v1.Item{}
}

func textOf(it v1.Item) string {
	var b strings.Builder
	for _, o := range it.Outputs {
		b.WriteString(o.Text)
	}
	return b.String()
}

// numbers is what a counting cell writes.
func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	return b.String()
}

func counting(n int, pause time.Duration) string {
	return fmt.Sprintf("import time\nfor i in range(%d):\n    print(i, flush=True)\n    time.sleep(%g)", n, pause.Seconds())
}

func wait(tb testing.TB, what string, done <-chan struct{}) {
	tb.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		tb.Fatalf("never came: %s", what)
	}
}
