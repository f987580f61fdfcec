package pool

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// settleTime after a lease belongs to the new owner's first cell: on a small
	// machine a refill at the same moment would take its time. It is waited for
	// again and again, but not longer than settleMost, or a steady stream of
	// leases would leave the pool empty.
	settleTime = 15 * time.Millisecond
	settleMost = 60 * time.Millisecond

	// Slow is an inert cell that takes slowLeast and slowTimes the template's
	// median, slowTries times in a row.
	slowLeast = 50 * time.Millisecond
	slowTimes = 10
	slowTries = 2

	// adoptTimeout bounds how long an earlier process's sandbox may take to answer.
	adoptTimeout = 2 * time.Second
)

// prestarted gives the id of the kernel that waits for its name.
func prestarted(ctx context.Context, client *agentapi.Client) (string, error) {
	kernels, err := client.Kernels(ctx)
	if err != nil {
		return "", fmt.Errorf("look for the kernel: %w", err)
	}
	if len(kernels) != 1 {
		return "", fmt.Errorf("the sandbox has %d kernels, want the one that was started beforehand", len(kernels))
	}
	return kernels[0].ID, nil
}

// lacksLocked reports whether there are fewer ready sandboxes than there should be.
func (p *Pool) lacksLocked(t *template) bool {
	return len(t.ready)+t.away < t.Size
}

// adopt makes those sandboxes ready again that an earlier process left, if
// they answer and are what new ones would be. It reports false as long as that
// can't be known.
func (p *Pool) adopt(t *template, left []sandbox.Info) bool {
	key, _, err := p.keyOf(p.ctx, t)
	if err != nil {
		if p.ctx.Err() == nil && !errors.Is(err, errdefs.ErrNotFound) {
			return false
		}
		if p.ctx.Err() == nil {
			p.deleteAll(left, "its image is gone")
		}
		return true
	}
	kept := 0
	for i, info := range left {
		switch {
		case p.ctx.Err() != nil:
			return true // for the next process
		case info.State != sandbox.StateRunning:
			p.deleteAll(left[i:i+1], "it does not run")
		case info.Labels[keyLabel] != key:
			p.deleteAll(left[i:i+1], "it is of another image, build or configuration")
		case kept >= t.Size:
			p.deleteAll(left[i:i+1], "the pool is smaller now")
		case time.Since(info.CreatedAt) >= p.opts.MaxAge:
			p.deleteAll(left[i:i+1], "it is too old")
		default:
			ctx, cancel := context.WithTimeout(p.ctx, adoptTimeout)
			e, err := p.warm(ctx, t, info, key)
			cancel()
			if err != nil {
				p.deleteAll(left[i:i+1], "it does not answer: "+err.Error())
				continue
			}
			e.born = info.CreatedAt
			kept++
			p.log.Info("ready sandbox of an earlier process is kept", "template", t.name, "sandbox_id", info.ID)
			p.watch(e)
			p.offer(e, false)
		}
	}
	return true
}

// refill makes one sandbox ready if one is lacking.
func (p *Pool) refill(t *template) error {
	lacks := func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.lacksLocked(t)
	}
	if !lacks() || !p.afterLease(t) {
		return nil
	}
	if !p.room(t) {
		p.mu.Lock()
		defer p.mu.Unlock()
		t.short, t.message = true, "the machine is short of memory"
		return nil
	}
	leave, err := p.gate.whenIdle(p.ctx)
	if err != nil {
		return err
	}
	defer leave()
	p.mu.Lock()
	if t.short {
		t.short, t.message = false, ""
	}
	key, snap, ready := t.key, t.snapshot, t.state == snapshotReady
	lacking := p.lacksLocked(t)
	if lacking {
		t.starting++
	}
	p.mu.Unlock()
	if !lacking {
		return nil
	}
	e, err := p.start(t, key, snap, ready)
	p.mu.Lock()
	t.starting--
	if err != nil && p.ctx.Err() == nil {
		t.message = "a sandbox could not be made ready; the log says why"
	} else if t.state == snapshotReady || p.snap == nil {
		t.message = ""
	}
	outdated := t.key != key
	p.mu.Unlock()
	switch {
	case err == nil && outdated:
		p.evict(e, evictOutdated)
	case err == nil:
		p.watch(e)
		p.offer(e, false)
	case p.ctx.Err() == nil:
		p.log.Warn("a sandbox could not be made ready", "template", t.name, "err", err)
	}
	return err
}

