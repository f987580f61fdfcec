// Package httpapitest is the suite that the HTTP API passes on every driver:
// over a real socket, with the real agent and the real kernel.
//
//	httpapitest.Run(t, func(tb testing.TB) sandbox.Driver { … })
//
// The driver's template image is Options.Image. One server and one sandbox
// serve most tests, since starting Python takes a second; a test that breaks
// its sandbox makes its own.
package httpapitest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/chat"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/httpapi"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/identity/oidc"
	"github.com/caesarion/caesarion/internal/limits"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/session"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/workspace"
)

// Options configures Run. The zero value suits a driver that takes any image.
type Options struct {
	Image string // of the template; default "python"
	// Kill ends a sandbox as if it had run out of memory, with that reason.
	// Default: the driver deletes it behind the server's back.
	Kill func(d sandbox.Driver, id sandbox.ID) error
	// Data is the folder of sessions; default: one that goes with the test.
	Data string
	// Postgres is the URL of a database. With it there are two replicas: what
	// the suite makes is the first one's, and everything else it asks the second,
	// which forwards it.
	Postgres string
	// Accounts has users; without, there is the token.
	Accounts     bool
	Providers    []*oidc.Provider
	MaxSandboxes int           // default 4
	Limits       *limits.Rules // nil: nothing is limited
}

// Token is what the server under test asks for.
const Token = "test-token-0123456789"

// patience bounds whatever should take a moment, on a busy machine too.
const patience = 60 * time.Second

// Server is an API on a real socket.
type Server struct {
	URL      string
	Fleet    *fleet.Fleet
	Sessions *session.Service
	Accounts *accounts.Service // nil: there are none
	API      *httpapi.API
	Driver   sandbox.Driver
	opts     Options
	stop     func()
	halt     func()  // stops this one and leaves the one in front
	front    *Server // another replica; nil: there is none
}

// Start serves the API of a driver on a free port of loopback.
func Start(tb testing.TB, driver sandbox.Driver, opts Options) *Server {
	tb.Helper()
	if opts.Image == "" {
		opts.Image = "python"
	}
	if opts.Data == "" {
		opts.Data = tb.TempDir()
	}
	s := start(tb, driver, opts)
	if opts.Postgres != "" {
		front := opts
		front.Data = tb.TempDir()
		s.front = start(tb, driver, front)
	}
	return s
}

func start(tb testing.TB, driver sandbox.Driver, opts Options) *Server {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	var st *store.Store
	var replicas *replica.Registry
	if opts.Postgres == "" {
		st, err = store.Open(tb.Context(), filepath.Join(opts.Data, "caesarion.db"), store.Options{})
		must(err)
	} else {
		id := replica.NewID("test")
		st, err = store.OpenPostgres(tb.Context(), opts.Postgres, store.Options{Replica: id})
		must(err)
		replicas, err = replica.Open(tb.Context(), st.DB(), replica.Options{ID: id, Address: ln.Addr().String()})
		must(err)
	}
	var counted *limits.Service
	var may fleet.Limits
	if opts.Limits != nil {
		counted, err = limits.New(tb.Context(), st, limits.Options{Rules: *opts.Limits, Replicas: replicas != nil})
		must(err)
		may = limiter{counted}
	}
	fl, err := fleet.New(tb.Context(), driver, nil, fleet.Options{
		Limits:       may,
		Templates:    map[string]fleet.Template{"python": {Image: opts.Image, Limits: sandbox.Limits{MemoryBytes: 2 << 30}, PauseAfter: time.Hour}},
		MaxSandboxes: cmp.Or(opts.MaxSandboxes, 4), // the suite fills them all
		Replicas:     replicas,
	})
	must(err)
	files, err := workspace.New(filepath.Join(opts.Data, "sessions"), st, workspace.Options{})
	must(err)
	sessions, err := session.New(tb.Context(), fl, st, session.Options{Files: files, Replicas: replicas})
	must(err)
	answers, err := chat.New(sessions, llm.NewRegistry(nil, llm.RegistryOptions{}), chat.Options{})
	must(err)
	var users *accounts.Service
	if opts.Accounts {
		users = accounts.New(tb.Context(), st, accounts.Options{Hash: accounts.HashOptions{Time: 1, Memory: 64}})
	}
	api := httpapi.New(fl, httpapi.Options{
		Accounts: users, Providers: opts.Providers,
		Token: Token, Version: "test", AllowedHosts: []string{"sandboxes.example.com"}, Heartbeat: time.Second,
		Sessions: sessions, Files: files, Chat: answers, Replicas: replicas, Secret: []byte("secret of the installation"),
		Limits: counted,
	})
	replicas.Start(tb.Context(), sessions)
	srv := api.Server()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	s := &Server{URL: "http://" + ln.Addr().String(), Fleet: fl, Sessions: sessions, Accounts: users, API: api, Driver: driver, opts: opts}
	s.halt = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			tb.Errorf("shutdown: %v", err)
			_ = srv.Close()
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			tb.Errorf("serve: %v", err)
		}
		answers.Close()
		if users != nil {
			if err := users.Close(); err != nil {
				tb.Errorf("close accounts: %v", err)
			}
		}
		closers := []io.Closer{sessions, files, fl, replicas, st}
		if counted != nil {
			closers = slices.Insert(closers, 3, io.Closer(counted)) // after the fleet
		}
		for _, c := range closers {
			if err := c.Close(); err != nil {
				tb.Errorf("close %T: %v", c, err)
			}
		}
		api.CloseIdle()
		http.DefaultClient.CloseIdleConnections()
	})
	s.stop = func() {
		if s.front != nil {
			s.front.stop()
		}
		s.halt()
	}
	tb.Cleanup(s.stop)
	return s
}

