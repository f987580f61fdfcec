package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// outside is a fleet.Egress that answers everything itself: plain requests
// with who asks, tunnels with an endless stream.
type outside struct {
	network string
	served  atomic.Int64
	open    atomic.Int64
	used    atomic.Int64

	forgotten sync.Map // sandbox.ID → true
}

func (o *outside) Network(string) string { return o.network }
func (o *outside) CACerts() []byte       { return nil }
func (o *outside) Forget(id sandbox.ID)  { o.forgotten.Store(id, true) }

func (o *outside) Serve(ctx context.Context, conn net.Conn, from fleet.Outbound) error {
	o.served.Add(1)
	o.open.Add(1)
	defer o.open.Add(-1)
	srv := &http.Server{Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from.Used()
		o.used.Add(1)
		if r.Method != http.MethodConnect {
			fmt.Fprintf(w, "hello %s of %s", from.Sandbox, from.Template)
			return
		}
		w.WriteHeader(http.StatusOK)
		for {
			if _, err := w.Write([]byte("x")); err != nil {
				return
			}
			if http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-time.After(time.Millisecond):
			case <-r.Context().Done():
				return
			}
		}
	})}
	srv.Protocols.SetUnencryptedHTTP2(true)
	l := &oneConn{conn: make(chan net.Conn, 1), ended: make(chan struct{})}
	l.end = sync.OnceFunc(func() { close(l.ended) })
	l.conn <- &tellingConn{Conn: conn, ended: l.end}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(l)
	_ = srv.Close()
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// oneConn is a listener with one connection, which ends with it.
type oneConn struct {
	conn  chan net.Conn
	ended chan struct{}
	end   func()
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.ended:
		return nil, net.ErrClosed
	}
}
func (l *oneConn) Close() error { l.end(); return nil }
func (*oneConn) Addr() net.Addr { return &net.TCPAddr{} }

type tellingConn struct {
	net.Conn
	ended func()
}

func (c *tellingConn) Close() error {
	c.ended()
	return c.Conn.Close()
}

func newConnected(t *testing.T, d sandbox.Driver, o *outside) *fleet.Fleet {
	t.Helper()
	f, err := fleet.New(t.Context(), d, nil, fleet.Options{
		Templates: map[string]fleet.Template{"python": {PauseAfter: time.Hour}}, MaxSandboxes: -1, Egress: o,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

const (
	// get asks for a page and shows what comes of it.
	get = `
import urllib.request
try:
    print(urllib.request.urlopen("http://web.test/", timeout=20).read().decode())
except Exception as e:
    print("refused:", e)
`
	// stream has a thread read a tunnel until it breaks.
	stream = `
import os, socket, threading
from urllib.parse import urlsplit
def follow():
    global ended, got
    try:
        while True:
            if not conn.recv(1000): ended = "the end"; break
            got += 1
    except OSError as e:
        ended = repr(e)
ended, got = None, 0
at = urlsplit(os.environ["http_proxy"])
conn = socket.create_connection((at.hostname, at.port))
conn.sendall(b"CONNECT endless.test:1 HTTP/1.1\r\nHost: endless.test:1\r\n\r\n")
print(conn.recv(39))
thread = threading.Thread(target=follow)
thread.start()
`
)

// awaitClosed waits for the end of all doors: a connection that is cut is
// noticed a moment later.
func (o *outside) awaitClosed(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); o.open.Load() != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d doors of a sandbox that sleeps", o.open.Load())
		}
	}
}

func TestAWayOut(t *testing.T) {
	h := newPythonHost(t)
	o := &outside{network: "open"}
	f := newConnected(t, h.Driver(), o)
	s := create(t, f, fleet.CreateRequest{})
	want := fmt.Sprintf("hello %s of python\n", s.ID())
	if got := run(t, s, get); got != want {
		t.Fatalf("at once: %q, want %q", got, want)
	}
	if got := run(t, s, "import os; print(os.environ['CAESARION_NETWORK'])"); got != "open\n" {
		t.Errorf("the network's name: %q", got)
	}
	if got := run(t, s, stream); !strings.Contains(got, " 200 ") {
		t.Fatalf("the tunnel: %q", got)
	}
	// What goes on in a tunnel does not keep the sandbox awake, is cut, and the
	// way out is there again when the sandbox wakes.
	pause(t, s)
	o.awaitClosed(t)
	served := o.served.Load()
	if got := run(t, s, get); got != want {
		t.Errorf("after a sleep: %q, want %q", got, want)
	}
	if got := run(t, s, "thread.join(20); print(ended, got > 0)"); !strings.Contains(got, "Reset") || !strings.Contains(got, "True") {
		t.Errorf("the tunnel of before: %q, want a reset", got)
	}
	if n := o.served.Load() - served; n != 1 {
		t.Errorf("%d doors since, want 1", n)
	}

	// Another process takes it over, with a way out.
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if n := o.open.Load(); n != 0 {
		t.Errorf("%d doors of a fleet that is closed", n)
	}
	again := newConnected(t, h.Driver(), o)
	s, err := again.Get(s.ID())
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, s, get); got != want {
		t.Errorf("adopted: %q, want %q", got, want)
	}
	forgotten := func() bool { _, is := o.forgotten.Load(s.ID()); return is }
	if forgotten() {
		t.Error("what it has used was forgotten by a sleep or the end of a server")
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); o.open.Load() != 0 || !forgotten(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the door of a sandbox that is gone stays open (%d), or what it has used is kept (%t)", o.open.Load(), !forgotten())
		}
	}
}

// A sandbox that sleeps is not woken for its door.
func TestNoDoorWakes(t *testing.T) {
	h := newPythonHost(t)
	o := &outside{network: "open"}
	f := newConnected(t, h.Driver(), o)
	s := create(t, f, fleet.CreateRequest{})
	run(t, s, get)
	pause(t, s)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	again := newConnected(t, h.Driver(), o)
	s, err := again.Get(s.ID())
	if err != nil {
		t.Fatal(err)
	}
	served := o.served.Load()
	time.Sleep(300 * time.Millisecond) // five times what a door waits for
	if state := s.View().State; state != sandbox.StatePaused || o.served.Load() != served {
		t.Errorf("it is %s, and %d doors were opened", state, o.served.Load()-served)
	}
	if got := run(t, s, get); !strings.HasPrefix(got, "hello ") {
		t.Errorf("woken: %q", got)
	}
	// One that is deleted in its sleep is forgotten, too.
	pause(t, s)
	if err := s.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, is := o.forgotten.Load(s.ID()); is {
			break
		}
		if time.Now().After(end) {
			t.Fatal("what it has used is kept")
		}
	}
}

func TestNoWayOut(t *testing.T) {
	h := newPythonHost(t)
	o := &outside{}
	f := newConnected(t, h.Driver(), o)
	s := create(t, f, fleet.CreateRequest{})
	if got := run(t, s, get); !strings.Contains(got, "403: This sandbox has no network") {
		t.Errorf("got %q", got)
	}
	if n := o.served.Load(); n != 0 {
		t.Errorf("%d doors were opened", n)
	}
}
