package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/httpapi"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/limits"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/metrics"
	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/web"
)

const (
	// drainTimeout is how long requests may go on after the signal to stop.
	// Streams are resumed by their readers, so there is nothing to wait long
	// for; service managers kill after 10 s (Docker) to 90 s (systemd).
	drainTimeout = 5 * time.Second
	// removeTimeout bounds the deletion of all sandboxes at the end.
	removeTimeout = 60 * time.Second
)

// server is a Caesarion server in this process.
type server struct {
	url         string       // without token
	certificate *certificate // nil without TLS
	token       config.Secret
	driver      sandbox.Driver
	gateway     *gateway // nil: no sandbox has a network

	store    *store.Store      // nil: this server keeps no sessions
	replicas *replica.Registry // nil: there is no other server
	pool     readyPool
	fleet    *fleet.Fleet
	adopted  atomic.Pointer[fleet.Fleet] // once it has what was there before; for the reaper, which outlives it
	sessions *sessions                   // nil: this server keeps none
	accounts *accounts.Service           // nil: there is one user
	setup    string                      // secret of the link that makes the first user; "": there are some
	limits   *limits.Service             // nil: nothing is limited
	http     *http.Server
	ended    chan error // what Serve ended with
}

// readyPool has sandboxes ready, of this machine or of a cluster.
type readyPool interface {
	fleet.Leaser
	Close() error
}

// serverOptions says what server to start.
type serverOptions struct {
	base     config.Base
	cfg      config.Server
	stateDir string
	token    config.Secret
	log      *slog.Logger
	models   *llm.Registry // nil: none
	metrics  *metrics.Metrics
	listens  net.Addr // where the server does
	sessions bool     // keep sessions in the data directory, which then is locked
}

// startServer starts in the order of the picture in doc.go and returns once
// the server listens. ctx bounds the start only.
func startServer(ctx context.Context, opts serverOptions) (*server, error) {
	// The listener comes first: a port in use is the commonest mistake, and
	// then nothing else has been touched.
	listener, shown, err := listen(ctx, opts.cfg)
	if err != nil {
		return nil, err
	}
	undo := cleanup.Make(func() { _ = listener.Close() })
	defer undo.Clean()

	s := &server{certificate: shown, token: opts.token, ended: make(chan error, 1)}
	undo.Add(func() { _ = s.close() })
	opts.metrics, opts.listens = metrics.New(), listener.Addr()
	if opts.sessions {
		if s.store, s.replicas, err = openStore(ctx, opts); err != nil {
			return nil, err
		}
		if err := s.openAccounts(ctx, opts); err != nil {
			return nil, err
		}
		if err := s.openLimits(ctx, opts); err != nil {
			return nil, err
		}
	}
	if err := s.openSandboxes(ctx, opts); err != nil {
		return nil, err
	}
	if opts.sessions {
		if s.sessions, err = openSessions(ctx, s, opts); err != nil {
			return nil, err
		}
		s.replicas.Start(context.WithoutCancel(ctx), s.sessions.service)
		s.sessions.chat.AnswerWaiting()
	}
	if s.http, err = s.newHTTPServer(opts); err != nil {
		return nil, err
	}
	scheme := "http"
	if shown != nil {
		shown.log = opts.log
		scheme = "https"
	}
	s.url = scheme + "://" + reachable(opts.cfg.Listen, listener.Addr())
	go func() { s.ended <- s.http.Serve(listener) }()
	undo.Release()
	return s, nil
}

