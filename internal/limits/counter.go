package limits

import (
	"sync"
	"time"
)

const (
	// exchangeEvery is how long what was used waits to be told to the store.
	exchangeEvery = 200 * time.Millisecond
	// freshFor is how old the store's figure may be for a refusal, and for an
	// admission of what is only known afterwards.
	freshFor = 500 * time.Millisecond
	// idleFor is how long a block that nobody uses is kept.
	idleFor = 2 * time.Second
	// advance is the part of a limit that each replica admits before it knows
	// its block, and block the part that it sets aside at once.
	advance, block = 64, 16
	// blockMost bounds a block, so that one that is lost in a crash is little.
	blockMost = 1000
)

// counter is what one subject used of one limit in the current window.
type counter struct {
	subject *subject
	kind    *kind

	mu      sync.Mutex
	start   time.Time // of the window
	total   int64     // of all replicas, as the store has it, with what they set aside
	credit  int64     // of total: set aside here, and not used yet
	owed    int64     // used here, and not in total yet
	asked   int64     // how much is waited for
	at      time.Time // when total was read
	last    time.Time // when it was last used here
	queued  bool      // it is among those to be exchanged
	waiting chan struct{}
	failed  error // of the last exchange
}

// rollLocked begins a new window if it is time. What is owed of the old one is
// less than a quarter of a second's, and is let go.
func (c *counter) rollLocked(now time.Time) {
	start := windowOf(now, c.kind.window)
	if c.start.Equal(start) {
		return
	}
	c.start, c.total, c.credit, c.owed, c.asked, c.at = start, 0, 0, 0, 0, time.Time{}
}

// usedLocked gives how much is used as far as is known here.
func (c *counter) usedLocked() int64 { return c.total - c.credit + c.owed }

// take admits n, or says why not. It waits for the store only where there are
// replicas and this one's block is used up.
func (c *counter) take(s *Service, n, most int64) (waitFor chan struct{}, used int64, ok bool) {
	now := s.opts.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rollLocked(now)
	c.last = now
	used = c.usedLocked()
	switch {
	case most == Unlimited:
		c.owed += n
		s.queueLocked(c, false)
		return nil, used, true
	case c.credit >= n:
		c.credit -= n
		if c.credit < blockOf(most)/2 && c.total < most {
			s.queueLocked(c, false)
		}
		return nil, used, true
	case used+n > most && (!s.opts.Replicas || now.Sub(c.at) < freshFor || c.failed != nil):
		return nil, used, false
	case used+n <= most && (!s.opts.Replicas || c.owed+n <= most/advance || c.failed != nil):
		c.owed += n
		s.queueLocked(c, false)
		return nil, used, true
	}
	c.asked += n
	if c.waiting == nil {
		c.waiting = make(chan struct{})
	}
	s.queueLocked(c, true)
	return c.waiting, used, false
}

func blockOf(most int64) int64 { return min(max(most/block, 1), blockMost) }

// giveBack undoes a take, where another limit refused.
func (c *counter) giveBack(s *Service, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rollLocked(s.opts.now())
	if c.usedLocked() < n {
		return // the window is another
	}
	c.owed -= n
	s.queueLocked(c, false)
}

// add counts what was used already.
func (c *counter) add(s *Service, n int64) {
	now := s.opts.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rollLocked(now)
	c.last = now
	c.owed += n
	s.queueLocked(c, false)
}

// over reports whether a limit is reached.
func (c *counter) over(s *Service, most int64) (used int64, over bool) {
	if most == Unlimited {
		return 0, false
	}
	now := s.opts.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rollLocked(now)
	if s.opts.Replicas && now.Sub(c.at) > freshFor {
		s.queueLocked(c, false) // others may have used some
	}
	used = c.usedLocked()
	return used, used >= most
}

// usedOf gives how much is used if the store says so much.
func (c *counter) usedOf(s *Service, total int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rollLocked(s.opts.now())
	return max(0, total-c.credit+c.owed)
}

// idleLocked reports whether the block is kept for nothing.
func (c *counter) idleLocked(now time.Time) bool {
	return c.credit > 0 && c.waiting == nil && now.Sub(c.last) >= idleFor
}

// trade is one counter's part of an exchange.
type trade struct {
	c       *counter
	start   time.Time
	owed    int64
	most    int64
	want    int64 // to set aside
	total   int64 // answer
	granted int64 // answer
}

// offer says what a counter has to exchange. all gives back what is set aside,
// too.
func (c *counter) offer(s *Service, all bool) trade {
	now := s.opts.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rollLocked(now)
	c.queued = false
	t := trade{c: c, start: c.start, most: c.subject.most(c.kind.name)}
	if all || c.idleLocked(now) || t.most == Unlimited {
		c.owed -= c.credit
		c.credit = 0
	} else if s.opts.Replicas && !c.kind.after && (c.asked > 0 || c.credit < blockOf(t.most)/2) {
		t.want = max(blockOf(t.most), c.asked) - c.credit
	}
	t.owed = c.owed
	return t
}

// settle takes the store's answer.
func (c *counter) settle(s *Service, t trade, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed = err; err == nil && c.start.Equal(t.start) {
		c.owed -= t.owed
		c.total, c.at = t.total, s.opts.now()
		c.credit += t.granted
	}
	if err != nil {
		s.queueLocked(c, false)
	} else if c.credit > 0 {
		s.keepLocked(c) // until it is idle
	}
	c.asked = 0
	if c.waiting != nil {
		close(c.waiting)
		c.waiting = nil
	}
}
