package egress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// within bounds what must come soon; it is never waited out by a test that passes.
const soon = 20 * time.Second

var loopback = netip.MustParsePrefix("127.0.0.0/8")

// zone is a Resolver with names of its own.
type zone struct {
	mu     sync.Mutex
	hosts  map[string][]netip.Addr
	answer func(name string, n int) ([]netip.Addr, error) // if set, asked first
	asked  []string
}

func (z *zone) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked = append(z.asked, host)
	if z.answer != nil {
		return z.answer(host, len(z.asked))
	}
	if a, ok := z.hosts[host]; ok {
		return a, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

func (z *zone) looked() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	return append([]string(nil), z.asked...)
}

func addrs(ss ...string) []netip.Addr {
	out := make([]netip.Addr, len(ss))
	for i, s := range ss {
		out[i] = netip.MustParseAddr(s)
	}
	return out
}

// logged is a log that tests read.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newGateway(tb testing.TB, o Options) *Gateway {
	tb.Helper()
	g, err := New(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := g.Close(); err != nil {
			tb.Error(err)
		}
	})
	return g
}

// rules parses, for policies.
func rules(tb testing.TB, ss ...string) []Rule {
	tb.Helper()
	out := make([]Rule, len(ss))
	for i, s := range ss {
		var err error
		if out[i], err = ParseRule(s); err != nil {
			tb.Fatal(err)
		}
	}
	return out
}

func allowing(tb testing.TB, ss ...string) Client {
	p := Policy{Mode: List, Allow: rules(tb, ss...)}
	return Client{Sandbox: "sbx_test", Session: "ses_test", Template: "python", User: "ada", Policy: func() Policy { return p }}
}

// agent plays the agent's part: an HTTP/2 client on the one connection.
type agent struct {
	tb     testing.TB
	conn   *http.ClientConn
	raw    net.Conn
	served chan error
	cancel context.CancelFunc
}

// open opens a door of g over a real socket.
func open(tb testing.TB, g *Gateway, c Client) *agent {
	tb.Helper()
	near, far := sockets(tb)
	return openOn(tb, g, c, near, far)
}

func openOn(tb testing.TB, g *Gateway, c Client, near, far net.Conn) *agent {
	tb.Helper()
	a := &agent{tb: tb, raw: near, served: serve(tb, g, c, far)}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{
		Protocols: &protocols, DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil },
		HTTP2:       &http.HTTP2Config{MaxReadFrameSize: 64 << 10, MaxReceiveBufferPerConnection: 4 << 20, MaxReceiveBufferPerStream: 1 << 20},
	}
	cc, err := tr.NewClientConn(tb.Context(), "http", "door:80")
	if err != nil {
		tb.Fatal(err)
	}
	a.conn = cc
	tb.Cleanup(func() {
		cc.Close()
		near.Close()
		tr.CloseIdleConnections()
	})
	return a
}

// serve runs Serve until the test ends, and then checks that it does.
func serve(tb testing.TB, g *Gateway, c Client, conn net.Conn) chan error {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		done <- g.Serve(ctx, conn, c)
	}()
	tb.Cleanup(func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(soon):
			tb.Error("Serve does not return")
		}
	})
	return done
}

// sockets is a pair of connected unix sockets.
func sockets(tb testing.TB) (near, far net.Conn) {
	tb.Helper()
	dir, err := os.MkdirTemp("", "eg") //nolint:usetesting // the names of sockets are short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return connect(tb, l)
}

func connect(tb testing.TB, l net.Listener) (near, far net.Conn) {
	tb.Helper()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			c = nil
		}
		accepted <- c
	}()
	near, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	if far = <-accepted; far == nil {
		tb.Fatal("not accepted")
	}
	return near, far
}

// tunnelled is the program's side of a tunnel.
type tunnelled struct {
	net.Conn // nil; only what is overridden works
	w        *io.PipeWriter
	r        io.ReadCloser
}

func (c *tunnelled) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c *tunnelled) Write(p []byte) (int, error)      { return c.w.Write(p) }
func (c *tunnelled) CloseWrite() error                { return c.w.Close() }
func (c *tunnelled) SetDeadline(time.Time) error      { return nil }
func (c *tunnelled) SetReadDeadline(time.Time) error  { return nil }
func (c *tunnelled) SetWriteDeadline(time.Time) error { return nil }
func (c *tunnelled) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *tunnelled) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *tunnelled) Close() error                     { return errors.Join(c.w.Close(), c.r.Close()) }