// at gives the address of the replica to ask: the one in front, except for what
// makes something, and for what browsers say of where they are.
func (s *Server) at(method, path string, headers ...header) string {
	if s.front == nil {
		return s.URL
	}
	for _, h := range headers {
		switch h[0] {
		case "Origin", "Host", "Cookie", "Sec-Fetch-Site", "Sec-Fetch-Dest", "Referer":
			return s.URL
		}
	}
	path, _, _ = strings.Cut(path, "?")
	switch original := strings.TrimPrefix(path, "/api"); {
	case method != http.MethodPost:
	case path == "/v1/sandboxes", path == "/v1/sessions", path == "/v1/sessions/import", original == "/sandboxes", original == "/chat", strings.HasSuffix(path, "/initialize"):
		return s.URL
	}
	return s.front.URL
}

// Stop ends the server and leaves the sandboxes.
func (s *Server) Stop() { s.stop() }

// answer is a response that was read.
type answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// header is a name and a value.
type header [2]string

// open sends a request with the token.
func (s *Server) open(t testing.TB, method, path string, body io.Reader, headers ...header) *http.Response {
	t.Helper()
	// Clean-ups call this too, when the test's context has ended.
	req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), method, s.at(method, path, headers...)+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+Token)
	for _, h := range headers {
		switch {
		case h[1] == "":
			req.Header.Del(h[0])
		case h[0] == "Host":
			req.Host = h[1]
		default:
			req.Header.Set(h[0], h[1])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp
}

func (s *Server) do(t testing.TB, method, path string, body io.Reader, headers ...header) answer {
	t.Helper()
	resp := s.open(t, method, path, body, headers...)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return answer{resp.StatusCode, resp.Header, text}
}

// send sends a value as JSON.
func (s *Server) send(t testing.TB, method, path string, body any, headers ...header) answer {
	t.Helper()
	var r io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		r = bytes.NewReader(text)
		headers = append([]header{{"Content-Type", "application/json"}}, headers...)
	}
	return s.do(t, method, path, r, headers...)
}

// into checks the status and decodes the body.
func into[T any](t testing.TB, a answer, status int) T {
	t.Helper()
	var v T
	if a.Status != status {
		t.Fatalf("status = %d, want %d: %.500s", a.Status, status, a.Body)
	}
	if err := json.Unmarshal(a.Body, &v); err != nil {
		t.Fatalf("body is not JSON: %v: %.500s", err, a.Body)
	}
	return v
}

// wantProblem checks that an answer is a whole problem with this status and code.
func wantProblem(t testing.TB, a answer, status int, code string) v1.Problem {
	t.Helper()
	p := into[v1.Problem](t, a, status)
	if p.Code != code || p.Status != status {
		t.Fatalf("problem = %d %q, want %d %q: %s", p.Status, p.Code, status, code, a.Body)
	}
	if got := a.Header.Get("Content-Type"); got != v1.MediaProblem {
		t.Errorf("content type = %q, want %q", got, v1.MediaProblem)
	}
	if p.Title == "" || p.Detail == "" || p.RequestID == "" || p.Instance == "" || !strings.HasSuffix(p.Type, ":"+code) {
		t.Errorf("problem lacks a field: %s", a.Body)
	}
	if got := a.Header.Get(v1.HeaderRequestID); got != p.RequestID {
		t.Errorf("request id in the header = %q, in the body %q", got, p.RequestID)
	}
	return p
}

// create makes a sandbox that is deleted after the test.
func (s *Server) create(t testing.TB, in v1.CreateSandbox) v1.Sandbox {
	t.Helper()
	sb := into[v1.Sandbox](t, s.send(t, "POST", "/v1/sandboxes", in), 201)
	t.Cleanup(func() { s.delete(t, sb.ID) })
	return sb
}

