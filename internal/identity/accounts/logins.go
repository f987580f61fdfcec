package accounts

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/store"
)

// From says where a sign-in comes from.
type From struct {
	Address string
	Agent   string // what the browser calls itself
}

// Login is a browser that is signed in.
type Login struct {
	ID        string
	Org       string
	CreatedAt time.Time
	SeenAt    time.Time
	ExpiresAt time.Time
	From      From
}

const maxLogins = 50 // of one user; the longest unused go

var errSignIn = errdefs.New(errdefs.ErrUnauthenticated, "sign-in-failed", "Address and password do not belong together.").
	WithHint("Check both; an admin can give you a link that sets a new password.")

// SignIn checks a password and signs a browser in. It takes the same time
// whether there is such a user or not.
func (s *Service) SignIn(ctx context.Context, email, password string, from From) (cookie string, who identity.Principal, err error) {
	email = lower(strings.TrimSpace(email[:min(len(email), maxEmail)]))
	leave, err := s.hasher.enter() // first: whom nobody compares did not fail
	if err != nil {
		return "", who, err
	}
	defer leave()
	ok, err := s.throttle.check(ctx, email, from.Address)
	if err != nil {
		return "", who, err
	}
	var id, kept string
	var disabled int64
	err = s.store.One(ctx, `SELECT id, password, disabled_at FROM users WHERE email=?`, []any{email}, &id, &kept, &disabled)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return "", who, err
	}
	if disabled != 0 || len(password) > maxPassword {
		kept = ""
	}
	good, weak, err := s.hasher.matches(ctx, kept, password)
	if err != nil {
		return "", who, err
	}
	if !good {
		return "", who, errSignIn
	}
	if err := ok(ctx); err != nil {
		return "", who, err
	}
	if weak {
		if better, err := s.hasher.hash(ctx, password); err == nil {
			if err := s.setPassword(ctx, id, kept, better); err != nil {
				s.log.Warn("a password's hash can't be made stronger", "err", err)
			}
		}
	}
	return s.Begin(ctx, id, "", from)
}

func (s *Service) setPassword(ctx context.Context, id, was, hash string) error {
	return s.store.Transact(ctx, func(t *store.Tx) error {
		_, err := t.Exec(`UPDATE users SET password=? WHERE id=? AND password=?`, hash, id, was)
		return err
	})
}

// Begin signs a browser in as a user who has shown who he is, in an
// organisation of his; "": that which he joined first. The value of the cookie
// is always new.
func (s *Service) Begin(ctx context.Context, user, in string, from From) (cookie string, who identity.Principal, err error) {
	u, err := s.User(ctx, user)
	switch {
	case err != nil:
		return "", who, err
	case u.Disabled:
		return "", who, errSignIn
	case len(u.Roles) == 0:
		return "", who, errdefs.New(errdefs.ErrForbidden, "no-organisation", "You belong to no organisation.").WithHint("An operator can put you into one.")
	}
	if len(from.Agent) > 200 {
		from.Agent = from.Agent[:200]
	}
	from.Agent = strings.ToValidUTF8(from.Agent, "")
	now, id, org := s.now(), newID("lgn_"), u.Roles[0]
	for _, m := range u.Roles {
		if m.Org == in {
			org = m
		}
	}
	cookie = newSecret()
	err = s.store.Transact(ctx, func(t *store.Tx) error {
		if _, err := t.Exec(`INSERT INTO logins (id, hash, user_id, org_id, created_at, seen_at, expires_at, address, agent) VALUES (?,?,?,?,?,?,?,?,?)`,
			id, hashOf(cookie), u.ID, org.Org, micros(now), micros(now), micros(now.Add(s.opts.Life)), from.Address, from.Agent); err != nil {
			return err
		}
		if _, err := t.Exec(`DELETE FROM logins WHERE user_id=? AND id NOT IN (SELECT id FROM logins WHERE user_id=? ORDER BY seen_at DESC LIMIT ?)`, u.ID, u.ID, maxLogins); err != nil {
			return err
		}
		_, err := t.Exec(`UPDATE users SET signed_in_at=? WHERE id=?`, micros(now), u.ID)
		return err
	})
	return cookie, identity.Principal{User: u.ID, Org: org.Org, Name: u.Name, Role: org.Role, Login: id, Operator: u.Operator}, err
}

var errSignedOut = errdefs.New(errdefs.ErrUnauthenticated, "signed-out", "You are signed out.").WithHint("Sign in again.")

