package egress

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/caesarion/caesarion/internal/store"
)

const (
	// ledgerMost is how many bytes are written down before they are used. A server
	// that is killed then takes at most so much from a sandbox, and gives none.
	ledgerMost = 16 << 20
	// ledgerShare bounds it to a part of what the sandbox may use.
	ledgerShare = 64
	// ledgerTime bounds one question to the ledger.
	ledgerTime = 5 * time.Second
)

// ledgerAhead is how much to write down before it is used.
func ledgerAhead(most int64) int64 {
	if most <= 0 {
		return ledgerMost
	}
	return max(1, min(ledgerMost, most/ledgerShare))
}

// ledger keeps what sandboxes have used beyond the life of a server, and for
// all servers that share a store: a bound on a sandbox's life must not end with
// whoever has the sandbox now.
type ledger struct {
	store *store.Store // nil: nothing is kept
}

func (l ledger) ask(do func(context.Context) error) error {
	if l.store == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), ledgerTime)
	defer cancel()
	if err := do(ctx); err != nil {
		return fmt.Errorf("egress: what sandboxes have used: %w", err)
	}
	return nil
}

// read gives what is written of a sandbox, 0 if nothing is.
func (l ledger) read(sandbox string) (n int64, err error) {
	err = l.ask(func(ctx context.Context) error {
		err := l.store.One(ctx, `SELECT bytes FROM egress_used WHERE sandbox_id=?`, []any{sandbox}, &n)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return n, err
}

// write puts a figure in the place of another.
func (l ledger) write(sandbox string, n int64) error {
	return l.ask(func(ctx context.Context) error {
		return l.store.Transact(ctx, func(t *store.Tx) error {
			_, err := t.Exec(`INSERT INTO egress_used (sandbox_id, bytes) VALUES (?, ?) ON CONFLICT (sandbox_id) DO UPDATE SET bytes = excluded.bytes`, sandbox, n)
			return err
		})
	})
}

func (l ledger) remove(sandbox string) error {
	return l.ask(func(ctx context.Context) error {
		return l.store.Transact(ctx, func(t *store.Tx) error {
			_, err := t.Exec(`DELETE FROM egress_used WHERE sandbox_id=?`, sandbox)
			return err
		})
	})
}

// sandboxes lists those that have a figure.
func (l ledger) sandboxes() (ids []string, err error) {
	err = l.ask(func(ctx context.Context) error {
		ids, err = store.Select(ctx, l.store, func(scan store.Scan) (id string, err error) { return id, scan(&id) }, `SELECT sandbox_id FROM egress_used`)
		return err
	})
	return ids, err
}
