package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// maxProxyConns bounds the connections of programs to the proxy.
	maxProxyConns = 128
	// proxyHeader bounds the time a connection may take to say what it wants,
	// and proxyIdle how long it may wait before it asks for something else.
	proxyHeader = 10 * time.Second
	proxyIdle   = 90 * time.Second
	// maxProxyHeader bounds the header of a request; cookies may be long.
	maxProxyHeader = 64 << 10
	// lingerTime and lingerBytes bound what is still read of a request that was
	// refused, so that the answer is read before the connection ends.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 1 << 20
)

var tunnelBuffers = sync.Pool{New: func() any { b := make([]byte, 128<<10); return &b }}

// ServeProxy lets programs out on l until ctx ends.
func (a *Agent) ServeProxy(ctx context.Context, l net.Listener) error {
	p := &proxy{
		egress: a.egress, ctx: ctx, addr: l.Addr(), accepted: make(chan net.Conn), done: make(chan struct{}),
		conns: make(map[*proxyConn]struct{}),
	}
	srv := &http.Server{
		Handler:           p,
		ReadHeaderTimeout: proxyHeader,
		IdleTimeout:       proxyIdle,
		MaxHeaderBytes:    maxProxyHeader,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // programs' mistakes
		Protocols:         new(http.Protocols),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	srv.Protocols.SetHTTP1(true)
	stop := context.AfterFunc(ctx, func() { _ = l.Close(); _ = srv.Close() })
	defer stop()
	var serving sync.WaitGroup
	serving.Go(func() { _ = srv.Serve(p) }) // ends with p
	err := p.accept(l)
	_ = srv.Close()
	serving.Wait()
	p.cut()
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("agent: proxy: %w", err)
}

// proxy is what programs connect to. It is the listener of those that speak
// HTTP, as their first byte tells.
type proxy struct {
	egress   *egress
	ctx      context.Context //nolint:containedctx // of ServeProxy
	addr     net.Addr
	accepted chan net.Conn
	done     chan struct{}
	once     sync.Once

	mu    sync.Mutex
	conns map[*proxyConn]struct{} // that programs have open
}

func (p *proxy) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *proxy) Addr() net.Addr { return p.addr }

func (p *proxy) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

// accept takes connections until the listener ends.
func (p *proxy) accept(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() || p.ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				time.Sleep(50 * time.Millisecond) // no descriptors are left: programs took them
				continue
			}
			return err
		}
		c := p.add(conn)
		if c == nil {
			_ = conn.SetDeadline(time.Now().Add(time.Second))
			_, _ = io.WriteString(conn, "HTTP/1.1 503 Too many connections at once leave this sandbox\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
			_ = conn.Close()
			continue
		}
		go c.begin()
	}
}

// add counts a connection; nil: there are too many.
func (p *proxy) add(conn net.Conn) *proxyConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.conns) >= maxProxyConns {
		return nil
	}
	c := &proxyConn{Conn: conn, proxy: p}
	p.conns[c] = struct{}{}
	return c
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	conns := slices.Collect(maps.Keys(p.conns))
	p.mu.Unlock()
	for _, c := range conns {
		_ = c.Close()
	}
}

// proxyConn is a program's connection.
type proxyConn struct {
	net.Conn
	proxy *proxy
	first []byte // read to see what it speaks
}

func (c *proxyConn) Read(b []byte) (int, error) {
	if len(c.first) > 0 && len(b) > 0 {
		b[0] = c.first[0]
		c.first = nil
		return 1, nil
	}
	return c.Conn.Read(b)
}

func (c *proxyConn) Close() error {
	c.proxy.mu.Lock()
	delete(c.proxy.conns, c)
	c.proxy.mu.Unlock()
	return c.Conn.Close()
}

// reset ends the connection so that the program sees that it was cut.
func (c *proxyConn) reset() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// closeWrite tells the program that nothing more comes.
func (c *proxyConn) closeWrite() {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

// linger ends the connection once the program had a moment to read the answer.
func (c *proxyConn) linger() {
	c.closeWrite()
	_ = c.Conn.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c, lingerBytes)
	_ = c.Close()
}

// begin looks what the program speaks.
func (c *proxyConn) begin() {
	_ = c.Conn.SetReadDeadline(time.Now().Add(proxyHeader))
	first := make([]byte, 1)
	if _, err := io.ReadFull(c.Conn, first); err != nil {
		_ = c.Close()
		return
	}
	if first[0] == socksVersion {
		c.socks()
		return
	}
	c.first = first
	_ = c.Conn.SetReadDeadline(time.Time{})
	select {
	case c.proxy.accepted <- c:
	case <-c.proxy.done:
		_ = c.Close()
	}
}

// ServeHTTP takes one request of a program.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		p.connect(w, r)
	case r.URL.Scheme == "http" && r.URL.Host != "":
		p.forward(w, r)
	default:
		refuse(w, &refusal{http.StatusBadRequest, "invalid", "This is a proxy: it takes CONNECT, and requests with http:// and a host"})
	}
}

