package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
)

// LoginPath is the part of an input that names a sign-in.
type LoginPath struct {
	LoginID string `path:"login_id" maxLength:"64" doc:"Identifier of the sign-in"`
}

func viewMemberships(list []accounts.Membership) []v1.Membership {
	out := make([]v1.Membership, 0, len(list))
	for _, m := range list {
		out = append(out, v1.Membership{OrganisationID: m.Org, Name: m.OrgName, Role: string(m.Role)})
	}
	return out
}

func (a *API) me(ctx context.Context) (v1.Me, error) {
	who := identity.From(ctx)
	me := v1.Me{
		Auth: a.auth(), UserID: who.User, Name: who.Name, Operator: who.Operator, KeyID: who.Key, LoginID: who.Login, Scopes: who.Scopes,
		Organisations: []v1.Membership{}, May: []string{},
	}
	for _, action := range []identity.Action{identity.Read, identity.Write, identity.Execute, identity.Manage, identity.Administer, identity.Operate} {
		if who.May(action) == nil {
			me.May = append(me.May, string(action))
		}
	}
	var err error
	if me.SignIn, err = a.signInWays(ctx); err != nil || who.User == "" {
		return me, err
	}
	u, err := a.opts.Accounts.User(ctx, who.User)
	if err != nil {
		return me, err
	}
	me.Email, me.Name, me.Password, me.Organisations = u.Email, u.Name, u.Password, viewMemberships(u.Roles)
	for _, m := range me.Organisations {
		if m.OrganisationID == who.Org {
			me.Organisation = &m
		}
	}
	return me, nil
}

func (a *API) accountRoutes() {
	tags := []string{tagAccounts}
	register(a, huma.Operation{
		OperationID: "get-me", Method: http.MethodGet, Path: "/v1/me", Tags: tags,
		Summary: "Who one is, what one may do, and how people sign in",
	}, func(ctx context.Context, _ *struct{}) (*answer[v1.Me], error) {
		me, err := a.me(ctx)
		return &answer[v1.Me]{me}, err
	})
	register(a, huma.Operation{
		OperationID: "list-my-logins", Method: http.MethodGet, Path: "/v1/me/logins", Tags: tags,
		Summary: "List the browsers in which one is signed in",
	}, func(ctx context.Context, _ *struct{}) (*answer[v1.BrowserLoginList], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		who := identity.From(ctx)
		logins, err := svc.Logins(ctx, who.User)
		list := v1.BrowserLoginList{Logins: []v1.BrowserLogin{}}
		for _, l := range logins {
			list.Logins = append(list.Logins, v1.BrowserLogin{
				ID: l.ID, Current: l.ID == who.Login, Address: l.From.Address, Agent: l.From.Agent,
				CreatedAt: l.CreatedAt, LastSeenAt: l.SeenAt, ExpiresAt: l.ExpiresAt,
			})
		}
		return &answer[v1.BrowserLoginList]{list}, err
	})
	register(a, huma.Operation{
		OperationID: "end-my-logins", Method: http.MethodDelete, Path: "/v1/me/logins", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Sign out everywhere", Description: "In all browsers, this one too. API keys stay.",
	}, func(ctx context.Context, _ *struct{}) (*struct{}, error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		return nil, svc.SignOut(ctx, identity.From(ctx).User, "")
	})
	register(a, huma.Operation{
		OperationID: "end-my-login", Method: http.MethodDelete, Path: "/v1/me/logins/{login_id}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Sign out in one browser", Description: "Failures: 404 `login-not-found`.",
	}, func(ctx context.Context, in *LoginPath) (*struct{}, error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		return nil, svc.SignOut(ctx, identity.From(ctx).User, in.LoginID)
	})
	register(a, huma.Operation{
		OperationID: "choose-organisation", Method: http.MethodPost, Path: "/v1/me/organisation", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Act in another organisation", Description: "In this browser. A key belongs to one organisation. Failures: 404 `organisation-not-found`.",
	}, func(ctx context.Context, in *struct{ Body v1.ChooseOrganisation }) (*struct{}, error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		return nil, svc.Choose(ctx, identity.From(ctx), in.Body.OrganisationID)
	})
	register(a, huma.Operation{
		OperationID: "change-password", Method: http.MethodPost, Path: "/v1/me/password", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Change one's password", Description: "All other browsers are signed out; API keys stay. Failures: 400 `password-too-short`; 403 `password-wrong`; 429 `sign-in-throttled`.",
	}, func(ctx context.Context, in *struct {
		Raw
		Body v1.ChangePassword
	},
	) (*struct{}, error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		return nil, svc.ChangePassword(ctx, identity.From(ctx), in.Body.Password, in.Body.NewPassword, a.from(in.r))
	})
}

// KeyPath is the part of an input that names an API key.
type KeyPath struct {
	KeyID string `path:"key_id" maxLength:"64" doc:"Identifier of the key" example:"csk_4kq2m7v6xqz5wd3h"`
}

func viewKey(k accounts.Key) v1.Key {
	v := v1.Key{
		ID: k.ID, Name: k.Name, UserID: k.User, Email: k.Email, OrganisationID: k.Org, Scopes: k.Scopes, State: "active",
		CreatedAt: k.CreatedAt, ExpiresAt: timeOrNone(k.ExpiresAt), RevokedAt: timeOrNone(k.RevokedAt), LastUsedAt: timeOrNone(k.LastUsedAt),
	}
	switch {
	case v.RevokedAt != nil:
		v.State = "revoked"
	case v.ExpiresAt != nil && v.ExpiresAt.Before(time.Now()):
		v.State = "expired"
	}
	return v
}

