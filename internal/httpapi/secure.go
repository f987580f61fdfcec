package httpapi

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"
)

// answerPolicy is what an answer may do that a browser shows by itself, where
// no handler says otherwise: nothing, and nobody may show it in a frame.
const answerPolicy = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// harden sets the headers that every answer has. Handlers of pages and frames
// set their own policies in their place.
func (a *API) harden(h http.Header, r *http.Request) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", answerPolicy)
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	if r.TLS != nil && named(r.Host) {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
}

// named tells a server that has a name of its own. Browsers keep the rule for
// all ports of a name, and other programs have localhost, too.
func named(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	_, err := netip.ParseAddr(host)
	return err != nil && strings.Contains(host, ".") && !strings.HasSuffix(host, ".localhost")
}

// connDeadlines is what net/http's writers have.
type connDeadlines interface {
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
}

// steady has a request given up whose client sends or takes nothing for a
// minute, also where its handler has no bound of its own. A client that is
// slow, and goes on, is served. The request is a copy of net/http's: that one
// looks at the type of its own body when the answer is made.
func (w *responseWriter) steady(r *http.Request) {
	w.conn, _ = w.ResponseWriter.(connDeadlines)
	if w.conn == nil {
		return
	}
	_ = w.conn.SetWriteDeadline(time.Time{}) // of the answer before on this connection
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &steadyBody{ReadCloser: r.Body, w: w}
	}
}

// takes gives the client time to take what is written next.
func (w *responseWriter) takes() {
	if w.conn != nil {
		_ = w.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // a connection that is gone fails by itself
	}
}

// SetReadDeadline is called by handlers, and huma, for the whole of a body.
func (w *responseWriter) SetReadDeadline(t time.Time) error {
	n := int64(0)
	if !t.IsZero() {
		n = t.UnixNano()
	}
	w.readBy.Store(n)
	if w.conn == nil {
		return http.ErrNotSupported
	}
	return w.conn.SetReadDeadline(t)
}

// stopAfter has a body end with a context: a request whose sender lost the right
// to it must not go on for as long as he sends.
// Call release before the handler returns: the next request comes by the same
// connection.
func (w *responseWriter) stopAfter(ctx context.Context, body io.ReadCloser) (release func()) {
	b, ok := body.(*steadyBody)
	if !ok {
		return func() {}
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		cause := context.Cause(ctx)
		w.stopped.Store(&cause)
		if !b.ended.Load() {
			_ = w.conn.SetReadDeadline(time.Unix(1, 0)) // wakes who reads
		}
	})
	return func() {
		if !stop() {
			<-done
		}
	}
}

// steadyBody waits a minute for each part of a body, and no longer than the
// handler wants to wait for all of it.
type steadyBody struct {
	io.ReadCloser
	w     *responseWriter
	ended atomic.Bool // all of it was read
}

func (b *steadyBody) Read(p []byte) (int, error) {
	by := time.Now().Add(uploadStall)
	set := time.Time{}
	if n := b.w.readBy.Load(); n != 0 {
		set = time.Unix(0, n)
		if set.Before(by) {
			by = set
		}
	}
	_ = b.w.conn.SetReadDeadline(by)
	if cause := b.w.stopped.Load(); cause != nil {
		_ = b.w.conn.SetReadDeadline(time.Unix(1, 0)) // net/http must not wait for the rest either
		return 0, *cause
	}
	n, err := b.ReadCloser.Read(p)
	if cause := b.w.stopped.Load(); cause != nil && err != nil && !errors.Is(err, io.EOF) {
		return n, *cause
	}
	if errors.Is(err, io.EOF) {
		b.ended.Store(true)
		// From now on net/http listens for the client's leaving, which must
		// not time out.
		_ = b.w.conn.SetReadDeadline(set)
	}
	return n, err
}
