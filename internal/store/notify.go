package store

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// maxNotice is what Postgres takes: less than 8,000 bytes.
const maxNotice = 7999

// listenCheck is after how long of silence a listener asks whether the server
// is still there.
const listenCheck = 20 * time.Second

// Notify tells all processes that listen to a channel, this one too. Who does
// not listen just now never hears of it. With SQLite there is nobody else, and
// it does nothing.
func (s *Store) Notify(ctx context.Context, channel, payload string) error {
	if !s.d.postgres {
		return nil
	}
	payload = toText(payload)
	if len(payload) > maxNotice {
		return errdefs.New(errdefs.ErrTooLarge, "notice-too-large", "A notice has %d bytes, and may have %d.", len(payload), maxNotice).WithHint("Tell what changed, not how.")
	}
	return s.retry(ctx, readRetryFor, func() {}, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		_, err := s.db.ExecContext(ctx, `SELECT pg_notify($1, $2)`, channel, payload)
		return explainRead(err)
	})
}

// Listen calls fn with what is told on a channel, until ctx ends; then it
// returns its cause. fn is called with "" at first and each time the connection
// was lost: what was told meanwhile is not known. It must not wait. With SQLite
// there is nobody to hear.
func (s *Store) Listen(ctx context.Context, channel string, fn func(payload string)) error {
	wait := firstWait
	for s.d.postgres && ctx.Err() == nil {
		start := time.Now()
		err := s.listen(ctx, channel, fn)
		if ctx.Err() != nil {
			break
		}
		if time.Since(start) > time.Minute {
			wait = firstWait
		}
		s.log.Warn("the database does not tell what others do just now, and is asked again", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, longestWait)
	}
	<-ctx.Done()
	return context.Cause(ctx)
}

func (s *Store) listen(ctx context.Context, channel string, fn func(string)) error {
	conn, err := pgx.ConnectConfig(ctx, s.config)
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = conn.Close(end) // it only listens
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+pgx.Identifier{channel}.Sanitize()); err != nil {
		return err
	}
	fn("")
	for {
		quiet, cancel := context.WithTimeout(ctx, listenCheck)
		n, err := conn.WaitForNotification(quiet)
		cancel()
		switch {
		case err == nil:
			fn(fromText(n.Payload))
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, context.DeadlineExceeded):
			ask, cancel := context.WithTimeout(ctx, connectTimeout)
			err := conn.Ping(ask)
			cancel()
			if err != nil {
				return err
			}
		default:
			return err
		}
	}
}
