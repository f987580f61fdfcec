// Package fake is a sandbox driver without sandboxes: each is a real agent in
// this process with a folder for its file system and, if Options.Python is
// set, real kernels on this machine. It keeps the rules of the real drivers
// and can be told to fail.
//
// It isolates nothing. It is for tests.
package fake

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caesarion/caesarion/internal/agent"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Options configures a Host. The zero value makes sandboxes that have files
// and processes but no Python.
type Options struct {
	Dir        string   // holds the sandboxes' files; default: a temporary folder, removed by Close
	Python     string   // interpreter with IPython
	ProgramDir string   // from kernel.Unpack; default: one folder for each kernel
	Images     []string // names that Create accepts besides ""; nil: every name
	Logger     *slog.Logger
}

// Script tells a Host to misbehave. A nil field means that nothing happens.
type Script struct {
	// BeforeCreate runs when Create has begun and may wait or fail.
	BeforeCreate func(context.Context, sandbox.Spec) error
	// BeforeDial runs in Dial and may wait or fail.
	BeforeDial func(context.Context, sandbox.ID) error
	// BeforeDelete runs in Delete and may wait or fail.
	BeforeDelete func(context.Context, sandbox.ID) error
	// BeforePause runs in Pause and may wait or fail.
	BeforePause func(context.Context, sandbox.ID) error
	// BeforeResume runs in Resume and may wait or fail.
	BeforeResume func(ctx context.Context, id sandbox.ID, filesOnly bool) error
}

// Host is the machine that the sandboxes live on. It outlives drivers, as a
// machine outlives server processes.
type Host struct {
	opts    Options
	ownsDir bool

	mu        sync.Mutex
	script    Script
	sandboxes map[sandbox.ID]*box // guarded by mu
}

// box is one sandbox.
type box struct {
	info sandbox.Info // guarded by Host.mu
	spec sandbox.Spec
	dir  string
	life *life         // guarded by Host.mu
	lost chan struct{} // closed when the sandbox has stopped
	op   sync.Mutex    // held while it is paused or resumed
}

// life is one agent of a sandbox.
type life struct {
	addr   string
	agent  *agent.Agent
	stop   context.CancelFunc
	served chan struct{} // closed when the agent has stopped serving
	once   sync.Once
	open   atomic.Int64 // connections that Dial gave
}

// NewHost makes a machine without sandboxes.
func NewHost(opts Options) (*Host, error) {
	h := &Host{opts: opts, sandboxes: make(map[sandbox.ID]*box)}
	if opts.Dir == "" {
		dir, err := os.MkdirTemp("", "caesarion-fake-*")
		if err != nil {
			return nil, fmt.Errorf("fake: %w", err)
		}
		h.opts.Dir, h.ownsDir = dir, true
	}
	if h.opts.Python == "" {
		h.opts.Python = filepath.Join(h.opts.Dir, "there-is-no-python")
	}
	return h, nil
}

// SetScript replaces the script.
func (h *Host) SetScript(s Script) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.script = s
}

func (h *Host) current() Script {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.script
}

// Kill ends a sandbox as if it had crashed, for this reason.
func (h *Host) Kill(id sandbox.ID, reason string) error {
	b, err := h.find(id)
	if err != nil {
		return err
	}
	h.shut(b)
	h.mu.Lock()
	defer h.mu.Unlock()
	b.info.State, b.info.Reason = sandbox.StateStopped, reason
	b.tellLocked()
	return nil
}

// Root gives the folder that is a sandbox's file system.
func (h *Host) Root(id sandbox.ID) (string, error) {
	b, err := h.find(id)
	if err != nil {
		return "", err
	}
	return b.dir, nil
}

// Close ends all sandboxes.
func (h *Host) Close() error {
	h.mu.Lock()
	ids := slices.Collect(maps.Keys(h.sandboxes))
	h.mu.Unlock()
	var errs []error
	for _, id := range ids {
		errs = append(errs, h.remove(id))
	}
	if h.ownsDir {
		errs = append(errs, os.RemoveAll(h.opts.Dir))
	}
	return errors.Join(errs...)
}

func (h *Host) find(id sandbox.ID) (*box, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b := h.sandboxes[id]; b != nil {
		return b, nil
	}
	return nil, errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "there is no sandbox %s", id)
}

// remove stops and forgets a sandbox.
func (h *Host) remove(id sandbox.ID) error {
	b, err := h.find(id)
	if err != nil {
		return nil //nolint:nilerr // deleting what is not there is a success
	}
	h.shut(b)
	h.mu.Lock()
	b.info.State = sandbox.StateStopped
	delete(h.sandboxes, id)
	b.tellLocked()
	h.mu.Unlock()
	if err := os.RemoveAll(b.dir); err != nil {
		return fmt.Errorf("fake: %w", err)
	}
	return nil
}

