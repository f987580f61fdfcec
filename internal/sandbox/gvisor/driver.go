package gvisor

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/cleanup"
	"gvisor.dev/gvisor/runsc/container"

	"github.com/caesarion/caesarion/internal/agentapi"
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

	mu    sync.Mutex
	boxes map[sandbox.ID]*box // guarded by mu
	busy  sync.WaitGroup      // deletions and starts under way
}

var _ sandbox.Driver = (*Driver)(nil)

// box is one sandbox of this driver. All but info and its labels is fixed
// once the box is in the map.
type box struct {
	dir       string
	container *container.Container
	sentry    *watcher
	gofer     *watcher
	agentLog  *agentLog
	removing  sync.Mutex    // held while it is deleted
	lost      chan struct{} // closed when it has ended and reason says why

	mu     sync.Mutex
	record record // guarded by mu
	reason string // why it stopped; guarded by mu
	gone   bool   // Delete has begun; guarded by mu
}

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
	d := &Driver{opts: opts, log: opts.Logger.With("driver", "gvisor"), cgroups: detectCgroups(filepath.Base(RunDir(state))), closed: make(chan struct{}), boxes: map[sandbox.ID]*box{}}

	cu := cleanup.Make(func() { _ = d.Close() })
	defer cu.Clean()
	for _, dir := range []string{d.sandboxesDir(), opts.RunDir, opts.AgentDir} {
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

// Create starts a sandbox cold. See sandbox.Driver.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Info, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errdefs.New(errdefs.ErrUnavailable, "sandbox-start-timeout",
		"the sandbox did not start within %v", startTimeout).WithHint("the machine may be overloaded; try again"))
	defer cancel()
	d.busy.Add(1)
	defer d.busy.Done()
	if spec.ID == "" {
		spec.ID = sandbox.NewID()
	}
	if !spec.ID.Valid() {
		return sandbox.Info{}, errdefs.New(errdefs.ErrInvalid, "invalid-id", "%q is not a sandbox id", spec.ID)
	}
	root, err := d.opts.Rootfs(ctx, spec.Image)
	if err != nil {
		return sandbox.Info{}, err
	}
	dir := filepath.Join(d.sandboxesDir(), string(spec.ID))
	if err := os.Mkdir(dir, 0o711); err != nil {
		if errors.Is(err, os.ErrExist) {
			return sandbox.Info{}, errdefs.New(errdefs.ErrConflict, "sandbox-exists", "there is a sandbox %s already", spec.ID)
		}
		return sandbox.Info{}, diskError(err)
	}
	// From here on everything is found by the folder: remove undoes all of it.
	cu := cleanup.Make(func() {
		if err := d.remove(spec.ID, nil); err != nil {
			d.log.Error("could not remove a sandbox that failed to start", "sandbox_id", spec.ID, "err", err)
		}
	})
	defer cu.Clean()

	b := &box{dir: dir, agentLog: &agentLog{}, lost: make(chan struct{}), record: record{
		ID: spec.ID, Template: spec.Template, Image: root.Digest, Limits: spec.Limits,
		Labels: maps.Clone(spec.Labels), CreatedAt: time.Now().UTC(), Token: rand.Text() + rand.Text(),
	}}
	if err := b.record.save(dir); err != nil {
		return sandbox.Info{}, diskError(err)
	}
	if err := writeBundle(dir, d.ociSpec(dir, spec.ID, root, spec.Limits, d.agentDir, d.opts.AgentArgs)); err != nil {
		return sandbox.Info{}, diskError(err)
	}
	if err := d.boot(ctx, b); err != nil {
		return sandbox.Info{}, err
	}
	stop := cleanup.Make(func() { b.sentry.close(); b.gofer.close() })
	defer stop.Clean()
	if err := d.configure(ctx, b, spec); err != nil {
		return sandbox.Info{}, err
	}
	b.record.Ready = true
	if err := b.record.save(dir); err != nil {
		return sandbox.Info{}, diskError(err)
	}
	d.mu.Lock()
	d.boxes[spec.ID] = b
	d.mu.Unlock()
	go d.watchLoss(b)
	cu.Release()
	stop.Release()
	return b.info(), nil
}

// boot runs the container and waits for the agent's ready line.
func (d *Driver) boot(ctx context.Context, b *box) error {
	out, outFar, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("gvisor: %w", err)
	}
	words, wordsFar, err := os.Pipe()
	if err != nil {
		_ = out.Close()
		_ = outFar.Close()
		return fmt.Errorf("gvisor: %w", err)
	}
	// The agent's standard output ends with its ready line; its standard
	// error stays open for a last word and is drained as long as we live.
	go b.agentLog.drain(words)

	flags := []string{"--overlay2=root:" + d.overlayMedium(b.dir)}
	cmd := d.runscCommand(ctx, flags, "run", "--detach", "--bundle="+filepath.Join(b.dir, "bundle"), string(b.record.ID))
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = outFar, wordsFar, []*os.File{d.netns}
	err = cmd.Run()
	_ = outFar.Close()
	_ = wordsFar.Close()
	if err != nil {
		_ = out.Close()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return errdefs.New(errdefs.ErrUnavailable, "sandbox-start-failed", "gVisor could not start the sandbox").
			WithHint("`caesarion doctor` checks this host; the log has gVisor's own words").
			WithCause(fmt.Errorf("runsc run: %w: %s", err, b.agentLog.String()))
	}
	if err := d.attach(b); err != nil {
		_ = out.Close()
		return err
	}
	if limits := b.record.Limits; limits.MemoryBytes > 0 {
		raised := limits.MemoryBytes + sentryMemory + int64(limits.Processes)*processMemory
		if err := d.cgroups.raiseMemory(string(b.record.ID), raised); err != nil {
			d.log.Warn("the host's memory limit stays low: a fork bomb may end the sandbox", "sandbox_id", b.record.ID, "err", err)
		}
	}
	if err := waitReady(ctx, out, b.sentry); err != nil {
		b.sentry.close()
		b.gofer.close()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return errdefs.New(errdefs.ErrUnavailable, "agent-start-failed", "the sandbox started but its agent did not").
			WithHint("the image may lack what the agent needs; try `caesarion image inspect`").
			WithCause(fmt.Errorf("%w: %s", err, b.agentLog.String()))
	}
	return nil
}

