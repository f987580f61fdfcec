package store

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// job is one thing to write; it is whole or not at all.
type job struct {
	fn   func(*tx) error
	done func(error)
}

// One transaction takes at most so many jobs, so that the first of many does
// not wait for all.
const maxJobs = 512

// submit queues a job. done is called once it is committed or has failed, never
// by the caller's own goroutine, which may hold locks that done needs; it must
// not wait for the Store.
func (s *Store) submit(fn func(*tx) error, done func(error)) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		go done(ErrClosed)
		return
	}
	s.queue = append(s.queue, job{fn, done})
	// Under the lock: after Close has set closed, wake is closed.
	select {
	case s.wake <- struct{}{}:
	default:
	}
	s.mu.Unlock()
}

// Write runs fn in a transaction of the writer and returns once that is
// committed. fn must only use the transaction. If ctx ends while it waits, the
// write may still happen.
func (s *Store) Write(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	result := make(chan error, 1)
	s.submit(func(t *tx) error { return fn(t.ctx, t.Tx) }, func(err error) { result <- err })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tx is the writer's transaction.
type tx struct {
	*sql.Tx
	ctx   context.Context //nolint:containedctx // lives as long as the transaction
	stmts map[string]*sql.Stmt
}

// exec runs a statement that is prepared once for a transaction: a burst of
// events runs the same one many times.
func (t *tx) exec(query string, args ...any) error {
	stmt, ok := t.stmts[query]
	if !ok {
		var err error
		if stmt, err = t.PrepareContext(t.ctx, query); err != nil {
			return err
		}
		t.stmts[query] = stmt
	}
	_, err := stmt.ExecContext(t.ctx, args...)
	return err
}

func (s *Store) run() {
	defer close(s.ended)
	for range s.wake {
		s.drain()
	}
	s.drain()
}

func (s *Store) drain() {
	for {
		s.mu.Lock()
		n := min(len(s.queue), maxJobs)
		jobs := s.queue[:n:n]
		s.queue = s.queue[n:]
		if len(s.queue) == 0 {
			s.queue = nil
		}
		s.mu.Unlock()
		if n == 0 {
			return
		}
		s.commit(jobs)
	}
}

// commit writes jobs as one transaction. A job that fails is undone alone.
func (s *Store) commit(jobs []job) {
	results := make([]error, len(jobs))
	start := time.Now()
	if err := s.transact(jobs, results); err != nil {
		s.log.Error("nothing can be written to the database", "err", err)
		for i := range results {
			results[i] = errors.Join(results[i], err)
		}
	}
	if d := time.Since(start); d > time.Second {
		s.log.Warn("a write to the database took long", "duration", d, "jobs", len(jobs))
	}
	for i, j := range jobs {
		if results[i] != nil {
			s.log.Error("something could not be kept", "err", results[i])
			results[i] = explainWrite(results[i])
		}
		j.done(results[i])
	}
}

func (s *Store) transact(jobs []job, results []error) error {
	ctx := context.Background() // a write is never given up half-way
	btx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	t := &tx{Tx: btx, ctx: ctx, stmts: map[string]*sql.Stmt{}}
	defer func() { _ = btx.Rollback() }() // after Commit it does nothing
	for i, j := range jobs {
		if len(jobs) == 1 { // then the transaction is the savepoint
			if results[0] = j.fn(t); results[0] != nil {
				return nil
			}
			break
		}
		if _, err := btx.ExecContext(ctx, "SAVEPOINT job"); err != nil {
			return err
		}
		if results[i] = j.fn(t); results[i] != nil {
			if _, err := btx.ExecContext(ctx, "ROLLBACK TO job"); err != nil {
				return err
			}
		}
		if _, err := btx.ExecContext(ctx, "RELEASE job"); err != nil {
			return err
		}
	}
	return btx.Commit()
}
