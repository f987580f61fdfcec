package accounts

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"errors"
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
	maxKeys       = 100 // of one user in one organisation, those that are over not counted
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
	return s.insertKey(ctx, k, nil)
}

// insertKey writes a key under a new id; also does what belongs with it.
func (s *Service) insertKey(ctx context.Context, k Key, also func(*store.Tx) error) (Key, string, error) {
	k.ID = newID(KeyPrefix)
	secret := newSecret()
	err := s.store.Transact(ctx, func(t *store.Tx) error {
		var n int64
		if err := t.One(`SELECT count(*) FROM api_keys WHERE user_id=? AND org_id=? AND revoked_at=0 AND (expires_at=0 OR expires_at>?)`, []any{k.User, k.Org, micros(k.CreatedAt)}, &n); err != nil {
			return err
		}
		if n >= maxKeys {
			return errdefs.New(errdefs.ErrExhausted, "too-many-keys", "There are %d keys, and a user can have %d.", n, maxKeys).WithHint("Revoke some that are not needed.")
		}
		if also != nil {
			if err := also(t); err != nil {
				return err
			}
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

// mayKey is the condition that somebody may see a key, with its values: his own
// are his, and an admin has those of the organisation.
func mayKey(who identity.Principal) (string, []any) {
	f := who.Filter()
	switch {
	case f.All || who.Operator:
		return `1=1`, nil
	case f.User != "":
		return `k.org_id=? AND k.user_id=?`, []any{f.Org, f.User}
	}
	return `k.org_id=?`, []any{f.Org}
}

// Keys lists keys, the newest first: one's own, or with all those of everybody
// that one may see.
func (s *Service) Keys(ctx context.Context, who identity.Principal, all bool) ([]Key, error) {
	cond, args := mayKey(who)
	if !all {
		cond, args = `k.org_id=? AND k.user_id=?`, []any{who.Org, who.User}
	}
	return store.Select(ctx, s.store, func(scan store.Scan) (Key, error) { return scanKey(scan) },
		`SELECT `+keyColumns+` FROM api_keys k JOIN users u ON u.id=k.user_id WHERE `+cond+` ORDER BY k.created_at DESC, k.id`, args...)
}

// Key reads a key that one may see.
func (s *Service) Key(ctx context.Context, who identity.Principal, id string) (Key, error) {
	cond, args := mayKey(who)
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
	k, err := s.Key(ctx, who, id)
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
		return Key{}, "", errdefs.New(errdefs.ErrConflict, "key-over", "The key is no longer valid.").WithHint("Make a new one.")
	}
	if err := identity.CheckScopes(old.Scopes, who.Scopes); err != nil || old.Scopes == nil && who.Scopes != nil {
		return Key{}, "", errdefs.New(errdefs.ErrForbidden, "scope-missing", "The key has more rights than the one you use.").WithHint("Sign in, or use the key itself.")
	}
	k := Key{User: old.User, Org: old.Org, Name: old.Name, Scopes: old.Scopes, CreatedAt: now}
	if !old.ExpiresAt.IsZero() {
		k.ExpiresAt = now.Add(old.ExpiresAt.Sub(old.CreatedAt))
	}
	end := now.Add(overlap)
	k, text, err := s.insertKey(ctx, k, func(t *store.Tx) error {
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

// Verify says whose key it is.
func (s *Service) Verify(ctx context.Context, text string) (identity.Principal, error) {
	hash := sha256.Sum256([]byte(text))
	who, round, ok := s.cache.get(hash)
	now := s.opts.now()
	if !ok {
		var end time.Time
		var err error
		if who, end, err = s.readKey(ctx, text, now); err != nil {
			return identity.Principal{}, err
		}
		s.cache.put(hash, round, who, end)
	}
	s.seen.note(who, now)
	return who, nil
}

func (s *Service) readKey(ctx context.Context, text string, now time.Time) (who identity.Principal, end time.Time, err error) {
	rest, ok := strings.CutPrefix(text, KeyPrefix)
	id, secret, ok2 := strings.Cut(rest, "_")
	if !ok || !ok2 || len(text) > 200 {
		return who, end, errKeyBad
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
		return who, end, errKeyBad
	}
	if err != nil {
		return who, end, err
	}
	good := subtle.ConstantTimeCompare(hash, hashOf(secret)) == 1
	if !good || disabled != 0 || !k.RevokedAt.IsZero() || !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt) {
		return who, end, errKeyBad
	}
	return identity.Principal{User: k.User, Org: k.Org, Name: name, Role: identity.Role(role), Scopes: k.Scopes, Key: k.ID, Operator: operator}, k.ExpiresAt, nil
}
