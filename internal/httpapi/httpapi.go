package httpapi

import (
	"context"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/caesarion/caesarion/internal/chat"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/identity/oidc"
	"github.com/caesarion/caesarion/internal/limits"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/session"
	"github.com/caesarion/caesarion/internal/workspace"
)

// Options configures an API. The zero value refuses every call that needs a
// token, as there is none.
type Options struct {
	Token        string   // what callers must send
	AuthNone     bool     // no token needed; for loopback only, which the caller sees to
	AllowedHosts []string // names this server answers to, beside loopback names and addresses; "*": any
	Version      string
	Logger       *slog.Logger         // default: discard
	Heartbeat    time.Duration        // between comments on silent event streams; default 15 s
	Metrics      http.Handler         // what Prometheus reads at /metrics; nil: nothing
	Models       *llm.Registry        // default: none
	Sessions     *session.Service     // nil: no sessions are kept
	Files        *workspace.Workspace // of the sessions
	Chat         *chat.Service        // answers messages in sessions; nil: nobody does
	Page         fs.FS                // the built page; nil: none, / answers programs only
	PageLive     bool                 // the page's files change while the server runs, for development
	// Accounts says who calls, instead of the token, which then is that of the
	// installation's operator; nil: there is one user.
	Accounts  *accounts.Service
	Providers []*oidc.Provider // of sign-ins, in the order that people see them
	PublicURL string           // where browsers reach this server; default: as they say
	// TrustedProxies are believed where a request comes from.
	TrustedProxies []netip.Prefix
	// Limits says how much users may use; nil: as much as there is.
	Limits *limits.Service
	// Ready says what keeps this server from serving; nil: nothing ever does.
	Ready func() error
	// Replicas says which replica owns what a request is about; nil: there is
	// this server only. Secret is the installation's: by it replicas know each
	// other. They are reached by HTTP at the addresses that they joined with.
	Replicas *replica.Registry
	Secret   []byte
}

// API is the HTTP API as a handler.
type API struct {
	fleet *fleet.Fleet
	opts  Options
	log   *slog.Logger
	hosts map[string]bool
	mux   *http.ServeMux
	huma  huma.API
	spec  spec
	chain http.Handler
	seeds seedState
	page  *pageFiles

	access  map[string]access // by the patterns of routes
	forward *forwarder        // nil: there is this server only

	draining context.Context // ends with Drain
	drain    context.CancelFunc
}

// New makes the API of a fleet.
func New(fl *fleet.Fleet, opts Options) *API {
	useProblems()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Heartbeat <= 0 {
		opts.Heartbeat = 15 * time.Second
	}
	a := &API{fleet: fl, opts: opts, log: opts.Logger, hosts: map[string]bool{}, mux: http.NewServeMux()}
	for _, h := range opts.AllowedHosts {
		a.hosts[strings.ToLower(h)] = true
	}
	a.draining, a.drain = context.WithCancel(context.Background())
	a.seeds.init()
	a.huma = humago.New(a.mux, humaConfig(opts.Version))
	a.infoRoutes()
	a.probeRoutes()
	a.metricsRoute()
	a.sandboxRoutes()
	a.sleepRoutes()
	a.snapshotRoutes()
	a.kernelRoutes()
	a.executionRoutes()
	a.fileRoutes()
	a.processRoutes()
	a.sessionRoutes()
	a.sessionFileRoutes()
	a.sessionVariableRoutes()
	a.sessionTableRoutes()
	a.chatRoutes()
	a.aisdkRoutes()
	a.modelRoutes()
	a.seedRoutes()
	a.loginRoutes()
	a.signInRoutes()
	a.accountRoutes()
	a.keyRoutes()
	a.userRoutes()
	a.auditRoutes()
	a.usageRoutes()
	a.pageRoutes()
	a.specRoutes()
	a.forward = newForwarder(opts, a.draining)
	checkAccess(a.huma.OpenAPI())
	a.access = accessByPattern(a.huma.OpenAPI())
	route := a.limit(http.HandlerFunc(a.route))
	a.chain = a.observe(a.hop(a.checkHost(a.checkOrigin(a.checkToken(a.authorize(a.toOwner(route), true)))), a.authorize(route, false)))
	return a
}