// connectTo asks for a tunnel; the response is there if it was refused.
func (a *agent) connectTo(ctx context.Context, hostport string) (*tunnelled, *answered, error) {
	pr, pw := io.Pipe()
	req := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Scheme: "http", Host: hostport}, Host: hostport, Header: http.Header{}, Body: pr, ContentLength: -1}).WithContext(ctx)
	resp, err := a.conn.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusOK {
		pw.Close()
		return nil, readAnswer(a.tb, resp), nil
	}
	return &tunnelled{w: pw, r: resp.Body}, nil, nil
}

func (a *agent) tunnel(hostport string) *tunnelled {
	a.tb.Helper()
	c, no, err := a.connectTo(a.tb.Context(), hostport)
	if err != nil {
		a.tb.Fatal(err)
	}
	if no != nil {
		a.tb.Fatalf("refused: %+v", no)
	}
	a.tb.Cleanup(func() { c.Close() })
	return c
}

// answered is a whole answer.
type answered struct {
	Status int
	Kind   string
	Code   string
	Body   string
	Header http.Header

	Trailer http.Header
	Hints   string // headers of answers before the answer
}

func readAnswer(tb testing.TB, resp *http.Response) *answered {
	tb.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		tb.Fatalf("reading the answer: %v", err)
	}
	return &answered{resp.StatusCode, resp.Header.Get(HeaderKind), resp.Header.Get(HeaderCode), string(b), resp.Header, resp.Trailer, ""}
}

// refused asks for a tunnel that must not be.
func (a *agent) refused(hostport string) *answered {
	a.tb.Helper()
	c, no, err := a.connectTo(a.tb.Context(), hostport)
	if err != nil {
		a.tb.Fatalf("%s: %v", hostport, err)
	}
	if no == nil {
		c.Close()
		a.tb.Fatalf("%s was not refused", hostport)
	}
	return no
}

// do sends an ordinary request with an absolute authority.
func (a *agent) do(method, rawURL string, body io.Reader, header ...string) *answered {
	a.tb.Helper()
	req, err := http.NewRequestWithContext(a.tb.Context(), method, rawURL, body)
	if err != nil {
		a.tb.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	hints := ""
	req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		hints += fmt.Sprint(h)
		return nil
	}}))
	resp, err := a.conn.RoundTrip(req)
	if err != nil {
		a.tb.Fatalf("%s %s: %v", method, rawURL, err)
	}
	got := readAnswer(a.tb, resp)
	got.Hints = hints
	return got
}

// listenEcho answers every connection with what it says.
func listenEcho(tb testing.TB) int {
	tb.Helper()
	return listenWith(tb, func(c net.Conn) {
		_, _ = io.Copy(c, c)
	})
}

func listenWith(tb testing.TB, handle func(net.Conn)) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, c)
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	tb.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().(*net.TCPAddr).Port
}

// listenHTTP serves plain HTTP and gives its port.
func listenHTTP(tb testing.TB, h http.HandlerFunc) int {
	tb.Helper()
	s := httptest.NewServer(h)
	tb.Cleanup(s.Close)
	return portOf(tb, s.URL)
}

func portOf(tb testing.TB, rawURL string) int {
	tb.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := strconv.Atoi(u.Port())
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func at(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

// until waits for a condition.
func until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for end := time.Now().Add(soon); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			tb.Fatalf("never: %s", what)
		}
	}
}

func newLog() (*logged, *slog.Logger) {
	l := &logged{}
	return l, slog.New(slog.NewJSONHandler(l, nil))
}

func mustContain(tb testing.TB, s string, parts ...string) {
	tb.Helper()
	for _, p := range parts {
		if !strings.Contains(s, p) {
			tb.Errorf("no %q in %q", p, s)
		}
	}
}

// joined is join of a sandbox of which nothing is written down.
func joined(g *Gateway, sandbox string) *usage {
	u, err := g.join(sandbox)
	if err != nil {
		panic(err)
	}
	return u
}
