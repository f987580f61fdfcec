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

// Accept gives the ids of the user that somebody is and of the organisation that
// the provider names, and makes them at the first time. His role is what the
// provider says now, but for the last owner and the last operator, who stay.
func (s *Service) Accept(ctx context.Context, x External) (user, inOrg string, err error) {
	email, err := cleanEmail(x.Email)
	if err != nil {
		return "", "", errdefs.New(errdefs.ErrForbidden, "provider-email-missing", "The provider does not tell your e-mail address.").
			WithHint("An operator has to ask it for the scope email.")
	}
	orgName, err := cleanName("organisation", x.Org)
	if err != nil {
		return "", "", err
	}
	if x.Name = cutName(x.Name); x.Name == "" {
		x.Name = email
	}
	u, _, err := s.prepare(ctx, NewUser{Email: email, Name: x.Name})
	if err != nil {
		return "", "", err
	}
	id := u.ID
	org := Organisation{ID: newID("org_"), Name: orgName, CreatedAt: u.CreatedAt}
	err = s.store.Transact(ctx, func(t *store.Tx) error {
		if err := lockRights(t); err != nil {
			return err
		}
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
		return s.follow(t, x, id, org.ID)
	})
	if err == nil {
		s.changed(ctx) // roles
	}
	return id, org.ID, err
}

// follow gives a user the role and the place that the provider says.
func (s *Service) follow(t *store.Tx, x External, id, org string) error {
	var disabled, operators, isOperator, owners, isOwner, member int64
	err := t.One(`SELECT disabled_at, CASE WHEN operator THEN 1 ELSE 0 END, (SELECT count(*) FROM users WHERE operator AND disabled_at=0),
		(SELECT count(*) FROM memberships m JOIN users o ON o.id=m.user_id WHERE m.org_id=? AND m.role='owner' AND o.disabled_at=0),
		(SELECT count(*) FROM memberships WHERE org_id=? AND user_id=users.id AND role='owner'), (SELECT count(*) FROM memberships WHERE org_id=? AND user_id=users.id)
		FROM users WHERE id=?`, []any{org, org, org, id}, &disabled, &isOperator, &operators, &owners, &isOwner, &member)
	if err != nil {
		return err
	}
	if disabled != 0 {
		return errSignIn
	}
	if x.Operator != nil && (*x.Operator || isOperator == 0 || operators > 1) {
		if _, err := t.Exec(`UPDATE users SET operator=? WHERE id=?`, *x.Operator, id); err != nil {
			return err
		}
	}
	if member == 0 {
		if err := dropLinks(t, id); err != nil {
			return err
		}
	}
	if isOwner == 1 && owners == 1 {
		return nil
	}
	return insertMember(t, id, org, x.Role, s.now())
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
		// Whoever made the account, with a password that he chose, may not be the
		// one whose address it is: what he has of it ends here.
		u.ID = there
		if _, err := t.Exec(`UPDATE users SET password='' WHERE id=?`, there); err != nil {
			return err
		}
		if _, err := t.Exec(`DELETE FROM logins WHERE user_id=?`, there); err != nil {
			return err
		}
		return dropLinks(t, there)
	}
	return errdefs.New(errdefs.ErrConflict, "provider-email-taken", "There is an account with the address %s already, which is not connected with this provider.", u.Email).
		WithHint("Sign in with its password, or ask an operator to set link_by_email for the provider.")
}
