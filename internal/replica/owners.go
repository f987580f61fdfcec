package replica

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// explain gives a failed query a kind and a sentence.
func explain(what string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("replica: %s: %w", what, err)
	}
	return errdefs.New(errdefs.ErrUnavailable, "database-unavailable", "The server can't ask its database.").
		WithHint("Try again in a few seconds.").WithCause(fmt.Errorf("replica: %s: %w", what, err))
}

// claim gives the owner of a key by the tables. If nobody alive has it, that is
// from now on who makes what is under it, or else this replica.
func (r *Registry) claim(ctx context.Context, key, maker string) (Owner, error) {
	for {
		o, known, err := r.ask(ctx, `WITH made AS (INSERT INTO owners (key, replica)
			VALUES ($1, coalesce((SELECT id FROM replicas WHERE id = $4), $2)) ON CONFLICT (key) DO NOTHING RETURNING replica)
			SELECT m.replica, coalesce(r.address, ''), true, false FROM made m LEFT JOIN replicas r ON r.id = m.replica
			UNION ALL `+ownerQuery, key, r.opts.ID, r.opts.TTL.Seconds(), maker)
		switch {
		case err != nil:
			return Owner{}, err
		case !known:
			continue // somebody made it a moment ago
		case o.Mine:
			return r.me(), nil
		case o.alive && !o.late:
			return o.Owner, nil
		case o.alive:
			if !r.settled() {
				return o.Owner, nil // it may be as late as this one was
			}
			r.declare(ctx, o.ID)
			if ctx.Err() != nil {
				return Owner{}, context.Cause(ctx)
			}
		default:
			// Named, so that of two who found it dead one comes too late. A row of
			// owners is locked by a write of its session that is under way.
			if _, err := r.db.ExecContext(ctx, `UPDATE owners SET replica=$2 WHERE key=$1 AND replica=$3`, key, r.opts.ID, o.ID); err != nil {
				return Owner{}, explain("take a key", err)
			}
		}
	}
}

// asked is an owner as the tables have it.
type asked struct {
	Owner
	alive bool // it has a row
	late  bool // which is older than TTL, so that it may be declared dead
}

const ownerQuery = `SELECT o.replica, coalesce(r.address, ''), r.id IS NOT NULL, coalesce(r.seen_at < clock_timestamp() - make_interval(secs => $3), false)
	FROM owners o LEFT JOIN replicas r ON r.id = o.replica WHERE o.key=$1 AND $2 <> ''`

func (r *Registry) ask(ctx context.Context, query, key, me string, more ...any) (o asked, known bool, err error) {
	err = r.db.QueryRowContext(ctx, query, append([]any{key, me}, more...)...).Scan(&o.ID, &o.Address, &o.alive, &o.late)
	if errors.Is(err, sql.ErrNoRows) {
		return o, false, nil
	}
	o.Mine = o.ID == me
	return o, err == nil, explain("ask for an owner", err)
}

// Owner gives the replica alive that has a key; false if there is none. It only
// looks.
func (r *Registry) Owner(ctx context.Context, key string) (Owner, bool, error) {
	if r == nil {
		return Owner{Mine: true}, true, nil
	}
	if r.Owns(key) {
		return r.me(), true, nil
	}
	o, known, err := r.ask(ctx, ownerQuery, key, r.opts.ID, r.opts.TTL.Seconds())
	if err != nil || !known || !o.alive {
		return Owner{}, false, err
	}
	return o.Owner, true, nil
}

// Alive reports whether a replica lives, by the tables: one that stopped does
// not, and one that died is said to live until another has noticed.
func (r *Registry) Alive(ctx context.Context, id string) (alive bool, err error) {
	if r == nil {
		return true, nil
	}
	err = r.db.QueryRowContext(ctx, `SELECT EXISTS (SELECT FROM replicas WHERE id=$1)`, id).Scan(&alive)
	return alive, explain("ask whether a replica lives", err)
}

