package fleet

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/caesarion/caesarion/internal/sandbox"
)

// asleep does something with a sandbox that sleeps since then; what wakes it
// has to wait. It says whether it still did.
func (s *Sandbox) asleep(ctx context.Context, since time.Time, do func() error) (bool, error) {
	if err := s.take(ctx); err != nil {
		return false, err
	}
	defer s.give()
	s.mu.Lock()
	asleep := s.sleep.state == sandbox.StatePaused && s.sleep.at.Equal(since)
	s.mu.Unlock()
	if !asleep {
		return false, nil
	}
	return true, do()
}

// forgetMemory deletes the memory of a sandbox that sleeps and keeps its files.
func (s *Sandbox) forgetMemory(ctx context.Context) error {
	if err := s.fleet.pauser.ForgetMemory(ctx, s.id); err != nil {
		return err
	}
	s.mu.Lock()
	s.sleep.memory = 0
	s.mu.Unlock()
	s.fleet.log.Info("memory of a paused sandbox dropped", "sandbox_id", string(s.id))
	return nil
}

// sleeper is a sandbox that sleeps, as the quota sees it.
type sleeper struct {
	s             *Sandbox
	at            time.Time
	memory, files int64
	over          bool // its life would be over, had it not slept
}

// sleepers gives those that sleep, the first to lose something first. The one
// that was put to sleep last is never among them.
func (f *Fleet) sleepers() (list []sleeper, total int64) {
	now := time.Now()
	for _, s := range f.List() {
		s.mu.Lock()
		if s.sleep.state == sandbox.StatePaused {
			list = append(list, sleeper{s, s.sleep.at, s.sleep.memory, s.sleep.files, now.After(s.rec.expires)})
		}
		s.mu.Unlock()
	}
	for _, x := range list {
		total += x.memory + x.files
	}
	slices.SortFunc(list, func(a, b sleeper) int { return a.at.Compare(b.at) })
	if n := len(list); n > 0 {
		list = list[:n-1]
	}
	return list, total
}

// keepQuota drops memory of those that sleep, then whole sandboxes, until what
// is saved fits the quota.
func (f *Fleet) keepQuota() {
	if f.opts.DiskQuota <= 0 {
		return
	}
	f.tidy.Lock()
	defer f.tidy.Unlock()
	list, total := f.sleepers()
	saved, err := f.snapshotBytes(f.ctx)
	if err != nil {
		f.log.Warn("saved sandboxes can't be counted", "err", err)
		return
	}
	total += saved
	slices.SortStableFunc(list, func(a, b sleeper) int { return cmp.Compare(rank(a.over), rank(b.over)) })
	for _, x := range list {
		if total <= f.opts.DiskQuota || f.ctx.Err() != nil {
			return
		}
		if x.memory == 0 {
			continue
		}
		did, err := x.s.asleep(f.ctx, x.at, func() error { return x.s.forgetMemory(f.ctx) })
		if err != nil {
			f.log.Warn("memory of a paused sandbox can't be dropped", "sandbox_id", string(x.s.id), "err", err)
		}
		if did && err == nil {
			total -= x.memory
		}
	}
	slices.SortFunc(list, func(a, b sleeper) int { return a.at.Compare(b.at) })
	for _, x := range list {
		if total <= f.opts.DiskQuota || f.ctx.Err() != nil {
			return
		}
		did, err := x.s.asleep(f.ctx, x.at, func() error { return x.s.end(f.ctx, ReasonDiskQuota) })
		if did && err == nil {
			total -= x.files
		}
	}
}

func rank(over bool) int {
	if over {
		return 0
	}
	return 1
}
