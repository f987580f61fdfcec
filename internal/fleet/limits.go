package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Limits says how much owners may use.
type Limits interface {
	// Hold says whether an owner may have more beside what he and his
	// organisation have. It does not wait.
	Hold(owner identity.Owner, more Holding, held Held) error
	// Create counts n sandboxes that an owner asks for, or says why not.
	Create(ctx context.Context, owner identity.Owner, n int) error
	// Execute counts an execution that an owner asks for, or says why not.
	Execute(ctx context.Context, owner identity.Owner) error
	// UsedCPU counts CPU time that an owner's sandboxes used, and says whether
	// there is more.
	UsedCPU(owner identity.Owner, d time.Duration) error
}

// Holding is what somebody has at a moment.
type Holding struct {
	Sandboxes   int64 // awake
	MemoryBytes int64 // that these may take
	DiskBytes   int64 // that these may take, and those that sleep do
}

func (h *Holding) add(more Holding) {
	h.Sandboxes += more.Sandboxes
	h.MemoryBytes += more.MemoryBytes
	h.DiskBytes += more.DiskBytes
}

func (h Holding) times(n int) Holding {
	return Holding{h.Sandboxes * int64(n), h.MemoryBytes * int64(n), h.DiskBytes * int64(n)}
}

// Held is what a user has, and what all of his organisation have.
type Held struct{ User, Organisation Holding }

// holdingOf gives what a sandbox counts for.
func holdingOf(asleep bool, limits sandbox.Limits, saved int64) Holding {
	if asleep {
		return Holding{DiskBytes: saved}
	}
	return Holding{Sandboxes: 1, MemoryBytes: limits.MemoryBytes, DiskBytes: limits.DiskBytes}
}

// Holdings gives what each owner has, of whichever replica. Under an owner
// without a user stands what an organisation has.
func (f *Fleet) Holdings(ctx context.Context) (map[identity.Owner]Holding, error) {
	infos, err := f.elsewhere(ctx)
	if err != nil {
		return nil, err
	}
	all := map[identity.Owner]Holding{}
	f.eachHolding(infos, func(owner identity.Owner, h Holding) {
		for _, who := range []identity.Owner{owner, {Org: owner.Org}} {
			sum := all[who]
			sum.add(h)
			all[who] = sum
			if owner.Org == "" {
				break
			}
		}
	})
	return all, nil
}

// Held gives what an owner has, and his organisation.
func (f *Fleet) Held(ctx context.Context, owner identity.Owner) (Held, error) {
	infos, err := f.elsewhere(ctx)
	return f.heldOf(owner, infos), err
}

// elsewhere lists what other replicas may have.
func (f *Fleet) elsewhere(ctx context.Context) ([]sandbox.Info, error) {
	if f.opts.Replicas == nil {
		return nil, nil
	}
	infos, err := f.driver.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("fleet: list sandboxes: %w", err)
	}
	return infos, nil
}

func (f *Fleet) heldOf(owner identity.Owner, infos []sandbox.Info) Held {
	var held Held
	f.eachHolding(infos, func(of identity.Owner, h Holding) {
		if of == owner {
			held.User.add(h)
		}
		if of.Org != "" && of.Org == owner.Org {
			held.Organisation.add(h)
		}
	})
	return held
}

// eachHolding goes over the sandboxes of this replica, and those of others among
// infos. What another makes counts as soon as it is asked for; what this one
// makes, or is deleting, its admissions and its own list say better.
func (f *Fleet) eachHolding(infos []sandbox.Info, do func(identity.Owner, Holding)) {
	mine := f.List()
	known := make(map[sandbox.ID]bool, len(mine))
	for _, s := range mine {
		known[s.id] = true
		s.mu.Lock()
		// One that wakes is counted by its admission.
		asleep := s.sleep.state == sandbox.StatePaused || s.sleep.state == StateResuming
		h := holdingOf(asleep, s.info.Limits, s.sleep.memory+s.sleep.files)
		s.mu.Unlock()
		do(s.owner, h)
	}
	for _, info := range infos {
		if info.Pooled || known[info.ID] || info.State == sandbox.StateStopped || info.Labels[labelMaker] == f.opts.Replicas.ID() {
			continue
		}
		do(ownerOf(info.Labels), holdingOf(info.State == sandbox.StatePaused, info.Limits, info.MemoryBytes+info.FilesBytes))
	}
}

// admission is the right of an owner to some more, from when he is let in until
// it counts itself.
type admission struct {
	f     *Fleet
	owner identity.Owner
	more  Holding
	over  sync.Once
}

// admit lets an owner have n more sandboxes with these limits, or says why not.
// The admission must be ended.
func (f *Fleet) admit(ctx context.Context, owner identity.Owner, n int, limits sandbox.Limits) (*admission, error) {
	if f.opts.Limits == nil {
		return nil, nil //nolint:nilnil // nothing is counted
	}
	a, err := f.hold(ctx, owner, holdingOf(false, limits, 0).times(n))
	if err != nil {
		return nil, err
	}
	if err := f.opts.Limits.Create(ctx, owner, n); err != nil {
		a.end()
		return nil, err
	}
	return a, nil
}

