package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/limits/fair"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// errClosed is the cause that everything of a closing Fleet ends with.
var errClosed = errdefs.New(errdefs.ErrUnavailable, "server-stopping", "The server is stopping.").
	WithHint("Try again in a few seconds; sandboxes and running executions go on.")

// Fleet has the sandboxes of one installation.
type Fleet struct {
	driver sandbox.Driver
	pauser sandbox.Pauser      // nil: the driver's sandboxes can't sleep
	saver  sandbox.Snapshotter // nil: nor be saved
	pool   Leaser
	opts   Options
	log    *slog.Logger
	kept   *keeper

	ctx    context.Context // ends with Close; the parent of watches and pumps
	cancel context.CancelCauseFunc
	work   sync.WaitGroup // watches, pumps, removals, ways into sleep and out of it
	tidy   sync.Mutex     // held while the quota is kept

	mu       sync.Mutex
	closed   bool
	creating int // or waking
	alive    map[sandbox.ID]*Sandbox
	asleep   map[sandbox.ID]*Sandbox // of those alive
	gone     map[sandbox.ID]*Sandbox
	goneList []sandbox.ID // oldest first; bounds gone
	seeds    map[string]*Sandbox
	sessions map[string]*Sandbox
	found    map[string]string  // keys of other replicas' sandboxes by their names
	tries    map[sandbox.ID]int // to take over a sandbox whose agent did not answer
	farewell func(context.Context, *Sandbox)

	starts  *fair.Queue[identity.Owner] // of sandboxes, and wakes
	handing *fair.Queue[identity.Owner] // of executions, until the agent has them

	admitting sync.Mutex              // guards admitted; taken before mu
	admitted  map[*admission]struct{} // see limits.go

	making map[identity.Owner]int // whose sandboxes are being made; guarded by mu
}

// runsAtOnce is how many executions are being handed to their agents at once:
// more than are ever ready for it on a machine of that size, so that only a
// flood waits.
func runsAtOnce() int { return max(64, 16*runtime.GOMAXPROCS(0)) }

// Gone sandboxes that are remembered for their reason. Each costs about a
// kilobyte; their executions' events are bounded by Options.EventBytes.
const maxGone = 1000

// How long removing one sandbox may take, whoever asked for it.
const removeTimeout = 60 * time.Second

// New takes over the driver's sandboxes: those that an earlier process left
// are adopted with their executions, or deleted if their time is over or their
// agent does not answer. Those that sleep are not woken for it. It returns when
// that is done. A pool is the caller's to close; with nil every start is cold.
func New(ctx context.Context, driver sandbox.Driver, ready Leaser, opts Options) (*Fleet, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	f := &Fleet{
		driver:   driver,
		pool:     cold{driver},
		opts:     opts,
		log:      opts.Logger,
		kept:     newKeeper(opts.EventBytes),
		alive:    map[sandbox.ID]*Sandbox{},
		asleep:   map[sandbox.ID]*Sandbox{},
		gone:     map[sandbox.ID]*Sandbox{},
		seeds:    map[string]*Sandbox{},
		sessions: map[string]*Sandbox{},
		found:    map[string]string{},
		tries:    map[sandbox.ID]int{},
		starts:   fair.New[identity.Owner](fair.Options{Slots: opts.Starts, What: "starts of sandboxes"}),
		handing:  fair.New[identity.Owner](fair.Options{Slots: runsAtOnce(), What: "executions"}),
		admitted: map[*admission]struct{}{},
		making:   map[identity.Owner]int{},
	}
	f.pauser, _ = driver.(sandbox.Pauser)
	f.saver, _ = driver.(sandbox.Snapshotter)
	if ready != nil {
		f.pool = ready
	}
	f.ctx, f.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if opts.Replicas == nil { // else as this one gets to own them: Adopt
		if err := f.adopt(ctx); err != nil {
			_ = f.Close()
			return nil, err
		}
	}
	if opts.Limits != nil {
		f.background(f.meter)
	}
	left := f.temporary(ctx) // before this process makes some itself
	f.background(func() {
		for _, id := range left {
			f.deleteTemporary(id)
		}
		f.keepQuota()
	})
	return f, nil
}

