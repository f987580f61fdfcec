package httpapi

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/replica"
)

// Where several replicas serve one installation, a request about a session or
// a sandbox is served by the replica that owns it. Any replica takes it and, if
// need be, gives it on:
//
//	client ──▶ toOwner ──mine──▶ route
//	              └──another's──▶ ReverseProxy ──▶ hop ──mine──▶ route
//	                     ▲                          └──not mine: 421──┐
//	                     └── ask again, until somebody has it ◀───────┘
//
// A forwarded request is marked, under the installation's secret, and never
// forwarded again. Its body is sent only when the owner asks for it (Expect:
// 100-continue), so that what an owner refuses, or one that just died never
// read, can go to the next.

const (
	headerOwner    = "Caesarion-Owner"     // id of the process that is asked
	headerKey      = "Caesarion-Key"       // what it is asked about
	headerWho      = "Caesarion-Principal" // who asks for it
	headerHop      = "Caesarion-Hop"       // proof that a replica asks
	headerNotOwner = "Caesarion-Not-Owner" // answer: ask somebody else
)

const (
	// dialTimeout bounds the wait for a replica whose node is gone.
	dialTimeout = time.Second
	// retryEvery is how often an owner that does not answer is looked for again.
	retryEvery = 100 * time.Millisecond
	// continueTimeout is how long the owner may take to ask for a body; one that
	// waits for a sandbox first gets it all the same.
	continueTimeout = 10 * time.Second
)

var (
	errNotOwner  = errors.New("httpapi: the replica does not own this")
	errOwnerDied = errors.New("httpapi: the owner died")
)

// forwarder gives requests on to the replicas that own what they are about.
type forwarder struct {
	replicas  *replica.Registry
	key       []byte // of the proof
	transport *http.Transport
	buffers   sync.Pool
	errors    *slog.Logger
	draining  context.Context //nolint:containedctx // the API's
}

func newForwarder(opts Options, draining context.Context) *forwarder { //nolint:revive // it is no request's
	if opts.Replicas == nil {
		return nil
	}
	f := &forwarder{replicas: opts.Replicas, errors: opts.Logger, draining: draining}
	if len(opts.Secret) > 0 { // else no request is believed to come from a replica
		mac := hmac.New(sha256.New, opts.Secret)
		mac.Write([]byte("forwarded requests")) // never fails
		f.key = mac.Sum(nil)
	}
	f.transport = &http.Transport{
		Proxy:                 nil, // replicas reach each other directly
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		DisableCompression:    true,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       time.Minute, // the server's is longer, so that this side closes first
		ExpectContinueTimeout: continueTimeout,
	}
	f.buffers.New = func() any { b := make([]byte, 32<<10); return &b }
	return f
}

// Get and Put make a forwarder the buffers of its proxies.
func (f *forwarder) Get() []byte {
	return *f.buffers.Get().(*[]byte) //nolint:forcetypeassert // nothing else is in it
}

// Put is the other half of Get.
func (f *forwarder) Put(b []byte) { f.buffers.Put(&b) }

// prove gives what only a replica can say of a request.
func (f *forwarder) prove(owner, key, who, method, uri string) string {
	mac := hmac.New(sha256.New, f.key)
	for _, s := range []string{owner, key, who, method, uri} {
		mac.Write([]byte(s + "\n")) // never fails; none of them has a newline
	}
	return hex.EncodeToString(mac.Sum(nil))
}

// writeWho gives who asks as one word, which readWho reads.
func writeWho(p identity.Principal) string {
	text, _ := json.Marshal(p) // plain values
	return base64.RawURLEncoding.EncodeToString(text)
}

func readWho(word string) (p identity.Principal, ok bool) {
	text, err := base64.RawURLEncoding.DecodeString(word)
	return p, err == nil && json.Unmarshal(text, &p) == nil
}