func timeOrNone(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// defaultOverlap is how long a key stays when another takes its place.
const defaultOverlap = 24 * time.Hour

func (a *API) keyRoutes() {
	tags := []string{tagAccounts}
	const path = "/v1/keys"
	register(a, huma.Operation{
		OperationID: "list-keys", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List API keys, the newest first",
	}, func(ctx context.Context, in *struct {
		All bool `query:"all" doc:"Those of all users of the organisation, for its admins"`
	},
	) (*answer[v1.KeyList], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		keys, err := svc.Keys(ctx, identity.From(ctx), in.All)
		list := v1.KeyList{Keys: []v1.Key{}, Scopes: identity.Scopes()}
		for _, k := range keys {
			list.Keys = append(list.Keys, viewKey(k))
		}
		return &answer[v1.KeyList]{list}, err
	})
	register(a, huma.Operation{
		OperationID: "create-key", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Make an API key",
		Description: "It acts for its user in the organisation in which it was made. The answer has its secret, which nobody can read again.\n\nFailures: 400 `scope-unknown`, `scopes-empty`, `name-invalid`; 403 `scope-missing` when it would have more rights than the key it is made with; 429 `too-many-keys`.",
	}, func(ctx context.Context, in *struct{ Body v1.CreateKey }) (*created[v1.NewKey], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		req := accounts.NewKey{Name: in.Body.Name, Scopes: in.Body.Scopes}
		if ms := in.Body.ExpiresMS; ms != nil {
			if req.Life = millis(*ms); req.Life == 0 {
				req.Life = -1
			}
		}
		who, err := keyFor(ctx, svc, in.Body)
		if err != nil {
			return nil, err
		}
		k, secret, err := svc.CreateKey(ctx, who, req)
		return newKey(ctx, svc, k, secret, err)
	})
	register(a, huma.Operation{
		OperationID: "get-key", Method: http.MethodGet, Path: path + "/{key_id}", Tags: tags, Summary: "Get an API key", Description: "Failures: 404 `key-not-found`.",
	}, func(ctx context.Context, in *KeyPath) (*answer[v1.Key], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		k, err := svc.Key(ctx, identity.From(ctx), in.KeyID)
		return &answer[v1.Key]{viewKey(k)}, err
	})
	register(a, huma.Operation{
		OperationID: "revoke-key", Method: http.MethodDelete, Path: path + "/{key_id}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Revoke an API key", Description: "At once here, and within seconds on all servers of the installation. Admins can revoke those of their organisation. Failures: 404 `key-not-found`.",
	}, func(ctx context.Context, in *KeyPath) (*struct{}, error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		return nil, svc.RevokeKey(ctx, identity.From(ctx), in.KeyID)
	})
	register(a, huma.Operation{
		OperationID: "rotate-key", Method: http.MethodPost, Path: path + "/{key_id}/rotate", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make a key in the place of another", Description: "It has the same rights and lives as long. The old one stays valid for a while, so that nobody has to change both sides at once.\n\nFailures: 403 `key-of-another`; 404 `key-not-found`; 409 `key-over`.",
	}, func(ctx context.Context, in *struct {
		KeyPath
		Body *v1.RotateKey
	},
	) (*created[v1.NewKey], error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		overlap := defaultOverlap
		if in.Body != nil && in.Body.OverlapMS != nil {
			overlap = millis(*in.Body.OverlapMS)
		}
		k, secret, err := svc.RotateKey(ctx, identity.From(ctx), in.KeyID, overlap)
		return newKey(ctx, svc, k, secret, err)
	})
}

// keyFor says for whom a key is made: for who asks, or for somebody whom an
// operator names.
func keyFor(ctx context.Context, svc *accounts.Service, in v1.CreateKey) (identity.Principal, error) {
	who := identity.From(ctx)
	if in.UserID == "" {
		return who, nil
	}
	if err := who.May(identity.Operate); err != nil {
		return who, err
	}
	if err := who.Allow(identity.ScopeAdminWrite); err != nil {
		return who, err
	}
	u, err := svc.User(ctx, in.UserID)
	if err != nil {
		return who, err
	}
	for _, m := range u.Roles {
		if in.OrganisationID == "" || in.OrganisationID == m.Org {
			return identity.Principal{User: u.ID, Org: m.Org, Name: u.Name, Role: m.Role, Scopes: who.Scopes}, nil
		}
	}
	return who, errdefs.New(errdefs.ErrNotFound, "organisation-not-found", "The user is not in this organisation.").WithHint("GET /v1/users/%s says in which he is.", u.ID)
}

func newKey(ctx context.Context, svc *accounts.Service, k accounts.Key, secret string, err error) (*created[v1.NewKey], error) {
	if err != nil {
		return nil, err
	}
	if u, err := svc.User(ctx, k.User); err == nil {
		k.Email = u.Email
	}
	return &created[v1.NewKey]{"/v1/keys/" + k.ID, v1.NewKey{Key: viewKey(k), Secret: secret}}, nil
}
