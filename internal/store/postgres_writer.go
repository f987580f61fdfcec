package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	// The first try of a transaction may take attemptTimeout, so that a server
	// that has gone without a word is noticed; later ones more, as it may only be
	// slow.
	attemptTimeout    = 10 * time.Second
	maxAttemptTimeout = 2 * time.Minute
	// maxAttempt is how many bytes a transaction takes, if it has several jobs.
	maxAttempt  = 16 << 20
	firstWait   = 20 * time.Millisecond
	longestWait = time.Second
	// closingFor is how long a store that closes waits for a database that is away.
	closingFor = 5 * time.Second
)

// postgresWriter writes on a connection of its own. All of a transaction goes
// out at once, from its begin to its commit, so that it costs one round trip
// however many jobs it has.
//
// Each attempt has a number, and is committed only if the writer's row in the
// table writers has a smaller one. When the connection is lost nobody knows
// whether the last attempt was committed, or still will be. The next thing
// done is to raise the number in the row: then it can't be any more, and the
// row tells whether it was. So a batch is tried again only when it is certain
// that it was not kept, and is never kept twice.
type postgresWriter struct {
	config   *pgx.ConnConfig
	id       string // of the writer's row
	replica  string
	retryFor time.Duration
	log      *slog.Logger

	conn      *pgx.Conn
	attempt   int64     // number of the last attempt
	unknown   int64     // attempt of which nobody knows whether it was committed; 0: none
	downSince time.Time // zero: the last attempt did not fail for reasons that pass

	ctx  context.Context //nolint:containedctx // ends when a closing store has waited for long enough
	stop context.CancelFunc
}

func newPostgresWriter(config *pgx.ConnConfig, opts Options) *postgresWriter {
	w := &postgresWriter{config: config.Copy(), id: newID(), replica: opts.Replica, retryFor: opts.RetryFor, log: opts.Logger}
	w.config.RuntimeParams["application_name"] = w.applicationName()
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// applicationName tells the writer's connections from all others.
func (w *postgresWriter) applicationName() string { return "caesarion writer " + w.id }

func (w *postgresWriter) hurry() { time.AfterFunc(closingFor, w.stop) }

func (w *postgresWriter) close() error {
	defer w.stop()
	if w.conn == nil || w.conn.IsClosed() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closingFor)
	defer cancel()
	if w.unknown == 0 {
		_, _ = w.conn.Exec(ctx, `DELETE FROM writers WHERE id=$1`, w.id) // else it goes after some days
	}
	_ = w.conn.Close(ctx) // all is kept
	return nil
}

// The ways in which an attempt can fail.
type (
	// errJobs says that some jobs can't be written and nothing was.
	errJobs struct {
		jobs []int
		err  error
	}
	// errPassing says that nothing was written, and that trying again may help.
	errPassing struct{ err error }
	// errUnknown says that the connection was lost.
	errUnknown struct{ err error }
)

func (e *errJobs) Error() string    { return e.err.Error() }
func (e *errPassing) Error() string { return e.err.Error() }
func (e *errUnknown) Error() string { return e.err.Error() }
func (e *errJobs) Unwrap() error    { return e.err }
func (e *errPassing) Unwrap() error { return e.err }
func (e *errUnknown) Unwrap() error { return e.err }

func (w *postgresWriter) transact(jobs []job, results []error) error {
	var parts []part
	size := 0
	flush := func() {
		if err := w.write(parts, results); err != nil {
			for _, p := range parts {
				results[p.index] = errors.Join(results[p.index], err)
			}
		}
		parts, size = nil, 0
	}
	for i := range jobs {
		p := part{index: i, owner: jobs[i].owner, stmts: jobs[i].statements(postgresDialect)}
		if n := p.size(); size > 0 && size+n > maxAttempt {
			flush()
			size = n
		} else {
			size += n
		}
		parts = append(parts, p)
	}
	flush()
	return nil
}

