package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Where several replicas serve one installation, each sandbox is one replica's:
// that of its session, or its own. A Fleet has those of its replica; of the
// others it knows what the driver does.

// keyOf gives the key that a sandbox is owned by.
func keyOf(id sandbox.ID, session string) string { return cmp.Or(session, string(id)) }

func keyOfInfo(info sandbox.Info) string { return keyOf(info.ID, info.Labels[labelSession]) }

// mine reports whether this replica may decide about the sandbox now. While it
// can't be sure, another may use what looks unused here.
func (s *Sandbox) mine() bool { return s.fleet.opts.Replicas.Owns(keyOf(s.id, s.session)) }

var errNotMine = errdefs.New(errdefs.ErrUnavailable, "replica-stale", "This replica of the server can't decide about the sandbox now.").
	WithHint("Try again in a few seconds.")

// Adopt takes over what is there of sandboxes under keys that have just become
// this replica's, as New does after a restart. It calls done for each key, from
// any goroutine, and returns after the last.
func (f *Fleet) Adopt(ctx context.Context, keys []string, done func(key string, err error)) {
	infos, err := f.driver.List(ctx)
	if err != nil {
		err = fmt.Errorf("fleet: list sandboxes of another replica: %w", err)
	}
	under := make(map[string][]sandbox.Info, len(keys))
	for _, key := range keys {
		under[key] = nil
	}
	for _, info := range infos {
		if _, ours := under[keyOfInfo(info)]; ours && !info.Pooled {
			under[keyOfInfo(info)] = append(under[keyOfInfo(info)], info)
		}
	}
	var g errgroup.Group
	g.SetLimit(adoptAtOnce)
	for key, infos := range under {
		g.Go(func() error {
			err := err
			for _, info := range infos {
				if e := f.adoptFrom(ctx, info); err == nil {
					err = e
				}
			}
			if id := sandbox.ID(key); err == nil && len(infos) == 0 && id.Valid() && !f.knows(id) {
				f.bury(ctx, id, replica.Gone{Key: key, Reason: ReasonLost}, true) // it went while nobody had it, and who could say whose it was
			}
			done(key, err)
			return nil
		})
	}
	_ = g.Wait() // done has the errors
}

func (f *Fleet) knows(id sandbox.ID) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.alive[id] != nil || f.gone[id] != nil
}

// How often an agent may fail to answer a replica that takes its sandbox over
// before it is given up: many are asked at once, and a node may be busy.
const adoptTries = 3

// adoptFrom is takeOver of a sandbox that another replica had until now, if its
// agent answers.
func (f *Fleet) adoptFrom(ctx context.Context, info sandbox.Info) error {
	switch { // in this order: what was being made is known after that
	case f.onItsWay(info):
		return errStarting
	case f.knows(info.ID):
		return nil
	}
	if info.State == sandbox.StateRunning {
		err := f.ask(ctx, info)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			return cause // it was hardly asked
		}
		f.mu.Lock()
		tries := f.tries[info.ID] + 1
		if err == nil || tries >= adoptTries {
			delete(f.tries, info.ID)
		} else {
			f.tries[info.ID] = tries
		}
		f.mu.Unlock()
		if err != nil && tries < adoptTries {
			return fmt.Errorf("fleet: the agent of %s does not answer: %w", info.ID, err)
		}
	}
	if f.ctx.Err() != nil {
		return errClosed
	}
	f.takeOver(ctx, info)
	return nil
}

// ask reports whether the agent of a sandbox answers.
func (f *Fleet) ask(ctx context.Context, info sandbox.Info) error {
	ctx, cancel := context.WithTimeoutCause(ctx, adoptTimeout, errors.New("the agent did not answer in time"))
	defer cancel()
	client := agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return f.driver.Dial(ctx, info.ID) }, info.AgentToken)
	defer client.CloseIdle()
	_, err := client.Kernels(ctx)
	return err
}

var errStarting = errdefs.New(errdefs.ErrUnavailable, replica.CodeStarting, "The sandbox is still starting.").
	WithHint("Try again in a moment.")

// onItsWay reports whether a sandbox that the fleet does not know may be on its
// way into it: it is this process's own, and there is one on its way.
func (f *Fleet) onItsWay(info sandbox.Info) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.creating > 0 && f.alive[info.ID] == nil && info.Labels[labelMaker] == f.opts.Replicas.ID()
}