func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.chain.ServeHTTP(w, r) }

// Drain tells the readers of streams to come back later, and ends the streams.
// Call it before http.Server.Shutdown, which waits for them.
func (a *API) Drain() {
	a.opts.Replicas.Retire()
	a.drain()
}

// Server gives an http.Server for the API with the bounds it needs. There is
// no write timeout, since streams last as long as executions; each write of a
// stream has its own deadline.
func (a *API) Server() *http.Server {
	srv := &http.Server{
		Handler:           a,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelDebug),
	}
	srv.RegisterOnShutdown(a.Drain)
	return srv
}

// Bounds of JSON bodies. Code has its own bound, on the code and not on its
// escapes; a body of twice that size holds it as any encoder writes real code.
const (
	maxBody     = 1 << 20
	maxCode     = 4 << 20
	maxExecBody = 2*maxCode + 64<<10
	bodyTimeout = 60 * time.Second
)

func humaConfig(version string) huma.Config {
	c := huma.DefaultConfig("Caesarion", version)
	c.Info.Description = "Self-hosted code interpreter: isolated, stateful Python sandboxes."
	c.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	// Own routes serve the spec and a page that loads nothing from elsewhere.
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.Formats = map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat}
	c.CreateHooks = nil // no $schema links in answers
	c.RejectUnknownQueryParameters = false
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", Description: "The token that the server printed at its first start."},
		"apiKey": {Type: "apiKey", In: "header", Name: "X-API-Key", Description: "The same token, for clients that can't send Authorization."},
	}
	c.Security = []map[string][]string{{"bearer": {}}, {"apiKey": {}}}
	return c
}

// register adds a route of /v1 whose failures become problems.
func register[I, O any](a *API, op huma.Operation, handler func(context.Context, *I) (*O, error)) {
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = maxBody
	}
	op.BodyReadTimeout = bodyTimeout
	huma.Register(a.huma, op, func(ctx context.Context, in *I) (*O, error) {
		// The deadline was for the body. Left in place it would cut the
		// request's context when it passes.
		if req := requestFrom(ctx); req != nil {
			_ = http.NewResponseController(req.w).SetReadDeadline(time.Time{}) // no connection in some tests
		}
		out, err := handler(ctx, in)
		if err != nil {
			return nil, problemFor(ctx, err)
		}
		return out, nil
	})
}

// plain adds a route that net/http alone handles, with its entry in the spec.
func (a *API) plain(op huma.Operation, handler http.HandlerFunc) {
	if op.Responses == nil {
		op.Responses = map[string]*huma.Response{"200": {Description: "OK"}}
	}
	a.huma.OpenAPI().AddOperation(&op)
	path := op.Path
	if path == "/" {
		path = "/{$}"
	}
	a.mux.HandleFunc(op.Method+" "+path, handler)
}

// Raw gives handlers the request and the writer behind huma's context. It has
// an exported name, as all parts of inputs, because huma looks into no others.
type Raw struct {
	r *http.Request
	w http.ResponseWriter
}

// Resolve is called by huma with the request.
func (x *Raw) Resolve(ctx huma.Context) []error {
	x.r, x.w = humago.Unwrap(ctx)
	return nil
}

// stream is the answer of a handler that writes it itself.
func stream(write func()) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(huma.Context) { write() }}
}

func typeFor[T any]() reflect.Type { return reflect.TypeFor[T]() }

func errCodeTooLarge() error {
	return errdefs.New(errdefs.ErrTooLarge, "code-too-large", "The code is larger than %d MiB.", maxCode>>20).
		WithHint("Upload large data or modules as files and read or import them.")
}
