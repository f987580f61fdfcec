package agentapi

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Streams of events do not go through http.Transport, which hands each request to
// one goroutine and its answer to another: the caller's own goroutine writes
// the request in one piece and reads the answer. On a machine whose processors
// are busy with the sandbox itself each hop is a wake-up that is waited for.
//
// The protocol is the same HTTP, and a connection is kept for the next stream.
// One that the agent has closed meanwhile is noticed when it is used: the
// request is then made again on a fresh one, which is harmless, for ids are
// chosen by the caller.
const (
	// directMax is the largest body that is sent this way: it fits in the
	// window, so that writing cannot wait for an agent that answers first.
	directMax = windowBytes / 2
	// maxDirectIdle and directIdleFor bound the connections that are kept.
	maxDirectIdle = 32
	directIdleFor = 5 * time.Minute
)

// directConn is a connection for one stream at a time.
type directConn struct {
	*trackedConn
	in    io.LimitedReader // of the connection: bounds an answer's header
	r     *bufio.Reader    // of in
	since time.Time        // idle since then
}

// directIdle is the connections that no stream uses.
type directIdle struct {
	mu    sync.Mutex
	conns []*directConn // the one used last is the last
	timer *time.Timer   // closes old ones; nil: none is kept
}

func (d *directIdle) take() *directConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.conns)
	if n == 0 {
		return nil
	}
	conn := d.conns[n-1]
	d.conns[n-1] = nil
	d.conns = d.conns[:n-1]
	return conn
}

func (d *directIdle) put(conn *directConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.conns) >= maxDirectIdle {
		_ = conn.Close()
		return
	}
	conn.since = time.Now()
	d.conns = append(d.conns, conn)
	if d.timer == nil {
		d.timer = time.AfterFunc(directIdleFor, d.expire)
	}
}

// expire closes what was not used for long, and looks again while any is left.
func (d *directIdle) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := 0
	for old < len(d.conns) && time.Since(d.conns[old].since) >= directIdleFor {
		_ = d.conns[old].Close()
		old++
	}
	d.conns = append(d.conns[:0:0], d.conns[old:]...)
	if len(d.conns) == 0 {
		d.timer = nil
		return
	}
	d.timer.Reset(directIdleFor)
}

// close closes all.
func (d *directIdle) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, conn := range d.conns {
		_ = conn.Close()
	}
	d.conns = nil
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

// sendDirect is send for streams.
func (c *Client) sendDirect(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("agentapi: encode: %w", err)
		}
	}
	if len(data) > directMax {
		return c.send(ctx, method, path, body)
	}
	if err := c.gate.enter(ctx); err != nil {
		return nil, err
	}
	resp, err := c.exchange(ctx, method, path, data)
	if err != nil {
		c.gate.leave()
		return nil, transportError(ctx, err)
	}
	resp.Body = &heldBody{ReadCloser: resp.Body, gate: &c.gate}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, problemError(resp)
}

// exchange sends a request and reads the header of its answer, on a
// connection that is kept or else on a fresh one.
func (c *Client) exchange(ctx context.Context, method, path string, data []byte) (*http.Response, error) {
	request := make([]byte, 0, 256+len(path)+len(data))
	request = append(append(append(request, method...), ' '), path...)
	request = append(request, " HTTP/1.1\r\nHost: agent\r\n"...)
	if token := *c.token.Load(); token != "" {
		request = append(append(append(request, "Authorization: Bearer "...), token...), "\r\n"...)
	}
	if data != nil {
		request = append(request, "Content-Type: application/json\r\nContent-Length: "...)
		request = append(strconv.AppendInt(request, int64(len(data)), 10), "\r\n"...)
	}
	request = append(append(request, "\r\n"...), data...)

	for {
		conn := c.direct.take()
		if conn == nil {
			break
		}
		resp, answered, err := c.try(ctx, conn, method, request)
		if err == nil || answered || ctx.Err() != nil {
			return resp, err
		}
	}
	opened, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	conn := &directConn{trackedConn: opened}
	conn.in.R = conn.trackedConn
	conn.r = bufio.NewReaderSize(&conn.in, 32<<10)
	resp, _, err := c.try(ctx, conn, method, request)
	return resp, err
}

// try makes the request on conn, and says whether anything was answered.
func (c *Client) try(ctx context.Context, conn *directConn, method string, request []byte) (resp *http.Response, answered bool, err error) {
	leave := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if err != nil {
			leave()
			_ = conn.Close()
		}
	}()
	if _, err := conn.Write(request); err != nil {
		return nil, false, err
	}
	conn.in.N = maxHeaderBytes
	if _, err := conn.r.Peek(1); err != nil {
		return nil, false, err
	}
	resp, err = http.ReadResponse(conn.r, &http.Request{Method: method})
	if err != nil {
		return nil, true, badAnswer("its header is no HTTP").WithCause(err)
	}
	conn.in.N = math.MaxInt64
	resp.Body = &directBody{body: resp.Body, client: c, conn: conn, leave: leave, keep: !resp.Close, length: resp.ContentLength}
	return resp, true, nil
}

// directBody is the body of an answer. At its end the connection is kept for
// the next stream.
type directBody struct {
	body   io.Reader
	client *Client
	conn   *directConn
	leave  func() bool // stops listening to the context; false: it has ended
	keep   bool
	length int64 // -1: not known

	mu   sync.Mutex
	over bool // the connection is no longer this body's
}

func (b *directBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err == io.EOF { //nolint:errorlint // as io.Reader has it
		// What comes unasked would be taken for the next answer.
		b.finish(b.keep && b.conn.r.Buffered() == 0)
	}
	return n, err
}

// Close leaves an answer that has not ended by closing its connection.
func (b *directBody) Close() error {
	b.finish(false)
	return nil
}

func (b *directBody) finish(keep bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return
	}
	b.over = true
	if b.leave() && keep {
		b.client.direct.put(b.conn)
		return
	}
	_ = b.conn.Close()
}

// whole reports whether all of the answer has arrived. Only before the first Read.
func (b *directBody) whole() bool { return b.length >= 0 && int64(b.conn.r.Buffered()) >= b.length }
