package httpapi

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
)

// UserPath is the part of an input that names a user.
type UserPath struct {
	UserID string `path:"user_id" maxLength:"254" doc:"Identifier of the user, or his address"`
}

func viewUser(u accounts.User) v1.User {
	return v1.User{
		ID: u.ID, Email: u.Email, Name: u.Name, Operator: u.Operator, Password: u.Password, Disabled: u.Disabled,
		Memberships: viewMemberships(u.Roles), CreatedAt: u.CreatedAt, LastSignInAt: timeOrNone(u.SignedInAt),
	}
}

// user finds a user who is there for an admin: one of his organisation; for an
// operator everybody.
func (a *API) user(ctx context.Context, svc *accounts.Service, id string) (accounts.User, error) {
	who := identity.From(ctx)
	u, err := svc.User(ctx, id)
	if err != nil || who.Operator {
		return u, err
	}
	u.Roles = slices.DeleteFunc(u.Roles, func(m accounts.Membership) bool { return m.Org != who.Org })
	if len(u.Roles) == 0 {
		return accounts.User{}, errdefs.New(errdefs.ErrNotFound, "user-not-found", "There is no user %.80q.", id).WithHint("GET /v1/users lists them.")
	}
	return u, nil
}

// organisation gives the organisation that an admin's request is about: his own
// unless he operates the installation.
func organisation(ctx context.Context, asked string) (string, error) {
	who := identity.From(ctx)
	if asked == "" {
		asked = who.Org
	}
	switch {
	case asked == "":
		return "", errdefs.New(errdefs.ErrInvalid, "organisation-missing", "You act in no organisation, so this needs one to be named.").WithHint("GET /v1/organisations lists them.")
	case asked != who.Org && !who.Operator:
		return "", errdefs.New(errdefs.ErrNotFound, "organisation-not-found", "There is no organisation %.80q.", asked).WithHint("GET /v1/organisations lists them.")
	}
	return asked, nil
}

func roleIn(u accounts.User, org string) identity.Role {
	for _, m := range u.Roles {
		if m.Org == org {
			return m.Role
		}
	}
	return ""
}

// mayChange refuses what would give an admin more than he has: only owners
// change owners and make them, and only operators change operators.
func mayChange(ctx context.Context, u accounts.User, org string, role *identity.Role, operator bool) error {
	who := identity.From(ctx)
	if who.Operator {
		return nil
	}
	if operator || u.Operator {
		return errdefs.New(errdefs.ErrForbidden, "operator-needed", "Only an operator of the installation may do this.").WithHint("Ask whoever runs this server.")
	}
	if who.Role != identity.RoleOwner && (roleIn(u, org) == identity.RoleOwner || role != nil && *role == identity.RoleOwner) {
		return errdefs.New(errdefs.ErrForbidden, "owner-needed", "Only an owner of the organisation may do this.").WithHint("Ask one.")
	}
	return nil
}

