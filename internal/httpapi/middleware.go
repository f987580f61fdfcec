package httpapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// request is what one request carries through the handlers.
type request struct {
	id      string
	path    string
	w       *responseWriter
	problem *problem // the failure it was answered with, for the log
	attrs   []slog.Attr
}

type requestKey struct{}

func requestFrom(ctx context.Context) *request {
	r, _ := ctx.Value(requestKey{}).(*request)
	return r
}

// note adds facts to the request's line in the log.
func note(ctx context.Context, attrs ...slog.Attr) {
	if r := requestFrom(ctx); r != nil {
		r.attrs = append(r.attrs, attrs...)
	}
}

var goodRequestID = regexp.MustCompile(`^[A-Za-z0-9_.-]{8,64}$`)

// observe gives each request an id, logs it and turns panics into problems.
func (a *API) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(hw http.ResponseWriter, r *http.Request) {
		start := time.Now()
		w := &responseWriter{ResponseWriter: hw}
		req := &request{id: r.Header.Get(v1.HeaderRequestID), path: r.URL.Path, w: w}
		if !goodRequestID.MatchString(req.id) {
			req.id = "req_" + sandbox.RandomSuffix()
		}
		h := w.Header()
		h.Set(v1.HeaderRequestID, req.id)
		a.harden(h, r)
		r = r.WithContext(context.WithValue(r.Context(), requestKey{}, req))
		w.steady(r)
		defer func() {
			if v := recover(); v != nil {
				if err, ok := v.(error); ok && errors.Is(err, http.ErrAbortHandler) {
					a.logRequest(r, req, start)
					panic(http.ErrAbortHandler) // meant for net/http: cut the connection
				}
				a.log.Error("panic", "request_id", req.id, "err", fmt.Sprint(v), "stack", string(debug.Stack()))
				if w.status != 0 {
					a.logRequest(r, req, start)
					panic(http.ErrAbortHandler) // half an answer must not look whole
				}
				writeProblem(w, r, errors.New("panic"))
			}
			a.logRequest(r, req, start)
		}()
		next.ServeHTTP(w, r)
	})
}

// logRequest writes the access log: never the query, which may hold a token,
// and never bodies.
func (a *API) logRequest(r *http.Request, req *request, start time.Time) {
	level := slog.LevelDebug // what went well: on a person's terminal it would scroll the address away
	attrs := append([]slog.Attr{
		slog.String("request_id", req.id),
		slog.String("method", r.Method),
		slog.String("path", r.URL.Path),
		slog.Int("status", req.w.status),
		slog.Int64("bytes", req.w.bytes),
		slog.Duration("duration", time.Since(start)),
		slog.String("remote", r.RemoteAddr),
	}, req.attrs...)
	if p := req.problem; p != nil {
		attrs = append(attrs, slog.String("code", p.Code))
		level = slog.LevelInfo
		if p.Status >= http.StatusInternalServerError {
			level = slog.LevelWarn
			if p.Code == "internal" {
				level = slog.LevelError
			}
			if p.cause != nil {
				attrs = append(attrs, slog.String("err", p.cause.Error()))
			}
		}
	}
	a.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// responseWriter remembers status and size for the log, and gives clients up
// that take or send nothing, see steady.
type responseWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
	conn   connDeadlines // nil in tests without a connection
	readBy atomic.Int64  // Unix nanoseconds: what a handler set; 0: nothing

	stopped atomic.Pointer[error] // why the body is no longer read
}

func (w *responseWriter) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.takes()
	w.ResponseWriter.WriteHeader(status)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.takes()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// checkHost refuses names that are not this server's. A page of a foreign name
