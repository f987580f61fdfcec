package accounts

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/store"
)

// KeyPrefix begins every API key, so that people and scanners know one.
const KeyPrefix = "csk_"

// Bounds of keys.
const (
	maxKeys       = 100  // of one user in one organisation, those that are over not counted
	maxKeysADay   = 1000 // that are made, those that are over too: they stay in the list for some time
	maxKeyLife    = 5 * 366 * 24 * time.Hour
	DefaultKeyFor = 90 * 24 * time.Hour // when nothing is said of their end
	maxOverlap    = 30 * 24 * time.Hour
)

// Key is an API key, without its secret.
type Key struct {
	ID         string // csk_…, the first part of it
	User, Org  string
	Email      string // of the user
	Name       string
	Scopes     []string // nil: all
	CreatedAt  time.Time
	ExpiresAt  time.Time // zero: never
	RevokedAt  time.Time // zero: it is not
	LastUsedAt time.Time // zero: never; exact to a minute
}

// NewKey is what a key is made of.
type NewKey struct {
	Name   string
	Scopes []string      // nil: all that its maker has
	Life   time.Duration // 0: DefaultKeyFor; negative: for ever
}

func errNoKey(id string) error {
	return errdefs.New(errdefs.ErrNotFound, "key-not-found", "There is no API key %.80q.", id).WithHint("GET /v1/keys lists them.")
}

// CreateKey makes a key for who asks, and gives its text, which nobody sees
// again.
func (s *Service) CreateKey(ctx context.Context, who identity.Principal, in NewKey) (Key, string, error) {
	if who.User == "" || who.Org == "" {
		return Key{}, "", errdefs.New(errdefs.ErrConflict, "no-user", "A key belongs to a user, and you are signed in as none.").
			WithHint("Sign in as a user; an operator makes users with POST /v1/users.")
	}
	name, err := cleanName("key", in.Name)
	if err != nil {
		return Key{}, "", err
	}
	if in.Scopes == nil {
		in.Scopes = who.Scopes
	}
	if err := identity.CheckScopes(in.Scopes, who.Scopes); err != nil {
		return Key{}, "", err
	}
	if in.Scopes != nil && len(in.Scopes) == 0 {
		return Key{}, "", errInvalid("scopes-empty", "A key without any scope can do nothing.").WithHint("Name some, or leave scopes out for all.")
	}
	k := Key{User: who.User, Org: who.Org, Name: name, Scopes: in.Scopes, CreatedAt: s.now()}
	switch {
	case in.Life == 0:
		k.ExpiresAt = k.CreatedAt.Add(DefaultKeyFor)
	case in.Life > maxKeyLife:
		return Key{}, "", errInvalid("key-life-too-long", "A key can't be valid for so long.").WithHint("Take up to 5 years, or none for ever.")
	case in.Life > 0:
		k.ExpiresAt = k.CreatedAt.Add(in.Life)
	}
	return s.insertKey(ctx, k, func(t *store.Tx, k *Key) error { return mayMake(t, who, k, in.Life != 0) })
}

var errOutlives = errdefs.New(errdefs.ErrForbidden, "key-outlives-maker", "The key would be valid for longer than the one it is made with.").
	WithHint("Give it a shorter life, or sign in to make it.")

