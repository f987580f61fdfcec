package egress

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// MirrorHost is the name under which sandboxes find packages. It is never
// looked up: requests for it end in the gateway.
const MirrorHost = "packages.caesarion.internal"

const (
	defaultIndex = "https://pypi.org/simple"
	// indexDial and indexIdle bound how long the index may keep an installer
	// waiting, which has a time-out of its own of 15 s and tries again.
	indexDial = 10 * time.Second
	indexIdle = 60 * time.Second
	// maxRedirects is what package indexes need, and some.
	maxRedirects = 5
)

// Where the public index is, and its files: who lets sandboxes install from the
// one means the other, also where a company's network leads both elsewhere.
var publicIndex, publicFiles = target{name: "pypi.org", port: 443}, target{name: "files.pythonhosted.org", port: 443}

// mirror gives package pages and files of one index to all sandboxes.
type mirror struct {
	g       *Gateway
	base    *url.URL // ends in a slash, without credentials
	user    *url.Userinfo
	index   target
	trusted map[target]bool // hosts that the operator named
	client  *http.Client
	routes  *routed
	pages   *pages
	files   *files

	ctx    context.Context //nolint:containedctx // ends downloads, which are nobody's in particular
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func newMirror(g *Gateway, o Options) (*mirror, error) {
	raw := o.Index.URL
	if raw == "" {
		raw = defaultIndex
	}
	base, err := url.Parse(raw)
	bad := err != nil || base.Scheme != "http" && base.Scheme != "https" || base.RawQuery != "" || base.Fragment != ""
	m := &mirror{g: g, base: base, trusted: make(map[target]bool)}
	if !bad {
		var ok bool
		m.index, ok = parseTarget(base.Host, schemePort(base.Scheme))
		bad = !ok
	}
	if bad {
		return nil, errdefs.New(errdefs.ErrInvalid, "egress-index-invalid", "the package index is not an http or https address").
			WithHint("write the address of a simple index, as https://pypi.org/simple")
	}
	m.user, base.User = base.User, nil
	base.Path = strings.TrimSuffix(base.Path, "/") + "/"
	base.RawPath = ""
	m.trusted[m.index] = true
	if m.index == publicIndex {
		m.trusted[publicFiles] = true
	}
	for _, f := range o.Index.Files {
		for _, port := range []int{80, 443} {
			t, ok := parseTarget(f, port)
			if !ok {
				return nil, errdefs.New(errdefs.ErrInvalid, "egress-index-invalid", "%q is not a host of package files", printable(f, 80)).
					WithHint("write a host, or a host and port")
			}
			m.trusted[t] = true
		}
	}
	m.routes = g.newRouted(indexDial, func(ctx context.Context, t target) (*route, *Refusal) {
		return g.route(ctx, nil, t, grant{listed: true, exact: true}, m.trusted[t])
	})
	m.routes.http.ForceAttemptHTTP2 = true
	m.routes.http.ResponseHeaderTimeout = indexIdle
	m.routes.http.MaxIdleConns, m.routes.http.MaxIdleConnsPerHost = 32, 16
	m.client = &http.Client{Transport: indexCredentials{m}, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > maxRedirects {
			return errors.New("too many redirects")
		}
		if r.URL.Scheme != "https" && via[0].URL.Scheme == "https" {
			return errors.New("a redirect away from https")
		}
		return nil
	}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.pages = newPages(m)
	if m.files, err = newFiles(m, o.CacheDir, o.CacheBytes); err != nil {
		m.cancel()
		return nil, err
	}
	return m, nil
}

func schemePort(scheme string) int {
	if scheme == "https" {
		return 443
	}
	return 80
}

// indexCredentials sends the operator's credentials to the index and to no
// other host, wherever redirects lead.
type indexCredentials struct{ m *mirror }

// RoundTrip implements http.RoundTripper.
func (c indexCredentials) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.m.user != nil && r.URL.Scheme == c.m.base.Scheme {
		if t, ok := parseTarget(r.URL.Host, schemePort(r.URL.Scheme)); ok && t == c.m.index {
			r = r.Clone(r.Context())
			pw, _ := c.m.user.Password()
			r.SetBasicAuth(c.m.user.Username(), pw)
		}
	}
	return c.m.routes.RoundTrip(r)
}

func (m *mirror) is(t target) bool { return t.name == MirrorHost }

func (m *mirror) close() error {
	m.cancel()
	m.wg.Wait()
	m.routes.http.CloseIdleConnections()
	return nil
}

