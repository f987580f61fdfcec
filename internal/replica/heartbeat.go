package replica

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"time"
)

// A heartbeat is tried four times in TTL: two may be missed before the replica
// is stale, and a slow one has TTL/4 for its answer.
const beats = 4

// beat renews this replica's row until Close, or until the row is gone.
func (r *Registry) beat() {
	every := r.opts.TTL / beats
	var conn *sql.Conn // of its own: a busy pool must not let a replica die
	drop := func() {
		if conn != nil {
			_ = conn.Close() // broken, or no longer needed
			conn = nil
		}
	}
	defer drop()
	failed := false
	for {
		wait := every
		sent := r.now()
		most := every
		if conn == nil {
			most *= 2 // to be let in takes longer, above all when everybody comes back at once
		}
		ctx, cancel := context.WithTimeout(r.ctx, most)
		err := r.renew(ctx, &conn)
		cancel()
		switch {
		case r.ctx.Err() != nil:
			return
		case err == errDead: //nolint:errorlint // its own value
			r.fence()
			return
		case err != nil:
			drop()
			wait = every / 8
			if !failed {
				r.log.Warn("the heartbeat of this replica fails", "replica", r.opts.ID, "err", err)
			}
		default:
			r.renewed(sent)
			if failed {
				r.log.Info("the heartbeat of this replica is back", "replica", r.opts.ID)
			}
		}
		failed = err != nil
		if !r.sleep(wait - time.Duration(r.now()-sent)) {
			return
		}
	}
}

// sleep reports whether there is more to do after it.
func (r *Registry) sleep(d time.Duration) bool {
	t := time.NewTimer(max(d, time.Millisecond))
	defer t.Stop()
	select {
	case <-r.ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (r *Registry) register(ctx context.Context) error {
	_, err := r.db.ExecContext(ctx, `INSERT INTO replicas (id, address, seen_at) VALUES ($1, $2, clock_timestamp())`, r.opts.ID, r.opts.Address)
	return explain("join the replicas", err)
}

// renew says that this replica lives, and learns who else does.
func (r *Registry) renew(ctx context.Context, conn **sql.Conn) error {
	if *conn == nil {
		c, err := r.db.Conn(ctx)
		if err != nil {
			return err
		}
		*conn = c
	}
	rows, err := (*conn).QueryContext(ctx, `WITH me AS (UPDATE replicas SET seen_at = clock_timestamp() WHERE id=$1 RETURNING seen_at)
		SELECT r.id, (SELECT seen_at FROM me) FROM replicas r`, r.opts.ID)
	if err != nil {
		return err
	}
	defer rows.Close()
	alive := map[string]bool{}
	var seen sql.NullTime
	for rows.Next() {
		var id string
		if err := rows.Scan(&id, &seen); err != nil {
			return err
		}
		alive[id] = true
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if !seen.Valid {
		return errDead
	}
	r.meet(alive, seen.Time)
	return nil
}

// meet notes who lives, and when the database heard of this replica.
func (r *Registry) meet(alive map[string]bool, seen time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = seen
	for id, p := range r.peers {
		if !alive[id] {
			p.end()
			delete(r.peers, id)
		}
	}
	for id := range alive {
		if id != r.opts.ID {
			r.peerLocked(id)
		}
	}
}

// renewed counts the time to serve from before the database was asked.
func (r *Registry) renewed(sent int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); now >= r.until.Load() { // the first, or after a break
		r.grace = r.opts.TTL
		if r.since > 0 {
			r.grace *= 2 // others may be as late as this one
		}
		r.since = now
	}
	if r.term == nil || r.term.Err() != nil {
		r.term, r.end = context.WithCancelCause(r.ctx)
	}
	r.until.Store(sent + int64(r.opts.TTL)/2)
	r.lapse.Reset(time.Duration(sent + int64(r.opts.TTL) - r.now()))
}

// lapsed ends the term: others may be owners by now.
func (r *Registry) lapsed() {
	if r.ctx.Err() != nil {
		return
	}
	r.log.Warn("this replica has no contact with the database, its streams end", "replica", r.opts.ID)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.end(errStale)
}

// fence ends this replica: another declared it dead.
func (r *Registry) fence() {
	r.until.Store(0)
	r.log.Error("this replica was away for too long and is fenced: others have what it had", "replica", r.opts.ID)
	r.mu.Lock()
	r.end(errFenced)
	r.mu.Unlock()
	close(r.fenced)
}

// settled reports whether this replica was fresh for so long that who lives had
// the time to say so, also after the database was away for all.
func (r *Registry) settled() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	return now < r.until.Load() && now-r.since >= int64(r.grace)
}

// look finds the dead and takes over what they had, releases what is not used,
// and gives an owner to what has none, until Close.
func (r *Registry) look() {
	every := r.opts.TTL / 6
	swept, strayed := r.now(), r.now()
	for r.sleep(every*3/4 + rand.N(every/2)) { //nolint:gosec // it only keeps replicas apart
		r.mu.Lock()
		retired := r.retired
		r.mu.Unlock()
		if retired {
			return
		}
		if r.Ready() != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(r.ctx, takeTimeout)
		if r.settled() {
			r.declare(ctx, "")
		}
		r.round(ctx)
		if r.now()-swept > int64(r.opts.sweepEvery) {
			r.sweep(ctx)
			r.forgetGone(ctx)
			swept = r.now()
		}
		r.mu.Lock()
		died := r.mourned
		r.mourned = false
		r.mu.Unlock()
		if died || r.now()-strayed > 10*int64(r.opts.TTL) {
			r.verify(ctx)
			r.strays(ctx)
			strayed = r.now()
		}
		cancel()
	}
}
