package accounts

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/store"
)

// LinkFor is how long a link that sets a password can be used.
const LinkFor = 3 * 24 * time.Hour

var errLink = errdefs.New(errdefs.ErrForbidden, "link-invalid", "This link can't be used: it was used before, or its time is over.").
	WithHint("Ask for a new one.")

// NewLink gives the secret of a link by which a user sets a password, once.
// Those that he had before are no longer good.
func (s *Service) NewLink(ctx context.Context, user string) (string, error) {
	u, err := s.User(ctx, user)
	if err != nil {
		return "", err
	}
	secret := newSecret()
	return secret, s.store.Transact(ctx, func(t *store.Tx) error {
		if err := dropLinks(t, u.ID); err != nil {
			return err
		}
		return insertLink(t, secret, u.ID, s.now().Add(LinkFor))
	})
}

// dropLinks makes the links of a user useless: whoever was given one by the
// rights of before must not get those of after.
func dropLinks(t *store.Tx, user string) error {
	_, err := t.Exec(`DELETE FROM login_links WHERE user_id=?`, user)
	return err
}

func insertLink(t *store.Tx, secret, user string, end time.Time) error {
	_, err := t.Exec(`INSERT INTO login_links (hash, user_id, expires_at) VALUES (?,?,?)`, hashOf(secret), user, micros(end))
	return err
}

// NewSetup gives the secret of the link by which the first user is made; ""
// when there are users.
func (s *Service) NewSetup(ctx context.Context) (string, error) {
	n, err := s.Count(ctx)
	if err != nil || n > 0 {
		return "", err
	}
	secret := newSecret()
	return secret, s.store.Transact(ctx, func(t *store.Tx) error { return insertLink(t, secret, "", s.now().Add(LinkFor)) })
}

// Setup says what the first user and the first organisation are.
type Setup struct {
	Email, Name, Password string
	Org                   string // its name
}

// Redeem uses a link: the password of its user is set, or with that of the
// first start the first operator is made. It gives the user's id.
func (s *Service) Redeem(ctx context.Context, secret string, in Setup, from From) (string, error) {
	ok, err := s.throttle.check(ctx, "link from "+place(from.Address), from.Address)
	if err != nil {
		return "", err
	}
	var user string
	var end int64
	err = s.store.One(ctx, `SELECT user_id, expires_at FROM login_links WHERE hash=?`, []any{hashOf(secret)}, &user, &end)
	if errors.Is(err, sql.ErrNoRows) || err == nil && s.now().After(timeOf(end)) {
		return "", errLink
	}
	if err != nil {
		return "", err
	}
	if err := ok(ctx); err != nil {
		return "", err
	}
	if user == "" {
		return s.redeemSetup(ctx, secret, in)
	}
	u, err := s.User(ctx, user)
	if err != nil || u.Disabled {
		return "", errors.Join(errLink, err)
	}
	if err := checkPassword(in.Password, u.Email); err != nil {
		return "", err
	}
	hash, err := s.hasher.hash(ctx, in.Password)
	if err != nil {
		return "", err
	}
	err = s.store.Transact(ctx, func(t *store.Tx) error {
		if err := useLink(t, secret); err != nil {
			return err
		}
		if _, err := t.Exec(`DELETE FROM logins WHERE user_id=?`, u.ID); err != nil {
			return err
		}
		_, err := t.Exec(`UPDATE users SET password=? WHERE id=?`, hash, u.ID)
		return err
	})
	if err == nil {
		s.changed(ctx)
	}
	return u.ID, err
}

func useLink(t *store.Tx, secret string) error {
	n, err := t.Exec(`DELETE FROM login_links WHERE hash=?`, hashOf(secret))
	if err == nil && n == 0 {
		return errLink // somebody else was quicker
	}
	return err
}

func (s *Service) redeemSetup(ctx context.Context, secret string, in Setup) (string, error) {
	if in.Org == "" {
		in.Org = "Default"
	}
	name, err := cleanName("organisation", in.Org)
	if err != nil {
		return "", err
	}
	if err := checkPassword(in.Password, in.Email); err != nil {
		return "", err
	}
	u, kept, err := s.prepare(ctx, NewUser{Email: in.Email, Name: in.Name, Password: in.Password, Operator: true})
	if err != nil {
		return "", err
	}
	org := Organisation{ID: newID("org_"), Name: name, CreatedAt: u.CreatedAt}
	return u.ID, s.store.Transact(ctx, func(t *store.Tx) error {
		if err := useLink(t, secret); err != nil {
			return err
		}
		var n int64
		if err := t.One(`SELECT count(*) FROM users`, nil, &n); err != nil || n > 0 {
			return errors.Join(err, errLink)
		}
		if _, err := t.Exec(`DELETE FROM login_links WHERE user_id=''`); err != nil {
			return err
		}
		if err := insertOrg(t, org); err != nil {
			return err
		}
		if err := insertUser(t, u, kept); err != nil {
			return err
		}
		return insertMember(t, u.ID, org.ID, identity.RoleOwner, u.CreatedAt)
	})
}
