package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// DefaultKernel is the id a kernel that was started beforehand has until
// somebody asks for one.
const DefaultKernel = "krn_default"

// maxKernels bounds the kernels of one sandbox; each is a Python process of
// some hundred megabytes.
const maxKernels = 16

// Options configures an Agent. The zero value serves a sandbox whose
// directories are where api.go says, with python3 of PATH.
type Options struct {
	Root       string   // put before every path of the sandbox; for tests, where a folder stands for the whole file system
	Python     string   // interpreter of the kernels; default "python3"
	Preload    []string // modules kernels import before they are ready
	ProgramDir string   // from kernel.Unpack; default: a temporary folder for each kernel
	Home       string   // home directory in the sandbox; default: HOME of Environ
	Environ    []string // environment of kernels and processes; default: the agent's
	Version    string   // for Health
	Init       bool     // the agent is process 1: every other process is its business
	Reaper     *Reaper  // of process 1; nil elsewhere
	// TokenSHA256, if it is not empty, is the digest of the only token that the
	// first Configure may come with: the agent can be reached by others.
	TokenSHA256 []byte
	// Limits hold until the first Configure, whose other fields are not used.
	Limits *agentapi.Configure
	// OwnDisk says that the disk below the folders that can be written to is also
	// used by others: the agent counts the files and keeps the limit, see disk.go.
	OwnDisk bool
	// Proxy is the address on which ServeProxy serves, which programs are told;
	// empty: they have none.
	Proxy  string
	Logger *slog.Logger
}

// Agent serves one sandbox.
type Agent struct {
	opts    Options
	started time.Time
	roots   []fileRoot
	watch   *watch
	log     *slog.Logger
	mux     *http.ServeMux

	previews *previews
	egress   *egress

	spawning    sync.RWMutex // held for reading from the start of a child until its owner is known
	configureMu sync.Mutex   // one Configure at a time
	token       atomic.Pointer[[sha256.Size]byte]
	conf        atomic.Pointer[agentapi.Configure]
	configured  atomic.Bool // by Configure
	ready       atomic.Bool // see Ready
	disk        diskUse

	mu         sync.Mutex // guards what follows; taken after keeper.mu, never before it
	kernels    map[string]*keeper
	prestarted *keeper
	executions map[string]*execution
	order      []*execution // of executions, oldest first
	processes  map[string]*process
	previewer  *previewer // the one that runs, if any
	closed     bool
	wg         sync.WaitGroup // keepers and processes
}

// New makes an agent and the directories that every sandbox has, as far as it may.
func New(opts Options) *Agent {
	opts.Python = cmp.Or(opts.Python, "python3")
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Environ == nil {
		opts.Environ = os.Environ()
	}
	if opts.Home == "" {
		opts.Home = cmp.Or(lookup(opts.Environ, "HOME"), "/home/user")
	}
	a := &Agent{
		opts: opts, started: time.Now(), log: opts.Logger, kernels: make(map[string]*keeper),
		executions: make(map[string]*execution), processes: make(map[string]*process),
	}
	if len(opts.TokenSHA256) == sha256.Size {
		a.token.Store((*[sha256.Size]byte)(opts.TokenSHA256))
	}
	if opts.Limits != nil {
		a.conf.Store(opts.Limits)
	}
	a.watch, a.previews, a.egress = newWatch(a), newPreviews(), newEgress(a)
	a.mux = a.newMux()
	for _, dir := range []string{agentapi.WorkspaceDir, agentapi.UploadsDir, "/tmp", opts.Home} {
		// Best effort: an image may have them, owned by somebody else.
		_ = os.MkdirAll(a.real(dir), 0o755) //nolint:gosec // like any home directory
		a.roots = append(a.roots, fileRoot{dir: filepath.Clean(dir), real: a.real(dir)})
	}
	return a
}

func lookup(environ []string, name string) string {
	for _, v := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// real gives the path on this machine of a path in the sandbox.
func (a *Agent) real(dir string) string { return filepath.Join(a.opts.Root, dir) }

// realDir is real for a working directory: relative ones are below the workspace.
func (a *Agent) realDir(dir string) string {
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(agentapi.WorkspaceDir, dir)
	}
	return a.real(dir)
}

// environ gives the environment of a new process.
func (a *Agent) environ(extra map[string]string) []string {
	env := slices.Concat(a.opts.Environ, a.egress.env)
	env = append(env, "HOME="+a.real(a.opts.Home))
	if conf := a.conf.Load(); conf != nil {
		env = appendEnv(env, conf.Env)
	}
	return appendEnv(env, extra)
}