// connect makes a tunnel.
func (p *proxy) connect(w http.ResponseWriter, r *http.Request) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	c, ok := conn.(*proxyConn)
	if !ok { // never: they are what Accept gives
		_ = conn.Close()
		return
	}
	c.tunnel(buf.Reader, r.Host, func(why *refusal) error {
		if why != nil {
			return writeRefusal(c, why, true)
		}
		_, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
		return err
	})
}

// tunnel carries bytes between the program and host until both are done.
// answer tells the program how it went: nil is a success.
func (c *proxyConn) tunnel(in *bufio.Reader, host string, answer func(*refusal) error) {
	ctx, cancel := context.WithCancel(c.proxy.ctx)
	defer cancel()
	up := &uplink{conn: c, in: in}
	req := (&http.Request{
		Method: http.MethodConnect, URL: &url.URL{Scheme: "http", Host: host}, Host: host,
		Header: http.Header{"User-Agent": nil}, Body: up, ContentLength: -1,
	}).WithContext(ctx)
	resp, err := c.proxy.egress.ask(req)
	if err != nil {
		why, ok := errors.AsType[*refusal](err)
		if !ok || answer(why) != nil {
			c.reset()
			return
		}
		up.stop()
		c.linger()
		return
	}
	defer resp.Body.Close()
	if answer(nil) != nil {
		c.reset()
		return
	}
	buf := tunnelBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer tunnelBuffers.Put(buf)
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, resp.Body, *buf); err != nil {
		c.reset()
		return
	}
	up.stop()
	c.closeWrite()
	_ = c.Close()
}

// uplink is what a program sends. HTTP/2 reads it until the stream ends, and
// may still be reading then.
type uplink struct {
	conn *proxyConn
	in   *bufio.Reader // nil: nothing is in a buffer
}

func (u *uplink) Read(b []byte) (int, error) {
	if u.in != nil {
		if u.in.Buffered() > 0 {
			return u.in.Read(b[:min(len(b), u.in.Buffered())])
		}
		u.in = nil // of 4 KiB, which is too little for what follows
	}
	n, err := u.conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = io.EOF // stopped
	}
	return n, err
}

// Close is called by HTTP/2 when it wants no more.
func (u *uplink) Close() error {
	u.stop()
	return nil
}

func (u *uplink) stop() { _ = u.conn.Conn.SetReadDeadline(time.Unix(1, 0)) }

// hopByHop are the headers that are for the proxy only, RFC 9110 section 7.6.1.
var hopByHop = []string{"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Expect"}

func withoutHops(h http.Header) http.Header {
	h = h.Clone()
	for _, named := range h["Connection"] {
		for name := range strings.SplitSeq(named, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
	return h
}

// forward makes a request for http://.
func (p *proxy) forward(w http.ResponseWriter, r *http.Request) {
	out := &http.Request{
		Method: r.Method, URL: r.URL, Host: r.URL.Host, Header: withoutHops(r.Header), Body: r.Body, ContentLength: r.ContentLength,
	}
	if r.ContentLength == 0 {
		out.Body = nil
	}
	if _, named := out.Header["User-Agent"]; !named {
		out.Header["User-Agent"] = nil
	}
	resp, err := p.egress.ask(out.WithContext(r.Context()))
	if err != nil {
		if why, ok := errors.AsType[*refusal](err); ok {
			refuse(w, why)
		}
		return
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), withoutHops(resp.Header))
	w.WriteHeader(resp.StatusCode)
	control := http.NewResponseController(w)
	buf := tunnelBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer tunnelBuffers.Put(buf)
	for {
		n, err := resp.Body.Read(*buf)
		if n > 0 {
			if _, err := w.Write((*buf)[:n]); err != nil {
				return
			}
			if resp.ContentLength < 0 { // it may come in drops that somebody waits for
				_ = control.Flush()
			}
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			// The program must not take it for the end: some don't count.
			if c, ok := r.Context().Value(connKey{}).(*proxyConn); ok {
				c.reset()
			}
			panic(http.ErrAbortHandler)
		}
	}
}

// refuse answers with a sentence, also in the status line: most programs show
// nothing else.
func refuse(w http.ResponseWriter, why *refusal) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, why.text, why.status)
		return
	}
	if writeRefusal(conn, why, false) != nil {
		_ = conn.Close()
		return
	}
	if c, ok := conn.(*proxyConn); ok {
		c.linger()
		return
	}
	_ = conn.Close()
}

func writeRefusal(w io.Writer, why *refusal, tunnel bool) error {
	body := why.text + "\n"
	if tunnel { // whoever asked for a tunnel reads no body
		body = ""
	}
	_, err := io.WriteString(w, "HTTP/1.1 "+strconv.Itoa(why.status)+" "+why.text+"\r\nCaesarion-Egress: "+why.code+
		"\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n\r\n"+body)
	return err
}
