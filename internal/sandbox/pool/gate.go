package pool

import (
	"context"
	"slices"
	"sync"
)

// gate bounds how many starts are under way at once. Requests come first, in
// the order they came; a refill or a check goes on when no request waits, one
// at a time. So a burst is worked off by all slots, and under sustained load
// refills take what is left of them.
type gate struct {
	mu     sync.Mutex
	free   int
	low    bool      // a low one is under way
	queue  []*ticket // requests, first come, first served
	later  []*ticket // low ones
	closed bool
}

// ticket is a place in the gate's queue.
type ticket struct {
	low     bool
	granted chan struct{} // closed when it is its turn, or when the gate closes
	has     bool          // it has a slot; guarded by gate.mu
}

func newGate(slots int) *gate { return &gate{free: slots} }

// enter queues up. The ticket must be left.
func (g *gate) enter(low bool) *ticket {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := &ticket{low: low, granted: make(chan struct{})}
	switch {
	case g.closed:
		close(t.granted)
		return t
	case low:
		g.later = append(g.later, t)
	default:
		g.queue = append(g.queue, t)
	}
	g.serveLocked()
	return t
}

// leave gives back the slot, or the place in the queue.
func (g *gate) leave(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if t.has {
		t.has = false
		g.free++
		if t.low {
			g.low = false
		}
	} else {
		is := func(other *ticket) bool { return other == t }
		g.queue = slices.DeleteFunc(g.queue, is)
		g.later = slices.DeleteFunc(g.later, is)
	}
	g.serveLocked()
}

func (g *gate) serveLocked() {
	for g.free > 0 && len(g.queue) > 0 {
		g.grantLocked(&g.queue)
	}
	if g.free > 0 && len(g.later) > 0 && !g.low {
		g.low = true
		g.grantLocked(&g.later)
	}
}

func (g *gate) grantLocked(from *[]*ticket) {
	t := (*from)[0]
	*from = slices.Delete(*from, 0, 1)
	g.free--
	t.has = true
	close(t.granted)
}

// got reports whether t has a slot: a closed gate grants nothing.
func (g *gate) got(t *ticket) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return t.has
}

// whenIdle waits for a slot for a refill or a check.
func (g *gate) whenIdle(ctx context.Context) (leave func(), err error) {
	t := g.enter(true)
	select {
	case <-t.granted:
		if g.got(t) {
			return func() { g.leave(t) }, nil
		}
		return nil, errClosed
	case <-ctx.Done():
		g.leave(t)
		return nil, context.Cause(ctx)
	}
}

// close sends everybody away who waits.
func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	for _, t := range append(g.queue, g.later...) {
		close(t.granted)
	}
	g.queue, g.later = nil, nil
}