// Resume says who a browser is by its cookie.
func (s *Service) Resume(ctx context.Context, cookie string) (identity.Principal, error) {
	if len(cookie) > 100 || !utf8.ValidString(cookie) {
		return identity.Principal{}, errSignedOut
	}
	hash := sha256.Sum256([]byte(cookie))
	who, round, ok := s.cache.get(hash)
	now := s.opts.now()
	if !ok {
		var role string
		var seenAt, expires, disabled int64
		err := s.store.One(ctx, `SELECT l.id, l.user_id, l.org_id, l.seen_at, l.expires_at, u.name, u.operator, u.disabled_at, m.role FROM logins l
			JOIN users u ON u.id=l.user_id JOIN memberships m ON m.user_id=l.user_id AND m.org_id=l.org_id WHERE l.hash=?`, []any{hash[:]},
			&who.Login, &who.User, &who.Org, &seenAt, &expires, &who.Name, &who.Operator, &disabled, &role)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return identity.Principal{}, err
		}
		end := timeOf(expires)
		if err != nil || disabled != 0 || !now.Before(end) || now.Sub(timeOf(seenAt)) > s.opts.IdleLife {
			return identity.Principal{}, errSignedOut
		}
		who.Role = identity.Role(role)
		s.cache.put(hash, round, who, end)
	}
	if used(ctx) {
		s.seen.note(who, now)
	}
	return who, nil
}

// Logins lists where somebody is signed in, the latest first.
func (s *Service) Logins(ctx context.Context, user string) ([]Login, error) {
	return store.Select(ctx, s.store, func(scan store.Scan) (l Login, err error) {
		var created, seenAt, expires int64
		err = scan(&l.ID, &l.Org, &created, &seenAt, &expires, &l.From.Address, &l.From.Agent)
		l.CreatedAt, l.SeenAt, l.ExpiresAt = timeOf(created), timeOf(seenAt), timeOf(expires)
		return l, err
	}, `SELECT id, org_id, created_at, seen_at, expires_at, address, agent FROM logins WHERE user_id=? ORDER BY seen_at DESC, id`, user)
}

// SignOut ends one sign-in of a user; with "" all of them, everywhere.
func (s *Service) SignOut(ctx context.Context, user, login string) error {
	err := s.store.Transact(ctx, func(t *store.Tx) error {
		n, err := t.Exec(`DELETE FROM logins WHERE user_id=? AND (id=? OR ?='')`, user, login, login)
		if err == nil && n == 0 && login != "" {
			return errdefs.New(errdefs.ErrNotFound, "login-not-found", "There is no sign-in %.80q.", login).WithHint("GET /v1/me/logins lists them.")
		}
		return err
	})
	if err == nil {
		s.changed(ctx)
	}
	return err
}

// Choose has a browser act in another organisation of its user.
func (s *Service) Choose(ctx context.Context, who identity.Principal, org string) error {
	if who.Login == "" {
		return errdefs.New(errdefs.ErrConflict, "not-a-login", "An API key belongs to one organisation.").WithHint("Make a key in the other one.")
	}
	err := s.store.Transact(ctx, func(t *store.Tx) error {
		n, err := t.Exec(`UPDATE logins SET org_id=? WHERE id=? AND user_id=? AND EXISTS (SELECT 1 FROM memberships WHERE user_id=? AND org_id=?)`, org, who.Login, who.User, who.User, org)
		if err == nil && n == 0 {
			return errNoOrg(org)
		}
		return err
	})
	if err == nil {
		s.changed(ctx)
	}
	return err
}

// ChangePassword sets a user's password, who tells the one before. All other
// browsers are signed out.
func (s *Service) ChangePassword(ctx context.Context, who identity.Principal, before, after string, from From) error {
	u, err := s.User(ctx, who.User)
	if err != nil {
		return err
	}
	leave, err := s.hasher.enter()
	if err != nil {
		return err
	}
	defer leave()
	ok, err := s.throttle.check(ctx, u.Email, from.Address)
	if err != nil {
		return err
	}
	var kept string
	if err := s.store.One(ctx, `SELECT password FROM users WHERE id=?`, []any{u.ID}, &kept); err != nil {
		return err
	}
	good, _, err := s.hasher.matches(ctx, kept, before)
	if err != nil {
		return err
	}
	if !good {
		return errdefs.New(errdefs.ErrForbidden, "password-wrong", "The password of before is another one.").WithHint("An admin can give you a link that sets a new one.")
	}
	if err := ok(ctx); err != nil {
		return err
	}
	if err := checkPassword(after, u.Email); err != nil {
		return err
	}
	hash, err := s.hasher.hash(ctx, after)
	if err != nil {
		return err
	}
	err = s.store.Transact(ctx, func(t *store.Tx) error {
		if _, err := t.Exec(`UPDATE users SET password=? WHERE id=?`, hash, u.ID); err != nil {
			return err
		}
		if _, err := t.Exec(`DELETE FROM logins WHERE user_id=? AND id<>?`, u.ID, who.Login); err != nil {
			return err
		}
		return dropLinks(t, u.ID)
	})
	if err == nil {
		s.changed(ctx)
	}
	return err
}
