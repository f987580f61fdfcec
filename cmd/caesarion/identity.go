package main

import (
	"context"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/httpapi"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/identity/oidc"
)

func accountOptions(in config.SignIn) accounts.Options {
	return accounts.Options{IdleLife: in.Idle.Std(), Life: in.Life.Std(), AuditFor: in.AuditFor.Std()}
}

// openAccounts opens the users of a server that has some.
func (s *server) openAccounts(ctx context.Context, opts serverOptions) (err error) {
	if opts.cfg.Auth != config.AuthAccounts {
		return nil
	}
	options := accountOptions(opts.cfg.SignIn)
	options.Logger = opts.log
	s.accounts = accounts.New(ctx, s.store, options)
	s.setup, err = s.accounts.NewSetup(ctx)
	return err
}

// signIn tells the API who its users are and how they sign in.
func (s *server) signIn(opts serverOptions, api *httpapi.Options) (err error) {
	api.Accounts, api.PublicURL = s.accounts, opts.cfg.PublicURL
	if api.TrustedProxies, err = opts.cfg.Proxies(); err != nil || s.accounts == nil {
		return err
	}
	if api.Secret, err = opts.cfg.Secret(); err != nil {
		return err
	}
	for i := range opts.cfg.SignIn.Providers {
		p := &opts.cfg.SignIn.Providers[i]
		secret, err := p.Secret()
		if err != nil {
			return err
		}
		roles := map[string]identity.Role{}
		for value, role := range p.Roles {
			roles[value] = identity.Role(role)
		}
		api.Providers = append(api.Providers, oidc.New(oidc.Options{
			Name: p.Name, Title: p.Title, Issuer: p.Issuer, ClientID: p.ClientID, ClientSecret: secret.Reveal(), Scopes: p.Scopes,
			Org: p.Organisation, OrgClaim: p.OrgClaim, Orgs: p.Organisations, RoleClaim: p.RoleClaim, Roles: roles,
			DefaultRole: identity.Role(p.DefaultRole), Operators: p.Operators, Domains: p.EmailDomains, LinkByEmail: p.LinkByEmail,
		}))
	}
	return nil
}