func appendEnv(env []string, extra map[string]string) []string {
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		env = append(env, name+"="+extra[name]) // of two with one name, os/exec takes the later
	}
	return env
}

func checkEnv(env map[string]string) error {
	for name, value := range env {
		if name == "" || strings.ContainsAny(name, "=\x00") || strings.Contains(value, "\x00") {
			return errdefs.New(errdefs.ErrInvalid, "invalid-env", "%.80q is not a name, or its value not a value, of an environment variable", name)
		}
	}
	return nil
}

// spawner starts a child so that the reaper leaves it alone.
func (a *Agent) spawner(start func() (int, error)) error {
	if a.opts.Reaper == nil {
		_, err := start()
		return err
	}
	return a.opts.Reaper.Spawn(start)
}

func (a *Agent) reaped(pid int) {
	if a.opts.Reaper != nil {
		a.opts.Reaper.Forget(pid)
	}
}

// configure takes who the sandbox is. Whether the caller may was checked.
func (a *Agent) configure(ctx context.Context, conf agentapi.Configure) error {
	if conf.Token == "" {
		return errdefs.New(errdefs.ErrInvalid, "invalid-token", "the token is empty")
	}
	if err := checkEnv(conf.Env); err != nil {
		return err
	}
	if conf.KernelID != "" {
		if err := checkID(conf.KernelID, "krn_"); err != nil {
			return err
		}
	}
	sum := sha256.Sum256([]byte(conf.Token))
	conf.Token = "" // the digest is enough
	a.conf.Store(&conf)
	a.token.Store(&sum)
	a.configured.Store(true)
	if conf.UnixTimeNanos > 0 && a.opts.Init {
		// After a restore the clock may stand where it was saved. Without the
		// capability this fails, and the driver has to see to it.
		ts := syscall.NsecToTimeval(conf.UnixTimeNanos)
		_ = syscall.Settimeofday(&ts)
	}
	a.egress.promise(conf.Env[agentapi.NetworkEnv] != "")
	if conf.Clone {
		a.becomeCopy(ctx)
	}
	if conf.KernelID != "" {
		a.handOver(ctx, conf.KernelID)
	}
	return nil
}

// mayConfigure reports whether a Configure that carries this token is accepted.
func (a *Agent) mayConfigure(token string) error {
	if a.token.Load() == nil {
		return nil
	}
	return a.authorize(token)
}

var (
	errUnauthenticated = errdefs.New(errdefs.ErrUnauthenticated, "unauthenticated", "the token is missing or wrong")
	errNotConfigured   = errdefs.New(errdefs.ErrConflict, "not-configured", "this agent has not been configured yet")
)

func (a *Agent) authorize(token string) error {
	want := a.token.Load()
	if want == nil {
		return errNotConfigured
	}
	got := sha256.Sum256([]byte(token))
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return errUnauthenticated
	}
	return nil
}

// Ready says that whatever was to be started beforehand is there: from now on
// GET /ready is a success.
func (a *Agent) Ready() { a.ready.Store(true) }

// health describes the agent.
func (a *Agent) health() agentapi.Health {
	h := agentapi.Health{
		Version: a.opts.Version, Configured: a.configured.Load(),
		UptimeMS: float64(time.Since(a.started).Microseconds()) / 1000,
	}
	if conf := a.conf.Load(); conf != nil && conf.KernelID != "" {
		if k, err := a.kernel(conf.KernelID); err == nil && k.usable() {
			h.KernelID = conf.KernelID
		}
	}
	return h
}

// idPattern is what kernels, executions and processes may be called: ids name files.
var idPattern = regexp.MustCompile(`^[a-z]{3}_[A-Za-z0-9_-]{1,64}$`)

func checkID(id, prefix string) error {
	if !idPattern.MatchString(id) || !strings.HasPrefix(id, prefix) {
		return errdefs.New(errdefs.ErrInvalid, "invalid-id", "%.80q is not an id that begins with %s", id, prefix)
	}
	return nil
}

// Prestart starts the default kernel and waits until it is ready, so that the
// first StartKernel finds it there. What takes long when it is done for the
// first time has been done then, and memory that this took is given back.
func (a *Agent) Prestart(ctx context.Context) error {
	k := a.newKeeper(DefaultKernel, agentapi.WorkspaceDir, nil)
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return errors.New("agent: closed")
	}
	a.prestarted = k
	a.kernels[k.id()] = k
	a.wg.Go(k.run)
	a.mu.Unlock()
	if err := k.waitReady(ctx); err != nil {
		return err
	}
	k.rehearse(ctx)
	a.trim(ctx)
	return nil
}

