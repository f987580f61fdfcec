package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Reads of Postgres are tried again when the connection is lost: a server that
// restarts, or another that takes over, is back in moments.
const (
	readRetryFor = 5 * time.Second
	// readTimeout bounds one query, so that a server that has gone without a
	// word is noticed.
	readTimeout = 30 * time.Second
)

// collect reads all rows of a query.
func collect[T any](ctx context.Context, s *Store, read func(scan func(...any) error) (T, error), query string, args ...any) ([]T, error) {
	var list []T
	err := s.query(ctx, func(rows *sql.Rows) (bool, error) {
		v, err := read(func(dest ...any) error { return s.scan(rows.Scan, dest) })
		if err == nil {
			list = append(list, v)
		}
		return true, err
	}, func() { list = nil }, query, args...)
	return list, err
}

// one reads the only row of a query; sql.ErrNoRows if there is none.
func (s *Store) one(ctx context.Context, query string, args []any, dest ...any) error {
	found := false
	err := s.query(ctx, func(rows *sql.Rows) (bool, error) {
		found = true
		return false, s.scan(rows.Scan, dest)
	}, func() {}, query, args...)
	if err == nil && !found {
		err = sql.ErrNoRows
	}
	return err
}

func (s *Store) scan(scan func(...any) error, dest []any) error {
	err := scan(dest...)
	if s.d.postgres {
		readText(dest)
	}
	return err
}

// query runs a query and gives its rows to read, which says whether it wants
// more; again is called before it all begins anew.
func (s *Store) query(ctx context.Context, read func(*sql.Rows) (bool, error), again func(), query string, args ...any) error {
	query, args = s.d.bind(query, args)
	return explainRead(s.retry(ctx, readRetryFor, again, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		rows, err := s.read.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for more := true; more && rows.Next(); {
			if more, err = read(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	}))
}

// retry does something with the database that may be done twice, again when
// the connection was lost. What takes long bounds its steps itself.
func (s *Store) retry(ctx context.Context, limit time.Duration, again func(), do func(context.Context) error) error {
	if !s.d.postgres {
		return do(ctx)
	}
	start, wait := time.Now(), firstWait
	for {
		err := do(ctx)
		if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			return errdefs.New(errdefs.ErrUnavailable, "store-failed", "The database does not answer.").WithHint(hintDatabaseDown).WithCause(err)
		}
		if err == nil || ctx.Err() != nil || !isPassing(err) || time.Since(start) > limit {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
		wait = min(2*wait, longestWait)
		again()
	}
}

func explainRead(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, sql.ErrNoRows) {
		return err
	}
	if _, ok := errors.AsType[*errdefs.Error](err); ok {
		return err
	}
	e := errdefs.New(errdefs.ErrUnavailable, "store-failed", "The server could not read its database.").
		WithHint("The server's log has the reason.").WithCause(err)
	if isPassing(err) {
		return e.WithHint(hintDatabaseDown)
	}
	return e
}

// hintDatabaseDown is for callers who can do nothing but wait.
const hintDatabaseDown = "Try again in some seconds: the database may be restarting. The server's log has the reason."