// openSandboxes opens the driver that the settings name, with what is ready of
// its sandboxes, and the fleet.
func (s *server) openSandboxes(ctx context.Context, opts serverOptions) error {
	fleetOpts := fleetOptions(opts.cfg, opts.base.DataDir, opts.log)
	fleetOpts.Replicas = s.replicas
	gate, err := openGateway(opts.cfg, opts.base.DataDir, s.store, opts.listens, opts.metrics, opts.log)
	if err != nil {
		return err
	}
	if s.gateway = gate; gate != nil {
		gate.limits = s.limits
		fleetOpts.Egress = gate
	}
	if s.limits != nil {
		fleetOpts.Limits = limiter{s.limits}
	}
	if opts.cfg.Driver == config.DriverKubernetes {
		if err := s.openPods(ctx, opts, &fleetOpts); err != nil {
			return err
		}
	} else {
		driver, err := openDriver(ctx, driverOptions{
			dataDir:  opts.base.DataDir,
			stateDir: opts.stateDir,
			agent:    opts.cfg.Agent,
			images:   templateImages(opts.cfg),
			log:      opts.log,
		})
		if err != nil {
			return err
		}
		s.driver = driver
		warm, err := pool.New(ctx, driver, poolOptions(opts.cfg, !opts.sessions, opts.metrics, opts.log))
		if err != nil {
			return err
		}
		s.pool = warm
	}
	if s.gateway != nil {
		if err := s.gateway.keepLiving(ctx, s.driver); err != nil {
			return err
		}
	}
	if s.fleet, err = fleet.New(ctx, s.driver, s.pool, fleetOpts); err != nil {
		return err
	}
	s.adopted.Store(s.fleet)
	opts.metrics.Executions(s.fleet.Running)
	return nil
}

// templateImages lists the images that the templates start, each once.
func templateImages(cfg config.Server) []string {
	var images []string
	seen := map[string]bool{}
	for _, name := range cfg.SortedTemplates() {
		if image := cfg.Templates[name].Image; !seen[image] {
			seen[image] = true
			images = append(images, image)
		}
	}
	return images
}

// stop ends the server in the reverse order of its start. With remove, its
// sandboxes are deleted; otherwise they wait for the next server.
func (s *server) stop(remove bool) error {
	ctx, done := context.WithTimeout(context.Background(), drainTimeout)
	defer done()
	err := s.http.Shutdown(ctx) // ends streams: their readers resume
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.http.Close()
	}
	if served := <-s.ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	err = errors.Join(err, s.closeSandboxes())
	if remove {
		ctx, done := context.WithTimeout(context.Background(), removeTimeout)
		defer done()
		err = errors.Join(err, deleteAll(ctx, s.driver))
	}
	return errors.Join(err, s.close())
}

// closeSandboxes lets go of all sandboxes and sessions, which other servers
// then may have.
func (s *server) closeSandboxes() error {
	err := s.sessions.close()
	s.sessions = nil
	if s.fleet != nil {
		err = errors.Join(err, s.fleet.Close())
		s.fleet = nil
	}
	if s.gateway != nil {
		err = errors.Join(err, s.gateway.Close())
		s.gateway = nil
	}
	err = errors.Join(err, s.replicas.Close()) // what it had is written by now
	s.replicas = nil
	if s.pool != nil {
		err = errors.Join(err, s.pool.Close())
		s.pool = nil
	}
	return err
}

// close lets go of whatever is open, in the reverse order of the start.
func (s *server) close() error {
	err := s.closeSandboxes()
	if s.limits != nil {
		err = errors.Join(err, s.limits.Close())
		s.limits = nil
	}
	if s.accounts != nil {
		err = errors.Join(err, s.accounts.Close())
		s.accounts = nil
	}
	if s.store != nil {
		err = errors.Join(err, s.store.Close())
	}
	if s.driver != nil {
		err = errors.Join(err, s.driver.Close())
	}
	return err
}

