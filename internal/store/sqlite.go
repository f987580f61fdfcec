package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Open opens the database in a file, makes it if need be, and brings it up to
// this version. Only one process may have it open.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	opts.setDefaults()
	// Made here and not by SQLite, so that nobody else on the machine reads it.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, errdefs.New(errdefs.ErrUnavailable, "store-unusable", "The database %s can't be opened: %v", path, err).
			WithHint("The server needs to read and write it and the folder it is in.")
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s := newStore(sqliteDialect, opts)
	if err := s.openSQLite(ctx, path); err != nil {
		return nil, errors.Join(explainOpen(path, err), s.closeDatabases())
	}
	go s.run()
	return s, nil
}

func (s *Store) openSQLite(ctx context.Context, path string) error {
	write, err := sql.Open("sqlite", dsn(path, false))
	if err != nil {
		return err
	}
	s.writer = &sqliteWriter{write}
	write.SetMaxOpenConns(1)
	if err := migrate(ctx, goose.DialectSQLite3, write); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", dsn(path, true)); err != nil {
		return err
	}
	s.read.SetMaxOpenConns(4)
	return s.read.PingContext(ctx)
}

// dsn gives the address of the database. Foreign keys are off unless asked
// for, on each connection.
func dsn(path string, readOnly bool) string {
	q := url.Values{"_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(1)",
		"temp_store(MEMORY)", "cache_size(-8192)", "journal_size_limit(67108864)",
	}}
	if readOnly {
		q.Add("_pragma", "query_only(1)")
	} else {
		q.Set("_txlock", "immediate")
	}
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: q.Encode()}
	if !filepath.IsAbs(path) {
		u.Path, u.Opaque = "", filepath.ToSlash(path)
	}
	return u.String()
}

// explainOpen says what to do about a database that can't be used.
func explainOpen(path string, err error) error {
	if newer, ok := errors.AsType[*errNewer](err); ok {
		return errdefs.New(errdefs.ErrUnsupported, "store-newer", "The database %s is of a newer Caesarion: %v.", path, newer).
			WithHint("Start the newer program again, or move the file away to begin without its sessions.")
	}
	if se, ok := errors.AsType[*sqlite.Error](err); ok {
		switch se.Code() & 0xff {
		case sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT:
			return errdefs.New(errdefs.ErrUnavailable, "store-corrupt", "The database %s is damaged.", path).
				WithHint("Put back a copy of it, or save what is readable with 'sqlite3 %[1]s .recover'; moved away together with its -wal and -shm files, the server begins a new one.", path).WithCause(err)
		case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
			return errdefs.New(errdefs.ErrUnavailable, "store-unusable", "The database %s can't be opened.", path).
				WithHint("The server needs to read and write it and the folder it is in.").WithCause(err)
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			return errdefs.New(errdefs.ErrUnavailable, "store-locked", "The database %s is used by another program.", path).
				WithHint("End that program; 'fuser %s' shows it.", path).WithCause(err)
		}
	}
	return fmt.Errorf("store: open %s: %w", path, err)
}

// sqliteWriter writes on the one connection that may.
type sqliteWriter struct{ db *sql.DB }

func (w *sqliteWriter) close() error { return w.db.Close() }

func (*sqliteWriter) hurry() {}

func (w *sqliteWriter) transact(jobs []job, results []error) error {
	ctx := context.Background() // a write is never given up half-way
	btx, err := w.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = btx.Rollback() }() // after Commit it does nothing
	p := prepared{btx, map[string]*sql.Stmt{}}
	for i, j := range jobs {
		if len(jobs) == 1 { // then the transaction is the savepoint
			if results[0] = p.run(ctx, j); results[0] != nil {
				return nil
			}
			break
		}
		if _, err := btx.ExecContext(ctx, "SAVEPOINT job"); err != nil {
			return err
		}
		if results[i] = p.run(ctx, j); results[i] != nil {
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

// prepared has the statements of a transaction: a burst of events runs the
// same one many times.
type prepared struct {
	*sql.Tx
	stmts map[string]*sql.Stmt
}

func (p *prepared) run(ctx context.Context, j job) error {
	if j.raw != nil {
		return j.raw(ctx, p.Tx)
	}
	for _, s := range j.statements(sqliteDialect) {
		stmt, ok := p.stmts[s.query]
		if !ok {
			var err error
			if stmt, err = p.PrepareContext(ctx, s.query); err != nil {
				return err
			}
			p.stmts[s.query] = stmt
		}
		if _, err := stmt.ExecContext(ctx, s.args...); err != nil {
			return err
		}
	}
	return nil
}
