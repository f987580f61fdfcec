package replica

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// goneFor is how long it is kept why a sandbox is gone.
const goneFor = 24 * time.Hour

// Gone is what all replicas know of a sandbox that is gone.
type Gone struct {
	Key    string // it was owned by
	Reason string
}

// Bury notes for all replicas why a sandbox is gone. What is only guessed takes
// the place of nothing.
func (r *Registry) Bury(ctx context.Context, sandbox string, g Gone, guessed bool) error {
	if r == nil {
		return nil
	}
	_, err := r.db.ExecContext(ctx, `INSERT INTO gone (sandbox, key, reason, at) VALUES ($1, $2, $3, clock_timestamp())
		ON CONFLICT (sandbox) DO UPDATE SET key=EXCLUDED.key, reason=EXCLUDED.reason, at=EXCLUDED.at WHERE NOT $4`, sandbox, g.Key, g.Reason, guessed)
	return explain("note why a sandbox is gone", err)
}

// Gone says why a sandbox is gone that this replica knows nothing of; false if
// nobody knows, or no longer.
func (r *Registry) Gone(ctx context.Context, sandbox string) (g Gone, ok bool, err error) {
	if r == nil {
		return Gone{}, false, nil
	}
	err = r.db.QueryRowContext(ctx, `SELECT key, reason FROM gone WHERE sandbox=$1`, sandbox).Scan(&g.Key, &g.Reason)
	if errors.Is(err, sql.ErrNoRows) {
		return Gone{}, false, nil
	}
	return g, err == nil, explain("ask why a sandbox is gone", err)
}

// forgetGone drops what is too old to be asked for.
func (r *Registry) forgetGone(ctx context.Context) {
	_, err := r.db.ExecContext(ctx, `DELETE FROM gone WHERE at < clock_timestamp() - make_interval(secs => $1)`, goneFor.Seconds())
	if err != nil && ctx.Err() == nil {
		r.log.Warn("old reasons of sandboxes that are gone can't be dropped", "err", err)
	}
}