// hop takes what another replica forwarded. That one has checked host, origin
// and who asks; everything else goes through outside.
func (a *API) hop(outside, route http.Handler) http.Handler {
	f := a.forward
	if f == nil {
		return outside
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		proof := r.Header.Get(headerHop)
		if proof == "" {
			outside.ServeHTTP(w, r)
			return
		}
		owner, key, who := r.Header.Get(headerOwner), r.Header.Get(headerKey), r.Header.Get(headerWho)
		asks, ok := readWho(who)
		if f.key == nil || !ok || !hmac.Equal([]byte(proof), []byte(f.prove(owner, key, who, r.Method, r.RequestURI))) {
			a.fail(w, r, errdefs.New(errdefs.ErrForbidden, "hop-invalid", "This request says that a replica of the server forwarded it, and can't prove it.").
				WithHint("Leave the header %s out. All replicas need the same secret.", headerHop))
			return
		}
		note(r.Context(), slog.String("forwarded_by", r.RemoteAddr))
		noteWho(r, asks)
		r = r.WithContext(identity.With(r.Context(), asks))
		if owner == f.replicas.ID() && a.draining.Err() == nil {
			o, err := f.replicas.Own(r.Context(), key)
			if errdefs.CodeOf(err) == replica.CodeStarting { // nobody else knows more
				a.fail(w, r, err)
				return
			}
			if err == nil && o.Mine {
				body := &onceBody{from: r.Body}
				r.Body = body
				a.serveOwned(route, w, r)
				body.linger(w)
				return
			}
		}
		w.Header().Set(headerNotOwner, f.replicas.ID())
		w.WriteHeader(http.StatusMisdirectedRequest)
	})
}

// serveOwned serves what this replica owns, as long as it is sure of that.
func (a *API) serveOwned(route http.Handler, w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	term := a.forward.replicas.Term()
	defer context.AfterFunc(term, func() { cancel(context.Cause(term)) })()
	route.ServeHTTP(w, r.WithContext(ctx))
}

// toOwner serves a request here or gives it to the replica that owns what it is
// about.
func (a *API) toOwner(route http.Handler) http.Handler {
	f := a.forward
	if f == nil {
		return route
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, err := a.keyOf(w, r)
		switch {
		case err != nil:
			a.fail(w, r, err)
		case key == "":
			route.ServeHTTP(w, r)
		default:
			a.serveKey(route, w, r, key)
		}
	})
}

func (a *API) serveKey(route http.Handler, w http.ResponseWriter, r *http.Request, key string) {
	f := a.forward
	body := &onceBody{from: r.Body}
	start := time.Now()
	for {
		o, err := f.replicas.Own(r.Context(), key)
		switch {
		case err != nil:
			a.fail(w, r, err)
			return
		case o.Mine:
			a.serveOwned(route, w, r)
			return
		}
		if err = f.send(w, r, body, key, o); err == nil {
			body.linger(w)
			note(r.Context(), slog.String("forwarded_to", o.ID))
			return
		}
		if r.Context().Err() != nil {
			return // the client left
		}
		f.replicas.Forget(key)
		if !mayRepeat(r, body, err) {
			a.fail(w, r, errdefs.New(errdefs.ErrUnavailable, "owner-unavailable", "The replica of the server that has this broke off in the middle of it.").
				WithHint("It may have been done or not: look, and try again.").WithCause(err))
			return
		}
		if time.Since(start) > f.replicas.TakeOver() {
			a.fail(w, r, errdefs.New(errdefs.ErrUnavailable, "owner-unavailable", "The replica of the server that has this does not answer.").
				WithHint("Try again in a few seconds: another takes over.").WithCause(err))
			return
		}
		select {
		case <-time.After(retryEvery):
		case <-r.Context().Done():
			return
		}
	}
}

// mayRepeat reports whether a request that an owner did not answer can be sent
// to another: nothing of it was done, or doing it twice is the same.
func mayRepeat(r *http.Request, body *onceBody, err error) bool {
	if body.read.Load() {
		return false
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return true
	}
	if errors.Is(err, errNotOwner) || r.Header.Get(v1.HeaderIdempotencyKey) != "" {
		return true
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return hasBody(r) // which the owner would have asked for first
}

func hasBody(r *http.Request) bool {
	return r.Body != nil && r.Body != http.NoBody && r.ContentLength != 0
}

// send has an owner answer. An error means that nothing was answered yet.
func (f *forwarder) send(w http.ResponseWriter, r *http.Request, body *onceBody, key string, o replica.Owner) error {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(f.replicas.Life(o.ID), func() { cancel(errOwnerDied) })()
	in := r.WithContext(ctx)
	if hasBody(r) {
		in.Body = body
	}
	forget := func() bool { return false }
	defer func() { forget() }()
	var failed error
	proxy := &httputil.ReverseProxy{
		Transport:     f.transport,
		FlushInterval: -1, // streams must not wait for more
		BufferPool:    f,
		ErrorLog:      slog.NewLogLogger(f.errors.Handler(), slog.LevelDebug),
		Rewrite:       func(p *httputil.ProxyRequest) { f.rewrite(w, p, key, o) },
		ModifyResponse: func(resp *http.Response) error {
			if resp.StatusCode == http.StatusMisdirectedRequest && resp.Header.Get(headerNotOwner) != "" {
				return errNotOwner
			}
			if endless(resp.Header.Get("Content-Type")) { // its reader comes back, to another
				forget = context.AfterFunc(f.draining, func() { cancel(errDraining) })
			}
			for name := range resp.Header { // the owner's take the place of ours
				w.Header().Del(name)
			}
			return nil
		},
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) { failed = err },
	}
	out := &deadlineWriter{ResponseWriter: w, rc: http.NewResponseController(w)}
	defer out.done()
	before := w.Header().Clone()
	proxy.ServeHTTP(out, in)
	if failed != nil { // an interim answer may have taken them away
		maps.Copy(w.Header(), before)
	}
	return failed
}