// listen opens the listener and gives its certificate, nil without TLS.
func listen(ctx context.Context, cfg config.Server) (net.Listener, *certificate, error) {
	var shown *certificate
	if cfg.TLSCert != "" {
		var err error
		if shown, err = loadCertificate(cfg.TLSCert, cfg.TLSKey); err != nil {
			return nil, nil, err
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(cfg.Listen)
		return nil, nil, errdefs.New(errdefs.ErrUnavailable, "port-in-use", "%s is in use by another program", cfg.Listen).
			WithHint("'ss -ltnp sport = :%s' shows by which; or listen elsewhere: caesarion serve --listen 127.0.0.1:0 takes a free port", port)
	case errors.Is(err, syscall.EACCES):
		return nil, nil, errdefs.New(errdefs.ErrForbidden, "port-forbidden", "listening on %s is not allowed to this user", cfg.Listen).
			WithHint("take a port from 1024 on")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, nil, errdefs.New(errdefs.ErrInvalid, "address-unavailable", "%s is no address of this machine", cfg.Listen).
			WithHint("'ip addr' lists its addresses")
	case err != nil:
		return nil, nil, errdefs.New(errdefs.ErrInvalid, "listen-failed", "listening on %s failed", cfg.Listen).
			WithHint("write it as 127.0.0.1:8000").WithCause(err)
	}
	if shown == nil {
		return listener, nil, nil
	}
	return tls.NewListener(listener, &tls.Config{
		GetCertificate: shown.get,
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"}, // a tls.NewListener has no HTTP/2 of its own
	}), shown, nil
}

// fingerprint gives the SHA-256 of a certificate.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// reachable gives the host and port to call a server that listens on asked.
func reachable(asked string, actual net.Addr) string {
	host, _, _ := net.SplitHostPort(asked)
	_, port, _ := net.SplitHostPort(actual.String())
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// newHTTPServer makes the HTTP side.
func (s *server) newHTTPServer(opts serverOptions) (*http.Server, error) {
	host, _, err := net.SplitHostPort(opts.cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	hosts := opts.cfg.AllowedHosts
	if ip := net.ParseIP(host); host != "" && (ip == nil || !ip.IsUnspecified()) {
		hosts = append([]string{host}, hosts...)
	}
	page := web.Dist()
	if opts.cfg.WebDir != "" {
		page = os.DirFS(opts.cfg.WebDir)
	}
	api := httpapi.Options{
		Token:        opts.token.Reveal(),
		AuthNone:     opts.cfg.Auth == "none",
		AllowedHosts: hosts,
		Version:      buildVersion(),
		Logger:       opts.log,
		Metrics:      opts.metrics.Handler(),
		Models:       opts.models,
		Page:         page,
		PageLive:     opts.cfg.WebDir != "",
		Replicas:     s.replicas,
		Limits:       s.limits,
	}
	if err := s.signIn(opts, &api); err != nil {
		return nil, err
	}
	if s.replicas != nil {
		if api.Secret, err = opts.cfg.Secret(); err != nil {
			return nil, err
		}
		api.Ready = s.replicas.Ready
	}
	if s.sessions != nil {
		api.Sessions, api.Files, api.Chat = s.sessions.service, s.sessions.files, s.sessions.chat
	}
	return httpapi.New(s.fleet, api).Server(), nil
}

// startSolo starts a server that belongs to one command. With private, its
// sandboxes live in a folder that goes with it, so that any number of commands
// run side by side; otherwise they are those of the data directory.
func startSolo(ctx context.Context, base config.Base, private bool, log *slog.Logger) (_ *server, stop func() error, err error) {
	cfg, err := config.Load(base)
	if err != nil {
		return nil, nil, err
	}
	cfg.Listen, cfg.TLSCert, cfg.TLSKey, cfg.Auth = "127.0.0.1:0", "", "", "token"
	cfg.Driver = config.DriverGVisor // a cluster has a server
	if err := makeDataDir(base.DataDir); err != nil {
		return nil, nil, err
	}
	sweepSolo(ctx, base.DataDir, cfg, log)

	opts := serverOptions{base: base, cfg: cfg, token: config.Secret(newToken()), log: log}
	var undo cleanup.Cleanup
	defer undo.Clean()
	var finish func() error
	if private {
		dir := filepath.Join(base.DataDir, soloDir, newSoloName())
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, nil, err
		}
		undo.Add(func() { _ = os.RemoveAll(dir) })
		lock, err := tryLock(filepath.Join(dir, lockFile))
		if err != nil {
			return nil, nil, err
		}
		undo.Add(func() { _ = lock.Close() })
		opts.stateDir = filepath.Join(dir, stateDir)
		finish = func() error { return errors.Join(os.RemoveAll(dir), lock.Close()) }
	} else {
		lock, err := lockData(base.DataDir, soloLockWait)
		if err != nil {
			return nil, nil, err
		}
		undo.Add(func() { _ = lock.Close() })
		opts.stateDir = filepath.Join(base.DataDir, stateDir)
		finish = lock.Close
	}
	s, err := startServer(ctx, opts)
	if err != nil {
		return nil, nil, err
	}
	undo.Release()
	return s, func() error { return errors.Join(s.stop(private), finish()) }, nil
}

// soloLockWait is how long a command waits for another command's lock on the
// data directory; a server holds it for ever.
const soloLockWait = 10 * time.Second

func newSoloName() string { return newToken()[:12] }
