package agentapi_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// holdServer answers /health, sends one event of an execution and no end, and
// holds /usage until told; it counts the connections that are open.
type holdServer struct {
	mu     sync.Mutex
	open   map[net.Conn]bool
	closed chan struct{} // gets a value whenever a connection is closed
	usage  chan struct{}
	client *agentapi.Client
}

func newHoldServer(t *testing.T) *holdServer {
	s := &holdServer{open: map[net.Conn]bool{}, closed: make(chan struct{}, 100), usage: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"version":"x"}`) })
	mux.HandleFunc("GET /usage", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-s.usage:
		case <-r.Context().Done():
		}
		fmt.Fprint(w, `{"processes":7}`)
	})
	mux.HandleFunc("GET /executions/{id}/events", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, `{"seq":1,"time":"2026-01-01T00:00:00Z","type":"execution.started","data":{"kernel_id":"krn_a"}}`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.ConnState = func(c net.Conn, state http.ConnState) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch state {
		case http.StateNew:
			s.open[c] = true
		case http.StateClosed:
			delete(s.open, c)
			s.closed <- struct{}{}
		default:
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	s.client = agentapi.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	}, "")
	t.Cleanup(s.client.CloseIdle)
	return s
}

// allClosed waits until the server has no connection left.
func (s *holdServer) allClosed(t *testing.T) {
	t.Helper()
	for {
		s.mu.Lock()
		n := len(s.open)
		s.mu.Unlock()
		if n == 0 {
			return
		}
		select {
		case <-s.closed:
		case <-t.Context().Done():
			t.Fatalf("%d connections are still open", n)
		}
	}
}

func TestHoldCutsStreamsAndClosesConnections(t *testing.T) {
	s := newHoldServer(t)
	stream, err := s.client.Events(t.Context(), "exe_a", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if _, err := stream.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
	release, err := s.client.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Next(); !errors.Is(err, agentapi.ErrHeld) {
		t.Errorf("got %v, want ErrHeld", err)
	}
	s.allClosed(t)

	waiting := make(chan error, 1)
	go func() {
		_, err := s.client.Health(t.Context())
		waiting <- err
	}()
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.client.Health(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a call while held: got %v, want it to wait for its context", err)
	}
	select {
	case err := <-waiting:
		t.Fatalf("a call went through while held: %v", err)
	default:
	}
	release()
	release() // once is enough
	if err := <-waiting; err != nil {
		t.Errorf("the call that waited: %v", err)
	}
}

func TestHoldAwaitsCallsAndGivesUp(t *testing.T) {
	s := newHoldServer(t)
	got := make(chan error, 1)
	go func() {
		u, err := s.client.Usage(t.Context())
		if err == nil && u.Processes != 7 {
			err = fmt.Errorf("usage %+v", u)
		}
		got <- err
	}()
	for n := 0; n == 0; { // until the call is under way
		s.mu.Lock()
		n = len(s.open)
		s.mu.Unlock()
	}
	short, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.client.Hold(short); !errors.Is(err, errdefs.ErrConflict) {
		t.Fatalf("got %v, want sandbox-busy", err)
	}
	if _, err := s.client.Health(t.Context()); err != nil {
		t.Fatalf("after a Hold that failed: %v", err)
	}
	held := make(chan func(), 1)
	go func() {
		release, err := s.client.Hold(t.Context())
		if err != nil {
			t.Error(err)
			release = func() {}
		}
		held <- release
	}()
	close(s.usage)
	release := <-held
	if err := <-got; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	s.allClosed(t)
	release()
}

func TestTwoHoldsTakeTurns(t *testing.T) {
	s := newHoldServer(t)
	first, err := s.client.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan func())
	go func() {
		release, err := s.client.Hold(t.Context())
		if err != nil {
			t.Error(err)
		}
		second <- release
	}()
	select {
	case <-second:
		t.Fatal("two held at once")
	default:
	}
	first()
	(<-second)()
	if _, err := s.client.Health(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// An agent that never answers the opening of a door does not keep anybody from
// saving its sandbox.
func TestHoldDoesNotAwaitADoor(t *testing.T) {
	s := newHoldServer(t)
	ours, theirs := net.Pipe()
	defer theirs.Close()
	s.client.SetDial(func(context.Context) (net.Conn, error) { return ours, nil })
	opened := make(chan error, 1)
	go func() {
		_, err := s.client.Egress(t.Context(), agentapi.Egress{})
		opened <- err
	}()
	if _, err := theirs.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	release, err := s.client.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if err := <-opened; err == nil {
		t.Error("a door was opened while held")
	}
}
