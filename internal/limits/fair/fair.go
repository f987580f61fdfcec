// Package fair lets those who share something take turns.
//
//	ann: 1000 that wait ─┐
//	bob: 1 that waits ───┼─▶ one of each in a round ─▶ slots ─▶ under way
//	eve: 3 that wait ────┘
//
// A Queue has some slots. Who finds one free takes it at once, at the price of
// a lock. Otherwise each waits in the line of his owner, and a slot that gets
// free goes to the owner who is in the earliest round: each slot that he got
// was one round of his. Whoever comes begins in the round that is being served,
// and not before it, since he would else save up rounds; those who have had
// theirs wait for him. So he waits for a slot to get free, and not for one more
// of those who fill the line, however many they brought.
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
	round   int64          // that is being served
	came    int64          // counts those who came into a round
	lines   map[K]*line[K] // of owners who wait or have slots
	turns   []*line[K]     // of owners who wait
}

// line is what is known of an owner.
type line[K comparable] struct {
	owner   K
	waiting []*place
	under   int   // slots that he has
	round   int64 // of his next slot
	came    int64 // into that round
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
	return &Queue[K]{opts: opts, free: opts.Slots, lines: map[K]*line[K]{}}
}

// Enter waits for a slot, which leave gives back; it may be called once. If ctx
// ends first, or there are too many who wait, the place is given up.
func (q *Queue[K]) Enter(ctx context.Context, owner K) (leave func(), err error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	q.mu.Lock()
	l := q.lines[owner]
	if l == nil {
		l = &line[K]{owner: owner}
		q.lines[owner] = l
	}
	if l.round < q.round {
		l.round = q.round
	}
	if q.free > 0 { // then nobody waits
		q.grantLocked(l)
		q.mu.Unlock()
		return func() { q.leave(l) }, nil
	}
	if len(l.waiting) >= q.opts.PerUser || q.waiting >= q.opts.Waiting {
		n := len(l.waiting)
		q.forgetLocked(l)
		q.mu.Unlock()
		return nil, errdefs.New(errdefs.ErrExhausted, "too-many-waiting", "%d %s of yours wait already.", n, q.opts.What).
			WithHint("Wait until some are done, and send fewer at once.")
	}
	p := &place{granted: make(chan struct{})}
	if len(l.waiting) == 0 {
		q.came++
		l.came = q.came
		q.turns = append(q.turns, l)
	}
	l.waiting = append(l.waiting, p)
	q.waiting++
	q.mu.Unlock()

	select {
	case <-p.granted:
		return func() { q.leave(l) }, nil
	case <-ctx.Done():
		q.giveUp(l, p)
		return nil, context.Cause(ctx)
	}
}

func (q *Queue[K]) leave(l *line[K]) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.leaveLocked(l)
}

func (q *Queue[K]) leaveLocked(l *line[K]) {
	l.under--
	q.forgetLocked(l)
	q.free++
	for q.free > 0 && len(q.turns) > 0 {
		q.serveLocked()
	}
}

// serveLocked gives a slot to whose turn it is.
func (q *Queue[K]) serveLocked() {
	next := 0
	for i, l := range q.turns {
		if first := q.turns[next]; l.round < first.round || l.round == first.round && l.came < first.came {
			next = i
		}
	}
	l := q.turns[next]
	p := l.waiting[0]
	l.waiting[0] = nil
	l.waiting = l.waiting[1:]
	q.waiting--
	q.grantLocked(l)
	p.has = true
	close(p.granted)
	if len(l.waiting) == 0 {
		q.leaveTurnsLocked(l)
		return
	}
	q.came++
	l.came = q.came
}

// grantLocked gives an owner a slot.
func (q *Queue[K]) grantLocked(l *line[K]) {
	q.free--
	l.under++
	q.round = max(q.round, l.round)
	l.round++
}

// forgetLocked drops what is known of an owner who has nothing here.
func (q *Queue[K]) forgetLocked(l *line[K]) {
	if l.under == 0 && len(l.waiting) == 0 {
		delete(q.lines, l.owner)
	}
}

func (q *Queue[K]) leaveTurnsLocked(l *line[K]) {
	i := slices.Index(q.turns, l)
	last := len(q.turns) - 1
	q.turns[i], q.turns[last] = q.turns[last], nil // in any order
	q.turns = q.turns[:last]
}

// giveUp takes a place out of its line, or gives back the slot that it got
// meanwhile.
func (q *Queue[K]) giveUp(l *line[K], p *place) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.has {
		q.leaveLocked(l)
		return
	}
	l.waiting = slices.DeleteFunc(l.waiting, func(other *place) bool { return other == p })
	q.waiting--
	if len(l.waiting) == 0 {
		q.leaveTurnsLocked(l)
		q.forgetLocked(l)
	}
}

// Waiting gives how many wait, of one owner and of all.
func (q *Queue[K]) Waiting(owner K) (his, all int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l := q.lines[owner]; l != nil {
		his = len(l.waiting)
	}
	return his, q.waiting
}