func (a *API) userRoutes() {
	tags := []string{tagAdmin}
	const path = "/v1/users"
	register(a, huma.Operation{
		OperationID: "list-users", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List the users of the organisation",
	}, func(ctx context.Context, in *struct {
		Org string `query:"organisation" maxLength:"64" doc:"Of another organisation, for operators; *: everybody"`
	},
	) (*answer[v1.UserList], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		org := ""
		if who := identity.From(ctx); !who.Operator || in.Org != "*" && (in.Org != "" || who.Org != "") {
			if org, err = organisation(ctx, in.Org); err != nil {
				return nil, err
			}
		}
		users, err := svc.Users(ctx, org)
		list := v1.UserList{Users: []v1.User{}}
		for _, u := range users {
			list.Users = append(list.Users, viewUser(u))
		}
		return &answer[v1.UserList]{list}, err
	})
	register(a, huma.Operation{
		OperationID: "create-user", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make a user", Description: "Failures: 400 `email-invalid`, `password-too-short`; 403 `owner-needed`, `operator-needed`; 404 `organisation-not-found`; 409 `user-exists`.",
	}, func(ctx context.Context, in *struct{ Body v1.CreateUser }) (*created[v1.User], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		org, err := organisation(ctx, in.Body.OrganisationID)
		if err != nil {
			return nil, err
		}
		role := identity.Role(in.Body.Role)
		if err := mayChange(ctx, accounts.User{}, org, &role, in.Body.Operator); err != nil {
			return nil, err
		}
		u, err := svc.CreateUser(ctx, accounts.NewUser{Email: in.Body.Email, Name: in.Body.Name, Password: in.Body.Password, Org: org, Role: role, Operator: in.Body.Operator})
		if err != nil {
			return nil, err
		}
		return &created[v1.User]{path + "/" + u.ID, viewUser(u)}, nil
	})
	register(a, huma.Operation{
		OperationID: "get-user", Method: http.MethodGet, Path: path + "/{user_id}", Tags: tags, Summary: "Get a user", Description: "Failures: 404 `user-not-found`.",
	}, func(ctx context.Context, in *UserPath) (*answer[v1.User], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		u, err := a.user(ctx, svc, in.UserID)
		return &answer[v1.User]{viewUser(u)}, err
	})
	register(a, huma.Operation{
		OperationID: "update-user", Method: http.MethodPatch, Path: path + "/{user_id}", Tags: tags,
		Summary: "Change a user's name, role or state", Description: "In force at once, also for keys and browsers that are signed in. Failures: 403 `owner-needed`, `operator-needed`; 404 `user-not-found`; 409 `last-owner`, `last-operator`.",
	}, func(ctx context.Context, in *struct {
		UserPath
		Body v1.UpdateUser
	},
	) (*answer[v1.User], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		u, err := a.user(ctx, svc, in.UserID)
		if err != nil {
			return nil, err
		}
		c := accounts.Change{Name: in.Body.Name, Disabled: in.Body.Disabled, Operator: in.Body.Operator}
		if who := identity.From(ctx); in.Body.Role != nil || who.Org != "" || in.Body.OrganisationID != "" {
			if c.Org, err = organisation(ctx, in.Body.OrganisationID); err != nil {
				return nil, err
			}
		}
		if in.Body.Role != nil {
			role := identity.Role(*in.Body.Role)
			c.Role = &role
		}
		if err := mayChange(ctx, u, c.Org, c.Role, c.Operator != nil); err != nil {
			return nil, err
		}
		if err := a.onlyHere(ctx, svc, u, c); err != nil {
			return nil, err
		}
		u, err = svc.ChangeUser(ctx, u.ID, c)
		if err != nil {
			return nil, err
		}
		u, err = a.user(ctx, svc, u.ID)
		return &answer[v1.User]{viewUser(u)}, err
	})
	register(a, huma.Operation{
		OperationID: "remove-user", Method: http.MethodDelete, Path: path + "/{user_id}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Take a user out of the organisation", Description: "Keys and browsers of his there are no longer good. What he made stays, for the organisation's admins. Failures: 404 `user-not-found`; 409 `last-owner`.",
	}, func(ctx context.Context, in *struct {
		UserPath
		Org string `query:"organisation" maxLength:"64" doc:"Absent: one's own"`
	},
	) (*struct{}, error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		org, err := organisation(ctx, in.Org)
		if err != nil {
			return nil, err
		}
		u, err := a.user(ctx, svc, in.UserID)
		if err != nil {
			return nil, err
		}
		if err := mayChange(ctx, u, org, nil, false); err != nil {
			return nil, err
		}
		return nil, svc.RemoveUser(ctx, u.ID, org)
	})
	register(a, huma.Operation{
		OperationID: "create-user-link", Method: http.MethodPost, Path: path + "/{user_id}/link", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make a link by which a user sets a password", Description: "Once, within three days; links of before are no longer good. Give it to the user and to nobody else. Failures: 403 `owner-needed`, `operator-needed`, `user-elsewhere`; 404 `user-not-found`.",
	}, func(ctx context.Context, in *struct {
		UserPath
		Raw
	},
	) (*answer[v1.UserLink], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		u, err := a.user(ctx, svc, in.UserID)
		if err != nil {
			return nil, err
		}
		if err := mayChange(ctx, u, identity.From(ctx).Org, nil, false); err != nil {
			return nil, err
		}
		yes := true
		if err := a.onlyHere(ctx, svc, u, accounts.Change{Disabled: &yes}); err != nil {
			return nil, err
		}
		secret, err := svc.NewLink(ctx, u.ID)
		return &answer[v1.UserLink]{v1.UserLink{URL: a.base(in.r) + "/#set-password=" + secret, ExpiresAt: time.Now().UTC().Add(accounts.LinkFor).Truncate(time.Second)}}, err
	})
	a.organisationRoutes(tags)
}

// onlyHere refuses an admin what would reach into other organisations of a
// user: his name, whether he is let in, his password.
func (a *API) onlyHere(ctx context.Context, svc *accounts.Service, u accounts.User, c accounts.Change) error {
	if identity.From(ctx).Operator || c.Name == nil && c.Disabled == nil {
		return nil
	}
	whole, err := svc.User(ctx, u.ID)
	if err == nil && len(whole.Roles) > 1 {
		err = errdefs.New(errdefs.ErrForbidden, "user-elsewhere", "The user belongs to other organisations as well, where this would be felt.").
			WithHint("Take the user out of yours, or ask an operator.")
	}
	return err
}

// base gives the address of this server for browsers.
func (a *API) base(r *http.Request) string {
	if a.opts.PublicURL != "" {
		return strings.TrimSuffix(a.opts.PublicURL, "/")
	}
	if r.TLS != nil {
		return "https://" + r.Host
	}
	return "http://" + r.Host
}
