package egress

import (
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/store"
)

// Client is the sandbox at the other end of a door. Its functions may be called
// concurrently and must be quick.
type Client struct {
	Sandbox, Session, Template, User, Org string

	Policy  func() Policy       // asked anew for every connection; nil refuses everything
	Account func(n int64) error // told of bytes as they pass, of 0 before a connection; an error is a limit reached
	Used    func()              // told now and then that bytes pass
}

// Index is where packages come from.
type Index struct {
	URL   string   // simple index, with credentials if it needs them; default https://pypi.org/simple
	Files []string // further hosts ("files.example.com", "10.0.0.9:8081") that its pages may name and that may be private
}

// Options configures a Gateway. The zero value reaches public addresses only,
// keeps its authority in memory and caches no packages.
type Options struct {
	Resolver     Resolver         // default: this machine's
	AllowPrivate []netip.Prefix   // company networks that policies may name
	Refuse       []netip.Prefix   // further networks that nobody may reach
	Own          []netip.AddrPort // where this server listens; refused whatever AllowPrivate says
	Upstream     *url.URL         // company proxy, http or https, with credentials if it needs them
	CACerts      []byte           // company authorities, PEM; trusted beside the system's
	Index        Index
	Secret       []byte       // of the installation: all servers that have it have the same authority; at least 32 bytes
	Dir          string       // keeps the authority of an installation without a secret
	Store        *store.Store // keeps what sandboxes have used, for all servers that share it; nil: it ends with this one
	CacheDir     string       // keeps package files; "" keeps none
	CacheBytes   int64        // default 10 GiB
	MaxBytes     int64        // bytes of a sandbox's life if its policy has no bound; default 10 GiB, negative: none
	Logger       *slog.Logger
	Registerer   prometheus.Registerer
}

const (
	defaultCacheBytes = 10 << 30
	defaultMaxBytes   = 10 << 30
)

// Gateway decides for the sandboxes of one server. See the package's comment.
type Gateway struct {
	resolver Resolver
	guard    *guard
	upstream *url.URL
	roots    *x509.CertPool
	ca       *authority
	mirror   *mirror
	ledger   ledger
	maxBytes int64
	count    *counters
	log      *slog.Logger

	mu     sync.Mutex // guards usages
	usages map[string]*usage
}

// New makes a Gateway.
func New(o Options) (*Gateway, error) {
	g := &Gateway{
		resolver: o.Resolver,
		upstream: o.Upstream,
		maxBytes: o.MaxBytes,
		log:      o.Logger,
		usages:   make(map[string]*usage),
		guard: &guard{
			allow:  plainPrefixes(o.AllowPrivate),
			refuse: plainPrefixes(o.Refuse),
			own:    slices.Clone(o.Own),
		},
	}
	if g.resolver == nil {
		g.resolver = absolute{&net.Resolver{PreferGo: true}}
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	switch {
	case g.maxBytes == 0:
		g.maxBytes = defaultMaxBytes
	case g.maxBytes < 0:
		g.maxBytes = 0
	}
	if u := o.Upstream; u != nil && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "") {
		return nil, errdefs.New(errdefs.ErrInvalid, "egress-proxy-invalid", "the company proxy %s is not an http or https address", u.Redacted()).
			WithHint("write http://proxy.example.com:3128")
	}
	var err error
	if g.roots, err = x509.SystemCertPool(); err != nil {
		g.roots = x509.NewCertPool()
	}
	if len(o.CACerts) > 0 && !g.roots.AppendCertsFromPEM(o.CACerts) {
		return nil, errdefs.New(errdefs.ErrInvalid, "egress-ca-certs-invalid", "the company's certificates hold no certificate").
			WithHint("give PEM files that begin with -----BEGIN CERTIFICATE-----")
	}
	if g.ca, err = newAuthority(o.Secret, o.Dir); err != nil {
		return nil, err
	}
	g.ledger = ledger{o.Store}
	g.count = newCounters(o.Registerer)
	if g.mirror, err = newMirror(g, o); err != nil {
		return nil, err
	}
	return g, nil
}