// Adoption talks to many agents at once, but not to all.
const (
	adoptAtOnce  = 8
	adoptTimeout = 10 * time.Second
)

func (f *Fleet) adopt(ctx context.Context) error {
	infos, err := f.driver.List(ctx)
	if err != nil {
		return fmt.Errorf("fleet: list sandboxes of an earlier process: %w", err)
	}
	var g errgroup.Group
	g.SetLimit(adoptAtOnce)
	for _, info := range infos {
		if info.Pooled {
			continue // the pool's
		}
		g.Go(func() error { f.takeOver(ctx, info); return nil })
	}
	return g.Wait()
}

// takeOver adopts a sandbox that somebody else had, or deletes it.
func (f *Fleet) takeOver(ctx context.Context, info sandbox.Info) {
	rec := recordOf(info, f.templateOf(info.Template))
	rec.maker = f.opts.Replicas.ID()
	switch now := time.Now(); {
	case info.State == sandbox.StatePaused:
		f.adoptAsleep(info, rec)
	case info.State == sandbox.StateStarting:
		f.discard(info.ID, "who was making it is gone")
	case info.State != sandbox.StateRunning:
		f.buryInfo(ctx, info, cmp.Or(info.Reason, ReasonLost))
		f.discard(info.ID, "it had stopped")
	case now.After(rec.expires):
		f.buryInfo(ctx, info, ReasonExpired)
		f.discard(info.ID, "its life was over")
	case now.After(rec.used.Add(rec.idle+labelWriteEvery)) && (rec.strict || rec.pause <= 0 || f.pauser == nil):
		if !f.runs(ctx, info) {
			f.buryInfo(ctx, info, ReasonIdle)
			f.discard(info.ID, "it was idle for too long")
			return
		}
		rec.used = now // what is written there is another clock's
		f.adoptOne(ctx, info, rec)
	default:
		f.adoptOne(ctx, info, rec)
	}
}

func (f *Fleet) adoptOne(start context.Context, info sandbox.Info, rec record) {
	if f.opts.Replicas != nil {
		start = f.ctx // half adopted would be as bad as lost: only Close ends it
	}
	ctx, cancel := context.WithTimeoutCause(start, adoptTimeout, errors.New("the agent did not answer in time"))
	defer cancel()
	s, err := f.attach(info, rec, nil)
	if err == nil {
		if err = s.adoptExecutions(ctx); err == nil {
			f.log.Info("sandbox adopted", "sandbox_id", string(info.ID), "template", info.Template)
			return
		}
		if start.Err() != nil {
			return // this process stops, and the next one asks the agent
		}
		f.log.Warn("sandbox of an earlier process can't be adopted", "sandbox_id", string(info.ID), "err", err)
		_ = s.end(context.WithoutCancel(ctx), ReasonUnresponsive) // logged there
		return
	}
	f.log.Warn("sandbox of an earlier process can't be adopted", "sandbox_id", string(info.ID), "err", err)
}

// runs asks a sandbox that nobody here has whether something runs in it.
func (f *Fleet) runs(ctx context.Context, info sandbox.Info) bool {
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	client := agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return f.driver.Dial(ctx, info.ID) }, info.AgentToken)
	defer client.CloseIdle()
	known, err := client.Executions(ctx)
	return err == nil && slices.ContainsFunc(known, func(e agentapi.Execution) bool { return !e.Finished })
}

// discard deletes a sandbox of an earlier process, in the background.
func (f *Fleet) discard(id sandbox.ID, why string) {
	f.log.Info("sandbox of an earlier process deleted", "sandbox_id", string(id), "reason", why)
	f.work.Go(func() { _ = f.remove(f.ctx, id) })
}