// shut ends the agent with all its kernels and waits for it.
func (l *life) shut() {
	l.once.Do(func() {
		l.stop()
		l.agent.Close()
		<-l.served
	})
}

func (h *Host) shut(b *box) {
	h.mu.Lock()
	l := b.life
	h.mu.Unlock()
	l.shut()
}

// tellLocked closes lost. Host.mu is held, for two may come to it.
func (b *box) tellLocked() {
	select {
	case <-b.lost:
	default:
		close(b.lost)
	}
}

// start makes a sandbox: a folder, a listener and an agent.
func (h *Host) start(info sandbox.Info, spec sandbox.Spec) (*box, error) {
	b := &box{info: info, spec: spec, dir: filepath.Join(h.opts.Dir, string(info.ID)), lost: make(chan struct{})}
	if err := os.MkdirAll(b.dir, 0o755); err != nil { //nolint:gosec // a root directory
		return nil, fmt.Errorf("fake: %w", err)
	}
	var err error
	b.life, err = h.serve(b.dir, spec)
	return b, err
}

// serve starts an agent over a folder.
func (h *Host) serve(dir string, spec sandbox.Spec) (*life, error) {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("fake: %w", err)
	}
	out, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fake: %w", err), l.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	li := &life{
		addr: l.Addr().String(), stop: stop, served: make(chan struct{}),
		agent: agent.New(agent.Options{
			Root: dir, Python: h.opts.Python, ProgramDir: h.opts.ProgramDir, Home: "/home/user", Version: "fake", Logger: h.opts.Logger,
			Preload: spec.Preload, Proxy: out.Addr().String(),
		}),
	}
	go func() {
		defer close(li.served)
		var proxy sync.WaitGroup
		proxy.Go(func() { _ = li.agent.ServeProxy(ctx, out) })
		_ = li.agent.Serve(ctx, l) // ends when the sandbox does
		proxy.Wait()
	}()
	return li, nil
}

func newToken() string { return rand.Text() + rand.Text() }

// Driver gives a driver over the sandboxes of h, as a server process would
// have one. Closing it leaves the sandboxes.
func (h *Host) Driver() *Driver {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &Driver{host: h, ctx: ctx, cancel: cancel}
}

var _ sandbox.Driver = (*Driver)(nil)

// Driver is a sandbox.Driver over a Host.
type Driver struct {
	host   *Host
	ctx    context.Context //nolint:containedctx // the driver's own life
	cancel context.CancelCauseFunc
}

// New makes a Host with a driver on it, for tests that need only one; Close of
// the driver's Host ends it.
func New(opts Options) (*Driver, error) {
	h, err := NewHost(opts)
	if err != nil {
		return nil, err
	}
	return h.Driver(), nil
}

// Host gives the machine of d.
func (d *Driver) Host() *Host { return d.host }

var errClosed = errdefs.New(errdefs.ErrUnavailable, "driver-closed", "the driver is closed")

// Create is part of sandbox.Driver.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (_ sandbox.Info, err error) {
	if d.ctx.Err() != nil {
		return sandbox.Info{}, errClosed
	}
	if spec.ID == "" {
		spec.ID = sandbox.NewID()
	}
	if !spec.ID.Valid() {
		return sandbox.Info{}, errdefs.New(errdefs.ErrInvalid, "invalid-id", "%.80q is not a sandbox id", spec.ID)
	}
	h := d.host
	if h.opts.Images != nil && spec.Image != "" && !slices.Contains(h.opts.Images, spec.Image) {
		return sandbox.Info{}, errdefs.New(errdefs.ErrNotFound, "image-not-found", "there is no image %.200q", spec.Image)
	}
	info := sandbox.Info{
		ID: spec.ID, Template: spec.Template, Image: spec.Image, State: sandbox.StateStarting, Limits: spec.Limits,
		Labels: maps.Clone(spec.Labels), CreatedAt: time.Now().UTC(), AgentToken: newToken(), Pooled: spec.Pooled,
	}
	h.mu.Lock()
	taken := h.sandboxes[spec.ID] != nil
	h.mu.Unlock()
	if taken {
		return sandbox.Info{}, errdefs.New(errdefs.ErrConflict, "sandbox-exists", "there is a sandbox %s already", spec.ID)
	}
	b, err := h.start(info, spec)
	if err != nil {
		return sandbox.Info{}, err
	}
	h.mu.Lock()
	taken = h.sandboxes[spec.ID] != nil
	if !taken {
		h.sandboxes[spec.ID] = b
	}
	h.mu.Unlock()
	if taken {
		h.shut(b)
		return sandbox.Info{}, errdefs.New(errdefs.ErrConflict, "sandbox-exists", "there is a sandbox %s already", spec.ID)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.remove(spec.ID))
		}
	}()
	if f := h.current().BeforeCreate; f != nil {
		if err := f(ctx, spec); err != nil {
			return sandbox.Info{}, err
		}
	}
	if spec.Prestart {
		if err := b.life.agent.Prestart(ctx); err != nil && h.opts.Logger != nil {
			h.opts.Logger.Warn("kernel was not started", "err", err) // as the real agent does
		}
	}
	err = b.life.configure(ctx, b.info, spec.Env)
	if cause := context.Cause(ctx); cause != nil {
		return sandbox.Info{}, cause
	}
	if err != nil {
		return sandbox.Info{}, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	b.info.State = sandbox.StateRunning
	return b.snapshotLocked(), nil
}