// afterLease waits until a new owner's first cell has probably run.
func (p *Pool) afterLease(t *template) bool {
	for {
		p.mu.Lock()
		until := t.leased.Add(settleTime)
		if most := t.lacking.Add(settleMost); most.Before(until) {
			until = most
		}
		p.mu.Unlock()
		wait := time.Until(until)
		if wait <= 0 {
			return true
		}
		select {
		case <-time.After(wait):
		case <-p.ctx.Done():
			return false
		}
	}
}

// start makes a sandbox for the pool: from the snapshot, or cold if there is none.
func (p *Pool) start(t *template, key string, snap sandbox.Snapshot, restore bool) (*entry, error) {
	before := p.available()
	begin := time.Now()
	var info sandbox.Info
	var err error
	stage := "restore"
	if restore {
		info, err = p.snap.Restore(p.ctx, snap.ID, t.spec(key), false)
	} else {
		stage = "create"
		info, err = p.driver.Create(p.ctx, t.spec(key))
	}
	if err == nil {
		p.opts.Metrics.Stage(stage, t.name, time.Since(begin))
		ctx, cancel := context.WithTimeout(p.ctx, warmChecks*checkTimeout)
		defer cancel()
		var e *entry
		if e, err = p.warm(ctx, t, info, key); err == nil {
			if restore {
				p.restored(t, snap)
			}
			p.measure(e, before)
			return e, nil
		}
		if err := p.remove(info.ID); err != nil {
			p.log.Error("could not delete a sandbox", "sandbox_id", info.ID, "err", err)
		}
	}
	if p.ctx.Err() != nil {
		return nil, context.Cause(p.ctx)
	}
	if restore {
		p.restoreFailed(t, snap, err)
	}
	return nil, err
}

// warm connects to a sandbox and runs inert cells in it, so that what its
// owner's first cell needs is in memory.
func (p *Pool) warm(ctx context.Context, t *template, info sandbox.Info, key string) (_ *entry, err error) {
	e := &entry{t: t, info: info, key: key, client: p.connect(info), born: time.Now(), taken: make(chan struct{})}
	defer func() {
		if err != nil {
			e.client.CloseIdle()
		}
	}()
	begin := time.Now()
	if e.kernelID, err = prestarted(ctx, e.client); err != nil {
		return nil, err
	}
	for range warmChecks {
		began := time.Now()
		if err := e.client.Check(ctx, e.kernelID); err != nil {
			return nil, fmt.Errorf("run an inert cell: %w", err)
		}
		e.checked = time.Now()
		p.mu.Lock()
		t.checks.add(e.checked.Sub(began))
		p.mu.Unlock()
	}
	p.opts.Metrics.Stage("check", t.name, time.Since(begin))
	return e, nil
}

// measure notes what a new ready sandbox took from the machine.
func (p *Pool) measure(e *entry, before int64) {
	ctx, cancel := context.WithTimeout(p.ctx, checkTimeout)
	defer cancel()
	usage, err := e.client.Usage(ctx)
	after := p.available()
	p.mu.Lock()
	defer p.mu.Unlock()
	e.t.taken.add(max(before-after, 0))
	if err == nil {
		e.t.used.add(usage.MemoryBytes)
	}
}

