package egress

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxStreams is how many streams a connection carries; further ones wait at
	// the agent. A policy may have fewer, and those above are refused.
	maxStreams = 256
	// maxHeader bounds a request's headers, cookies included.
	maxHeader = 64 << 10
	// What a sandbox sends lies in memory until the other side takes it: so much
	// for all streams of a door, so much for each. Measured over a unix socket, 1
	// GiB up on a busy machine, median of 3: 64 KiB for a stream 430 MB/s, 256 KiB
	// 530, 1 MiB 760, 4 MiB 880. A sandbox's connection has more latency than that
	// one, and 1 MiB is 100 MB/s at 10 ms.
	doorWindow   = 2 << 20
	streamWindow = 1 << 20
	maxFrame     = 64 << 10
	// An agent that takes nothing for so long is cut off. It is not pinged: that
	// would wake a sandbox that has nothing to do, and a connection that is gone
	// shows without: a socket pair ends with the sandbox, TCP has its own probes.
	writeTimeout = 30 * time.Second
)

// door is one connection to one sandbox.
type door struct {
	g   *Gateway
	c   Client
	u   *usage
	out *routed // keeps plain connections of this door

	mu      sync.Mutex // guards closed and the adding to streams
	closed  bool
	streams sync.WaitGroup
}

// begin counts a stream, unless Serve is about to return.
func (d *door) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	d.streams.Add(1)
	return true
}

// finish waits for the streams there are; none begins after.
func (d *door) finish() {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.streams.Wait()
}

// Serve answers one sandbox until the connection or ctx ends. It closes conn,
// and returns when everything that came over it has ended.
func (g *Gateway) Serve(ctx context.Context, conn net.Conn, c Client) error {
	u, err := g.join(c.Sandbox)
	if err != nil { // without figures there are no limits, and so no door
		g.log.Error("what a sandbox has used of its network can't be read", "sandbox_id", c.Sandbox, "err", err)
		return errors.Join(err, conn.Close())
	}
	d := &door{g: g, c: c, u: u}
	defer g.part(d.u)
	g.count.doors.Inc()
	defer g.count.doors.Dec()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := d.policy()
	d.out = g.newRouted(p.DialTimeout, func(ctx context.Context, t target) (*route, *Refusal) {
		gr, ref := d.policy().grantFor(t, c)
		if ref != nil {
			return nil, ref
		}
		return g.route(ctx, d.u, t, gr, false)
	})
	defer d.out.http.CloseIdleConnections()

	once := newOnce(conn, nil)
	stop := context.AfterFunc(ctx, func() { once.Close() }) //nolint:errcheck,gosec // what is told is that it is closed
	defer stop()
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	srv := &http.Server{
		Handler:           d,
		Protocols:         &protocols,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: writeTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxDecoderHeaderTableSize:     4096,
			MaxEncoderHeaderTableSize:     4096,
			MaxReadFrameSize:              maxFrame,
			MaxReceiveBufferPerConnection: doorWindow,
			MaxReceiveBufferPerStream:     streamWindow,
			WriteByteTimeout:              writeTimeout,
		},
	}
	err = once.serve(srv)
	cancel()
	d.finish()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// policy asks for the sandbox's policy; one that can't be read has an unknown
// mode, which refuses everything.
func (d *door) policy() (p Policy) {
	unreadable := Policy{Mode: -1}
	if d.c.Policy == nil {
		return unreadable.withDefaults(d.g.maxBytes)
	}
	defer func() {
		if v := recover(); v != nil {
			d.g.log.Error("egress policy can't be read", "sandbox_id", d.c.Sandbox, "err", v)
			p = unreadable.withDefaults(d.g.maxBytes)
		}
	}()
	return d.c.Policy().withDefaults(d.g.maxBytes)
}

// ServeHTTP answers one stream.
func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !d.begin() {
		panic(http.ErrAbortHandler)
	}
	defer d.streams.Done()
	s := &stream{d: d, start: time.Now(), host: r.Host, decision: "allowed"}
	d.g.count.open.Inc()
	defer s.end()
	if ref := d.serve(s, w, r); ref != nil {
		s.refused(ref)
		ref.write(w)
	}
}

// serve answers a stream, or says why not; then nothing has been written.
func (d *door) serve(s *stream, w http.ResponseWriter, r *http.Request) *Refusal {
	port := 80
	if r.Method == http.MethodConnect {
		port = 0 // must be there
	}
	t, ok := parseTarget(r.Host, port)
	if !ok {
		return denied(codeBadHost, "%s is not a host and port", strconv.Quote(printable(r.Host, 80)))
	}
	s.host, s.port = t.host(), t.port
	if r.Method != http.MethodConnect && r.URL.Path == "" {
		return denied(codeMethod, "the proxy takes CONNECT and requests with a path")
	}
	p := d.policy()
	s.most = p.MaxBytes
	if !d.u.enter(p.MaxConns) {
		return limited(codeConns, "this sandbox has %d connections open, which is its limit", p.MaxConns)
	}
	defer d.u.leave()
	if !wait(r.Context(), d.u.streams) {
		return limited(codeRate, "this sandbox opens connections too fast")
	}
	if d.g.mirror.is(t) {
		s.decision = "mirror"
		return d.packages(s, w, r, t, p)
	}
	gr, ref := p.grantFor(t, d.c)
	if ref != nil {
		return ref
	}
	if ref := d.u.spent(d.c, p.MaxBytes); ref != nil {
		return ref
	}
	if d.c.Used != nil {
		d.c.Used()
	}
	if r.Method != http.MethodConnect {
		d.forward(s, w, r, t, "http", p)
		return nil
	}
	if len(p.secretsFor(t)) > 0 {
		s.decision = "intercepted"
		d.intercept(s, w, r, t, p)
		return nil
	}
	ctx, cancel := context.WithTimeout(r.Context(), p.DialTimeout)
	defer cancel()
	rt, ref := d.g.route(ctx, d.u, t, gr, false)
	if ref != nil {
		return ref
	}
	out, err := d.g.dial(ctx, rt, p.DialTimeout)
	if err != nil {
		return asRefusal(err, t)
	}
	cancel()
	s.mayName = p.mayName(t, d.c)
	s.tunnel(w, r, out, p)
	return nil
}

