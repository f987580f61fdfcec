package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/caesarion/caesarion/internal/errdefs"
)

//go:embed migrations
var migrations embed.FS

// Options configures a Store. The zero value is fit for use. All but Logger
// concern Postgres only.
type Options struct {
	Logger    *slog.Logger  // default: discard
	Replica   string        // what is written of a session is refused unless this replica owns it; empty: nobody owns sessions
	NoMigrate bool          // a database of an older version is an error
	RetryFor  time.Duration // a database that is away is waited for so long before writes fail; default 30 s
	BlobsFor  time.Duration // bytes of files that nobody names stay for so long after they came; default 1 h
}

func (o *Options) setDefaults() {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.RetryFor <= 0 {
		o.RetryFor = 30 * time.Second
	}
	if o.BlobsFor <= 0 {
		o.BlobsFor = time.Hour
	}
}

// Store is one open database.
type Store struct {
	d      *dialect
	opts   Options
	log    *slog.Logger
	writer writer
	read   *sql.DB
	db     *sql.DB         // Postgres only: for other writes than the writer's
	bytes  *sql.DB         // Postgres only: for the bytes of files, which nothing else shall wait for
	config *pgx.ConnConfig // Postgres only

	mu     sync.Mutex
	queue  []job
	closed bool
	wake   chan struct{} // has room for one: somebody queued
	ended  chan struct{} // closed when the writer has returned
}

// ErrClosed is what a closed Store answers.
var ErrClosed = errdefs.New(errdefs.ErrUnavailable, "server-stopping", "The server is stopping.").
	WithHint("Try again in a few seconds.")

func newStore(d *dialect, opts Options) *Store {
	return &Store{d: d, opts: opts, log: opts.Logger, wake: make(chan struct{}, 1), ended: make(chan struct{})}
}

// DB gives a pool of connections to the Postgres database, for what other
// packages keep in tables of their own; nil with SQLite. Close closes it.
func (s *Store) DB() *sql.DB { return s.db }

// errNewer says that a later version of the program wrote the database.
type errNewer struct{ got, known int64 }

func (e *errNewer) Error() string {
	return fmt.Sprintf("its version is %d, and this program knows up to %d", e.got, e.known)
}

// migrationsOf gives the migrations of a database, and the version that the
// last of them makes.
func migrationsOf(d goose.Dialect, db *sql.DB) (p *goose.Provider, last int64, err error) {
	folder := "migrations/sqlite"
	if d == goose.DialectPostgres {
		folder = "migrations/postgres"
	}
	files, err := fs.Sub(migrations, folder)
	if err != nil {
		return nil, 0, err
	}
	if p, err = goose.NewProvider(d, db, files); err != nil {
		return nil, 0, err
	}
	sources := p.ListSources()
	return p, sources[len(sources)-1].Version, nil
}

// migrate brings a database up to this version.
func migrate(ctx context.Context, d goose.Dialect, db *sql.DB) error {
	p, last, err := migrationsOf(d, db)
	if err != nil {
		return err
	}
	current, err := p.GetDBVersion(ctx)
	if err != nil {
		return err
	}
	if current > last {
		return &errNewer{current, last}
	}
	_, err = p.Up(ctx)
	return err
}

// explainWrite gives a failed write a kind and a sentence.
func explainWrite(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*errdefs.Error](err); ok {
		return err
	}
	if se, ok := errors.AsType[*sqlite.Error](err); ok && se.Code()&0xff == sqlite3.SQLITE_FULL {
		return errdefs.New(errdefs.ErrUnavailable, "host-disk-full", "The server's disk is full, so nothing more can be kept.").
			WithHint("Free space on the disk of the data directory.").WithCause(err)
	}
	if sqlState(err) == stateDiskFull {
		return errdefs.New(errdefs.ErrUnavailable, "host-disk-full", "The disk of the database server is full, so nothing more can be kept.").
			WithHint("Free space on the disk of the database server.").WithCause(err)
	}
	e := errdefs.New(errdefs.ErrUnavailable, "store-failed", "The server could not keep this.").
		WithHint("The server's log has the reason.").WithCause(err)
	if isPassing(err) {
		return e.WithHint(hintDatabaseDown)
	}
	return e
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
	s.writer.hurry()
	close(s.wake)
	<-s.ended
	return s.closeDatabases()
}

func (s *Store) closeDatabases() error {
	var errs []error
	if s.writer != nil {
		errs = append(errs, s.writer.close())
	}
	for _, db := range []*sql.DB{s.read, s.db, s.bytes} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}
