package pool

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"runtime"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/machine"
	"github.com/caesarion/caesarion/internal/metrics"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Template is what the pool must know of a template.
type Template struct {
	Image   string // name or digest in the driver's image store
	Limits  sandbox.Limits
	Preload []string // modules that kernels have imported before they are handed out
	Size    int      // sandboxes kept ready; 0: none, creates restore the snapshot
}

// Options configures a Pool. The zero value knows no template: every Lease is
// a cold start.
type Options struct {
	Templates map[string]Template
	// Snapshots restores sandboxes from a snapshot of each template, made in the
	// background, where the driver can.
	Snapshots bool
	// ReserveBytes of the machine's memory are left alone; default: an eighth.
	ReserveBytes int64
	MaxAge       time.Duration // a ready sandbox older than this is replaced; default 1h
	CheckEvery   time.Duration // how often a ready sandbox runs an inert cell; default 1m
	// StartsAtOnce bounds how many sandboxes are started at the same time;
	// default: the number of cores, at least 2.
	StartsAtOnce int
	// KeepReady has Close leave the ready sandboxes to the next process, which
	// adopts those that still fit. Otherwise Close deletes them.
	KeepReady bool
	Metrics   *metrics.Metrics // default: none
	Logger    *slog.Logger     // default: discard

	memory func() (total, available int64) // default: machine.Memory
}

// Start says how a sandbox came to be.
type Start string

// The kinds of start.
const (
	StartWarm    Start = "warm"    // it was ready
	StartRestore Start = "restore" // from the template's snapshot
	StartCold    Start = "cold"
)

// Request asks for a sandbox.
type Request struct {
	// Spec is the sandbox as the caller wants it. One that was ready has an ID
	// of its own, whatever Spec.ID says.
	Spec     sandbox.Spec
	KernelID string // name of the default kernel
}

// Lease is a running sandbox that has an owner.
type Lease struct {
	Info  sandbox.Info
	Start Start
	// Client is connected to the agent.
	Client *agentapi.Client
	// KernelReady says that the default kernel runs under Request.KernelID.
	KernelReady bool
}

// Pool has ready sandboxes. See the package comment.
type Pool struct {
	driver  sandbox.Driver
	snap    sandbox.Snapshotter // nil: it can't, or nobody wants it
	claimer sandbox.Claimer     // nil: it can't, and nothing is kept ready
	opts    Options
	log     *slog.Logger
	gate    *gate

	ctx    context.Context //nolint:containedctx // the pool's own life
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // leases, and all that goes on in the background

	mu        sync.Mutex
	closed    bool                 // guarded by mu
	templates map[string]*template // the map is fixed; what of them changes is guarded by mu
}

var errClosed = errdefs.New(errdefs.ErrUnavailable, "pool-closed", "the server is stopping").WithHint("try again when it is up")

// New makes a pool over driver. It returns at once; what an earlier process
// left ready is adopted, snapshots are made and sandboxes started in the
// background, until Close.
func New(ctx context.Context, driver sandbox.Driver, opts Options) (*Pool, error) {
	if opts.MaxAge <= 0 {
		opts.MaxAge = time.Hour
	}
	if opts.CheckEvery <= 0 {
		opts.CheckEvery = time.Minute
	}
	if opts.StartsAtOnce <= 0 {
		opts.StartsAtOnce = runtime.GOMAXPROCS(0)
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.memory == nil {
		opts.memory = machine.Memory
	}
	if opts.ReserveBytes <= 0 {
		total, _ := opts.memory()
		opts.ReserveBytes = total / 8
	}
	infos, err := driver.List(ctx)
	if err != nil {
		return nil, err
	}
	p := &Pool{
		driver: driver, opts: opts, log: opts.Logger, templates: make(map[string]*template),
		gate: newGate(max(2, opts.StartsAtOnce)), // a refill must never take the only one
	}
	p.ctx, p.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if opts.Snapshots {
		p.snap, _ = driver.(sandbox.Snapshotter)
	}
	p.claimer, _ = driver.(sandbox.Claimer)
	left := make(map[string][]sandbox.Info)
	for _, info := range infos {
		if info.Pooled {
			left[info.Template] = append(left[info.Template], info)
		}
	}
	for name, tmpl := range opts.Templates {
		t := &template{name: name, Template: tmpl, wake: make(chan struct{}, 1), state: snapshotNone}
		if p.claimer == nil {
			t.Size = 0
		}
		p.templates[name] = t
		opts.Metrics.Pool(name, 0, t.Size)
		infos := left[name]
		delete(left, name)
		p.wg.Go(func() { p.tend(t, infos) })
	}
	p.wg.Go(func() {
		for _, infos := range left {
			p.deleteAll(infos, "its template is gone")
		}
		p.forgetSnapshots()
	})
	p.wg.Go(p.watchMemory)
	return p, nil
}

// Close stops refilling and sends away whoever waits for a sandbox. Ready ones
// are deleted, or left to the next process. Sandboxes that have an owner go on.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.wg.Wait()
		return nil
	}
	p.closed = true
	p.mu.Unlock()
	p.gate.close()
	p.cancel(errClosed)
	p.wg.Wait()

	var errs []error
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, t := range p.templates {
		for _, e := range t.ready { // nobody else is left
			close(e.taken)
			e.client.CloseIdle()
			if p.opts.KeepReady {
				continue
			}
			wg.Go(func() {
				if err := p.remove(e.info.ID); err != nil {
					mu.Lock()
					errs = append(errs, err)
					mu.Unlock()
				}
			})
		}
		t.ready = nil
		p.opts.Metrics.Pool(t.name, 0, t.Size)
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Stats is one template's pool at one moment.
type Stats struct {
	Size, Ready, Starting int
	Snapshot              string // "none", "making", "ready", "failed"
	Message               string // why there is none, or fewer than Size
	Hits, Misses          int64
}

// Stats gives the templates' pools.
func (p *Pool) Stats() map[string]Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string]Stats, len(p.templates))
	for name, t := range maps.All(p.templates) {
		out[name] = Stats{
			Size: t.Size, Ready: len(t.ready), Starting: t.starting, Snapshot: t.state, Message: t.message, Hits: t.hits, Misses: t.misses,
		}
	}
	return out
}
