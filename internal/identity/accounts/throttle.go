package accounts

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/store"
)

// Failures that cost nothing, and how long the wait after the next ones grows.
const (
	freeOfAccount = 5
	freeOfAddress = 20
	longestDelay  = time.Minute
	forgetAfter   = 15 * time.Minute
	knownFor      = 90 * 24 * time.Hour
)

// throttle slows down who fails to sign in, by account and by address. The
// counts are in the database, so that all servers have the same and a restart
// forgets none.
//
// At a place where an account was signed in before only that place's failures
// count: else whoever fails without end, from anywhere, keeps its owner out.
type throttle struct {
	store *store.Store
	now   func() time.Time
}

// tries is one count: its key in the database, and what costs nothing of it.
type tries struct {
	key  string
	free int64
}

func tryKey(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:16])
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
	prefix, _ := addr.WithZone("").Prefix(bits) // it has so many
	return "address " + prefix.String()
}

// wait says how long somebody has to wait who has failed so often.
func (c tries) wait(n, last int64, now time.Time) time.Duration {
	if n < c.free {
		return 0
	}
	since := now.Sub(timeOf(last))
	if since > forgetAfter {
		return 0
	}
	delay := longestDelay
	if over := n - c.free; over < 6 {
		delay = min(longestDelay, time.Second<<over)
	}
	return delay - since
}

func errThrottled(wait time.Duration) error {
	return errdefs.New(errdefs.ErrExhausted, "sign-in-throttled", "There were too many failed sign-ins.").
		WithHint("Try again in %d seconds.", int(wait/time.Second)+1)
}

// check refuses who has to wait. It counts the try as a failure until ok is
// called, so that many at once are no way around it.
func (t *throttle) check(ctx context.Context, account, address string) (ok func(context.Context) error, err error) {
	from := place(address)
	known := tryKey("known " + account + " at " + from)
	counts := []tries{{tryKey("account " + account), freeOfAccount}, {tryKey(from), freeOfAddress}}
	now := t.now().UTC()
	// Who has to wait is refused without a write: it is what an attack is made of.
	rows, err := store.Select(ctx, t.store, func(scan store.Scan) (r struct {
		key     string
		n, last int64
	}, err error,
	) {
		return r, scan(&r.key, &r.n, &r.last)
	}, `SELECT key, n, last FROM sign_in_tries WHERE key IN (?,?,?,?)`, known, tryKey("account "+account+" at "+from), counts[0].key, counts[1].key)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		if r.key == known && now.Sub(timeOf(r.last)) < knownFor {
			counts[0].key = tryKey("account " + account + " at " + from)
		}
	}
	wait := time.Duration(0)
	for _, r := range rows {
		for _, c := range counts {
			if r.key == c.key {
				wait = max(wait, c.wait(r.n, r.last, now))
			}
		}
	}
	if wait > 0 {
		return nil, errThrottled(wait)
	}
	accountKey, addressKey := counts[0].key, counts[1].key
	slices.SortFunc(counts, func(a, b tries) int { return cmp.Compare(a.key, b.key) }) // one order: nobody waits for each other
	err = t.store.Transact(ctx, func(tx *store.Tx) error {
		for _, c := range counts {
			var n, last int64
			// The row is locked before it is read.
			if _, err := tx.Exec(`INSERT INTO sign_in_tries (key, n, last) VALUES (?,0,0) ON CONFLICT (key) DO UPDATE SET n=sign_in_tries.n`, c.key); err != nil {
				return err
			}
			if err := tx.One(`SELECT n, last FROM sign_in_tries WHERE key=?`, []any{c.key}, &n, &last); err != nil {
				return err
			}
			if wait := c.wait(n, last, now); wait > 0 {
				return errThrottled(wait)
			}
			if now.Sub(timeOf(last)) > forgetAfter {
				n = 0
			}
			if _, err := tx.Exec(`UPDATE sign_in_tries SET n=?, last=? WHERE key=?`, n+1, micros(now), c.key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		return t.store.Transact(ctx, func(tx *store.Tx) error {
			if _, err := tx.Exec(`DELETE FROM sign_in_tries WHERE key=?`, accountKey); err != nil {
				return err
			}
			if _, err := tx.Exec(`UPDATE sign_in_tries SET n=n-1 WHERE key=? AND n>0`, addressKey); err != nil {
				return err
			}
			_, err := tx.Exec(`INSERT INTO sign_in_tries (key, n, last) VALUES (?,0,?) ON CONFLICT (key) DO UPDATE SET last=excluded.last`, known, micros(t.now()))
			return err
		})
	}, nil
}
