package gvisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// startTimeout bounds a cold start when the caller's context does not:
	// a busy machine starting many sandboxes at once needs it long.
	startTimeout = 2 * time.Minute
	// removeTimeout bounds the wait for killed processes to be gone.
	removeTimeout = 20 * time.Second
	// agentLogBytes is how much of the agent's last words is kept.
	agentLogBytes = 16 << 10
)

// Rootfs is a sandbox image as this driver starts it.
type Rootfs struct {
	Digest string   // content address, for the record
	EROFS  string   // absolute path of the image file
	Env    []string // environment of its processes, "KEY=value"
	Home   string   // home directory of uid 1000; empty: the workspace
}

// Options configures a Driver.
type Options struct {
	StateDir string // what belongs to this installation's sandboxes; made if missing
	RunDir   string // runsc's state; default: a folder of /run named after StateDir
	AgentDir string // where agents are kept by content; default: StateDir/../agents
	Agent    string // path of the caesarion-agent binary; required
	// AgentArgs go to the agent's command line.
	AgentArgs []string
	// Rootfs finds a sandbox image by name or digest; required.
	Rootfs func(ctx context.Context, image string) (Rootfs, error)
	Logger *slog.Logger // default: discard
}

// Driver makes sandboxes on this machine. See the package comment.
type Driver struct {
	opts     Options
	log      *slog.Logger
	lock     *os.File // StateDir/lock
	netns    *os.File
	agentDir string // folder that holds the agent new sandboxes get
	cgroups  cgroups

	closing sync.Once
	closed  chan struct{} // by Close

	mu        sync.Mutex
	boxes     map[sandbox.ID]*box           // guarded by mu
	snapshots map[sandbox.SnapshotID]*saved // guarded by mu
	busy      sync.WaitGroup                // what Close waits for: starts, saves, deletions, writes
}

var _ sandbox.Driver = (*Driver)(nil)

// New opens the driver, adopts the sandboxes that an earlier process left
// running and removes what else it left. It fails with errdefs.ErrConflict
// when another process uses StateDir, and with errdefs.ErrUnsupported when
// the host lacks what gVisor needs.
func New(ctx context.Context, opts Options) (*Driver, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if err := needHost(); err != nil {
		return nil, err
	}
	state, err := filepath.Abs(opts.StateDir)
	if err != nil {
		return nil, fmt.Errorf("gvisor: %w", err)
	}
	opts.StateDir = state
	if strings.ContainsAny(state, ",:") { // --overlay2=root:dir=PATH,size=N
		return nil, errdefs.New(errdefs.ErrInvalid, "state-dir-invalid", "the data directory's path %q must not contain a comma or colon", state).
			WithHint("gVisor takes the path in a list; choose another data directory")
	}
	if opts.RunDir == "" {
		opts.RunDir = RunDir(state)
	}
	if opts.AgentDir == "" {
		opts.AgentDir = filepath.Join(filepath.Dir(state), "agents")
	}
	d := &Driver{opts: opts, log: opts.Logger.With("driver", "gvisor"), cgroups: detectCgroups(filepath.Base(RunDir(state))), closed: make(chan struct{}), boxes: map[sandbox.ID]*box{}, snapshots: map[sandbox.SnapshotID]*saved{}}

	cu := cleanup.Make(func() { _ = d.Close() })
	defer cu.Clean()
	for _, dir := range []string{d.sandboxesDir(), d.snapshotsDir(), d.overlayDir(), opts.RunDir, opts.AgentDir} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("gvisor: %w", err)
		}
	}
	if d.lock, err = lockFile(filepath.Join(state, "lock")); err != nil {
		return nil, err
	}
	if d.agentDir, err = installAgent(opts.Agent, opts.AgentDir); err != nil {
		return nil, err
	}
	// What runsc starts loses its parent when runsc ends. As subreaper we
	// become the parent and can collect it, also when we are not init.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("gvisor: become subreaper: %w", err)
	}
	if d.netns, err = newLoopbackNetNS(); err != nil {
		return nil, errdefs.New(errdefs.ErrUnsupported, "host-unsupported", "this host refuses to make a network namespace").
			WithHint("run as root outside of an unprivileged container; `caesarion doctor` shows what is missing").WithCause(err)
	}
	if err := d.loadSnapshots(); err != nil {
		return nil, err
	}
	if err := d.adopt(ctx); err != nil {
		return nil, err
	}
	cu.Release()
	return d, nil
}