// mayMake checks, in the transaction that makes a key, that its maker still may:
// he was believed for some seconds. It bounds the key's end by that of the key
// that makes it; one that was asked for is refused instead.
func mayMake(t *store.Tx, who identity.Principal, k *Key, asked bool) error {
	var n int64
	if err := t.One(`SELECT count(*) FROM memberships m JOIN users u ON u.id=m.user_id WHERE m.user_id=? AND m.org_id=? AND u.disabled_at=0`, []any{k.User, k.Org}, &n); err != nil {
		return err
	}
	if n == 0 {
		return errdefs.New(errdefs.ErrConflict, "key-user-gone", "The user is disabled, or no longer in the organisation.").WithHint("Let the user in first.")
	}
	switch {
	case who.Login != "":
		if err := t.One(`SELECT count(*) FROM logins WHERE id=?`, []any{who.Login}, &n); err != nil || n == 0 {
			return errors.Join(err, errSignedOut)
		}
	case who.Key != "":
		var revoked, end int64
		err := t.One(`SELECT revoked_at, expires_at FROM api_keys WHERE id=?`, []any{who.Key}, &revoked, &end)
		over := revoked != 0 || end != 0 && end <= micros(k.CreatedAt)
		switch {
		case errors.Is(err, sql.ErrNoRows) || err == nil && over:
			return errKeyBad
		case err != nil:
			return err
		case end == 0 || !k.ExpiresAt.IsZero() && micros(k.ExpiresAt) <= end:
		case asked:
			return errOutlives
		default:
			k.ExpiresAt = timeOf(end)
		}
	}
	return nil
}

// insertKey writes a key under a new id, after also, which may refuse it.
func (s *Service) insertKey(ctx context.Context, k Key, also func(*store.Tx, *Key) error) (Key, string, error) {
	k.ID = newID(KeyPrefix)
	secret := newSecret()
	err := s.store.Transact(ctx, func(t *store.Tx) error {
		if err := also(t, &k); err != nil {
			return err
		}
		var n, today int64
		if err := t.One(`SELECT coalesce(sum(CASE WHEN revoked_at=0 AND (expires_at=0 OR expires_at>?) THEN 1 ELSE 0 END), 0), coalesce(sum(CASE WHEN created_at>? THEN 1 ELSE 0 END), 0)
			FROM api_keys WHERE user_id=? AND org_id=?`, []any{micros(k.CreatedAt), micros(k.CreatedAt.Add(-24 * time.Hour)), k.User, k.Org}, &n, &today); err != nil {
			return err
		}
		if n >= maxKeys {
			return errdefs.New(errdefs.ErrExhausted, "too-many-keys", "There are %d keys, and a user can have %d.", n, maxKeys).WithHint("Revoke some that are not needed.")
		}
		if today >= maxKeysADay {
			return errdefs.New(errdefs.ErrExhausted, "too-many-keys", "%d keys were made in a day, and no more can be.", today).WithHint("Use the keys there are.")
		}
		_, err := t.Exec(`INSERT INTO api_keys (id, hash, user_id, org_id, name, scopes, created_at, expires_at, revoked_at, last_used_at) VALUES (?,?,?,?,?,?,?,?,0,0)`,
			k.ID, hashOf(secret), k.User, k.Org, k.Name, strings.Join(k.Scopes, " "), micros(k.CreatedAt), micros(k.ExpiresAt))
		return err
	})
	return k, k.ID + "_" + secret, err
}

const keyColumns = `k.id, k.user_id, k.org_id, u.email, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.last_used_at`

func scanKey(scan store.Scan, more ...any) (k Key, err error) {
	var scopes string
	var created, expires, revoked, used int64
	err = scan(append([]any{&k.ID, &k.User, &k.Org, &k.Email, &k.Name, &scopes, &created, &expires, &revoked, &used}, more...)...)
	if scopes != "" {
		k.Scopes = strings.Fields(scopes)
	}
	k.CreatedAt, k.ExpiresAt, k.RevokedAt, k.LastUsedAt = timeOf(created), timeOf(expires), timeOf(revoked), timeOf(used)
	return k, err
}

// mayKey is the condition that somebody may see or revoke a key, with its values:
// his own are his, and an admin has those of the organisation, if the key that he
// uses has the scope for that.
func mayKey(who identity.Principal, scope string) (string, []any) {
	f := who.Filter()
	switch {
	case f.All:
		return `1=1`, nil
	case who.Allow(scope) != nil:
		return `k.org_id=? AND k.user_id=?`, []any{who.Org, who.User}
	case who.Operator:
		return `1=1`, nil
	case f.User != "":
		return `k.org_id=? AND k.user_id=?`, []any{f.Org, f.User}
	}
	return `k.org_id=?`, []any{f.Org}
}

