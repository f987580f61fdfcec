package pool

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// handTimeout bounds how long a ready sandbox may take to be handed over.
	handTimeout = 3 * time.Second
	// awayTimeout is waited for a sandbox that is being checked, which takes
	// less than a restore.
	awayTimeout = 50 * time.Millisecond
	// leastRoom times the size of a snapshot's memory is what a sandbox restored
	// from it must be allowed: with less it would have no room to work.
	leastRoom = 2
)

// Lease gives a sandbox to its owner: a ready one, or one restored from the
// template's snapshot, or one started cold. If ctx ends first, nothing is left.
func (p *Pool) Lease(ctx context.Context, req Request) (*Lease, error) {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil, errClosed
	}
	p.wg.Add(1)
	p.mu.Unlock()
	defer p.wg.Done()

	begin := time.Now()
	t := p.templates[req.Spec.Template]
	lease, err := p.lease(ctx, t, req)
	if err != nil {
		return nil, err
	}
	if t != nil {
		hit := lease.Start == StartWarm
		p.mu.Lock()
		t.leased = time.Now()
		if hit {
			t.hits++
		} else {
			t.misses++
		}
		p.mu.Unlock()
		p.opts.Metrics.Asked(t.name, hit)
		p.opts.Metrics.Started(string(lease.Start), t.name, time.Since(begin))
	} else {
		p.opts.Metrics.Started(string(lease.Start), "", time.Since(begin))
	}
	return lease, nil
}

