package limits

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/store"
)

const (
	// tradeMost bounds a transaction: others wait for its rows.
	tradeMost = 200
	// retryAfter is the pause after an exchange that failed.
	retryAfter = time.Second
	// clearEvery is how often old rows go, keepShort and keepLong how long
	// they stay, for people who want to see what was used.
	clearEvery = 10 * time.Minute
	keepShort  = time.Hour
	keepLong   = 40 * day
)

// queueLocked has a counter exchanged, at once if somebody waits for it. The
// counter is locked.
func (s *Service) queueLocked(c *counter, urgent bool) {
	if !c.queued {
		c.queued = true
		s.queue.mu.Lock()
		s.queue.list = append(s.queue.list, c)
		s.queue.mu.Unlock()
		poke(s.soon)
	}
	if urgent {
		poke(s.asap)
	}
}

// keepLocked remembers that a counter has set something aside.
func (s *Service) keepLocked(c *counter) {
	s.queue.mu.Lock()
	defer s.queue.mu.Unlock()
	s.queue.held[c] = struct{}{}
}

// run exchanges what there is.
func (s *Service) run() {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	defer timer.Stop()
	armed := false
	arm := func(d time.Duration) {
		if !armed {
			armed = true
			timer.Reset(d)
		}
	}
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.soon:
			arm(exchangeEvery)
			continue
		case <-s.asap:
		case <-timer.C:
			armed = false
		}
		if err := s.exchange(s.ctx, false); err != nil {
			if s.ctx.Err() != nil {
				return
			}
			s.log.Error("what users have used can't be kept: each server counts for itself meanwhile", "err", err)
			select {
			case <-time.After(retryAfter):
			case <-s.ctx.Done():
			}
		}
		s.queue.mu.Lock()
		held, left := len(s.queue.held), len(s.queue.list)
		s.queue.mu.Unlock()
		switch {
		case left > 0:
			arm(exchangeEvery)
		case held > 0:
			arm(idleFor)
		}
	}
}

// exchange tells the store what was used, and learns what others did. With all
// it gives back what is set aside.
func (s *Service) exchange(ctx context.Context, all bool) error {
	s.exchanging.Lock()
	defer s.exchanging.Unlock()
	now := s.opts.now()
	s.queue.mu.Lock()
	list := s.queue.list
	s.queue.list = nil
	held := make([]*counter, 0, len(s.queue.held))
	for c := range s.queue.held {
		held = append(held, c)
	}
	s.queue.mu.Unlock()
	for _, c := range held {
		c.mu.Lock()
		c.rollLocked(now)
		if c.credit == 0 || all || c.idleLocked(now) {
			if c.credit > 0 && !c.queued {
				c.queued = true
				list = append(list, c)
			}
			s.queue.mu.Lock()
			delete(s.queue.held, c)
			s.queue.mu.Unlock()
		}
		c.mu.Unlock()
	}
	// In one order, so that no two servers wait for each other's rows.
	slices.SortFunc(list, func(a, b *counter) int {
		return cmp.Or(strings.Compare(a.subject.key, b.subject.key), strings.Compare(string(a.kind.name), string(b.kind.name)))
	})
	var failed error
	for part := range slices.Chunk(list, tradeMost) {
		trades := make([]trade, 0, len(part))
		for _, c := range part {
			trades = append(trades, c.offer(s, all))
		}
		err := failed // the next would fail too
		if err == nil {
			err = s.trade(ctx, trades)
		}
		for _, t := range trades {
			t.c.settle(s, t, err)
		}
		failed = err
	}
	if failed == nil && now.Sub(s.cleared) >= clearEvery {
		s.cleared = now
		failed = s.clear(ctx, now)
	}
	return failed
}

// tradeTimeout bounds a transaction. If it passes while the database has
// committed, what was used is counted twice: better than not at all.
const tradeTimeout = 10 * time.Second

func (s *Service) trade(ctx context.Context, trades []trade) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tradeTimeout)
	defer cancel()
	return s.store.Transact(ctx, func(tx *store.Tx) error {
		for i := range trades {
			t := &trades[i]
			k := t.c.kind
			t.total, t.granted = 0, 0
			if err := tx.One(`INSERT INTO limit_counters (subject, name, starts_at, ends_at, used) VALUES (?,?,?,?,?)
				ON CONFLICT (subject, name, starts_at) DO UPDATE SET used = limit_counters.used + excluded.used RETURNING used`,
				[]any{t.c.subject.key, string(k.name), t.start.Unix(), t.start.Add(k.window).Unix(), t.owed}, &t.total); err != nil {
				return err
			}
			if t.granted = min(t.want, t.most-t.total); t.granted <= 0 {
				t.granted = 0
				continue
			}
			if _, err := tx.Exec(`UPDATE limit_counters SET used = used + ? WHERE subject=? AND name=? AND starts_at=?`,
				t.granted, t.c.subject.key, string(k.name), t.start.Unix()); err != nil {
				return err
			}
			t.total += t.granted
		}
		return nil
	})
}

func (s *Service) clear(ctx context.Context, now time.Time) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tradeTimeout)
	defer cancel()
	return s.store.Transact(ctx, func(tx *store.Tx) error {
		_, err := tx.Exec(`DELETE FROM limit_counters WHERE ends_at < ? AND (ends_at < ? OR ends_at - starts_at <= ?)`,
			now.Add(-keepShort).Unix(), now.Add(-keepLong).Unix(), int64(time.Minute/time.Second))
		return err
	})
}

// row is one of the store.
type row struct {
	subject, name string
	start, used   int64
}

// rows reads the windows that last.
func (s *Service) rows(ctx context.Context, subjects string) ([]row, error) {
	return store.Select(ctx, s.store, func(scan store.Scan) (r row, err error) {
		err = scan(&r.subject, &r.name, &r.start, &r.used)
		return r, err
	}, `SELECT subject, name, starts_at, used FROM limit_counters WHERE ends_at > ? AND subject >= ? AND subject < ? ORDER BY subject, name`,
		s.opts.now().Unix(), subjects, subjects+"\x7f")
}

// load takes over what an earlier process counted.
func (s *Service) load(ctx context.Context) error {
	rows, err := s.rows(ctx, "")
	if err != nil {
		return err
	}
	for _, r := range rows {
		at := place(Name(r.name))
		owner, scope, ok := ownerOf(r.subject)
		if at < 0 || !ok {
			continue
		}
		x := s.of(owner).user
		if scope == Organisation {
			x = s.organisation(owner.Org)
		}
		c := x.counters[at]
		c.mu.Lock()
		c.rollLocked(s.opts.now())
		if c.start.Unix() == r.start {
			c.total, c.at = r.used, s.opts.now()
		}
		c.mu.Unlock()
	}
	return nil
}

// ownerOf reads the key of a subject.
func ownerOf(key string) (identity.Owner, Scope, bool) {
	if org, ok := strings.CutPrefix(key, "org/"); ok {
		return identity.Owner{Org: org}, Organisation, true
	}
	rest, ok := strings.CutPrefix(key, "user/")
	org, user, cut := strings.Cut(rest, "/")
	return identity.Owner{User: user, Org: org}, User, ok && cut
}
