package egress

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// Streams a second that a sandbox may open; an installer opens some twenty,
	// a crawler a hundred. What is above waits, then is refused.
	streamRate, streamBurst = 200, 400
	// Look-ups a second of names that only a wildcard or Open allows. A name can
	// carry bytes to whoever runs the domain, so this is the width of that pipe.
	// Names that a rule spells out, and those looked up just before, are free.
	lookupRate, lookupBurst = 2, 100
	// Index pages a second that are not in the mirror's memory: their names reach
	// the index. A large set of requirements asks for some hundreds.
	pageRate, pageBurst = 5, 400
	// Lines a second that a sandbox may cause in the log; the rest are counted.
	logRate, logBurst = 20, 200
	// patience is how long something waits for its rate.
	patience = time.Second

	answerFor  = 30 * time.Second // a look-up's answer
	maxAnswers = 256              // a sandbox's answers kept

	// accountEvery is how many bytes are told to Client.Account at once.
	accountEvery = 256 << 10
	usedEvery    = 5 * time.Second
	// keptFor is how long the figures of a sandbox without a door stay in memory:
	// a door that is cut and opened anew must not give fresh rates. Its bytes are
	// in the ledger, else they stay until the sandbox is gone.
	keptFor = 24 * time.Hour
)

// usage is what one sandbox has used, over all its doors.
type usage struct {
	sandbox string
	conns   atomic.Int64
	bytes   atomic.Int64
	untold  atomic.Int64 // bytes not yet told to Account
	usedAt  atomic.Int64
	muted   atomic.Int64 // log lines left out
	streams *rate.Limiter
	lookups *rate.Limiter
	pages   *rate.Limiter
	logs    *rate.Limiter

	written atomic.Int64 // bytes as the ledger has them: while a door is open, no fewer than were used
	stale   atomic.Bool  // they may be another server's by now, and are read before they count
	writing sync.Mutex   // guards dropped, and reading and writing them
	dropped bool         // the sandbox is gone

	mu      sync.Mutex // guards answers
	answers map[string]answer

	doors int       // guarded by Gateway.mu
	left  time.Time // when the last door closed; guarded by Gateway.mu
}

type answer struct {
	addrs []netip.Addr
	until time.Time
}

func newUsage(sandbox string) *usage {
	return &usage{
		sandbox: sandbox,
		streams: rate.NewLimiter(streamRate, streamBurst),
		lookups: rate.NewLimiter(lookupRate, lookupBurst),
		pages:   rate.NewLimiter(pageRate, pageBurst),
		logs:    rate.NewLimiter(logRate, logBurst),
	}
}

// enter takes one of most places.
func (u *usage) enter(most int) bool {
	if u.conns.Add(1) <= int64(most) {
		return true
	}
	u.conns.Add(-1)
	return false
}

func (u *usage) leave() { u.conns.Add(-1) }

// wait waits for a rate, but not for long.
func wait(ctx context.Context, l *rate.Limiter) bool {
	r := l.Reserve()
	d := r.Delay()
	if d == 0 {
		return true
	}
	if d > patience {
		r.Cancel()
		return false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// add counts n bytes, and tells Account of them now and then or, with all, at once.
func (u *usage) add(c Client, n, most int64, all bool) *Refusal {
	total := u.bytes.Add(n)
	if c.Used != nil {
		now := time.Now().UnixNano()
		if at := u.usedAt.Load(); now-at > int64(usedEvery) && u.usedAt.CompareAndSwap(at, now) {
			c.Used()
		}
	}
	if untold := u.untold.Add(n); c.Account != nil && (untold >= accountEvery || all && untold > 0) {
		if untold = u.untold.Swap(0); untold > 0 {
			if err := c.Account(untold); err != nil {
				return accountRefusal(err)
			}
		}
	}
	if most > 0 && total > most {
		return limited(codeBytes, "this sandbox has used up its %d bytes of network traffic", most)
	}
	return nil
}

// spent tells whether there is nothing left before anything is opened.
func (u *usage) spent(c Client, most int64) *Refusal {
	if most > 0 && u.bytes.Load() >= most {
		return limited(codeBytes, "this sandbox has used up its %d bytes of network traffic", most)
	}
	if c.Account != nil {
		if err := c.Account(0); err != nil {
			return accountRefusal(err)
		}
	}
	return nil
}

func accountRefusal(err error) *Refusal {
	r := limited(codeAccount, "%s", shown(err, "the limit of network traffic is reached"))
	r.Err = err
	return r
}

// known gives the answer of a look-up just before.
func (u *usage) known(name string) ([]netip.Addr, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	a, ok := u.answers[name]
	if !ok || time.Now().After(a.until) {
		return nil, false
	}
	return a.addrs, true
}

func (u *usage) learn(name string, addrs []netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.answers == nil || len(u.answers) >= maxAnswers {
		u.answers = make(map[string]answer)
	}
	u.answers[name] = answer{addrs: addrs, until: time.Now().Add(answerFor)}
}

func (u *usage) forgetNames() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answers = nil
}