func (b *box) snapshotLocked() sandbox.Info {
	info := b.info
	info.Labels = maps.Clone(info.Labels)
	return info
}

func (l *life) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", l.addr)
}

// configure tells an agent who it is.
func (l *life) configure(ctx context.Context, info sandbox.Info, env map[string]string) error {
	client := agentapi.NewClient(l.dial, info.AgentToken)
	defer client.CloseIdle()
	_, err := client.Configure(ctx, agentapi.Configure{
		Token: info.AgentToken, SandboxID: string(info.ID), Env: env, MemoryBytes: info.Limits.MemoryBytes,
		Processes: info.Limits.Processes, DiskBytes: info.Limits.DiskBytes,
	})
	return err
}

// Get is part of sandbox.Driver.
func (d *Driver) Get(_ context.Context, id sandbox.ID) (sandbox.Info, error) {
	b, err := d.host.find(id)
	if err != nil {
		return sandbox.Info{}, err
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	return b.snapshotLocked(), nil
}

// Dial is part of sandbox.Driver.
func (d *Driver) Dial(ctx context.Context, id sandbox.ID) (net.Conn, error) {
	b, err := d.host.find(id)
	if err != nil {
		return nil, err
	}
	if f := d.host.current().BeforeDial; f != nil {
		if err := f(ctx, id); err != nil {
			return nil, err
		}
	}
	select {
	case <-b.lost:
		return nil, errdefs.New(errdefs.ErrUnavailable, "sandbox-lost", "sandbox %s has stopped", id)
	default:
	}
	d.host.mu.Lock()
	l, paused := b.life, b.info.State == sandbox.StatePaused
	if !paused {
		l.open.Add(1)
	}
	d.host.mu.Unlock()
	if paused {
		return nil, errdefs.New(errdefs.ErrConflict, "sandbox-paused", "sandbox %s is paused", id).WithHint("resume it first")
	}
	conn, err := l.dial(ctx)
	if err != nil {
		l.open.Add(-1)
		return nil, errdefs.New(errdefs.ErrUnavailable, "sandbox-unreachable", "sandbox %s does not answer", id).WithCause(err)
	}
	return &counted{Conn: conn, done: sync.OnceFunc(func() { l.open.Add(-1) })}, nil
}

// List is part of sandbox.Driver.
func (d *Driver) List(context.Context) ([]sandbox.Info, error) {
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	list := make([]sandbox.Info, 0, len(d.host.sandboxes))
	for _, b := range d.host.sandboxes {
		list = append(list, b.snapshotLocked())
	}
	slices.SortFunc(list, func(a, b sandbox.Info) int { return a.CreatedAt.Compare(b.CreatedAt) })
	return list, nil
}

// SetLabels is part of sandbox.Driver.
func (d *Driver) SetLabels(_ context.Context, id sandbox.ID, labels map[string]string) error {
	b, err := d.host.find(id)
	if err != nil {
		return err
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	b.info.Labels = maps.Clone(labels)
	return nil
}

// Lost is part of sandbox.Driver.
func (d *Driver) Lost(id sandbox.ID) (<-chan struct{}, error) {
	b, err := d.host.find(id)
	if err != nil {
		return nil, err
	}
	return b.lost, nil
}

// Delete is part of sandbox.Driver.
func (d *Driver) Delete(ctx context.Context, id sandbox.ID) error {
	if f := d.host.current().BeforeDelete; f != nil {
		if err := f(ctx, id); err != nil {
			return err
		}
	}
	return d.host.remove(id)
}

// Capabilities is part of sandbox.Driver.
func (d *Driver) Capabilities() sandbox.Capabilities {
	return sandbox.Capabilities{
		Driver:   "fake",
		Can:      []string{sandbox.CanPause},
		Enforces: map[string]string{"memory_bytes": "the agent's watch", "processes": "the agent's watch"},
		Missing: map[string]string{
			"cpus": "the fake driver isolates nothing", "disk_bytes": "the fake driver isolates nothing", "network": "the fake driver isolates nothing",
		},
	}
}

// Close is part of sandbox.Driver.
func (d *Driver) Close() error {
	d.cancel(errClosed)
	return nil
}