// enter waits until an owner may start one more sandbox: its limits allow it, it
// is its turn, and there is room. Leave gives all of it back but what the
// admission has become.
func (f *Fleet) enter(ctx context.Context, owner identity.Owner, limits sandbox.Limits) (a *admission, leave func(), err error) {
	if a, err = f.admit(ctx, owner, 1, limits); err != nil {
		return nil, nil, err
	}
	done, err := f.starts.Enter(ctx, owner)
	if err != nil {
		a.end()
		return nil, nil, err
	}
	if err := f.reserve(owner); err != nil {
		done()
		a.end()
		return nil, nil, err
	}
	return a, func() {
		f.release(owner)
		done()
		a.end()
	}, nil
}

// hold looks at what an owner has, and notes what he gets beside it.
func (f *Fleet) hold(ctx context.Context, owner identity.Owner, more Holding) (*admission, error) {
	infos, err := f.elsewhere(ctx)
	if err != nil {
		return nil, err
	}
	f.admitting.Lock()
	defer f.admitting.Unlock()
	held := f.heldOf(owner, infos)
	for a := range f.admitted {
		if a.owner == owner {
			held.User.add(a.more)
		}
		if a.owner.Org != "" && a.owner.Org == owner.Org {
			held.Organisation.add(a.more)
		}
	}
	if err := f.opts.Limits.Hold(owner, more, held); err != nil {
		return nil, err
	}
	a := &admission{f: f, owner: owner, more: more}
	f.admitted[a] = struct{}{}
	return a, nil
}

// end takes back what was not needed, or counts itself.
func (a *admission) end() {
	if a == nil {
		return
	}
	a.over.Do(func() {
		a.f.admitting.Lock()
		defer a.f.admitting.Unlock()
		delete(a.f.admitted, a)
	})
}

// become has one sandbox of the admission count itself, which fn sees to, and
// no longer as admitted: nobody sees both, or neither.
func (a *admission) become(one sandbox.Limits, fn func() error) error {
	if a == nil {
		return fn()
	}
	a.f.admitting.Lock()
	defer a.f.admitting.Unlock()
	if err := fn(); err != nil {
		return err
	}
	less := holdingOf(false, one, 0)
	a.more = Holding{max(0, a.more.Sandboxes-1), max(0, a.more.MemoryBytes-less.MemoryBytes), max(0, a.more.DiskBytes-less.DiskBytes)}
	return nil
}

// admitWaking lets a sandbox wake. One of its owner's that nobody uses is put to
// sleep for it, if need be.
func (s *Sandbox) admitWaking(ctx context.Context) (*admission, error) {
	f := s.fleet
	if f.opts.Limits == nil {
		return nil, nil //nolint:nilnil // nothing is counted
	}
	more := holdingOf(false, s.info.Limits, 0)
	more.DiskBytes = 0 // it has its files
	a, err := f.hold(ctx, s.owner, more)
	if errors.Is(err, errdefs.ErrExhausted) && f.pauseIdle(ctx, func(other *Sandbox) bool { return other.owner == s.owner }) {
		a, err = f.hold(ctx, s.owner, more)
	}
	return a, err
}

// pauseIdle puts a sandbox to sleep that nobody uses, of those that may be.
func (f *Fleet) pauseIdle(ctx context.Context, may func(*Sandbox) bool) bool {
	if f.pauser == nil {
		return false
	}
	var idle []*Sandbox
	for _, s := range f.List() {
		s.mu.Lock()
		can := s.canSleepLocked() && s.sleep.state == sandbox.StateRunning
		s.mu.Unlock()
		if can && s.unused() && may(s) {
			idle = append(idle, s)
		}
	}
	slices.SortFunc(idle, func(a, b *Sandbox) int { return cmp.Compare(a.used.Load(), b.used.Load()) })
	for _, s := range idle[:min(len(idle), 3)] {
		if s.pause(ctx, s.unused) == nil {
			return true
		}
	}
	return false
}

// admitExecution counts an execution for the sandbox's owner, unless it is one
// that was asked for before.
func (s *Sandbox) admitExecution(ctx context.Context, req ExecuteRequest) error {
	if s.fleet.opts.Limits == nil || req.IdempotencyKey != "" && s.execs.get(keyedID(s.id, req.IdempotencyKey)) != nil {
		return nil
	}
	return s.fleet.opts.Limits.Execute(ctx, s.owner)
}

// handOver is how long an execution keeps its slot while its agent does not
// answer: it may be being saved, and others must not wait for that.
const handOver = 250 * time.Millisecond

// turnToRun waits until it is the owner's turn to hand an execution over. The
// only user of a server has no need for turns.
func (s *Sandbox) turnToRun(ctx context.Context) (leave func(), err error) {
	if s.owner == (identity.Owner{}) {
		return func() {}, nil
	}
	free, err := s.fleet.handing.Enter(ctx, s.owner)
	if err != nil {
		return nil, err
	}
	free = sync.OnceFunc(free)
	late := time.AfterFunc(handOver, free)
	return func() {
		late.Stop()
		free()
	}, nil
}
