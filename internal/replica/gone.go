package replica

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/caesarion/caesarion/internal/identity"
)

// goneFor is how long it is kept why a sandbox is gone.
const goneFor = 24 * time.Hour

// Gone is what all replicas know of a sandbox that is gone.
type Gone struct {
	Key    string // it was owned by
	Reason string
	Owner  identity.Owner // whose it was; zero: nobody's, or not known
}

// Bury notes for all replicas why a sandbox is gone. What is only guessed takes
// the place of nothing.
func (r *Registry) Bury(ctx context.Context, sandbox string, g Gone, guessed bool) error {
	if r == nil {
		return nil
	}
	_, err := r.db.ExecContext(ctx, `INSERT INTO gone (sandbox, key, reason, owner_user, owner_org, at) VALUES ($1, $2, $3, $4, $5, clock_timestamp())
		ON CONFLICT (sandbox) DO UPDATE SET key=EXCLUDED.key, reason=EXCLUDED.reason, owner_user=EXCLUDED.owner_user, owner_org=EXCLUDED.owner_org, at=EXCLUDED.at
		WHERE NOT $6`, sandbox, g.Key, g.Reason, g.Owner.User, g.Owner.Org, guessed)
	return explain("note why a sandbox is gone", err)
}

// Gone says why a sandbox is gone that this replica knows nothing of; false if
// nobody knows, or no longer.
func (r *Registry) Gone(ctx context.Context, sandbox string) (g Gone, ok bool, err error) {
	if r == nil {
		return Gone{}, false, nil
	}
	err = r.db.QueryRowContext(ctx, `SELECT key, reason, owner_user, owner_org FROM gone WHERE sandbox=$1`, sandbox).Scan(&g.Key, &g.Reason, &g.Owner.User, &g.Owner.Org)
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