// own makes a new sandbox this replica's by the tables; by its record it is
// since it began. If that fails, the sandbox is given up.
func (s *Sandbox) own(ctx context.Context) error {
	if s.session != "" {
		return nil // its session is
	}
	err := s.fleet.opts.Replicas.Make(ctx, string(s.id))
	if err != nil {
		s.fleet.work.Go(func() { _ = s.end(s.fleet.ctx, ReasonLost) }) // logged there
	}
	return err
}

// Maker gives the replica that makes the sandbox with this key, or had it last,
// by the sandbox's own record.
func (f *Fleet) Maker(ctx context.Context, key string) string {
	id := sandbox.ID(key)
	if !id.Valid() {
		return ""
	}
	info, err := f.driver.Get(ctx, id)
	if err != nil || info.Pooled {
		return ""
	}
	return info.Labels[labelMaker]
}

// tableTime bounds a question about a sandbox that is gone, and its answer.
const tableTime = 3 * time.Second

// bury notes for all replicas why a sandbox is gone.
func (f *Fleet) bury(ctx context.Context, id sandbox.ID, g replica.Gone, guessed bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tableTime)
	defer cancel()
	if err := f.opts.Replicas.Bury(ctx, string(id), g, guessed); err != nil {
		f.log.Warn("other replicas can't be told why a sandbox is gone", "sandbox_id", string(id), "reason", g.Reason, "err", err)
	}
}

// buryInfo is bury of one that this fleet never had.
func (f *Fleet) buryInfo(ctx context.Context, info sandbox.Info, reason string) {
	f.bury(ctx, info.ID, replica.Gone{Key: keyOfInfo(info), Reason: reason, Owner: ownerOf(info.Labels)}, false)
}

// StartingError says that a sandbox is still on its way.
type StartingError struct {
	Owner identity.Owner // whose it will be; nobody else may learn of it
}

func (e *StartingError) Error() string { return errStarting.Error() }

// Unwrap gives the sentence and its kind.
func (e *StartingError) Unwrap() error { return errStarting }

// whyMissing says what there is to say of a sandbox that the fleet does not know:
// it is still on its way, or another replica had it. Its errors name an owner.
func (f *Fleet) whyMissing(id sandbox.ID) error {
	if f.opts.Replicas == nil || !id.Valid() {
		return nil
	}
	ctx, cancel := context.WithTimeout(f.ctx, tableTime)
	defer cancel()
	if info, err := f.driver.Get(ctx, id); err == nil && !info.Pooled && f.onItsWay(info) {
		return &StartingError{ownerOf(info.Labels)}
	}
	g, ok, err := f.opts.Replicas.Gone(ctx, string(id))
	if ok {
		return &GoneError{ID: id, Reason: g.Reason, Owner: g.Owner}
	}
	return err
}

// Reconcile finds sandboxes that are this replica's without its knowing, since
// the driver learned of them after Adopt. One whose session has another by now
// is deleted.
func (f *Fleet) Reconcile(ctx context.Context) {
	infos, err := f.driver.List(ctx)
	if err != nil {
		return // the next time
	}
	for _, info := range infos {
		key := keyOfInfo(info)
		if info.Pooled || !f.opts.Replicas.Owns(key) || f.onItsWay(info) {
			continue
		}
		f.mu.Lock()
		replaced := f.sessions[key] != nil
		f.mu.Unlock()
		switch {
		case f.knows(info.ID):
		case replaced:
			f.discard(info.ID, "its session has another")
		default:
			f.takeOver(ctx, info)
		}
	}
}

// Holds reports whether there is a sandbox under a key, or one that is gone and
// whose reason people may ask for.
func (f *Fleet) Holds(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := sandbox.ID(key)
	return f.sessions[key] != nil || f.alive[id] != nil || f.gone[id] != nil
}

// Keys gives the keys of all sandboxes of the installation, and who makes or has
// each by its own record. That record is as old as the sandbox: the row of
// owners comes later, when its id is known and its agent answers.
func (f *Fleet) Keys(ctx context.Context) ([]replica.Record, error) {
	infos, err := f.driver.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("fleet: list sandboxes: %w", err)
	}
	var records []replica.Record
	for _, info := range infos {
		if !info.Pooled {
			records = append(records, replica.Record{Key: keyOfInfo(info), Maker: info.Labels[labelMaker]})
		}
	}
	return records, nil
}