// that was made to resolve to this machine (DNS rebinding) sends its own name
// here; it can't send an address or a configured name.
func (a *API) checkHost(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.hostAllowed(r.Host) {
			a.fail(w, r, errdefs.New(errdefs.ErrForbidden, "host-not-allowed", "This server does not answer to the name in the Host header.").
				WithHint("Use the address it prints at start, or add the name to its allowed hosts."))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *API) hostAllowed(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || a.hosts[host] || a.hosts["*"] {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

// checkOrigin refuses changes that a page of another origin asks a browser
// for, and everything that an output sends its frame to. Programs other than
// browsers send neither Origin nor Sec-Fetch-Site.
func (a *API) checkOrigin(next http.Handler) http.Handler {
	guard := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := guard.Check(r)
		if err == nil && framed(r) {
			err = errors.New("the frame of an output was sent here")
		}
		if err != nil {
			a.fail(w, r, errdefs.New(errdefs.ErrForbidden, "cross-origin", "A page of another origin may not do this.").WithHint("Open the address that the server printed. A program sends the token, and neither Origin nor Sec-Fetch-Site.").WithCause(err))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// public is what needs nobody: it says that the server lives and no more, or is
// about signing in.
var public = map[string]bool{"/": true, "/health": true, "/api/health": true, "/healthz": true, "/readyz": true, "/v1/login": true, "/v1/logout": true}

// signIn tells what is public as well where there are accounts.
func (a *API) signIn(r *http.Request) bool {
	p := r.URL.Path
	return a.opts.Accounts != nil && (p == "/v1/sign-in" || strings.HasPrefix(p, "/v1/sign-in/"))
}

// checkToken finds out who asks.
func (a *API) checkToken(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := identity.Local()
		switch {
		case public[r.URL.Path] || a.isPage(r) || a.signIn(r):
			next.ServeHTTP(w, r)
			return
		case a.opts.AuthNone:
			// Everybody on this machine may call, so a page of another origin
			// must not call in a person's name, not even to read. A link that
			// a person follows shows the answer to that person only.
			if foreignPage(r) && !followed(r) {
				a.fail(w, r, errdefs.New(errdefs.ErrForbidden, "cross-origin", "A page of another origin may not do this.").WithHint("Open the address that the server printed. A program sends the token, and neither Origin nor Sec-Fetch-Site."))
				return
			}
		case a.opts.Accounts != nil:
			verify := a.principal(r)
			var err error
			if who, err = verify(r.Context()); err != nil {
				a.fail(w, r, err)
				return
			}
			noteWho(r, who)
			ctx, release := a.opts.Accounts.Hold(r.Context(), who, verify)
			defer release()
			if req := requestFrom(ctx); req != nil {
				defer req.w.stopAfter(ctx, r.Body)()
				// Whoever gave it up took it for one that the client left.
				defer func() {
					if cause := context.Cause(ctx); req.w.status == 0 && errdefs.CodeOf(cause) != "" {
						a.fail(w, r, cause)
					}
				}()
			}
			r = r.WithContext(ctx)
		case !a.tokenGood(tokenOf(r)) && !a.cookieGood(r):
			a.fail(w, r, errdefs.New(errdefs.ErrUnauthenticated, "unauthenticated", "The token is missing or wrong.").
				WithHint("Send it as \"Authorization: Bearer TOKEN\" or \"X-API-Key: TOKEN\". The server printed it at start and keeps it in its data directory."))
			return
		}
		next.ServeHTTP(w, r.WithContext(identity.With(r.Context(), who)))
	})
}

// tokenOf finds the token of a request. In the query it is taken only where a
// browser can't send a header: pages it opens and streams it follows. It would
// otherwise end up in histories and logs of proxies for nothing.
func tokenOf(r *http.Request) string {
	if t, ok := cutFold(r.Header.Get("Authorization"), "Bearer "); ok {
		return strings.TrimSpace(t)
	}
	if t := r.Header.Get("X-Api-Key"); t != "" {
		return t
	}
	p := r.URL.Path
	if r.Method == http.MethodGet && (p == "/docs" || p == "/openapi.json" || p == "/openapi.yaml" || strings.HasSuffix(p, "/events")) {
		return r.URL.Query().Get("token")
	}
	return ""
}

func cutFold(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return "", false
}

// fail answers a request that no handler sees, in the shape of its API.
func (a *API) fail(w http.ResponseWriter, r *http.Request, err error) {
	if isSeedPath(r.URL.Path) {
		writeDetail(w, r, err)
		return
	}
	writeProblem(w, r, err)
}

// route finds the handler, and answers in our words where there is none.
func (a *API) route(w http.ResponseWriter, r *http.Request) {
	if a.wantsPage(r) {
		a.index(w, r)
		return
	}
	if dotted(r.URL.EscapedPath()) {
		// ServeMux would send the client to the path without them: an id that
		// is ".." must not make the deletion of an item one of its session.
		a.fail(w, r, errdefs.New(errdefs.ErrNotFound, "route-not-found", "There is nothing at a path with . or .. in it.").WithHint("GET /docs lists what there is."))
		return
	}
	if h, pattern := a.mux.Handler(r); pattern == "" {
		var probe probeWriter
		h.ServeHTTP(&probe, r)
		err := errdefs.New(errdefs.ErrNotFound, "route-not-found", "There is nothing at this path.").WithHint("GET /docs lists what there is.")
		if probe.status == http.StatusMethodNotAllowed {
			allow := probe.Header().Get("Allow")
			w.Header().Set("Allow", allow)
			err = errdefs.New(errdefs.ErrInvalid, "method-not-allowed", "This path does not take %s.", r.Method).WithHint("It takes %s.", allow)
		}
		a.fail(w, r, err)
		return
	}
	a.mux.ServeHTTP(w, r)
}

// dotted tells whether a path has a segment that means another one.
func dotted(path string) bool {
	for segment := range strings.SplitSeq(path, "/") {
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// probeWriter catches what ServeMux would say about a path without a handler.
type probeWriter struct {
	header http.Header
	status int
}

func (p *probeWriter) Header() http.Header {
	if p.header == nil {
		p.header = http.Header{}
	}
	return p.header
}
func (p *probeWriter) WriteHeader(status int)      { p.status = status }
func (p *probeWriter) Write(b []byte) (int, error) { return len(b), nil }