// attach loads the running container and watches its processes.
func (d *Driver) attach(b *box) (err error) {
	id := string(b.record.ID)
	b.container, err = container.Load(d.opts.RunDir, container.FullID{SandboxID: id, ContainerID: id}, container.LoadOpts{Exact: true, SkipCheck: true})
	if err != nil {
		return fmt.Errorf("gvisor: load container: %w", err)
	}
	if b.record.Sentry.PID == 0 {
		if b.record.Sentry, err = currentProcess(b.container.SandboxPid()); err != nil {
			return fmt.Errorf("gvisor: sentry: %w", err)
		}
		if b.record.Gofer, err = currentProcess(int(b.container.GoferPid.Load())); err != nil {
			return fmt.Errorf("gvisor: gofer: %w", err)
		}
	}
	if b.sentry, err = watch(b.record.Sentry); err != nil {
		return fmt.Errorf("gvisor: watch sentry: %w", err)
	}
	if b.gofer, err = watch(b.record.Gofer); err != nil {
		b.sentry.close()
		return fmt.Errorf("gvisor: watch gofer: %w", err)
	}
	return nil
}

// waitReady reads the agent's ready line. Dialling before it would be
// refused, and a refused dial spoils a later checkpoint.
func waitReady(ctx context.Context, out *os.File, sentry *watcher) error {
	ready := make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(io.LimitReader(out, 64<<10)).ReadString('\n')
		for err == nil && strings.TrimSpace(line) != agentapi.ReadyLine {
			err = fmt.Errorf("agent said %q", strings.TrimSpace(line))
		}
		ready <- err
	}()
	defer out.Close() // ends the reader too
	select {
	case err := <-ready:
		return err
	case <-sentry.done:
		return errors.New("the sandbox ended while starting")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// configure tells the agent who it is.
func (d *Driver) configure(ctx context.Context, b *box, spec sandbox.Spec) error {
	client := agentapi.NewClient(func(ctx context.Context) (net.Conn, error) {
		return dialAgent(ctx, b.container)
	}, b.record.Token)
	defer client.CloseIdle()
	_, err := client.Configure(ctx, agentapi.Configure{
		Token:         b.record.Token,
		SandboxID:     string(spec.ID),
		Env:           spec.Env,
		MemoryBytes:   spec.Limits.MemoryBytes,
		Processes:     spec.Limits.Processes,
		DiskBytes:     spec.Limits.DiskBytes,
		DataBytes:     spec.Limits.MemoryBytes,
		UnixTimeNanos: time.Now().UnixNano(),
	})
	if err != nil {
		return fmt.Errorf("gvisor: configure agent: %w", err)
	}
	return nil
}

// watchLoss notes why a sandbox ended by itself.
func (d *Driver) watchLoss(b *box) {
	select {
	case <-b.sentry.done:
	case <-d.closed: // it goes on, for the next process
		return
	}
	defer close(b.lost)
	reason := "sandbox_lost"
	if d.cgroups.oomKilled(string(b.record.ID)) {
		reason = "out_of_memory"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.gone {
		b.reason = reason
		d.log.Warn("sandbox ended by itself", "sandbox_id", b.record.ID, "reason", reason, "agent", b.agentLog.String())
	}
}

func (d *Driver) lookup(id sandbox.ID) (*box, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.boxes[id]
	if b == nil {
		return nil, errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "there is no sandbox %s", id)
	}
	return b, nil
}

func (b *box) info() sandbox.Info {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := &b.record
	info := sandbox.Info{
		ID: r.ID, Template: r.Template, Image: r.Image, State: sandbox.StateRunning, Limits: r.Limits,
		Labels: maps.Clone(r.Labels), CreatedAt: r.CreatedAt, AgentToken: r.Token,
	}
	select {
	case <-b.sentry.done:
		info.State, info.Reason = sandbox.StateStopped, b.reason
	default:
	}
	return info
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
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.gone {
		return errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "there is no sandbox %s", id)
	}
	next := b.record
	next.Labels = maps.Clone(labels)
	if err := next.save(b.dir); err != nil {
		return diskError(err)
	}
	b.record = next
	return nil
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
	b.mu.Unlock()
	// Of two calls the second waits, and finds nothing left to do.
	b.removing.Lock()
	defer b.removing.Unlock()
	if err := d.remove(id, b); err != nil {
		return err
	}
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
	empty := len(d.boxes) == 0
	for _, b := range d.boxes {
		b.sentry.close()
		b.gofer.close()
	}
	clear(d.boxes)
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
