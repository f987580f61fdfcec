package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// job is one thing to write; it is whole or not at all.
type job struct {
	owner string // of this session the replica must be the owner; empty: anybody may
	write func(*tx)
	raw   func(context.Context, *sql.Tx) error // instead of write; SQLite only
	done  func(error)
}

// tx gathers the statements of a job.
type tx struct {
	d     *dialect
	stmts []statement
}

type statement struct {
	query string
	args  []any
}

func (t *tx) exec(query string, args ...any) {
	query, args = t.d.bind(query, args)
	t.stmts = append(t.stmts, statement{query, args})
}

func (j *job) statements(d *dialect) []statement {
	t := &tx{d: d}
	j.write(t)
	return t.stmts
}

// writer makes transactions. It is used by one goroutine.
type writer interface {
	// transact writes jobs as one transaction. A job that fails alone gets its
	// error in results; an error means that none was kept.
	transact(jobs []job, results []error) error
	// hurry says that the store closes: what fails is not tried for long.
	hurry()
	close() error
}

// One transaction takes at most so many jobs, so that the first of many does
// not wait for all.
const maxJobs = 512

// submit queues a job. done is called once it is committed or has failed, never
// by the caller's own goroutine, which may hold locks that done needs; it must
// not wait for the Store.
func (s *Store) submit(j job) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		go j.done(ErrClosed)
		return
	}
	s.queue = append(s.queue, j)
	// Under the lock: after Close has set closed, wake is closed.
	select {
	case s.wake <- struct{}{}:
	default:
	}
	s.mu.Unlock()
}

// change queues what write gathers and returns once it is kept. If ctx ends
// while it waits, the write may still happen.
func (s *Store) change(ctx context.Context, owner string, write func(*tx)) error {
	return s.wait(ctx, job{owner: owner, write: write})
}

func (s *Store) wait(ctx context.Context, j job) error {
	result := make(chan error, 1)
	j.done = func(err error) { result <- err }
	s.submit(j)
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Write runs fn in a transaction and returns once that is committed. fn must
// only use the transaction. With SQLite it is the writer's, between others;
// with Postgres it is one of its own and is not tried again. If ctx ends while
// it waits, the write may still happen.
func (s *Store) Write(ctx context.Context, fn func(ctx context.Context, tx *sql.Tx) error) error {
	if !s.d.postgres {
		return s.wait(ctx, job{raw: fn})
	}
	s.mu.Lock()
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return ErrClosed
	}
	btx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return explainWrite(err)
	}
	defer func() { _ = btx.Rollback() }() // after Commit it does nothing
	if err := fn(ctx, btx); err != nil {
		return explainWrite(err)
	}
	return explainWrite(btx.Commit())
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
	if err := s.writer.transact(jobs, results); err != nil {
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
			_, refused := errors.AsType[*errdefs.Error](results[i])
			switch {
			case errdefs.CodeOf(results[i]) == codeMoved:
				s.log.Warn("what belongs to a session of another replica is not kept", "session_id", j.owner)
			case refused && j.raw != nil: // it was the caller's own decision
			default:
				s.log.Error("something could not be kept", "err", results[i])
			}
			results[i] = explainWrite(results[i])
		}
		j.done(results[i])
	}
}
