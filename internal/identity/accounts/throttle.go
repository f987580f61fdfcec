package accounts

import (
	"net/netip"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Failures that cost nothing, and how long the wait after the next ones grows.
// An account waits for a minute at most: longer, and whoever knows an address
// could keep its owner out.
const (
	freeOfAccount = 5
	freeOfAddress = 20
	longestDelay  = time.Minute
	forgetAfter   = 15 * time.Minute
	maxThrottled  = 50_000
)

// throttle slows down who fails to sign in, by account and by address. It is
// each server's own.
type throttle struct {
	now   func() time.Time
	mu    sync.Mutex
	fails map[string]failures
}

type failures struct {
	n    int
	last time.Time
}

func newThrottle(now func() time.Time) *throttle {
	return &throttle{now: now, fails: map[string]failures{}}
}

// place gives what of an address is counted: of IPv6 the network, since anybody
// has many addresses in it.
func place(address string) string {
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return "address " + address
	}
	addr = addr.Unmap()
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	prefix, _ := addr.Prefix(bits) // it has so many
	return "address " + prefix.String()
}

func (t *throttle) wait(key string, free int) time.Duration {
	f := t.fails[key]
	if f.n < free {
		return 0
	}
	delay := longestDelay
	if over := f.n - free; over < 6 {
		delay = min(longestDelay, time.Second<<over)
	}
	return delay - t.now().Sub(f.last)
}

// check refuses who has to wait. It counts the try as a failure until ok is
// called, so that many at once are no way around it.
func (t *throttle) check(account, address string) (ok func(), err error) {
	account, address = "account "+account, place(address)
	t.mu.Lock()
	defer t.mu.Unlock()
	if wait := max(t.wait(account, freeOfAccount), t.wait(address, freeOfAddress)); wait > 0 {
		seconds := int(wait/time.Second) + 1
		return nil, errdefs.New(errdefs.ErrExhausted, "sign-in-throttled", "There were too many failed sign-ins.").
			WithHint("Try again in %d seconds.", seconds)
	}
	if len(t.fails) >= maxThrottled {
		t.clearLocked(0)
	}
	for _, key := range []string{account, address} {
		f := t.fails[key]
		t.fails[key] = failures{f.n + 1, t.now()}
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.fails, account)
		if f := t.fails[address]; f.n > 0 {
			f.n--
			t.fails[address] = f
		}
	}, nil
}

func (t *throttle) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clearLocked(forgetAfter)
}

func (t *throttle) clearLocked(after time.Duration) {
	for key, f := range t.fails {
		if t.now().Sub(f.last) >= after {
			delete(t.fails, key)
		}
	}
}
