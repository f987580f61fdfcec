package pool

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
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
	Logger       *slog.Logger  // default: discard
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
	Spec     sandbox.Spec // Env, Labels, Limits as the caller wants them
	KernelID string       // name of the default kernel
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
	driver sandbox.Driver
	opts   Options
}

// New makes a pool over driver.
func New(_ context.Context, driver sandbox.Driver, opts Options) (*Pool, error) {
	return &Pool{driver: driver, opts: opts}, nil
}

// Lease gives a sandbox to its owner.
func (p *Pool) Lease(ctx context.Context, req Request) (*Lease, error) {
	info, err := p.driver.Create(ctx, req.Spec)
	if err != nil {
		return nil, err
	}
	client := agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return p.driver.Dial(ctx, info.ID) }, info.AgentToken)
	return &Lease{Info: info, Start: StartCold, Client: client}, nil
}

// Close ends what the pool keeps ready.
func (p *Pool) Close() error { return nil }

// Stats is one template's pool at one moment.
type Stats struct {
	Size, Ready, Starting int
	Snapshot              string // "none", "making", "ready", "failed"
	Message               string // why there is none, or fewer than Size
	Hits, Misses          int64
}

// Stats gives the templates' pools.
func (p *Pool) Stats() map[string]Stats { return nil }