// plainPrefixes writes v4-mapped prefixes as IPv4 ones, as addresses are.
func plainPrefixes(ps []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(ps))
	for _, p := range ps {
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if p.IsValid() {
			out = append(out, p.Masked())
		}
	}
	return out
}

// CA is the installation's authority, PEM, which sandboxes are to trust.
func (g *Gateway) CA() []byte { return slices.Clone(g.ca.pem) }

// Close ends what the gateway does in the background. Doors end by their own
// contexts, before.
func (g *Gateway) Close() error { return g.mirror.close() }

// Forget drops the figures of a sandbox that is gone for good. A door that is
// still open may end later.
func (g *Gateway) Forget(sandbox string) {
	g.mu.Lock()
	u := g.usages[sandbox]
	delete(g.usages, sandbox)
	g.mu.Unlock()
	if u != nil {
		u.writing.Lock()
		defer u.writing.Unlock()
		u.dropped = true
	}
	if err := g.ledger.remove(sandbox); err != nil {
		g.log.Debug("what a sandbox has used stays written down until a server starts", "sandbox_id", sandbox, "err", err)
	}
}

// Keep drops the figures of all sandboxes but those that there are, which
// living gives: some may have gone while no server ran.
func (g *Gateway) Keep(living func() ([]string, error)) error {
	known, err := g.ledger.sandboxes() // first: who comes after is not among them
	if err != nil || len(known) == 0 {
		return err
	}
	ids, err := living()
	if err != nil {
		return err
	}
	for _, id := range known {
		if !slices.Contains(ids, id) {
			g.Forget(id)
		}
	}
	return nil
}

// Used gives the bytes of a sandbox so far, both directions.
func (g *Gateway) Used(sandbox string) int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	if u := g.usages[sandbox]; u != nil {
		return u.bytes.Load()
	}
	return 0
}

// join finds the figures of a sandbox, or begins them.
func (g *Gateway) join(sandbox string) (*usage, error) {
	g.mu.Lock()
	u := g.usages[sandbox]
	if u == nil || sandbox == "" {
		u = newUsage(sandbox)
	}
	if u.doors == 0 {
		u.stale.Store(true)
	}
	u.doors++
	if sandbox != "" {
		g.usages[sandbox] = u
		for id, old := range g.usages {
			if old.doors == 0 && time.Since(old.left) > keptFor && g.ledger.store != nil {
				delete(g.usages, id)
			}
		}
	}
	g.mu.Unlock()
	if err := g.readUp(u); err != nil {
		g.part(u)
		return nil, err
	}
	return u, nil
}

// readUp takes what is written down of a sandbox that had no door: unless this
// server wrote it, another had the sandbox meanwhile.
func (g *Gateway) readUp(u *usage) error {
	u.writing.Lock()
	defer u.writing.Unlock()
	if u.sandbox == "" || !u.stale.Load() {
		return nil
	}
	written, err := g.ledger.read(u.sandbox)
	if err != nil {
		return err
	}
	if written != u.written.Load() {
		u.bytes.Store(max(u.bytes.Load(), written))
		u.written.Store(written)
	}
	u.stale.Store(false)
	return nil
}

func (g *Gateway) part(u *usage) {
	g.mu.Lock()
	u.doors--
	last := u.doors == 0
	if last {
		u.left = time.Now()
		u.forgetNames()
	}
	g.mu.Unlock()
	if last {
		g.writeDown(u, 0)
	}
}

// writeDown keeps what a sandbox has used for the next server, and ahead more
// bytes, which may be used before it is done again. If it fails, this server
// still knows: nobody is made to suffer from a disk that is full. Of figures
// that were never read nothing is written.
func (g *Gateway) writeDown(u *usage, ahead int64) {
	u.writing.Lock()
	defer u.writing.Unlock()
	used := u.bytes.Load()
	if u.sandbox == "" || u.dropped || u.stale.Load() || ahead > 0 && used <= u.written.Load() || used+ahead == u.written.Load() {
		return
	}
	if err := g.ledger.write(u.sandbox, used+ahead); err != nil {
		g.log.Warn("traffic of a sandbox can't be written down", "sandbox_id", u.sandbox, "err", err)
	}
	u.written.Store(used + ahead)
}

var _ io.Closer = (*Gateway)(nil)