func (p *Pool) lease(ctx context.Context, t *template, req Request) (*Lease, error) {
	var pool *template // nil: no ready sandbox fits
	if t != nil && t.Size > 0 && req.Spec.Image == t.Image && req.Spec.Limits == t.Limits {
		pool = t
	}
	for {
		e, leave, err := p.turn(ctx, pool)
		if err != nil {
			return nil, err
		}
		if e == nil {
			defer leave()
			return p.startFor(ctx, t, req)
		}
		lease, err := p.hand(ctx, e, req)
		if err == nil {
			return lease, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		p.log.Warn("a ready sandbox could not be handed over: another one is taken", "template", t.name, "sandbox_id", e.info.ID, "err", err)
	}
}

// turn gives a ready sandbox of t as soon as there is one, or the right to
// start one, whichever comes first. t may be nil.
func (p *Pool) turn(ctx context.Context, t *template) (*entry, func(), error) {
	if cause := context.Cause(ctx); cause != nil {
		return nil, nil, cause
	}
	var w *waiter
	var ready chan *entry
	if t != nil {
		p.mu.Lock()
		if e := t.popLocked(); e != nil {
			t.leased = time.Now() // a refill waits for the first cell
			p.tellLocked(t)
			p.mu.Unlock()
			close(e.taken)
			return e, nil, nil
		}
		w = &waiter{ch: make(chan *entry, 1)}
		t.waiters = append(t.waiters, w)
		away := t.away > 0
		p.mu.Unlock()
		ready = w.ch
		defer p.stopWaiting(t, w)
		if away {
			timer := time.NewTimer(awayTimeout)
			defer timer.Stop()
			select {
			case e := <-ready:
				close(e.taken)
				return e, nil, nil
			case <-timer.C:
			case <-ctx.Done():
				return nil, nil, context.Cause(ctx)
			}
		}
	}
	ticket := p.gate.enter(false)
	select {
	case e := <-ready:
		p.gate.leave(ticket)
		close(e.taken)
		return e, nil, nil
	case <-ticket.granted:
		if !p.gate.got(ticket) {
			return nil, nil, errClosed
		}
		return nil, func() { p.gate.leave(ticket) }, nil
	case <-ctx.Done():
		p.gate.leave(ticket)
		return nil, nil, context.Cause(ctx)
	}
}

// stopWaiting takes w out of the line, and passes on what came too late.
func (p *Pool) stopWaiting(t *template, w *waiter) {
	p.mu.Lock()
	t.waiters = slices.DeleteFunc(t.waiters, func(other *waiter) bool { return other == w })
	p.mu.Unlock()
	select {
	case e := <-w.ch:
		p.offer(e, false)
	default:
	}
}

// hand gives a ready sandbox to its owner: a note by the driver and one round
// trip to its agent. A sandbox that can't be handed over is deleted.
func (p *Pool) hand(ctx context.Context, e *entry, req Request) (_ *Lease, err error) {
	defer func() {
		if err != nil {
			reason := evictUnresponsive
			if ctx.Err() != nil {
				reason = evictAbandoned
			}
			p.opts.Metrics.Evicted(e.t.name, reason)
			p.discard(e.client, e.info.ID)
		}
	}()
	within, cancel := context.WithTimeoutCause(ctx, handTimeout, errors.New("a ready sandbox did not answer in time"))
	defer cancel()
	// First the note, then the environment: were the server killed in between,
	// the next one would take a sandbox that has seen it for ready.
	begin := time.Now()
	info, err := p.claimer.Claim(within, e.info.ID, req.Spec.Labels, req.Spec.Env)
	if err != nil {
		return nil, err
	}
	claimed := time.Now()
	health, err := e.client.Configure(within, configure(e.info, req))
	if err != nil {
		return nil, err
	}
	p.opts.Metrics.Stage("claim", e.t.name, claimed.Sub(begin))
	p.opts.Metrics.Stage("configure", e.t.name, time.Since(claimed))
	return &Lease{
		Info: info, Start: StartWarm, Client: e.client, KernelReady: req.KernelID != "" && health.KernelID == req.KernelID,
	}, nil
}

// configure is what an agent with a prestarted kernel is told about its owner.
func configure(info sandbox.Info, req Request) agentapi.Configure {
	limits := req.Spec.Limits
	return agentapi.Configure{
		Token: info.AgentToken, SandboxID: string(info.ID), Env: req.Spec.Env,
		MemoryBytes: limits.MemoryBytes, Processes: limits.Processes, DiskBytes: limits.DiskBytes, DataBytes: limits.MemoryBytes,
		UnixTimeNanos: time.Now().UnixNano(), KernelID: req.KernelID,
	}
}

// startFor starts a sandbox for a request, by restore if possible.
func (p *Pool) startFor(ctx context.Context, t *template, req Request) (*Lease, error) {
	if snap, ok := p.restorable(t, req); ok {
		lease, err := p.restoreFor(ctx, t, snap, req)
		if err == nil {
			return lease, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		p.restoreFailed(t, snap, err)
	}
	spec := req.Spec
	spec.Prestart, spec.Preload, spec.Pooled = false, nil, false
	info, err := p.driver.Create(ctx, spec)
	if err != nil {
		return nil, err
	}
	return &Lease{Info: info, Start: StartCold, Client: p.connect(info)}, nil
}

// restorable gives the snapshot that a request can be served from: of its
// template, with the same disk limit and others that are at most the
// template's.
func (p *Pool) restorable(t *template, req Request) (sandbox.Snapshot, bool) {
	if t == nil || p.snap == nil || req.Spec.Image != t.Image {
		return sandbox.Snapshot{}, false
	}
	p.mu.Lock()
	snap, ready := t.snapshot, t.state == snapshotReady
	p.mu.Unlock()
	want, most := req.Spec.Limits, t.Limits
	return snap, ready && want.DiskBytes == most.DiskBytes &&
		within(want.MemoryBytes, most.MemoryBytes) && within(want.CPUs, most.CPUs) && within(want.Processes, most.Processes) &&
		(want.MemoryBytes == 0 || want.MemoryBytes == most.MemoryBytes || want.MemoryBytes >= leastRoom*snap.MemoryBytes)
}

// within reports whether want is allowed by most; zero is no limit.
func within[T int | int64 | float64](want, most T) bool {
	return most == 0 || (want > 0 && want <= most)
}

func (p *Pool) restoreFor(ctx context.Context, t *template, snap sandbox.Snapshot, req Request) (_ *Lease, err error) {
	spec := req.Spec
	spec.Prestart, spec.Preload, spec.Pooled = true, t.Preload, false
	begin := time.Now()
	info, err := p.snap.Restore(ctx, snap.ID, spec, false)
	if err != nil {
		return nil, err
	}
	client := p.connect(info)
	defer func() {
		if err != nil {
			p.discard(client, info.ID)
		}
	}()
	restored := time.Now()
	p.opts.Metrics.Stage("restore", t.name, restored.Sub(begin))
	health, err := client.Configure(ctx, configure(info, req))
	if err != nil {
		return nil, err
	}
	p.opts.Metrics.Stage("configure", t.name, time.Since(restored))
	p.restored(t, snap)
	return &Lease{
		Info: info, Start: StartRestore, Client: client, KernelReady: req.KernelID != "" && health.KernelID == req.KernelID,
	}, nil
}