// A driver learns a moment later of what another replica made. A sandbox that is
// named by its client is looked for so long.
const (
	locateFor   = 600 * time.Millisecond
	locateEvery = 20 * time.Millisecond
	// maxFound bounds the names that are remembered, some 150 bytes each.
	maxFound = 10_000
)

// Locate gives the key of a sandbox of any replica, by its id or its name in the
// original's API.
func (f *Fleet) Locate(ctx context.Context, name string) (key string, ok bool) {
	id := sandbox.ID(name)
	if !id.Valid() && !seedName.MatchString(name) {
		return "", false
	}
	f.mu.Lock()
	s, found := cmp.Or(f.alive[id], f.gone[id], f.seeds[name]), f.found[name]
	f.mu.Unlock()
	if s != nil {
		return keyOf(s.id, s.session), true
	}
	if found != "" {
		return found, true // never changes; its owner knows whether it is there still
	}
	for until := time.Now().Add(locateFor); ; {
		if info, err := f.look(ctx, name); err == nil {
			f.mu.Lock()
			if len(f.found) >= maxFound {
				clear(f.found)
			}
			f.found[name] = keyOfInfo(info)
			f.mu.Unlock()
			return keyOfInfo(info), true
		} else if !errors.Is(err, errdefs.ErrNotFound) || time.Now().After(until) {
			return "", false
		}
		select {
		case <-time.After(locateEvery):
		case <-ctx.Done():
			return "", false
		}
	}
}

func (f *Fleet) look(ctx context.Context, name string) (sandbox.Info, error) {
	missing := errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "There is no sandbox %.80q.", name)
	if id := sandbox.ID(name); id.Valid() {
		info, err := f.driver.Get(ctx, id)
		if err == nil && info.Pooled { // claimed by now, or nobody's
			return info, missing
		}
		return info, err
	}
	infos, err := f.driver.List(ctx)
	if err != nil {
		return sandbox.Info{}, err
	}
	for _, info := range infos {
		if !info.Pooled && info.Labels[labelSeed] == name {
			return info, nil
		}
	}
	return sandbox.Info{}, missing
}

// Everywhere gives the living sandboxes of all replicas, newest first, and those
// that are being made. What is said of others' is what their labels say.
func (f *Fleet) Everywhere(ctx context.Context) ([]View, error) {
	var views []View
	if f.opts.Replicas == nil {
		for _, s := range f.List() {
			views = append(views, s.View())
		}
		return views, nil
	}
	infos, err := f.driver.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("fleet: list sandboxes: %w", err)
	}
	listed := map[sandbox.ID]bool{}
	for _, s := range f.List() {
		views, listed[s.id] = append(views, s.View()), true
	}
	for _, info := range infos {
		if !info.Pooled && !listed[info.ID] && info.State != sandbox.StateStopped {
			views = append(views, f.viewOf(info))
		}
	}
	slices.SortStableFunc(views, func(a, b View) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID))
	})
	return views, nil
}

// viewOf gives a sandbox that another replica has.
func (f *Fleet) viewOf(info sandbox.Info) View {
	rec := recordOf(info, f.templateOf(info.Template))
	v := View{
		ID: info.ID, SeedID: rec.seedID, Session: rec.session, Owner: rec.owner, Template: info.Template, Image: info.Image, State: info.State,
		Limits: info.Limits, Labels: rec.user, KernelID: rec.kernelID, ExecutionTimeout: rec.execution, IdleTimeout: rec.idle,
		CreatedAt: info.CreatedAt, LastUsedAt: rec.used, ExpiresAt: rec.expires.UTC(), Start: rec.start, Restarted: rec.restarted,
	}
	if f.pauser != nil {
		v.PauseAfter = max(0, rec.pause)
	}
	if info.State == sandbox.StatePaused {
		v.PausedAt, v.SavedBytes = info.PausedAt, info.MemoryBytes+info.FilesBytes
	}
	return v
}

// WithSandbox gives the sessions that have a sandbox, of whichever replica.
func (f *Fleet) WithSandbox(ctx context.Context) (map[string]bool, error) {
	infos, err := f.driver.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("fleet: list sandboxes: %w", err)
	}
	sessions := map[string]bool{}
	for _, info := range infos {
		if session := info.Labels[labelSession]; session != "" && !info.Pooled {
			sessions[session] = true
		}
	}
	return sessions, nil
}