// write makes one transaction of the parts, and tries again while that is of
// use. Parts that can't be written get their error in results; an error means
// that none of the others is kept.
func (w *postgresWriter) write(parts []part, results []error) error {
	mine := false // the unknown attempt is one of these parts
	wait, timeout := firstWait, attemptTimeout
	parts = slices.Clone(parts)
	for tries := 1; len(parts) > 0; tries++ {
		kept, err := w.try(parts, mine, timeout)
		if kept {
			w.up()
			return nil
		}
		var refused *errJobs
		switch {
		case errors.As(err, &refused):
			for _, i := range refused.jobs {
				results[i] = refused.err
			}
			left := parts[:0]
			for _, p := range parts {
				if results[p.index] == nil {
					left = append(left, p)
				}
			}
			parts = left
			continue
		case !isPassingAttempt(err):
			return err
		}
		if _, lost := errors.AsType[*errUnknown](err); lost {
			mine = true
		}
		if w.downSince.IsZero() {
			w.downSince = time.Now()
			w.log.Warn("the database can't be written just now, and is tried again", "err", err)
		}
		if time.Since(w.downSince) > w.retryFor && (tries > 1 || !mine) || w.ctx.Err() != nil {
			return err
		}
		select {
		case <-w.ctx.Done():
		case <-time.After(wait/2 + rand.N(wait)): //nolint:gosec // so that many don't come at once; nothing secret
		}
		wait, timeout = min(2*wait, longestWait), min(2*timeout, maxAttemptTimeout)
	}
	return nil
}

func isPassingAttempt(err error) bool {
	_, passing := errors.AsType[*errPassing](err)
	_, unknown := errors.AsType[*errUnknown](err)
	return passing || unknown
}

// up notes that the database can be written.
func (w *postgresWriter) up() {
	if !w.downSince.IsZero() {
		w.log.Info("the database can be written again", "duration", time.Since(w.downSince))
		w.downSince = time.Time{}
	}
}

// part is a job in an attempt.
type part struct {
	index int // of the job
	owner string
	stmts []statement
}

// size gives about how many bytes the values have.
func (p *part) size() (n int) {
	for _, s := range p.stmts {
		for _, a := range s.args {
			switch v := a.(type) {
			case []byte:
				n += len(v)
			case string:
				n += len(v)
			case [][]byte:
				for _, b := range v {
					n += len(b)
				}
			}
		}
	}
	return n
}

// try makes one attempt. It reports whether the parts are kept: by it, or by
// the attempt before, if that was theirs (mine) and its end was unknown.
func (w *postgresWriter) try(parts []part, mine bool, timeout time.Duration) (kept bool, err error) {
	ctx, cancel := context.WithTimeout(w.ctx, timeout)
	defer cancel()
	if err := w.connect(ctx); err != nil {
		w.drop()
		return false, &errPassing{err}
	}
	if w.unknown != 0 {
		committed, err := w.resolve(ctx)
		if err != nil {
			w.drop()
			return false, &errPassing{err}
		}
		if committed && mine {
			return true, nil
		}
	}
	w.attempt++
	err = w.send(ctx, parts)
	if err == nil {
		return true, nil
	}
	if _, lost := errors.AsType[*errUnknown](err); lost {
		w.unknown = w.attempt
		w.drop()
		return false, err
	}
	if w.conn != nil && !w.conn.IsClosed() && w.conn.PgConn().TxStatus() != 'I' {
		if _, e := w.conn.Exec(ctx, "rollback"); e != nil {
			w.drop() // which rolls back, too
		}
	}
	return false, err
}

func (w *postgresWriter) drop() {
	if w.conn != nil {
		_ = w.conn.PgConn().Conn().Close() // not politely: the server may not answer
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = w.conn.Close(ctx) // it is lost already
		w.conn = nil
	}
}