// declare ends the rows of replicas that were not heard of for TTL: one, or
// with "" all of them. It must reach the database soon after this replica's own
// heartbeat: one that was long on its way would find everybody late.
func (r *Registry) declare(ctx context.Context, id string) {
	r.mu.Lock()
	seen := r.seen
	r.mu.Unlock()
	dead, err := r.strings(ctx, `DELETE FROM replicas WHERE id <> $1 AND ($2 = '' OR id = $2) AND seen_at < clock_timestamp() - make_interval(secs => $3)
		AND clock_timestamp() < $4::timestamptz + make_interval(secs => $3 / 2) RETURNING id`, r.opts.ID, id, r.opts.TTL.Seconds(), seen)
	if err != nil && r.ctx.Err() == nil {
		r.log.Warn("replicas that are dead can't be found", "err", err)
	}
	for _, id := range dead {
		r.log.Warn("a replica is dead, others take over what it had", "replica", id)
	}
	if len(dead) > 0 {
		r.mu.Lock()
		r.mourned = true
		r.mu.Unlock()
	}
}

func (r *Registry) strings(ctx context.Context, query string, args ...any) ([]string, error) {
	rows, err := r.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var s string
		if err := rows.Scan(&s); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, rows.Err()
}

// Orphans gives up to n keys of dead replicas.
func (r *Registry) Orphans(ctx context.Context, n int) ([]string, error) {
	if r == nil {
		return nil, nil
	}
	keys, _, err := r.orphans(ctx, n)
	return keys, explain("look for orphans", err)
}

// orphans gives keys and the dead replicas that had them. Each replica has its
// own order, so that several share the work.
func (r *Registry) orphans(ctx context.Context, n int) (keys, dead []string, err error) {
	rows, err := r.db.QueryContext(ctx, `SELECT o.key, o.replica FROM owners o WHERE NOT EXISTS (SELECT FROM replicas r WHERE r.id = o.replica)
		ORDER BY md5(o.key || $1) LIMIT $2`, r.opts.ID, n)
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var key, id string
		if err := rows.Scan(&key, &id); err != nil {
			return nil, nil, err
		}
		keys, dead = append(keys, key), append(dead, id)
	}
	return keys, dead, rows.Err()
}

// takeAtOnce is how many keys one query takes: few, so that others get some.
const takeAtOnce = 32

// round takes over what dead replicas had, and again what was forgotten here.
func (r *Registry) round(ctx context.Context) {
	r.mu.Lock()
	again := slices.Collect(maps.Keys(r.again))
	r.mu.Unlock()
	for _, key := range again {
		_, err := r.Own(ctx, key)
		if err == nil {
			r.mu.Lock()
			delete(r.again, key)
			r.mu.Unlock()
		}
	}
	var batches []chan struct{}
	defer func() {
		for _, done := range batches {
			<-done
		}
	}()
	for r.Ready() == nil {
		keys, dead, err := r.orphans(ctx, takeAtOnce)
		if err == nil && len(keys) > 0 {
			// A key whose row is locked, by a last write or another who takes it, is
			// looked at again in the next round.
			keys, err = r.strings(ctx, `WITH free AS (SELECT o.key FROM owners o JOIN unnest($2::text[], $3::text[]) v (key, replica)
				ON o.key = v.key AND o.replica = v.replica FOR UPDATE OF o SKIP LOCKED)
				UPDATE owners o SET replica=$1 FROM free WHERE o.key = free.key RETURNING o.key`, r.opts.ID, keys, dead)
		}
		if err != nil {
			if ctx.Err() == nil {
				r.log.Warn("keys of dead replicas can't be taken over", "err", err)
			}
			return
		}
		if len(keys) == 0 {
			return
		}
		batches = append(batches, r.takeOver(ctx, keys))
	}
}

