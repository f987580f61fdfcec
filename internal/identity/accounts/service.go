package accounts

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/store"
)

// Options configures a Service. The zero value is fit for use.
type Options struct {
	IdleLife time.Duration // a browser that does nothing for so long is signed out; default 7 days
	Life     time.Duration // and any after so long; default 30 days
	AuditFor time.Duration // entries of the audit stay so long; default 90 days
	CacheFor time.Duration // a verified key is believed so long at most; default 5 s
	Hash     HashOptions
	Logger   *slog.Logger // default: discard

	now func() time.Time // for tests
}

func (o *Options) setDefaults() {
	if o.IdleLife <= 0 {
		o.IdleLife = 7 * 24 * time.Hour
	}
	if o.Life <= 0 {
		o.Life = 30 * 24 * time.Hour
	}
	if o.AuditFor <= 0 {
		o.AuditFor = 90 * 24 * time.Hour
	}
	if o.CacheFor <= 0 {
		o.CacheFor = 5 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.now == nil {
		o.now = time.Now
	}
	o.Hash.setDefaults()
}

// Service has the accounts of an installation.
type Service struct {
	store    *store.Store
	opts     Options
	log      *slog.Logger
	hasher   *hasher
	throttle *throttle
	cache    cache
	seen     seen
	audit    auditQueue
	held     held

	ctx  context.Context //nolint:containedctx // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup
}

// New makes a Service on an open store.
func New(ctx context.Context, st *store.Store, opts Options) *Service {
	opts.setDefaults()
	s := &Service{store: st, opts: opts, log: opts.Logger, hasher: newHasher(opts.Hash), throttle: &throttle{st, opts.now}}
	s.cache.init(opts.CacheFor, opts.now)
	s.seen.init()
	s.audit.init(opts.now)
	s.held.init()
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.work.Go(s.janitor)
	s.work.Go(s.watch)
	s.work.Go(func() {
		_ = st.Listen(s.ctx, channel, func(string) { s.forget() }) // ends with the context only
	})
	return s
}

// Close writes what waits. The store is the caller's to close.
func (s *Service) Close() error {
	s.stop()
	s.work.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.audit.sumUp(time.Time{})
	return errors.Join(s.flushSeen(ctx), s.flushAudit(ctx))
}

// channel is where servers tell each other that rights changed.
const channel = "caesarion_identity"

// forget has everybody verified anew.
func (s *Service) forget() {
	s.cache.clear()
	s.held.poke()
}

// changed makes a change of rights felt everywhere.
func (s *Service) changed(ctx context.Context) {
	s.forget()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := s.store.Notify(ctx, channel, ""); err != nil {
		s.log.Warn("other servers can't be told that rights changed; they learn of it within seconds", "err", err)
	}
}

const (
	seenEvery  = time.Minute      // when keys and browsers were last used is written so often
	auditEvery = time.Second      // entries of the audit wait so long at most
	clearEvery = 10 * time.Minute // what is too old goes
)

// watch ends requests that outlive the rights they were made with.
func (s *Service) watch() {
	tick := time.NewTicker(recheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.held.changed:
		case <-tick.C:
		}
		s.recheck()
	}
}

// janitor writes what can wait, and removes what is too old.
func (s *Service) janitor() {
	var nextSeen, nextClear time.Time
	tick := time.NewTicker(auditEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		case <-s.audit.full:
		}
		now := s.opts.now()
		var err error
		if now.After(nextSeen) {
			err, nextSeen = s.flushSeen(s.ctx), now.Add(seenEvery)
		}
		s.audit.sumUp(now)
		err = errors.Join(err, s.flushAudit(s.ctx))
		if now.After(nextClear) {
			err, nextClear = errors.Join(err, s.clear(s.ctx, now)), now.Add(clearEvery)
		}
		if err != nil && s.ctx.Err() == nil {
			s.log.Error("accounts can't be brought up to date", "err", err)
		}
	}
}

func (s *Service) clear(ctx context.Context, now time.Time) error {
	return s.store.Transact(ctx, func(t *store.Tx) error {
		for _, q := range []struct {
			query  string
			before time.Time
		}{
			{`DELETE FROM logins WHERE expires_at < ?`, now},
			{`DELETE FROM logins WHERE seen_at < ?`, now.Add(-s.opts.IdleLife)},
			{`DELETE FROM login_links WHERE expires_at < ?`, now},
			{`DELETE FROM sign_in_tries WHERE n > 0 AND last < ?`, now.Add(-forgetAfter)},
			{`DELETE FROM sign_in_tries WHERE last < ?`, now.Add(-knownFor)},
			// Keys that are over are told as long as what was done with them.
			{`DELETE FROM api_keys WHERE revoked_at > 0 AND revoked_at < ?`, now.Add(-s.opts.AuditFor)},
			{`DELETE FROM api_keys WHERE expires_at > 0 AND expires_at < ?`, now.Add(-s.opts.AuditFor)},
			{`DELETE FROM audit WHERE at < ?`, now.Add(-s.opts.AuditFor)},
		} {
			if _, err := t.Exec(q.query, micros(q.before)); err != nil {
				return err
			}
		}
		return nil
	})
}

// newID makes an identifier: 80 random bits, which nobody meets twice.
func newID(prefix string) string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return prefix + strings.ToLower(base32.StdEncoding.EncodeToString(b[:]))
}

// newSecret makes 256 random bits as text.
func newSecret() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func timeOf(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func (s *Service) now() time.Time { return s.opts.now().UTC().Truncate(time.Microsecond) }

func errInvalid(code, format string, args ...any) *errdefs.Error {
	return errdefs.New(errdefs.ErrInvalid, code, format, args...)
}