func (s *Server) delete(t testing.TB, id string) {
	t.Helper()
	if sb, err := s.Fleet.Get(sandbox.ID(id)); err == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		if err := sb.Delete(ctx); err != nil {
			t.Errorf("delete %s: %v", id, err)
		}
	}
}

// run executes code and gives the finished execution.
func (s *Server) run(t testing.TB, id, code string) v1.Execution {
	t.Helper()
	return into[v1.Execution](t, s.send(t, "POST", "/v1/sandboxes/"+id+"/executions", v1.Execute{Code: code}), 200)
}

// start executes code and returns at once.
func (s *Server) start(t testing.TB, id string, in v1.Execute) v1.Execution {
	t.Helper()
	a := s.send(t, "POST", "/v1/sandboxes/"+id+"/executions", in, header{"Prefer", "respond-async"})
	e := into[v1.Execution](t, a, 202)
	if got, want := a.Header.Get("Location"), "/v1/sandboxes/"+id+"/executions/"+e.ID; got != want {
		t.Errorf("Location = %q, want %q", got, want)
	}
	return e
}

func (s *Server) execution(t testing.TB, id, exe string) v1.Execution {
	t.Helper()
	return into[v1.Execution](t, s.do(t, "GET", "/v1/sandboxes/"+id+"/executions/"+exe, nil), 200)
}

// await gives an execution once ready holds.
func (s *Server) await(t testing.TB, id, exe string, ready func(v1.Execution) bool) v1.Execution {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		e := s.execution(t, id, exe)
		if ready(e) {
			return e
		}
		if time.Now().After(end) {
			t.Fatalf("execution never got there: %+v", e)
		}
	}
}

func finished(e v1.Execution) bool { return e.FinishedAt != nil }
func running(e v1.Execution) bool  { return e.Status == "running" }

// text joins the text of one stream.
func text(e v1.Execution, name string) string {
	var b strings.Builder
	for _, o := range e.Outputs {
		if o.Type == "stream" && o.Name == name {
			b.WriteString(o.Text)
		}
	}
	return b.String()
}

// result gives the plain text of the execute_result.
func result(t testing.TB, e v1.Execution) string {
	t.Helper()
	for _, o := range e.Outputs {
		if o.Type == "execute_result" {
			var s string
			if err := json.Unmarshal(o.Data["text/plain"], &s); err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	t.Fatalf("no execute_result: %+v", e)
	return ""
}

// events reads an NDJSON stream to its end.
func events(t testing.TB, r io.Reader) []event.Event {
	t.Helper()
	var list []event.Event
	dec := json.NewDecoder(r)
	for {
		var e event.Event
		err := dec.Decode(&e)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatalf("after %d events: %v", len(list), err)
		}
		list = append(list, e)
	}
}

// sse is one server-sent event.
type sse struct{ id, typ, data string }

// nextSSE reads one event; comments are counted and left out.
func nextSSE(r *bufio.Reader, comments *int) (sse, error) {
	var e sse
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return e, err
		}
		line = strings.TrimSuffix(line, "\n")
		switch k, v, _ := strings.Cut(line, ":"); {
		case line == "":
			if e.data != "" {
				return e, nil
			}
		case k == "":
			*comments++
		case k == "id":
			e.id = strings.TrimPrefix(v, " ")
		case k == "event":
			e.typ = strings.TrimPrefix(v, " ")
		case k == "data":
			e.data += strings.TrimPrefix(v, " ")
		}
	}
}

// fileURL gives the address of a file's bytes.
func fileURL(id, path string) string {
	return "/v1/sandboxes/" + id + "/files/content?path=" + url.QueryEscape(path)
}

// Test is one test of the suite, for a server with one sandbox all share.
type test struct {
	name string
	run  func(t *testing.T, s *Server, id string)
}

// Run tests the API on a driver.
func Run(t *testing.T, newDriver func(testing.TB) sandbox.Driver, opts Options) {
	s := Start(t, newDriver(t), opts)
	sb := into[v1.Sandbox](t, s.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{}), 201)
	t.Cleanup(func() { s.delete(t, sb.ID) })
	for _, group := range [][]test{accessTests, requestTests, sandboxTests, sleepTests(s.Driver.Capabilities().Can), executionTests, streamTests, kernelTests, fileTests, processTests, seedTests, sessionTests, hostileTests, originTests} {
		for _, tt := range group {
			t.Run(tt.name, func(t *testing.T) { tt.run(t, s, sb.ID) })
		}
	}
	t.Run("a restarted server finds sandboxes, running executions and sessions again", func(t *testing.T) {
		testRestart(t, newDriver(t), opts)
	})
}
