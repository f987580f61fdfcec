package pool

import (
	"math"
	"slices"
	"time"
)

const (
	// memoryEvery is how often a pool with ready sandboxes looks at the
	// machine's memory.
	memoryEvery = 2 * time.Second
	// firstCost is what a template's first sandbox is taken to cost, until one
	// has been measured.
	firstCost = 256 << 20
	// leastCost is below what any sandbox costs: readings below it say that
	// somebody else gave memory back meanwhile.
	leastCost = 16 << 20
	samples   = 15
)

// recent keeps the last values and gives their median.
type recent[T int64 | time.Duration] struct {
	values []T
	next   int
}

func (r *recent[T]) add(v T) {
	if len(r.values) < samples {
		r.values = append(r.values, v)
		return
	}
	r.values[r.next] = v
	r.next = (r.next + 1) % samples
}

func (r *recent[T]) median() T {
	if len(r.values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(r.values))
	return sorted[len(sorted)/2]
}

// costLocked is what one more ready sandbox of t takes from the machine: the
// larger of what was missing on the machine after earlier ones and what they
// say they use.
func (t *template) costLocked() int64 {
	if len(t.taken.values) == 0 {
		return firstCost
	}
	return max(t.taken.median(), t.used.median(), leastCost)
}

// available is what the machine could still give away. Where that is not
// known, memory bounds nothing.
func (p *Pool) available() int64 {
	total, available := p.opts.memory()
	if total == 0 {
		return math.MaxInt64
	}
	return available
}

// room reports whether the machine has memory for one more ready sandbox.
func (p *Pool) room(t *template) bool {
	available := p.available()
	p.mu.Lock()
	defer p.mu.Unlock()
	return available-t.costLocked() >= p.opts.ReserveBytes
}

// watchMemory gives ready sandboxes back, one after the other, while the
// machine is short of memory.
func (p *Pool) watchMemory() {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.ctx.Done():
			return
		}
		if p.available() >= p.opts.ReserveBytes {
			continue
		}
		p.mu.Lock()
		var most *template
		for _, t := range p.templates {
			if len(t.ready) > 0 && (most == nil || len(t.ready) > len(most.ready)) {
				most = t
			}
		}
		var e *entry
		if most != nil {
			e = most.popLocked()
			p.tellLocked(most)
		}
		p.mu.Unlock()
		if e != nil {
			p.log.Warn("the machine is short of memory: a ready sandbox is given back", "template", most.name, "sandbox_id", e.info.ID)
			p.evict(e, evictMemory)
		}
	}
}
