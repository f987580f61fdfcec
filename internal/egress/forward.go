package egress

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"sync"
	"time"
)

// forward passes one request on, to t and nowhere else. Headers that belong to
// one connection are taken out in both directions.
func (d *door) forward(s *stream, w http.ResponseWriter, r *http.Request, t target, scheme string, p Policy) {
	// Inside an intercepted tunnel the bytes are counted at its end.
	counted := scheme == "http"
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	rc := http.NewResponseController(w)
	idle := newIdleTimer(p.IdleTimeout, func() {
		s.refused(limited(codeIdle, "nothing passed for %s", p.IdleTimeout))
		cancel()
		// The answer that nothing came goes out, what waits for the program does not wait on.
		_ = rc.SetWriteDeadline(time.Now().Add(time.Second)) //nolint:errcheck // without it the write ends with the door
	})
	defer idle.stop()
	watch := func(b io.ReadCloser, count func(int) *Refusal) io.ReadCloser {
		return &countedBody{ReadCloser: b, count: func(n int) *Refusal {
			idle.touch()
			if counted {
				return count(n)
			}
			return nil
		}}
	}
	refuse := func(w http.ResponseWriter, ref *Refusal) {
		s.refused(ref)
		ref.write(w)
	}

	secrets := p.secretsFor(t)
	in := newInjection(secrets, scheme == "http")
	out := r.Clone(ctx)
	if out.Body != nil && out.Body != http.NoBody && out.ContentLength != 0 {
		out.Body = watch(out.Body, s.sent)
	}
	if ref := in.into(out); ref != nil {
		refuse(w, ref)
		return
	}
	if counted {
		if ref := s.sent(headerSize(r.Header) + len(r.RequestURI)); ref != nil {
			refuse(w, ref)
			return
		}
	}
	host := t.String()
	if scheme == "http" && t.port == 80 || scheme == "https" && t.port == 443 {
		host = t.host()
		if t.addr.Is6() {
			host = "[" + host + "]"
		}
	}
	rp := &httputil.ReverseProxy{
		Transport:     d.out,
		FlushInterval: -1,
		BufferPool:    buffers{},
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL.Scheme, pr.Out.URL.Host, pr.Out.Host = scheme, t.String(), host
			pr.Out.URL.RawQuery = pr.In.URL.RawQuery
			if _, ok := pr.Out.Header["User-Agent"]; !ok {
				pr.Out.Header["User-Agent"] = nil // none of ours
			}
			if len(secrets) > 0 {
				pr.Out.Header.Set("Accept-Encoding", "identity")
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Header.Del(HeaderKind)
			resp.Header.Del(HeaderCode)
			if counted {
				if ref := s.got(headerSize(resp.Header)); ref != nil {
					return ref
				}
			}
			// A connection that has changed its protocol has a body to write to.
			if resp.StatusCode != http.StatusSwitchingProtocols {
				resp.Body = watch(resp.Body, s.got)
			}
			return in.outOf(resp)
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			ref := answerRefusal(err, t)
			if r.Context().Err() != nil && s.isCut() {
				ref = unreachable(codeIdle, err, "%s does not answer", t)
			}
			refuse(w, ref)
		},
	}
	rp.ServeHTTP(final{w}, out)
}

// final leaves out answers before the answer (103 and the like): nothing looks
// at their headers.
type final struct{ http.ResponseWriter }

func (w final) WriteHeader(status int) {
	if status >= 200 || status == http.StatusSwitchingProtocols {
		w.ResponseWriter.WriteHeader(status)
	}
}

// Unwrap is for http.ResponseController.
func (w final) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// answerRefusal tells what of a failed request people can act on.
func answerRefusal(err error, t target) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return unreachable(codeTLS, err, "the certificate of %s is not trusted: %s", t, printable(e.Err.Error(), 160))
	}
	return unreachable(codeUpstream, err, "%s breaks off or gives no proper answer", t)
}

func (s *stream) isCut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.code == codeIdle
}

func headerSize(h http.Header) int {
	n := 0
	for k, vs := range h {
		for _, v := range vs {
			n += len(k) + len(v) + 4
		}
	}
	return n
}

// countedBody counts what is read; at a limit it fails.
type countedBody struct {
	io.ReadCloser
	count func(int) *Refusal
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		if ref := b.count(n); ref != nil {
			return 0, ref
		}
	}
	return n, err
}

// buffers lends the tunnels' buffers to httputil.
type buffers struct{}

func (buffers) Get() []byte { return *large.Get().(*[]byte) } //nolint:errcheck,revive // the pool holds nothing else
func (buffers) Put(b []byte) {
	if cap(b) >= largeBuffer {
		b = b[:largeBuffer]
		large.Put(&b)
	}
}

// intercept opens the TLS of a tunnel to a host that has a secret. What the
// program sends within is requests to that host, or refused.
func (d *door) intercept(s *stream, w http.ResponseWriter, r *http.Request, t target, p Policy) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		at, ok := parseTarget(r.Host, t.port)
		if !ok || at != t {
			(&Refusal{Kind: KindDenied, Code: codeMisdirected, Text: strconv.Quote(printable(r.Host, 80)) + " is asked for in a tunnel to " + t.String()}).write(w)
			return
		}
		if r.Method == http.MethodConnect {
			denied(codeMethod, "a tunnel in a tunnel").write(w)
			return
		}
		p := d.policy() // it may have changed since
		if _, ref := p.grantFor(t, d.c); ref != nil {
			ref.write(w)
			return
		}
		d.forward(s, w, r, t, "https", p)
	})
	near, far := net.Pipe()
	d.within(s, w, r, near, p, handler, newOnce(far, func(c net.Conn) net.Conn {
		return tls.Server(c, d.g.ca.config(t.host()))
	}))
}

// within serves HTTP on the other end of a tunnel.
func (d *door) within(s *stream, w http.ResponseWriter, r *http.Request, near net.Conn, p Policy, handler http.Handler, l *onceListener) {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	ctx, cancel := context.WithCancel(r.Context())
	var running sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			running.Add(1)
			defer running.Done()
			handler.ServeHTTP(w, r)
		}),
		Protocols:         &protocols,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: min(p.IdleTimeout, 30*time.Second),
		IdleTimeout:       p.IdleTimeout,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = l.serve(srv) //nolint:errcheck // the one connection ends with the tunnel
	}()
	defer func() {
		cancel()
		near.Close() //nolint:errcheck,gosec // ends the server's connection, and so the server
		l.Close()    //nolint:errcheck,gosec // so does this
		<-served
		running.Wait() // nothing begins any more
	}()
	s.tunnel(w, r, near, p)
}