// strays gives an owner to what has none: what was made before there were
// replicas, whose rows were lost, or whose maker died before it had a row. What
// a replica alive makes is left to it, however long that takes.
func (r *Registry) strays(ctx context.Context) {
	records, err := r.holding().Keys(ctx)
	var keys []string
	if err == nil && len(records) > 0 {
		makers := make([]string, len(records))
		keys = make([]string, len(records))
		for i, rec := range records {
			keys[i], makers[i] = rec.Key, rec.Maker
		}
		keys, err = r.strings(ctx, `INSERT INTO owners (key, replica) SELECT v.key, $1 FROM unnest($2::text[], $3::text[]) v (key, maker)
			WHERE NOT EXISTS (SELECT FROM replicas r WHERE r.id = v.maker) ON CONFLICT (key) DO NOTHING RETURNING key`, r.opts.ID, keys, makers)
	}
	if err != nil {
		if ctx.Err() == nil {
			r.log.Warn("what has no owner can't be found", "err", err)
		}
		return
	}
	if len(keys) > 0 {
		<-r.takeOver(ctx, keys)
	}
}

// verify lets go of what the table does not have as ours: after the database was
// put back to an older state, by a backup or a failover, memory is wrong.
func (r *Registry) verify(ctx context.Context) {
	asked := r.now()
	keys, err := r.strings(ctx, `SELECT key FROM owners WHERE replica=$1`, r.opts.ID)
	if err != nil {
		return // the next time
	}
	ours := make(map[string]bool, len(keys))
	for _, key := range keys {
		ours[key] = true
	}
	r.held.Range(func(k, v any) bool {
		if key, e := k.(string), v.(*entry); !ours[key] && e.since < asked { //nolint:forcetypeassert // nothing else is stored
			r.log.Warn("a key of this replica is no longer its own by the database", "key", key)
			r.Forget(key)
		}
		return true
	})
}

// takeOver has the holder take keys that the tables give us by now. Those that
// are on their way here already are left to that.
func (r *Registry) takeOver(ctx context.Context, keys []string) (done chan struct{}) {
	done = make(chan struct{})
	flights := map[string]*flight{}
	r.mu.Lock()
	for _, key := range keys {
		if _, ok := r.held.Load(key); !ok && r.flights[key] == nil {
			flights[key] = r.beginLocked(key)
		}
	}
	r.mu.Unlock()
	if len(flights) == 0 {
		close(done)
		return done
	}
	r.batch <- struct{}{}
	go func() { // awaited by the caller, by way of done
		defer close(done)
		defer func() { <-r.batch }()
		r.log.Info("keys taken over", "replica", r.opts.ID, "count", len(flights))
		r.adopt(ctx, flights)
	}()
	return done
}

// sweep releases keys that nobody asked for in a while and under which there
// is nothing: sessions that rest in the store.
func (r *Registry) sweep(ctx context.Context) {
	before := r.now() - int64(r.opts.unusedFor)
	h := r.holding()
	var keys []string
	r.held.Range(func(k, v any) bool {
		key, e := k.(string), v.(*entry) //nolint:forcetypeassert // nothing else is stored
		if e.used.Load() < before && !h.Holds(key) {
			keys = append(keys, key)
		}
		return true
	})
	for batch := range slices.Chunk(keys, 500) {
		if err := r.release(ctx, batch); err != nil && ctx.Err() == nil {
			r.log.Warn("keys can't be released", "err", err)
		}
	}
}

// Release gives up a key, so that whoever is asked next owns it.
func (r *Registry) Release(ctx context.Context, key string) error {
	if r == nil {
		return nil
	}
	return r.release(ctx, []string{key})
}

func (r *Registry) release(ctx context.Context, keys []string) error {
	flights := map[string]*flight{}
	r.mu.Lock()
	for _, key := range keys {
		if r.flights[key] == nil {
			flights[key] = r.beginLocked(key) // who asks meanwhile, asks again after it
			r.held.Delete(key)
			delete(r.again, key)
		}
	}
	r.mu.Unlock()
	_, err := r.db.ExecContext(ctx, `DELETE FROM owners WHERE replica=$1 AND key = ANY($2::text[])`, r.opts.ID, slices.Collect(maps.Keys(flights)))
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, f := range flights {
		delete(r.flights, key)
		f.again = true
		close(f.done)
	}
	return explain("release keys", err)
}