// connect connects unless it is. The writer's row is there afterwards.
func (w *postgresWriter) connect(ctx context.Context) error {
	if w.conn != nil && !w.conn.IsClosed() {
		return nil
	}
	conn, err := pgx.ConnectConfig(ctx, w.config)
	if err != nil {
		return err
	}
	w.conn = conn
	if w.attempt > 0 {
		// What the connection before still holds would be waited for. Only the
		// server's own doubts can keep it from ending; then we wait.
		_, _ = conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name=$1 AND pid<>pg_backend_pid()`, w.applicationName())
	}
	_, err = conn.Exec(ctx, `INSERT INTO writers (id, last, kept, seen_at) VALUES ($1, $2, 0, now()) ON CONFLICT (id) DO NOTHING`, w.id, w.attempt)
	if code := sqlState(err); code != "" && !isPassing(err) {
		return fmt.Errorf("store: make the writer's row: %w", err)
	}
	return err
}

// resolve makes sure that the unknown attempt can't be committed any more, and
// tells whether it was.
func (w *postgresWriter) resolve(ctx context.Context) (committed bool, err error) {
	var kept int64
	if err := w.conn.QueryRow(ctx, `UPDATE writers SET last=greatest(last, $2), seen_at=now() WHERE id=$1 RETURNING kept`, w.id, w.unknown).Scan(&kept); err != nil {
		return false, err
	}
	committed = kept == w.unknown
	w.log.Info("the end of a transaction was not known, and is now", "committed", committed)
	w.unknown = 0
	return committed, nil
}

// send makes one transaction of the parts.
func (w *postgresWriter) send(ctx context.Context, parts []part) error {
	owners := []string{}
	if w.replica != "" {
		seen := map[string]bool{"": true}
		for _, p := range parts {
			if !seen[p.owner] {
				seen[p.owner] = true
				owners = append(owners, toText(p.owner))
			}
		}
	}
	b := &pgx.Batch{}
	b.Queue("begin")
	b.Queue("SELECT caesarion_begin($1, $2, $3, $4)", w.id, w.attempt, w.replica, owners)
	of := []int{-1, -1} // the part of each statement
	for i, p := range parts {
		for _, s := range p.stmts {
			b.Queue(s.query, s.args...)
			of = append(of, i)
		}
	}
	b.Queue("commit")
	of = append(of, -1)
	results := w.conn.SendBatch(ctx, b)
	for i := range of {
		tag, err := results.Exec()
		if err == nil && i == len(of)-1 && tag.String() != "COMMIT" {
			err = fmt.Errorf("store: the server answered %q to a commit", tag)
		}
		if err != nil {
			_ = results.Close() // with the same error
			return w.explain(err, parts, of[i])
		}
	}
	if err := results.Close(); err != nil && w.conn.IsClosed() {
		w.drop() // it is committed all the same
	}
	return nil
}

// explain says what a failed attempt means. at is the part whose statement
// failed; -1: none.
func (w *postgresWriter) explain(err error, parts []part, at int) error {
	pe, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || w.conn.IsClosed() {
		return &errUnknown{err}
	}
	switch pe.Code {
	case stateMoved:
		var moved []string
		if e := json.Unmarshal([]byte(pe.Detail), &moved); e != nil {
			return errors.Join(err, e)
		}
		gone := map[string]bool{}
		for _, owner := range moved {
			gone[owner] = true
		}
		var jobs []int
		for _, p := range parts {
			if p.owner != "" && gone[toText(p.owner)] {
				jobs = append(jobs, p.index)
			}
		}
		if len(jobs) == 0 {
			return err
		}
		return &errJobs{jobs, errMoved()}
	case stateCompletionUnknown:
		return &errUnknown{err}
	case stateGiveUp, stateReadOnly, stateCachedPlan, stateNoStatement:
		w.drop()
		return &errPassing{err}
	case stateDiskFull:
		return err
	}
	switch pe.Code[:2] {
	case "08", "57":
		if pe.Code == stateCanceled {
			return &errPassing{err}
		}
		return &errUnknown{err}
	case "40", "53":
		return &errPassing{err}
	case "42", "58", "XX":
		return err
	}
	if pe.Code == stateLockTimeout {
		return &errPassing{err}
	}
	if at < 0 {
		return err
	}
	return &errJobs{[]int{parts[at].index}, err}
}
