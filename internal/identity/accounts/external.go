package accounts

import (
	"context"
	"database/sql"
	"errors"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/store"
)

// External is somebody whom a provider vouches for.
type External struct {
	Issuer, Subject string
	Email, Name     string
	Verified        bool   // the provider says that the address is his
	Link            bool   // an account with this address is his; only with Verified
	Org             string // name of the organisation, which is made if it is not there
	Role            identity.Role
	Operator        *bool // nil: the provider does not decide that
}

// Accept gives the id of the user that somebody is, and makes one at the first
// time. His role is what the provider says now.
func (s *Service) Accept(ctx context.Context, x External) (string, error) {
	email, err := cleanEmail(x.Email)
	if err != nil {
		return "", errdefs.New(errdefs.ErrForbidden, "provider-email-missing", "The provider does not tell your e-mail address.").
			WithHint("An operator has to ask it for the scope email.")
	}
	orgName, err := cleanName("organisation", x.Org)
	if err != nil {
		return "", err
	}
	if x.Name == "" {
		x.Name = email
	}
	u, _, err := s.prepare(ctx, NewUser{Email: email, Name: x.Name})
	if err != nil {
		return "", err
	}
	id := u.ID
	err = s.store.Transact(ctx, func(t *store.Tx) error {
		org := Organisation{ID: newID("org_"), Name: orgName, CreatedAt: u.CreatedAt}
		if _, err := t.Exec(`INSERT INTO organisations (id, name, created_at) VALUES (?,?,?) ON CONFLICT (name) DO NOTHING`, org.ID, org.Name, micros(org.CreatedAt)); err != nil {
			return err
		}
		if err := t.One(`SELECT id FROM organisations WHERE name=?`, []any{org.Name}, &org.ID); err != nil {
			return err
		}
		err := t.One(`SELECT user_id FROM external_users WHERE issuer=? AND subject=?`, []any{x.Issuer, x.Subject}, &id)
		if errors.Is(err, sql.ErrNoRows) {
			if err := s.adopt(t, x, &u); err != nil {
				return err
			}
			id = u.ID
			_, err = t.Exec(`INSERT INTO external_users (issuer, subject, user_id) VALUES (?,?,?)`, x.Issuer, x.Subject, id)
		}
		if err != nil {
			return err
		}
		if x.Operator != nil {
			if _, err := t.Exec(`UPDATE users SET operator=? WHERE id=?`, *x.Operator, id); err != nil {
				return err
			}
		}
		return insertMember(t, id, org.ID, x.Role, u.CreatedAt)
	})
	if err == nil {
		s.changed(ctx) // roles
	}
	return id, err
}

// adopt finds or makes the user of somebody who is here for the first time. An
// account that is there already is his only if the operator trusts the
// provider's addresses: else whoever can choose an address there would have it.
func (s *Service) adopt(t *store.Tx, x External, u *User) error {
	var there string
	err := t.One(`SELECT id FROM users WHERE email=?`, []any{u.Email}, &there)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return insertUser(t, *u, "")
	case err != nil:
		return err
	case x.Link && x.Verified:
		u.ID = there
		return nil
	}
	return errdefs.New(errdefs.ErrConflict, "provider-email-taken", "There is an account with the address %s already, which is not connected with this provider.", u.Email).
		WithHint("Sign in with its password, or ask an operator to set link_by_email for the provider.")
}