// remove deletes a sandbox from the driver and tries again if that fails: a
// sandbox nobody can see must not go on using the machine.
func (f *Fleet) remove(ctx context.Context, id sandbox.ID) error {
	wait := 200 * time.Millisecond
	for try := 1; ; try++ {
		dctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTimeout)
		err := f.driver.Delete(dctx, id)
		cancel()
		if err == nil {
			return nil
		}
		f.log.Error("sandbox can't be deleted", "sandbox_id", string(id), "attempt", try, "err", err)
		if try == 5 {
			return fmt.Errorf("fleet: delete %s: %w", id, err)
		}
		select {
		case <-time.After(wait):
			wait *= 4
		case <-f.ctx.Done():
			return fmt.Errorf("fleet: delete %s: %w", id, err)
		}
	}
}

// reserve takes a place for a sandbox that is being made; release gives it back
// once the sandbox counts itself or failed.
func (f *Fleet) reserve(owner identity.Owner) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	if err := f.shareLocked(owner); err != nil {
		return err
	}
	if n := len(f.alive) - len(f.asleep) + f.creating; f.opts.MaxSandboxes > 0 && n >= f.opts.MaxSandboxes {
		return errdefs.New(errdefs.ErrExhausted, "too-many-sandboxes",
			"There are %d sandboxes, and this installation allows %d at once.", n, f.opts.MaxSandboxes).
			WithHint("Delete or pause one that is not needed, or wait until an idle one ends.")
	}
	f.creating++
	f.making[owner]++
	return nil
}

func (f *Fleet) release(owner identity.Owner) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.creating--
	if f.making[owner]--; f.making[owner] == 0 {
		delete(f.making, owner)
	}
}

// shareLocked leaves a quarter of the places to others: where there are several
// users, none of them takes all.
func (f *Fleet) shareLocked(owner identity.Owner) error {
	most := f.opts.MaxSandboxes
	if most <= 0 || owner == (identity.Owner{}) {
		return nil
	}
	share := max(1, most-max(1, most/4))
	n := f.making[owner]
	for id, s := range f.alive {
		if s.owner == owner && f.asleep[id] == nil {
			n++
		}
	}
	if n < share {
		return nil
	}
	return errdefs.New(errdefs.ErrExhausted, "too-many-sandboxes",
		"You have %d sandboxes, and of the %d that this installation allows at once the rest is left to others.", n, most).
		WithHint("Delete or pause one that is not needed.")
}

// attach makes the Sandbox of a sandbox that runs or sleeps and watches it. A
// client that speaks to its agent already is used on.
func (f *Fleet) attach(info sandbox.Info, rec record, client *agentapi.Client) (*Sandbox, error) {
	lost, err := f.driver.Lost(info.ID)
	if err != nil {
		return nil, fmt.Errorf("fleet: watch %s: %w", info.ID, err)
	}
	s := newSandbox(f, info, rec, client)
	s.lost = lost
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		s.cancel(errClosed)
		s.client.CloseIdle()
		return nil, errClosed
	}
	if f.alive[info.ID] != nil {
		f.mu.Unlock()
		s.cancel(errClosed)
		s.client.CloseIdle()
		return nil, errdefs.New(errdefs.ErrConflict, "sandbox-exists", "The sandbox %s is here already.", info.ID)
	}
	f.alive[info.ID] = s
	if info.State == sandbox.StatePaused {
		f.asleep[info.ID] = s
	}
	if rec.seedID != "" {
		f.seeds[rec.seedID] = s
	}
	if rec.session != "" {
		f.sessions[rec.session] = s
	}
	f.mu.Unlock()
	f.work.Go(s.watch)
	s.holdDoor()
	return s, nil
}

// detach takes a sandbox out of the living; false if somebody else did.
func (f *Fleet) detach(s *Sandbox) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.alive[s.id] != s {
		return false
	}
	delete(f.alive, s.id)
	delete(f.asleep, s.id)
	if s.seedID != "" && f.seeds[s.seedID] == s {
		delete(f.seeds, s.seedID)
	}
	if s.session != "" && f.sessions[s.session] == s {
		delete(f.sessions, s.session)
	}
	f.gone[s.id] = s
	f.goneList = append(f.goneList, s.id)
	if len(f.goneList) > maxGone {
		old := f.gone[f.goneList[0]]
		delete(f.gone, f.goneList[0])
		f.goneList = f.goneList[1:]
		f.kept.forget(old)
	}
	return true
}

