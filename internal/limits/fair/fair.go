// Package fair lets those who share something take turns.
//
//	ann: 1000 that wait ─┐
//	bob: 1 that waits ───┼─▶ one of each in turn ─▶ slots ─▶ under way
//	eve: 3 that wait ────┘
//
// A Queue has some slots. Who finds one free takes it at once, at the price of
// a lock. Otherwise each waits in the line of his owner, and a slot that gets
// free goes to the owners in turn: whoever comes with his first waits for those
// under way, and for one of each other owner, however many they brought.
package fair

import (
	"context"
	"slices"
	"sync"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Options configures a Queue.
type Options struct {
	Slots   int    // under way at once; default 8
	PerUser int    // that wait of one owner; default 2000
	Waiting int    // that wait of all; default 20,000
	What    string // that waits, for people: "starts of sandboxes"
}

// Queue gives slots in turn to owners of type K. Its methods may be called
// concurrently.
type Queue[K comparable] struct {
	opts Options

	mu      sync.Mutex
	free    int
	waiting int
	lines   map[K][]*place // none of them is empty
	turns   []K            // owners with a line, the next first
}

type place struct {
	granted chan struct{} // closed when it has a slot
	has     bool
}

// New makes a Queue.
func New[K comparable](opts Options) *Queue[K] {
	if opts.Slots <= 0 {
		opts.Slots = 8
	}
	if opts.PerUser <= 0 {
		opts.PerUser = 2000
	}
	if opts.Waiting <= 0 {
		opts.Waiting = 20_000
	}
	if opts.What == "" {
		opts.What = "requests"
	}
	return &Queue[K]{opts: opts, free: opts.Slots, lines: map[K][]*place{}}
}

// Enter waits for a slot, which leave gives back; it may be called once. If ctx
// ends first, or there are too many who wait, the place is given up.
func (q *Queue[K]) Enter(ctx context.Context, owner K) (leave func(), err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	q.mu.Lock()
	if q.free > 0 { // then nobody waits
		q.free--
		q.mu.Unlock()
		return q.leave, nil
	}
	line := q.lines[owner]
	if len(line) >= q.opts.PerUser || q.waiting >= q.opts.Waiting {
		n := len(line)
		q.mu.Unlock()
		return nil, errdefs.New(errdefs.ErrExhausted, "too-many-waiting", "%d %s of yours wait already.", n, q.opts.What).
			WithHint("Wait until some are done, and send fewer at once.")
	}
	p := &place{granted: make(chan struct{})}
	if len(line) == 0 {
		q.turns = append(q.turns, owner)
	}
	q.lines[owner] = append(line, p)
	q.waiting++
	q.mu.Unlock()

	select {
	case <-p.granted:
		return q.leave, nil
	case <-ctx.Done():
		q.giveUp(owner, p)
		return nil, context.Cause(ctx)
	}
}

func (q *Queue[K]) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free++
	q.serveLocked()
}

// serveLocked gives free slots to those whose turn it is.
func (q *Queue[K]) serveLocked() {
	for q.free > 0 && len(q.turns) > 0 {
		owner := q.turns[0]
		q.turns = q.turns[1:]
		line := q.lines[owner]
		p := line[0]
		line[0] = nil
		if len(line) > 1 {
			q.lines[owner] = line[1:]
			q.turns = append(q.turns, owner)
		} else {
			delete(q.lines, owner)
		}
		q.free--
		q.waiting--
		p.has = true
		close(p.granted)
	}
}

// giveUp takes a place out of its line, or gives back the slot that it got
// meanwhile.
func (q *Queue[K]) giveUp(owner K, p *place) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.has {
		q.free++
		q.serveLocked()
		return
	}
	line := slices.DeleteFunc(q.lines[owner], func(other *place) bool { return other == p })
	q.waiting--
	if len(line) > 0 {
		q.lines[owner] = line
		return
	}
	delete(q.lines, owner)
	q.turns = slices.DeleteFunc(q.turns, func(other K) bool { return other == owner })
}

// Waiting gives how many wait, of one owner and of all.
func (q *Queue[K]) Waiting(owner K) (his, all int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.lines[owner]), q.waiting
}