// watch has a ready sandbox that ends by itself replaced at once.
func (p *Pool) watch(e *entry) {
	lost, err := p.driver.Lost(e.info.ID)
	if err != nil {
		return // a lease finds out
	}
	p.wg.Go(func() {
		select {
		case <-lost:
		case <-e.taken:
			return
		case <-p.ctx.Done():
			return
		}
		if p.withdraw(e) {
			p.evict(e, evictLost)
		}
	})
}

// withdraw takes a particular sandbox out of the ready ones.
func (p *Pool) withdraw(e *entry) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !e.t.withdrawLocked(e) {
		return false
	}
	p.tellLocked(e.t)
	return true
}

func (t *template) withdrawLocked(e *entry) bool {
	i := slices.Index(t.ready, e)
	if i < 0 {
		return false
	}
	t.ready = slices.Delete(t.ready, i, i+1)
	return true
}

// expire replaces what is too old, one at a time and when the pool is full, so
// that it is never empty for it; and gives back what is too many.
func (p *Pool) expire(t *template) {
	p.mu.Lock()
	var oldest *entry
	for _, e := range t.ready {
		if oldest == nil || e.born.Before(oldest.born) {
			oldest = e
		}
	}
	var e *entry
	reason := evictAge
	switch n := len(t.ready) + t.away; {
	case oldest == nil:
	case n > t.Size:
		e, reason = oldest, evictSurplus
	case n == t.Size && time.Since(oldest.born) >= p.opts.MaxAge:
		e = oldest
	}
	if e != nil {
		t.withdrawLocked(e)
		p.tellLocked(t)
	}
	p.mu.Unlock()
	if e != nil {
		p.evict(e, reason)
	}
}

// check runs an inert cell in each ready sandbox whose turn it is and says
// when the next one's is.
func (p *Pool) check(t *template) time.Duration {
	for {
		e, wait := p.nextCheck(t)
		if e == nil {
			return wait
		}
		leave, err := p.gate.whenIdle(p.ctx) // on a busy machine all are slow
		if err != nil {
			return time.Hour
		}
		if p.lend(e) {
			if reason := p.checkOne(e); reason == "" {
				p.offer(e, true)
			} else {
				p.mu.Lock()
				t.away--
				p.tellLocked(t)
				p.mu.Unlock()
				p.evict(e, reason)
			}
		}
		leave()
	}
}

// nextCheck gives the ready sandbox that has waited longest for a check, if
// it is due.
func (p *Pool) nextCheck(t *template) (*entry, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var next *entry
	for _, e := range t.ready {
		if next == nil || e.checked.Before(next.checked) {
			next = e
		}
	}
	if next == nil {
		return nil, p.opts.CheckEvery
	}
	if wait := time.Until(next.checked.Add(p.opts.CheckEvery)); wait > 0 {
		return nil, wait
	}
	return next, 0
}

// lend takes e out of the ready ones for the time of a check.
func (p *Pool) lend(e *entry) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !e.t.withdrawLocked(e) {
		return false
	}
	e.t.away++
	return true
}

// checkOne runs an inert cell and says why the sandbox must go, if it must.
func (p *Pool) checkOne(e *entry) string {
	ctx, cancel := context.WithTimeout(p.ctx, checkTimeout)
	defer cancel()
	begin := time.Now()
	err := e.client.Check(ctx, e.kernelID)
	took := time.Since(begin)
	if p.ctx.Err() != nil {
		return "" // Close decides
	}
	if err != nil {
		p.log.Warn("a ready sandbox does not answer", "template", e.t.name, "sandbox_id", e.info.ID, "err", err)
		return evictUnresponsive
	}
	e.checked = time.Now()
	p.opts.Metrics.Stage("check", e.t.name, took)
	p.mu.Lock()
	slow := took > max(slowLeast, slowTimes*e.t.checks.median())
	if !slow {
		e.t.checks.add(took)
	}
	p.mu.Unlock()
	if !slow {
		e.slow = 0
		return ""
	}
	if e.slow++; e.slow >= slowTries {
		return evictSlow
	}
	return ""
}
