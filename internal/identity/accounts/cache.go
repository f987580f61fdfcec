package accounts

import (
	"context"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/store"
)

// maxCached bounds the cache: some 500 bytes each.
const maxCached = 10_000

// cache has who was verified a moment ago, by the hash of what he sent.
type cache struct {
	life time.Duration
	now  func() time.Time

	mu    sync.RWMutex
	round int64 // raised by clear
	known map[[32]byte]cached
}

type cached struct {
	who   identity.Principal
	until time.Time
}

func (c *cache) init(life time.Duration, now func() time.Time) {
	c.life, c.now, c.known = life, now, map[[32]byte]cached{}
}

// get gives who it is; or the round in which the store is asked.
func (c *cache) get(hash [32]byte) (who identity.Principal, round int64, ok bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e, ok := c.known[hash]
	if !ok || c.now().After(e.until) {
		return identity.Principal{}, c.round, false
	}
	return e.who, c.round, true
}

// put remembers what the store said, unless rights changed since it was asked.
func (c *cache) put(hash [32]byte, round int64, who identity.Principal, end time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.round != round {
		return
	}
	if len(c.known) >= maxCached {
		clear(c.known)
	}
	until := c.now().Add(c.life)
	if !end.IsZero() && end.Before(until) {
		until = end
	}
	c.known[hash] = cached{who, until}
}

func (c *cache) clear() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.round++
	clear(c.known)
}

// seen notes when keys and browsers were last used, to be written later.
type seen struct {
	mu           sync.Mutex
	keys, logins map[string]time.Time
}

func (n *seen) init() { n.keys, n.logins = map[string]time.Time{}, map[string]time.Time{} }

func (n *seen) note(who identity.Principal, at time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if who.Key != "" {
		n.keys[who.Key] = at
	} else {
		n.logins[who.Login] = at
	}
}

func (n *seen) take() (keys, logins map[string]time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	keys, logins = n.keys, n.logins
	n.init()
	return keys, logins
}

// flushSeen writes when keys and browsers were last used.
func (s *Service) flushSeen(ctx context.Context) error {
	keys, logins := s.seen.take()
	if len(keys)+len(logins) == 0 {
		return nil
	}
	return s.store.Transact(ctx, func(t *store.Tx) error {
		for id, at := range keys {
			if _, err := t.Exec(`UPDATE api_keys SET last_used_at=? WHERE id=? AND last_used_at<?`, micros(at), id, micros(at)); err != nil {
				return err
			}
		}
		for id, at := range logins {
			if _, err := t.Exec(`UPDATE logins SET seen_at=? WHERE id=? AND seen_at<?`, micros(at), id, micros(at)); err != nil {
				return err
			}
		}
		return nil
	})
}