// get asks the index or a host of files.
func (m *mirror) get(ctx context.Context, method string, u *url.URL, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, u.String(), http.NoBody) //nolint:gosec // pages named the address, and the guard judges it
	if err != nil {
		return nil, err
	}
	r.Header = header
	r.Header.Set("User-Agent", "caesarion-package-mirror")
	return m.client.Do(r) //nolint:gosec // the same
}

// packages answers a request to the mirror's host.
func (d *door) packages(s *stream, w http.ResponseWriter, r *http.Request, t target, p Policy) *Refusal {
	m := d.g.mirror
	if !p.mayInstall(m.index) {
		if p.Mode == None {
			_, ref := p.grantFor(t, d.c)
			return ref
		}
		return denied(codeMirrorOff, "packages can't be installed in this sandbox, the package index is not among the hosts it may reach%s", who(d.c))
	}
	if t.port != 80 {
		return denied(codeMirrorOff, "packages are at http://%s/simple/, on port 80 only", MirrorHost)
	}
	if ref := d.u.spent(d.c, p.MaxBytes); ref != nil {
		return ref
	}
	if d.c.Used != nil {
		d.c.Used()
	}
	if r.Method == http.MethodConnect {
		// SOCKS and clients that tunnel everything.
		near, far := net.Pipe()
		d.within(s, w, r, near, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m.serve(w, r, d, s)
		}), newOnce(far, nil))
		return nil
	}
	if ref := s.sent(headerSize(r.Header) + len(r.RequestURI)); ref != nil {
		return ref
	}
	m.serve(&countedWriter{ResponseWriter: w, s: s, rc: http.NewResponseController(w), idle: p.IdleTimeout}, r, d, s)
	return nil
}

// countedWriter counts an answer of the mirror's. A limit, or a program that
// takes nothing, ends it by a reset.
type countedWriter struct {
	http.ResponseWriter
	s    *stream
	rc   *http.ResponseController
	idle time.Duration
}

