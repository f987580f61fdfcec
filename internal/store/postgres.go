package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"github.com/caesarion/caesarion/internal/errdefs"
)

const (
	maxReaders = 8 // connections of one process that read
	maxOthers  = 4 // and of DB
	maxBytes   = 4 // and on which bytes of files come

	connectTimeout = 10 * time.Second
	// keepAlive has the operating system ask a silent server, so that one that
	// has gone without a word is noticed within a minute.
	keepAlive = 10 * time.Second

	// oldestServer is the oldest version of Postgres that its makers still mend.
	oldestServer = 140000

	// migrateLock is the advisory lock that is held while a database is brought
	// up to a version. Locks are of one database; the number means nothing.
	migrateLock = 0x6361657361
)

// OpenPostgres opens a Postgres database by its URL and brings it up to this
// version, unless the options say otherwise. Any number of processes may have
// it open.
func OpenPostgres(ctx context.Context, url string, opts Options) (*Store, error) {
	opts.setDefaults()
	cfg, err := postgresConfig(url)
	if err != nil {
		return nil, err
	}
	s := newStore(postgresDialect, opts)
	s.config = cfg
	s.read, s.db, s.bytes = pool(cfg, maxReaders), pool(cfg, maxOthers), pool(cfg, maxBytes)
	s.writer = newPostgresWriter(cfg, opts)
	if err := s.openPostgres(ctx); err != nil {
		s.writer.hurry()
		return nil, errors.Join(explainPostgres(cfg, err), s.closeDatabases())
	}
	go s.run()
	return s, nil
}

func (s *Store) openPostgres(ctx context.Context) error {
	if err := checkServer(ctx, s.db); err != nil {
		return err
	}
	if s.opts.NoMigrate {
		return checkVersion(ctx, s.db)
	}
	if err := migratePostgres(ctx, s.db, s.log); err != nil {
		return err
	}
	// What processes left that were killed: it is asked for within a minute or never.
	_, err := s.db.ExecContext(ctx, `DELETE FROM writers WHERE seen_at < now() - interval '7 days'`)
	return err
}

// Migrate brings a Postgres database up to this version. Any number of
// processes may try at once: one does it, and the others find it done.
func Migrate(ctx context.Context, url string) error {
	cfg, err := postgresConfig(url)
	if err != nil {
		return err
	}
	db := pool(cfg, maxOthers)
	if err = checkServer(ctx, db); err == nil {
		err = migratePostgres(ctx, db, slog.New(slog.DiscardHandler))
	}
	return errors.Join(explainPostgres(cfg, err), db.Close())
}

// postgresConfig reads an URL. What is wrong with it is told without the URL:
// it has a password.
func postgresConfig(url string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errdefs.New(errdefs.ErrInvalid, "database-url-invalid", "The database's URL can't be read.").
			WithHint("It looks like postgres://user:password@host:5432/database?sslmode=verify-full; in user and password, characters such as @ : / %% are written as %%40 %%3A %%2F %%25.")
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	dialer := &net.Dialer{KeepAlive: keepAlive, Timeout: cfg.ConnectTimeout}
	cfg.DialFunc = dialer.DialContext
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "caesarion"
	}
	if cfg.ValidateConnect == nil {
		// After a failover the old server may answer, and only let read.
		cfg.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	return cfg, nil
}

func pool(cfg *pgx.ConnConfig, size int) *sql.DB {
	db := stdlib.OpenDB(*cfg.Copy())
	db.SetMaxOpenConns(size)
	db.SetMaxIdleConns(size)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db
}

// errServer says that a server is not fit, with what to do.
type errServer struct{ code, what, hint string }

func (e *errServer) Error() string { return e.what }

func checkServer(ctx context.Context, db *sql.DB) error {
	var version, encoding string
	if err := db.QueryRowContext(ctx, `SELECT current_setting('server_version_num'), current_setting('server_encoding')`).Scan(&version, &encoding); err != nil {
		return err
	}
	if n, _ := strconv.Atoi(version); n < oldestServer {
		return &errServer{"store-unsupported", fmt.Sprintf("is of PostgreSQL %d, and the server needs %d or later", n/10000, oldestServer/10000), "Use a newer PostgreSQL."}
	}
	if encoding != "UTF8" {
		return &errServer{"store-encoding", "has the encoding " + encoding + ", which can't hold what people write", "Make one with 'createdb --encoding=UTF8 --template=template0 NAME'."}
	}
	return nil
}

// errOlder says that a database waits to be migrated.
type errOlder struct{ got, want int64 }

func (e *errOlder) Error() string {
	return fmt.Sprintf("its version is %d, and this program wants %d", e.got, e.want)
}

// checkVersion looks whether the database has this version, and changes nothing.
func checkVersion(ctx context.Context, db *sql.DB) error {
	_, want, err := migrationsOf(goose.DialectPostgres, db)
	if err != nil {
		return err
	}
	var got sql.NullInt64
	err = db.QueryRowContext(ctx, `SELECT max(version_id) FROM goose_db_version WHERE is_applied`).Scan(&got)
	if sqlState(err) == stateUndefinedTable {
		err = nil
	}
	switch {
	case err != nil:
		return err
	case got.Int64 > want:
		return &errNewer{got.Int64, want}
	case got.Int64 < want:
		return &errOlder{got.Int64, want}
	}
	return nil
}

func migratePostgres(ctx context.Context, db *sql.DB, log *slog.Logger) (err error) {
	lock, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer lock.Close()
	if _, err := lock.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, int64(migrateLock)); err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
		defer cancel()
		// If it fails the connection is lost, and the lock with it.
		if _, e := lock.ExecContext(end, `SELECT pg_advisory_unlock($1)`, int64(migrateLock)); e != nil && err == nil {
			err = e
		}
	}()
	if err := checkVersion(ctx, db); err == nil {
		return indexText(ctx, db, log)
	} else if _, older := errors.AsType[*errOlder](err); !older {
		return err
	}
	if err := migrate(ctx, goose.DialectPostgres, db); err != nil {
		return err
	}
	return indexText(ctx, db, log)
}

// indexText makes searches fast if the server has the means.
func indexText(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	var there bool
	if err := db.QueryRowContext(ctx, `SELECT to_regclass('search_text') IS NOT NULL`).Scan(&there); err != nil || there {
		return err
	}
	for _, q := range []string{`CREATE EXTENSION IF NOT EXISTS pg_trgm`, `CREATE INDEX IF NOT EXISTS search_text ON search USING gin (text gin_trgm_ops)`} {
		if _, err := db.ExecContext(ctx, q); err != nil {
			if sqlState(err) == "" {
				return err
			}
			log.Warn("the database server has no extension pg_trgm, or it may not be used: searches in the text of sessions read all of it", "err", err)
			return nil
		}
	}
	return nil
}

func newID() string { return rand.Text() }