// RunDir is the default Options.RunDir of a state folder: short, because the
// paths of control sockets are limited, and on a file system that a reboot
// empties, because what it says is then no longer true.
func RunDir(stateDir string) string {
	sum := sha256.Sum256([]byte(stateDir))
	return filepath.Join("/run/caesarion", hex.EncodeToString(sum[:4]))
}

func (d *Driver) sandboxesDir() string { return filepath.Join(d.opts.StateDir, "sandboxes") }

func (d *Driver) lookup(id sandbox.ID) (*box, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.boxes[id]
	if b == nil {
		return nil, notFound(id)
	}
	return b, nil
}

// Get reports one sandbox from memory.
func (d *Driver) Get(_ context.Context, id sandbox.ID) (sandbox.Info, error) {
	b, err := d.lookup(id)
	if err != nil {
		return sandbox.Info{}, err
	}
	return b.info(), nil
}

// List reports every sandbox of this installation, oldest first not assured.
func (d *Driver) List(context.Context) ([]sandbox.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	infos := make([]sandbox.Info, 0, len(d.boxes))
	for _, b := range d.boxes {
		infos = append(infos, b.info())
	}
	return infos, nil
}

// SetLabels replaces the labels, on disk first.
func (d *Driver) SetLabels(_ context.Context, id sandbox.ID, labels map[string]string) error {
	b, err := d.lookup(id)
	if err != nil {
		return err
	}
	labels = maps.Clone(labels)
	return b.write(true, func(r *record) { r.Labels = labels })
}

// Lost gives a channel that is closed when the sandbox has ended.
func (d *Driver) Lost(id sandbox.ID) (<-chan struct{}, error) {
	b, err := d.lookup(id)
	if err != nil {
		return nil, err
	}
	return b.lost, nil
}

// Delete ends a sandbox and frees all it holds.
func (d *Driver) Delete(_ context.Context, id sandbox.ID) error {
	d.busy.Add(1)
	defer d.busy.Done()
	b, err := d.lookup(id)
	if errors.Is(err, errdefs.ErrNotFound) {
		return nil
	}
	b.mu.Lock()
	b.gone = true
	l := b.life
	b.mu.Unlock()
	if l != nil { // at once: a save under way then ends too
		if err := l.kill(); err != nil {
			return fmt.Errorf("gvisor: remove %s: %w", id, err)
		}
	}
	// Of two calls the second waits, and finds nothing left to do.
	b.op.Lock()
	defer b.op.Unlock()
	b.writing.Lock()
	defer b.writing.Unlock()
	if err := d.remove(id, b.life); err != nil {
		return err
	}
	b.end("")
	d.mu.Lock()
	delete(d.boxes, id)
	d.mu.Unlock()
	return nil
}

// Close lets go of everything of this process; sandboxes go on. With none
// left it also removes what they shared.
func (d *Driver) Close() error {
	d.busy.Wait()
	d.closing.Do(func() { close(d.closed) })
	d.mu.Lock()
	empty := true
	for _, b := range d.boxes {
		b.mu.Lock()
		l := b.life
		b.mu.Unlock()
		if l == nil {
			continue // asleep: it needs nothing but its folder
		}
		empty = false
		l.close()
	}
	clear(d.boxes)
	clear(d.snapshots)
	d.mu.Unlock()
	var err error
	if empty && d.lock != nil {
		err = errors.Join(d.cgroups.remove(""), removeRunDir(d.opts.RunDir))
	}
	if d.netns != nil {
		_ = d.netns.Close()
	}
	if d.lock != nil {
		_ = d.lock.Close()
	}
	return err
}