// endless reports whether an answer is a stream that may go on for long.
func endless(media string) bool { return media == v1.MediaSSE || media == v1.MediaNDJSON }

// rewrite makes a client's request one to the owner.
func (f *forwarder) rewrite(w http.ResponseWriter, p *httputil.ProxyRequest, key string, o replica.Owner) {
	u := p.Out.URL
	u.Scheme, u.Host = "http", o.Address
	u.RawQuery = p.In.URL.RawQuery
	p.Out.Host = p.In.Host
	// The token was checked here, and need not be on one more line.
	h := p.Out.Header
	for _, name := range []string{"Authorization", "X-Api-Key", "Cookie", headerOwner, headerKey, headerWho, headerHop} {
		h.Del(name)
	}
	if q := u.Query(); q.Has("token") {
		q.Del("token")
		u.RawQuery = q.Encode()
	}
	h.Set(v1.HeaderRequestID, w.Header().Get(v1.HeaderRequestID))
	h.Set(headerOwner, o.ID)
	h.Set(headerKey, key)
	who := writeWho(identity.From(p.In.Context()))
	h.Set(headerWho, who)
	h.Set(headerHop, f.prove(o.ID, key, who, p.Out.Method, u.RequestURI()))
	if hasBody(p.In) {
		h.Set("Expect", "100-continue")
	}
}

// onceBody is a request's body that knows whether any of it was asked for. It
// outlives the attempts to send it.
type onceBody struct {
	from io.ReadCloser
	read atomic.Bool
	end  atomic.Bool // all of it was read
}

// Read gives the end again by itself: a transport looks once more whether what it
// sent was all, and by then the owner may have answered, which closes the body.
func (b *onceBody) Read(p []byte) (int, error) {
	if b.end.Load() {
		return 0, io.EOF
	}
	b.read.Store(true)
	n, err := b.from.Read(p)
	if errors.Is(err, io.EOF) {
		b.end.Store(true)
	}
	return n, err
}

// lingerFor is how long the next byte of a body that is refused may take.
const lingerFor = 100 * time.Millisecond

// linger has a connection whose body was not read to its end closed so that the
// answer arrives: with bytes unread, the system would cut it. net/http does
// that by itself, except for bodies that it was asked for (Expect) unless they
// are found to be too large.
func (b *onceBody) linger(w http.ResponseWriter) {
	if !b.read.Load() || b.end.Load() {
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lingerFor)) // no connection in some tests
	if o, ok := w.(*responseWriter); ok {
		w = o.ResponseWriter
	}
	_, _ = http.MaxBytesReader(w, b.from, 0).Read(make([]byte, 1)) // it is the asking that counts
}

// Close does nothing: the server closes the body when its handler returns.
func (b *onceBody) Close() error { return nil }

// deadlineWriter gives each write of a forwarded answer the time that a stream's
// own has: a client that takes nothing must not hold the owner's stream.
type deadlineWriter struct {
	http.ResponseWriter
	rc *http.ResponseController
}

func (w *deadlineWriter) Write(p []byte) (int, error) {
	_ = w.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // no connection in some tests
	return w.ResponseWriter.Write(p)
}

// WriteHeader leaves out that the owner asks for the body: reading it here has
// asked the client, if that waits for it.
func (w *deadlineWriter) WriteHeader(status int) {
	if status != http.StatusContinue {
		w.ResponseWriter.WriteHeader(status)
	}
}

func (w *deadlineWriter) done() { _ = w.rc.SetWriteDeadline(time.Time{}) }

// Unwrap lets http.ResponseController reach the connection.
func (w *deadlineWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// giveBack puts a body that was read in front of the handlers again.
func giveBack(r *http.Request, raw []byte) {
	r.Body = io.NopCloser(bytes.NewReader(raw))
	r.ContentLength = int64(len(raw))
	r.Header.Del("Transfer-Encoding")
	r.TransferEncoding = nil
}

// CloseIdle lets go of connections to other replicas that are not in use.
func (a *API) CloseIdle() {
	if a.forward != nil {
		a.forward.transport.CloseIdleConnections()
	}
}
