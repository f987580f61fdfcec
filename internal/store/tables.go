package store

import (
	"context"
	"database/sql"
)

// What other packages keep in tables of their own is read and written by this
// file, on both databases with the same queries: ? stands for values. With
// SQLite the writes are the one writer's, between those of sessions.

// Scan gives the columns of a row.
type Scan func(dest ...any) error

// Select reads all rows of a query.
func Select[T any](ctx context.Context, s *Store, read func(Scan) (T, error), query string, args ...any) ([]T, error) {
	return collect(ctx, s, func(scan func(...any) error) (T, error) { return read(scan) }, query, args...)
}

// One reads the only row of a query; sql.ErrNoRows if there is none.
func (s *Store) One(ctx context.Context, query string, args []any, dest ...any) error {
	return s.one(ctx, query, args, dest...)
}

// Submitted queues statements, which are kept together or not at all, and
// returns at once; done is called when that is decided, as with Submit.
func (s *Store) Submitted(write func(exec func(query string, args ...any)), done func(error)) {
	s.submit(job{write: func(t *tx) { write(t.exec) }, done: done})
}

// Tx is a transaction.
type Tx struct {
	d   *dialect
	tx  *sql.Tx
	ctx context.Context //nolint:containedctx // a transaction is one call
}

// Exec runs a statement and gives how many rows it changed.
func (t *Tx) Exec(query string, args ...any) (int64, error) {
	query, args = t.d.bind(query, args)
	res, err := t.tx.ExecContext(t.ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// One reads the first row of a query; sql.ErrNoRows if there is none.
func (t *Tx) One(query string, args []any, dest ...any) error {
	query, args = t.d.bind(query, args)
	err := t.tx.QueryRowContext(t.ctx, query, args...).Scan(dest...)
	if t.d.postgres {
		readText(dest)
	}
	return err
}

// Transact runs fn in a transaction, which is committed unless fn fails. fn must
// not wait for anything else. With Postgres it is not tried again.
func (s *Store) Transact(ctx context.Context, fn func(*Tx) error) error {
	return s.Write(ctx, func(ctx context.Context, tx *sql.Tx) error { return fn(&Tx{s.d, tx, ctx}) })
}