// startKernel starts a kernel, or hands over the one that was started beforehand.
func (a *Agent) startKernel(ctx context.Context, req agentapi.StartKernel) (*keeper, error) {
	if err := checkID(req.ID, "krn_"); err != nil {
		return nil, err
	}
	if req.Language != "" && req.Language != "python" {
		return nil, errdefs.New(errdefs.ErrUnsupported, "unsupported-language", "there are no kernels for %.80q", req.Language).WithHint("use python")
	}
	if err := checkEnv(req.Env); err != nil {
		return nil, err
	}
	if strings.ContainsRune(req.Dir, 0) {
		return nil, errInvalidPath
	}
	if req.Dir != "" {
		if info, err := os.Stat(a.realDir(req.Dir)); err != nil || !info.IsDir() {
			return nil, errdefs.New(errdefs.ErrInvalid, "invalid-cwd", "%.200q is not a folder in the sandbox", req.Dir)
		}
	}
	a.mu.Lock()
	switch {
	case a.closed:
		a.mu.Unlock()
		return nil, errdefs.New(errdefs.ErrUnavailable, "agent-closed", "the agent is going away")
	case a.kernels[req.ID] != nil && a.kernels[req.ID] != a.prestarted:
		a.mu.Unlock()
		return nil, errdefs.New(errdefs.ErrConflict, "kernel-exists", "there is a kernel %s already", req.ID)
	case a.prestarted != nil:
		a.mu.Unlock()
		if k := a.takePrestarted(req.ID); k != nil {
			return k, k.adopt(ctx, req)
		}
		return a.startKernel(ctx, req) // somebody was faster
	case len(a.kernels) >= maxKernels:
		a.mu.Unlock()
		return nil, errdefs.New(errdefs.ErrExhausted, "too-many-kernels", "a sandbox has at most %d kernels", maxKernels).WithHint("delete one first")
	}
	k := a.newKeeper(req.ID, req.Dir, req.Env)
	a.kernels[k.id()] = k
	a.wg.Go(k.run)
	a.mu.Unlock()
	if err := k.waitReady(ctx); err != nil {
		if ctx.Err() == nil { // it is dead: nobody could use it
			a.removeKernel(k)
		}
		return nil, err
	}
	return k, nil
}

func (a *Agent) kernel(id string) (*keeper, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if k := a.kernels[id]; k != nil {
		return k, nil
	}
	return nil, errKernelNotFound(id)
}

func (a *Agent) kernelList() []agentapi.Kernel {
	a.mu.Lock()
	keepers := slices.Collect(maps.Values(a.kernels))
	a.mu.Unlock()
	slices.SortFunc(keepers, func(x, y *keeper) int { return x.startedAt.Compare(y.startedAt) })
	list := make([]agentapi.Kernel, 0, len(keepers))
	for _, k := range keepers {
		list = append(list, k.info())
	}
	return list
}

// removeKernel ends a kernel and forgets it.
func (a *Agent) removeKernel(k *keeper) {
	k.close()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.kernels[k.id()] == k {
		delete(a.kernels, k.id())
	}
	if a.prestarted == k {
		a.prestarted = nil
	}
}

// execute takes code for a kernel. An id that is known already gives that execution.
func (a *Agent) execute(kernelID string, req agentapi.Execute) (*execution, error) {
	if err := checkID(req.ID, "exe_"); err != nil {
		return nil, err
	}
	if err := checkObject(req.UserExpressions, "user_expressions"); err != nil {
		return nil, err
	}
	k, err := a.kernel(kernelID)
	if err != nil {
		return nil, err
	}
	if e := a.execution(req.ID); e != nil {
		if e.keeper != k {
			return nil, errdefs.New(errdefs.ErrConflict, "execution-exists", "execution %s belongs to another kernel", req.ID)
		}
		return e, nil
	}
	return k.submit(req)
}

// Close ends all kernels and processes and waits for them.
func (a *Agent) Close() {
	a.mu.Lock()
	a.closed = true
	keepers := slices.Collect(maps.Values(a.kernels))
	commands := slices.Collect(maps.Values(a.processes))
	reader := a.previewer
	a.mu.Unlock()
	if reader != nil {
		a.endPreview(reader)
	}
	var wg sync.WaitGroup
	for _, k := range keepers {
		wg.Go(k.close)
	}
	for _, p := range commands {
		wg.Go(func() { p.end(ending{}) })
	}
	wg.Wait()
	a.wg.Wait()
	a.egress.close()
	a.watch.close()
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.order {
		e.log.Close(nil)
	}
}

var _ http.Handler = (*Agent)(nil)
