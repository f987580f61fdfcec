package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/caesarion/caesarion/internal/errdefs"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Options configures a Store. The zero value is fit for use.
type Options struct {
	Logger *slog.Logger // default: discard
}

// Store is one open database.
type Store struct {
	path  string
	log   *slog.Logger
	write *sql.DB // one connection, the writer's
	read  *sql.DB

	mu     sync.Mutex
	queue  []job
	closed bool
	wake   chan struct{} // has room for one: somebody queued
	ended  chan struct{} // closed when the writer has returned
}

// ErrClosed is what a closed Store answers.
var ErrClosed = errdefs.New(errdefs.ErrUnavailable, "server-stopping", "The server is stopping.").
	WithHint("Try again in a few seconds.")

// Open opens the database, makes it if need be, and brings it up to this
// version. Only one process may have it open.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	// Made here and not by SQLite, so that nobody else on the machine reads it.
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, errdefs.New(errdefs.ErrUnavailable, "store-unusable", "The database %s can't be opened: %v", path, err).
			WithHint("The server needs to read and write it and the folder it is in.")
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	s := &Store{path: path, log: opts.Logger, wake: make(chan struct{}, 1), ended: make(chan struct{})}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(explainOpen(path, err), s.closeDatabases())
	}
	go s.run()
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	var err error
	if s.write, err = sql.Open("sqlite", dsn(s.path, false)); err != nil {
		return err
	}
	s.write.SetMaxOpenConns(1)
	if err := migrate(ctx, s.write); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", dsn(s.path, true)); err != nil {
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

// errNewer says that a later version of the program wrote the database.
type errNewer struct{ got, known int64 }

func (e *errNewer) Error() string {
	return fmt.Sprintf("its version is %d, and this program knows up to %d", e.got, e.known)
}

func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files)
	if err != nil {
		return err
	}
	current, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	known := p.ListSources()
	if last := known[len(known)-1].Version; current > last {
		return &errNewer{current, last}
	}
	_, err = p.Up(ctx)
	return err
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

// explainWrite gives a failed write a kind and a sentence.
func explainWrite(err error) error {
	if se, ok := errors.AsType[*sqlite.Error](err); ok && se.Code()&0xff == sqlite3.SQLITE_FULL {
		return errdefs.New(errdefs.ErrUnavailable, "host-disk-full", "The server's disk is full, so nothing more can be kept.").
			WithHint("Free space on the disk of the data directory.").WithCause(err)
	}
	if _, ok := errors.AsType[*errdefs.Error](err); ok {
		return err
	}
	return errdefs.New(errdefs.ErrUnavailable, "store-failed", "The server could not keep this.").
		WithHint("The server's log has the reason.").WithCause(err)
}

// Close writes what is queued and closes the database.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.wake)
	<-s.ended
	return s.closeDatabases()
}

func (s *Store) closeDatabases() error {
	var errs []error
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Reader gives the pool that only reads, for queries of other files of this
// package.
func (s *Store) reader() *sql.DB { return s.read }