// Keys lists keys, the newest first: one's own, or with all those of everybody
// that one may see. Who has the installation's token has none, and sees all.
func (s *Service) Keys(ctx context.Context, who identity.Principal, all bool) ([]Key, error) {
	cond, args := mayKey(who, identity.ScopeAdminRead)
	if !all && who.User != "" {
		cond, args = `k.org_id=? AND k.user_id=?`, []any{who.Org, who.User}
	}
	return store.Select(ctx, s.store, func(scan store.Scan) (Key, error) { return scanKey(scan) },
		`SELECT `+keyColumns+` FROM api_keys k JOIN users u ON u.id=k.user_id WHERE `+cond+` ORDER BY k.created_at DESC, k.id`, args...)
}

// Key reads a key that one may see.
func (s *Service) Key(ctx context.Context, who identity.Principal, id string) (Key, error) {
	return s.key(ctx, who, id, identity.ScopeAdminRead)
}

func (s *Service) key(ctx context.Context, who identity.Principal, id, scope string) (Key, error) {
	cond, args := mayKey(who, scope)
	k, err := scanKey(func(dest ...any) error {
		return s.store.One(ctx, `SELECT `+keyColumns+` FROM api_keys k JOIN users u ON u.id=k.user_id WHERE k.id=? AND `+cond, append([]any{id}, args...), dest...)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return k, errNoKey(id)
	}
	return k, err
}

// RevokeKey ends a key at once.
func (s *Service) RevokeKey(ctx context.Context, who identity.Principal, id string) error {
	k, err := s.key(ctx, who, id, identity.ScopeAdminWrite)
	if err != nil {
		return err
	}
	err = s.store.Transact(ctx, func(t *store.Tx) error {
		_, err := t.Exec(`UPDATE api_keys SET revoked_at=? WHERE id=? AND revoked_at=0`, micros(s.now()), k.ID)
		return err
	})
	if err == nil {
		s.changed(ctx)
	}
	return err
}

var errKeyOver = errdefs.New(errdefs.ErrConflict, "key-over", "The key is no longer valid.").WithHint("Make a new one.")

// RotateKey makes a key with the rights of another, which stays valid for the
// overlap, so that nobody has to change both sides at the same moment.
func (s *Service) RotateKey(ctx context.Context, who identity.Principal, id string, overlap time.Duration) (Key, string, error) {
	if overlap < 0 || overlap > maxOverlap {
		return Key{}, "", errInvalid("overlap-too-long", "The old key can't stay for so long.").WithHint("Take up to 30 days.")
	}
	old, err := s.Key(ctx, who, id)
	if err != nil {
		return Key{}, "", err
	}
	if old.User != who.User { // its text is the user's alone
		return Key{}, "", errdefs.New(errdefs.ErrForbidden, "key-of-another", "This key is another user's.").WithHint("Revoke it; its user makes a new one.")
	}
	now := s.now()
	if !old.RevokedAt.IsZero() || !old.ExpiresAt.IsZero() && old.ExpiresAt.Before(now) {
		return Key{}, "", errKeyOver
	}
	if err := identity.CheckScopes(old.Scopes, who.Scopes); err != nil || old.Scopes == nil && who.Scopes != nil {
		return Key{}, "", errdefs.New(errdefs.ErrForbidden, "scope-missing", "The key has more rights than the one you use.").WithHint("Sign in, or use the key itself.")
	}
	k := Key{User: old.User, Org: old.Org, Name: old.Name, Scopes: old.Scopes, CreatedAt: now}
	if !old.ExpiresAt.IsZero() {
		k.ExpiresAt = now.Add(old.ExpiresAt.Sub(old.CreatedAt))
	}
	end := now.Add(overlap)
	k, text, err := s.insertKey(ctx, k, func(t *store.Tx, k *Key) error {
		maker := who
		if who.Key == old.ID {
			maker.Key = "" // a key that takes its own place lives on
		}
		if err := mayMake(t, maker, k, true); err != nil {
			return err
		}
		var n int64 // it may have ended since it was read
		if err := t.One(`SELECT count(*) FROM api_keys WHERE id=? AND revoked_at=0 AND (expires_at=0 OR expires_at>?)`, []any{old.ID, micros(now)}, &n); err != nil || n == 0 {
			return errors.Join(err, errKeyOver)
		}
		_, err := t.Exec(`UPDATE api_keys SET expires_at=? WHERE id=? AND (expires_at=0 OR expires_at>?)`, micros(end), old.ID, micros(end))
		return err
	})
	if err == nil {
		s.changed(ctx)
	}
	return k, text, err
}

// errKeyBad does not say what is wrong: who guesses learns nothing.
var errKeyBad = errdefs.New(errdefs.ErrUnauthenticated, "key-invalid", "The API key is not valid.").
	WithHint("It may be mistyped, expired or revoked. GET /v1/keys lists yours when you are signed in.")

// Verify says whose key it is. from is told in the audit when a key is used for
// the first time.
func (s *Service) Verify(ctx context.Context, text string, from From) (identity.Principal, error) {
	hash := sha256.Sum256([]byte(text))
	who, round, ok := s.cache.get(hash)
	now := s.opts.now()
	if !ok {
		var end time.Time
		var fresh bool
		var err error
		if who, end, fresh, err = s.readKey(ctx, text, now); err != nil {
			return identity.Principal{}, err
		}
		if fresh {
			s.firstUse(ctx, who, from)
		}
		s.cache.put(hash, round, who, end)
	}
	if used(ctx) {
		s.seen.note(who, now)
	}
	return who, nil
}

// firstUse tells, once, that a key is used, and from where.
func (s *Service) firstUse(ctx context.Context, who identity.Principal, from From) {
	var n int64
	err := s.store.Transact(context.WithoutCancel(ctx), func(t *store.Tx) (err error) {
		n, err = t.Exec(`UPDATE api_keys SET last_used_at=? WHERE id=? AND last_used_at=0`, micros(s.now()), who.Key)
		return err
	})
	if err != nil {
		s.log.Warn("the first use of a key can't be noted", "key_id", who.Key, "err", err)
	}
	if n == 1 {
		e := NewEntry(who, "use-key")
		e.Object, e.Status, e.Address = who.Key, http.StatusOK, from.Address
		s.Record(e)
	}
}

func (s *Service) readKey(ctx context.Context, text string, now time.Time) (who identity.Principal, end time.Time, fresh bool, err error) {
	rest, ok := strings.CutPrefix(text, KeyPrefix)
	id, secret, ok2 := strings.Cut(rest, "_")
	if !ok || !ok2 || len(text) > 200 {
		return who, end, false, errKeyBad
	}
	var hash []byte
	var name, role string
	var operator bool
	var disabled int64
	k, err := scanKey(func(dest ...any) error {
		return s.store.One(ctx, `SELECT `+keyColumns+`, k.hash, u.name, u.operator, u.disabled_at, m.role FROM api_keys k
			JOIN users u ON u.id=k.user_id JOIN memberships m ON m.user_id=k.user_id AND m.org_id=k.org_id WHERE k.id=?`, []any{KeyPrefix + id}, dest...)
	}, &hash, &name, &operator, &disabled, &role)
	if errors.Is(err, sql.ErrNoRows) {
		return who, end, false, errKeyBad
	}
	if err != nil {
		return who, end, false, err
	}
	good := subtle.ConstantTimeCompare(hash, hashOf(secret)) == 1
	if !good || disabled != 0 || !k.RevokedAt.IsZero() || !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt) {
		return who, end, false, errKeyBad
	}
	return identity.Principal{User: k.User, Org: k.Org, Name: name, Role: identity.Role(role), Scopes: k.Scopes, Key: k.ID, Operator: operator}, k.ExpiresAt, k.LastUsedAt.IsZero(), nil
}
