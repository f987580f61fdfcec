package store

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Codes of Postgres (SQLSTATE), and two of our own from caesarion_begin.
//
// Source: PostgreSQL's manual, appendix A.
const (
	stateMoved  = "CS001"
	stateGiveUp = "CS002"

	stateDiskFull          = "53100"
	stateUndefinedTable    = "42P01"
	stateReadOnly          = "25006"
	stateCompletionUnknown = "40003"
	stateCachedPlan        = "0A000" // "cached plan must not change result type": somebody has migrated
	stateNoStatement       = "26000" // a pooler gave another connection
	stateCanceled          = "57014"
	stateLockTimeout       = "55P03"
	stateNoDatabase        = "3D000"
	stateNoPrivilege       = "42501"
)

// codeMoved is the code of a write that was refused because another replica
// owns the session.
const codeMoved = "session-moved"

func errMoved() error {
	return errdefs.New(errdefs.ErrUnavailable, codeMoved, "Another replica of the server has this session now.").WithHint("Try again.")
}

// sqlState gives the code of an error of Postgres; "" if it is none.
func sqlState(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Code
	}
	return ""
}

// isPassing reports whether a failure of Postgres may be over in moments: the
// connection is lost, the server starts or stops or is full, or two
// transactions were in each other's way.
func isPassing(err error) bool {
	if err == nil {
		return false
	}
	if _, ours := errors.AsType[*errdefs.Error](err); ours {
		return false
	}
	if code := sqlState(err); code != "" {
		switch code {
		case stateReadOnly, stateCachedPlan, stateNoStatement, stateLockTimeout, stateGiveUp:
			return true
		case stateDiskFull:
			return false
		}
		switch code[:2] {
		case "08", "40", "53", "57": // connection, rollback, resources, operator
			return true
		}
		return false
	}
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, net.ErrClosed) || errors.Is(err, pgconn.ErrConnClosed) || pgconn.SafeToRetry(err)
}

// explainPostgres says what to do about a database that can't be used. It
// never tells the password.
func explainPostgres(cfg *pgx.ConnConfig, err error) error {
	if err == nil {
		return nil
	}
	where := place(cfg)
	name := fmt.Sprintf("The database %q at %s", cfg.Database, where)
	if newer, ok := errors.AsType[*errNewer](err); ok {
		return errdefs.New(errdefs.ErrUnsupported, "store-newer", "%s is of a newer Caesarion: %v.", name, newer).
			WithHint("Start the newer program again; an older one needs a backup of before.")
	}
	if older, ok := errors.AsType[*errOlder](err); ok {
		return errdefs.New(errdefs.ErrUnavailable, "store-older", "%s has not been brought up to date: %v.", name, older).
			WithHint("Run 'caesarion migrate' with the same database.")
	}
	if unfit, ok := errors.AsType[*errServer](err); ok {
		return errdefs.New(errdefs.ErrUnsupported, unfit.code, "%s %s.", name, unfit.what).WithHint("%s", unfit.hint)
	}
	if e := explainLogin(cfg, where, err); e != nil {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case certificate, record:
		return errdefs.New(errdefs.ErrUnavailable, "store-tls", "The database server at %s has no certificate that can be trusted.", where).
			WithHint("Name the authority that signed it: sslrootcert=FILE in the URL, with sslmode=verify-full.").WithCause(err)
	case isPassing(err), errors.Is(err, context.DeadlineExceeded):
		return errdefs.New(errdefs.ErrUnavailable, "store-unreachable", "The database server at %s can't be reached: %s.", where, reason(err)).
			WithHint("Check that it runs, and host, port and sslmode of the database's URL.").WithCause(err)
	}
	return fmt.Errorf("store: open the database %q at %s: %w", cfg.Database, where, err)
}

// explainLogin explains what the server itself refuses; nil if it does not.
func explainLogin(cfg *pgx.ConnConfig, where string, err error) error {
	code := sqlState(err)
	switch {
	case strings.HasPrefix(code, "28"):
		return errdefs.New(errdefs.ErrUnavailable, "store-login-refused", "The database server at %s refuses the user %q.", where, cfg.User).
			WithHint("Check user and password of the database's URL, and the server's pg_hba.conf.").WithCause(err)
	case code == stateNoDatabase:
		return errdefs.New(errdefs.ErrUnavailable, "store-missing", "The database server at %s has no database %q.", where, cfg.Database).
			WithHint("Make it: 'createdb --owner=%s %s'.", cfg.User, cfg.Database).WithCause(err)
	case code == stateNoPrivilege:
		return errdefs.New(errdefs.ErrUnavailable, "store-forbidden", "The user %q may not do what is needed in the database %q at %s.", cfg.User, cfg.Database, where).
			WithHint("Make it the owner: 'ALTER DATABASE %s OWNER TO %s'.", cfg.Database, cfg.User).WithCause(err)
	}
	return nil
}

// place gives host and port for people.
func place(cfg *pgx.ConnConfig) string {
	if strings.HasPrefix(cfg.Host, "/") {
		return cfg.Host
	}
	return net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
}

// reason gives the innermost words of a failure.
func reason(err error) string {
	if pe, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pe.Message
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	for {
		var next error
		switch e := err.(type) { //nolint:errorlint // it is taken apart here
		case interface{ Unwrap() error }:
			next = e.Unwrap()
		case interface{ Unwrap() []error }:
			if list := e.Unwrap(); len(list) > 0 {
				next = list[0]
			}
		}
		if next == nil {
			return err.Error()
		}
		err = next
	}
}