func (w *countedWriter) Write(p []byte) (int, error) {
	if w.s.got(len(p)) != nil {
		panic(http.ErrAbortHandler)
	}
	_ = w.rc.SetWriteDeadline(time.Now().Add(w.idle)) //nolint:errcheck // without it the write ends with the door
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *countedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// project is the form of names that indexes have; it is what reaches them.
var project = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,126}[A-Za-z0-9])?$`)

var separators = regexp.MustCompile(`[-_.]+`)

func (m *mirror) serve(w http.ResponseWriter, r *http.Request, d *door, s *stream) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "the package mirror can only be read", http.StatusMethodNotAllowed)
		return
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/simple/"); ok {
		name, rest, slash := strings.Cut(rest, "/")
		switch {
		case name == "":
			http.Error(w, "the mirror has no list of all projects; ask for one: /simple/NAME/", http.StatusNotFound)
		case !project.MatchString(name) || rest != "":
			http.Error(w, "this is not the name of a project", http.StatusNotFound)
		case !slash:
			http.Redirect(w, r, "/simple/"+name+"/", http.StatusMovedPermanently) //nolint:gosec // the name has no slash
		default:
			m.page(w, r, d, s, strings.ToLower(separators.ReplaceAllString(name, "-")))
		}
		return
	}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/files/"); ok {
		token, name, _ := strings.Cut(rest, "/")
		if f, ok := m.fileOf(token, name); ok {
			m.file(w, r, s, f)
			return
		}
		http.Error(w, "the mirror did not give out this link", http.StatusNotFound)
		return
	}
	http.Error(w, "packages are below /simple/", http.StatusNotFound)
}

// failed answers that the index can't be had.
func (m *mirror) failed(w http.ResponseWriter, s *stream, what string, err error) {
	var ref *Refusal
	if r, ok := errors.AsType[*Refusal](err); ok {
		ref = &Refusal{Kind: r.Kind, Code: r.Code, Text: r.Text, Err: err}
		if r.Code == codeAddress {
			ref.Text += " (ask the operator: egress.package_hosts)"
		}
	} else {
		ref = unreachable(codeUpstream, err, "the package index gives no %s now (ask the operator: egress.package_index)", what)
	}
	if !errors.Is(err, context.Canceled) {
		m.g.log.Warn("package index", "what", what, "host", m.index.String(), "err", printable(err.Error(), 300))
	}
	s.refused(ref)
	ref.write(w)
}

func (m *mirror) noted(kind, result string) { m.g.count.mirror.WithLabelValues(kind, result).Inc() }

// fileRef is a file that a page of the index named.
type fileRef struct {
	url    *url.URL
	name   string
	sha256 []byte // nil if the index did not say
}

const (
	tokenVersion = 1
	macSize      = 16
	sumSize      = 32
	maxFileURL   = 2 << 10
)

// token is a link to a file, sealed: sandboxes fetch what pages named and
// nothing else, and no server needs to remember which that was.
func (m *mirror) token(u string, sum, metaSum []byte) (string, error) {
	b := make([]byte, macSize, macSize+1+2*sumSize+len(u))
	b = append(b, tokenVersion)
	for _, s := range [][]byte{sum, metaSum} {
		if len(s) != sumSize {
			s = make([]byte, sumSize)
		}
		b = append(b, s...)
	}
	b = append(b, u...)
	mac, err := m.g.ca.mac("file link", b[macSize:])
	if err != nil {
		return "", err
	}
	copy(b[:macSize], mac)
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// fileOf reads a link that token made.
func (m *mirror) fileOf(token, name string) (fileRef, bool) {
	if len(token) > 2*maxFileURL {
		return fileRef{}, false
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < macSize+1+2*sumSize || b[macSize] != tokenVersion {
		return fileRef{}, false
	}
	mac, err := m.g.ca.mac("file link", b[macSize:])
	if err != nil || !equal(mac[:macSize], b[:macSize]) {
		return fileRef{}, false
	}
	b = b[macSize+1:]
	u, err := url.Parse(string(b[2*sumSize:]))
	if err != nil {
		return fileRef{}, false
	}
	f := fileRef{url: u, name: name, sha256: known(b[:sumSize])}
	base := path.Base(u.Path)
	switch name {
	case base:
	case base + ".metadata":
		f.url = u.JoinPath()
		f.url.Path, f.url.RawPath = u.Path+".metadata", ""
		f.sha256 = known(b[sumSize : 2*sumSize])
	default:
		return fileRef{}, false
	}
	return f, true
}

func known(sum []byte) []byte {
	for _, c := range sum {
		if c != 0 {
			return sum
		}
	}
	return nil
}

// file answers with a file: from disk, from a download under way, or by
// passing on what the mirror does not keep.
func (m *mirror) file(w http.ResponseWriter, r *http.Request, s *stream, f fileRef) {
	plain := r.Method == http.MethodGet && r.Header.Get("Range") == ""
	if f.sha256 != nil {
		w.Header().Set("ETag", `"`+hexOf(f.sha256)+`"`)
		w.Header().Set("Cache-Control", "max-age=31536000, immutable")
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	if on, ok := m.files.onDisk(f); ok {
		defer on.Close()
		m.noted("file", "hit")
		http.ServeContent(w, r, "", time.Time{}, on)
		return
	}
	if plain && m.files.keeps(f) {
		if fl, joined := m.files.flight(f); fl != nil {
			m.noted("file", map[bool]string{true: "joined", false: "miss"}[joined])
			if m.followed(w, r, s, fl) {
				return
			}
		}
	}
	m.noted("file", "passed")
	header := http.Header{"Accept-Encoding": {"identity"}}
	for _, k := range []string{"Range", "If-Range"} {
		if v := r.Header.Get(k); v != "" {
			header.Set(k, v)
		}
	}
	resp, err := m.get(r.Context(), r.Method, f.url, header)
	if err != nil {
		m.failed(w, s, "file", err)
		return
	}
	defer resp.Body.Close()
	if !m.passable(w, s, resp) {
		return
	}
	for _, k := range []string{"Content-Length", "Content-Range", "Accept-Ranges", "Last-Modified"} {
		if v := resp.Header.Get(k); v != "" {
			w.Header().Set(k, v)
		}
	}
	w.WriteHeader(resp.StatusCode)
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, resp.Body, make([]byte, 32<<10)); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func (m *mirror) followed(w http.ResponseWriter, r *http.Request, s *stream, fl *flight) bool {
	defer m.files.leave(fl)
	return m.follow(w, r, s, fl)
}

// passable answers for statuses that are no file.
func (m *mirror) passable(w http.ResponseWriter, s *stream, resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable:
		return true
	case http.StatusNotFound, http.StatusGone:
		plainError(w, "the package index has no such file", http.StatusNotFound)
	default:
		m.failed(w, s, "file", errors.New("status "+resp.Status))
	}
	return false
}

func plainError(w http.ResponseWriter, text string, status int) {
	for _, k := range []string{"ETag", "Cache-Control", "Content-Length"} {
		w.Header().Del(k)
	}
	http.Error(w, text, status)
}