// stream is one connection or request of a program.
type stream struct {
	d        *door
	start    time.Time
	host     string
	port     int
	most     int64 // bytes of the sandbox's life
	decision string
	code     string
	cause    error
	in, out  atomic.Int64
	mayName  func(string) *Refusal // of a tunnel's TLS; nil: any

	mu sync.Mutex // guards code, cause and decision once the stream runs
}

// refused notes why the stream was not opened, or was cut off.
func (s *stream) refused(r *Refusal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.code == "" {
		s.decision, s.code, s.cause = string(r.Kind), r.Code, r.Err
	}
}

// got counts bytes towards the sandbox, sent those away from it.
func (s *stream) got(n int) *Refusal  { return s.pass(&s.in, n) }
func (s *stream) sent(n int) *Refusal { return s.pass(&s.out, n) }

func (s *stream) pass(c *atomic.Int64, n int) *Refusal {
	c.Add(int64(n))
	u := s.d.u
	ref := u.add(s.d.c, int64(n), s.most, false)
	if u.bytes.Load() > u.written.Load() {
		s.d.g.writeDown(u, ledgerAhead(s.most))
	}
	if ref != nil {
		s.refused(ref)
	}
	return ref
}

// end writes the stream's line in the log. It has no path, header or body, and
// of the host nothing that is not plain text.
func (s *stream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, c := s.d.g, s.d.c
	if ref := s.d.u.add(c, 0, 0, true); ref != nil && s.code == "" {
		s.code = ref.Code
	}
	g.count.open.Dec()
	g.count.connections.WithLabelValues(s.decision).Inc()
	g.count.bytes.WithLabelValues("in").Add(float64(s.in.Load()))
	g.count.bytes.WithLabelValues("out").Add(float64(s.out.Load()))
	if s.code != "" {
		g.count.refusals.WithLabelValues(s.code).Inc()
	}
	if !s.d.u.logs.Allow() {
		s.d.u.muted.Add(1)
		return
	}
	attrs := []slog.Attr{
		slog.String("sandbox_id", c.Sandbox), slog.String("session_id", c.Session),
		slog.String("template", c.Template), slog.String("user", c.User), slog.String("org", c.Org),
		slog.String("host", printable(s.host, maxName)), slog.Int("port", s.port),
		slog.String("decision", s.decision), slog.String("code", s.code),
		slog.Int64("bytes_in", s.in.Load()), slog.Int64("bytes_out", s.out.Load()),
		slog.Duration("duration", time.Since(s.start)),
	}
	if s.cause != nil {
		attrs = append(attrs, slog.String("err", printable(s.cause.Error(), 300)))
	}
	if n := s.d.u.muted.Swap(0); n > 0 {
		attrs = append(attrs, slog.Int64("lines_left_out", n))
	}
	g.log.LogAttrs(context.Background(), slog.LevelInfo, "egress", attrs...)
}

// onceListener gives one connection and then waits until that is closed.
type onceListener struct {
	conn chan net.Conn
	done chan struct{}
	once sync.Once
	c    net.Conn

	taken atomic.Bool
}

// newOnce makes a listener of c; over may put a protocol on it.
func newOnce(c net.Conn, over func(net.Conn) net.Conn) *onceListener {
	l := &onceListener{conn: make(chan net.Conn, 1), done: make(chan struct{}), c: c}
	var told net.Conn = &tellingConn{Conn: c, l: l}
	if over != nil {
		told = over(told)
	}
	l.conn <- told
	return l
}

// serve returns when the connection is no longer served. Handlers may still run
// if they are HTTP/2's, or have taken the connection over.
func (l *onceListener) serve(srv *http.Server) error {
	gone := make(chan struct{})
	srv.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateClosed || st == http.StateHijacked {
			close(gone)
		}
	}
	err := srv.Serve(l)
	srv.Close()         //nolint:errcheck,gosec // the one connection is closed
	if l.taken.Load() { // else it was closed before it was served
		<-gone
	}
	return err
}

// Accept implements net.Listener.
func (l *onceListener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.conn:
		l.taken.Store(true)
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *onceListener) Close() error {
	var err error
	l.once.Do(func() {
		close(l.done)
		err = l.c.Close()
	})
	return err
}

// Addr implements net.Listener.
func (l *onceListener) Addr() net.Addr { return l.c.LocalAddr() }

// tellingConn ends its listener with itself.
type tellingConn struct {
	net.Conn
	l *onceListener
}

func (c *tellingConn) Close() error { return c.l.Close() }

var _ io.Closer = (*tellingConn)(nil)