// Get finds a living sandbox. A gone one gives an error that says why.
func (f *Fleet) Get(id sandbox.ID) (*Sandbox, error) {
	f.mu.Lock()
	s, ok := f.alive[id]
	old, was := f.gone[id]
	f.mu.Unlock()
	switch {
	case ok:
		return s, nil
	case was:
		return nil, old.goneError()
	}
	if err := f.whyMissing(id); err != nil {
		return nil, err
	}
	return nil, NotFound(string(id))
}

// NotFound is what is said of a sandbox that is not there, or not there for who
// asks.
func NotFound(id string) error {
	return errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "There is no sandbox %.80q.", id).
		WithHint("GET /v1/sandboxes lists those there are.")
}

// Has reports whether there is a living sandbox of this id here.
func (f *Fleet) Has(id sandbox.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.alive[id] != nil
}

// Remembered finds a sandbox also when it is gone, to read what its
// executions gave.
func (f *Fleet) Remembered(id sandbox.ID) (*Sandbox, error) {
	f.mu.Lock()
	s := cmp.Or(f.alive[id], f.gone[id])
	f.mu.Unlock()
	if s != nil {
		return s, nil
	}
	return f.Get(id)
}

// BySeedID finds a living sandbox by its name in the original's API.
func (f *Fleet) BySeedID(name string) (*Sandbox, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.seeds[name]
	return s, ok
}

// BySession finds the living sandbox of a session.
func (f *Fleet) BySession(session string) (*Sandbox, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.sessions[session]
	return s, ok
}

// Farewell has fn called before a sandbox is put to sleep, and before one that
// is awake is deleted because it was idle or its life is over, so that its
// files can be saved.
func (f *Fleet) Farewell(fn func(context.Context, *Sandbox)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.farewell = fn
}

// List gives the living sandboxes, newest first.
func (f *Fleet) List() []*Sandbox {
	f.mu.Lock()
	list := slices.Collect(maps.Values(f.alive))
	f.mu.Unlock()
	slices.SortFunc(list, func(a, b *Sandbox) int {
		return cmp.Or(b.info.CreatedAt.Compare(a.info.CreatedAt), cmp.Compare(a.id, b.id))
	})
	return list
}

// Count gives the number of living sandboxes, those that sleep included.
func (f *Fleet) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.alive)
}

// Asleep gives the number of those that sleep.
func (f *Fleet) Asleep() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.asleep)
}

// PoolStats gives the state of the templates' pools; nil without a pool.
func (f *Fleet) PoolStats() map[string]pool.Stats { return f.pool.Stats() }

// Templates gives the templates, with defaults filled in, and the default's name.
func (f *Fleet) Templates() (map[string]Template, string) {
	return f.opts.Templates, f.opts.DefaultTemplate
}

// MaxSandboxes gives the bound in force; not positive means none.
func (f *Fleet) MaxSandboxes() int { return f.opts.MaxSandboxes }

// Capabilities says what the driver can do and enforces.
func (f *Fleet) Capabilities() sandbox.Capabilities { return f.driver.Capabilities() }

// Close stops watching and lets go of the agents. Sandboxes and what runs in
// them stay for the next process; the driver is the caller's to close.
func (f *Fleet) Close() error {
	f.mu.Lock()
	f.closed = true
	alive := slices.Collect(maps.Values(f.alive))
	awake := slices.DeleteFunc(slices.Clone(alive), func(s *Sandbox) bool { return f.asleep[s.id] == s })
	f.mu.Unlock()
	f.cancel(errClosed)
	var err error
	for _, s := range awake { // the labels of those that sleep were written before
		if !s.mine() {
			continue // who has it now writes them
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		err = errors.Join(err, s.saveLabels(ctx))
		cancel()
	}
	f.work.Wait()
	for _, s := range alive {
		s.client.CloseIdle()
	}
	return err
}

// background runs fn in a goroutine that Close waits for; fn ends when f.ctx
// does. After Close nothing is started and it reports false.
func (f *Fleet) background(fn func()) bool {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return false
	}
	f.work.Add(1)
	f.mu.Unlock()
	go func() {
		defer f.work.Done()
		fn()
	}()
	return true
}
