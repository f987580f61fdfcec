// Package oidc signs people in by any provider of OpenID Connect: the code flow
// with PKCE, a state and a nonce.
//
//	browser ──▶ Begin ──▶ provider ──code──▶ Finish ──▶ accounts.External
//	   └── sealed state, in a cookie ────────────┘
//
// What a provider says of somebody becomes an organisation and a role by the
// rules of its settings; somebody for whom they give no role is refused.
//
// A provider is asked what it is at the first sign-in, so that one that is away
// keeps no server from starting.
package oidc

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
)

// Options describes a provider and what its claims mean.
type Options struct {
	Name         string // in addresses
	Title        string // for people; default: Name
	Issuer       string
	ClientID     string
	ClientSecret string   // empty: a public client
	Scopes       []string // default: openid, email, profile

	Org         string            // organisation of everybody
	OrgClaim    string            // or the claim that has it
	Orgs        map[string]string // organisations by values of OrgClaim; empty: the value is the name
	RoleClaim   string            // claim with groups or roles; dots lead into objects
	Roles       map[string]identity.Role
	DefaultRole identity.Role // of somebody without one by Roles; empty: he is refused
	Operators   []string      // values of RoleClaim that make an operator
	Domains     []string      // of e-mail addresses; empty: any
	LinkByEmail bool          // accounts with the address are his, if the provider has verified it

	HTTP *http.Client // default: one with bounds
}

// Provider is one provider.
type Provider struct {
	opts Options
	http *http.Client

	asks     chan struct{}   // has whoever asks the provider, and guards the rest
	provider *goidc.Provider // nil: not asked yet
	failed   error           // the last answer, if it was none
	failedAt time.Time
}

// New makes a Provider.
func New(opts Options) *Provider {
	if opts.Title == "" {
		opts.Title = opts.Name
	}
	if len(opts.Scopes) == 0 {
		opts.Scopes = []string{goidc.ScopeOpenID, "email", "profile"}
	}
	p := &Provider{opts: opts, http: bounded(opts.HTTP), asks: make(chan struct{}, 1)}
	return p
}

// Name is the provider's name in addresses.
func (p *Provider) Name() string { return p.opts.Name }

// Title is its name for people.
func (p *Provider) Title() string { return p.opts.Title }

// StateFor is how long a sign-in may take at the provider.
const StateFor = 15 * time.Minute

// skew is how far ahead a provider's clock may be.
const skew = 5 * time.Minute

// State is what a browser brings back from the provider.
type State struct {
	Provider string `json:"p"`
	State    string `json:"s"`
	Nonce    string `json:"n"`
	Verifier string `json:"v"` // of PKCE
	Return   string `json:"r"` // path to go to afterwards
	Until    int64  `json:"u"` // Unix seconds
}

// Seal gives a state as text that nobody without the key can make.
func (s State) Seal(key []byte) string {
	body, _ := json.Marshal(s) // plain strings
	return base64.RawURLEncoding.EncodeToString(body) + "." + base64.RawURLEncoding.EncodeToString(sum(key, body))
}

// Open reads a sealed state.
func Open(text string, key []byte) (State, bool) {
	var s State
	head, tail, _ := strings.Cut(text, ".")
	body, err1 := base64.RawURLEncoding.DecodeString(head)
	mac, err2 := base64.RawURLEncoding.DecodeString(tail)
	if err1 != nil || err2 != nil || !hmac.Equal(mac, sum(key, body)) || json.Unmarshal(body, &s) != nil {
		return State{}, false
	}
	return s, time.Now().Unix() < s.Until
}

func sum(key, body []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(body) // never fails
	return mac.Sum(nil)
}

func random() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Begin gives the provider's address to send a browser to, and what it has to
// bring back to redirect.
func (p *Provider) Begin(ctx context.Context, redirect, back string) (string, State, error) {
	found, err := p.discover(ctx)
	if err != nil {
		return "", State{}, err
	}
	s := State{Provider: p.opts.Name, State: random(), Nonce: random(), Verifier: oauth2.GenerateVerifier(), Return: back, Until: time.Now().Add(StateFor).Unix()}
	return p.config(found, redirect).AuthCodeURL(s.State, goidc.Nonce(s.Nonce), oauth2.S256ChallengeOption(s.Verifier)), s, nil
}

// Finish trades the code that a browser brought back for who it is.
func (p *Provider) Finish(ctx context.Context, s State, redirect, state, code string) (accounts.External, error) {
	var none accounts.External
	if s.Provider != p.opts.Name || subtle.ConstantTimeCompare([]byte(s.State), []byte(state)) != 1 || code == "" {
		return none, errdefs.New(errdefs.ErrForbidden, "provider-state-wrong", "This answer of %s belongs to another sign-in.", p.opts.Title).WithHint("Sign in again.")
	}
	found, err := p.discover(ctx)
	if err != nil {
		return none, err
	}
	ctx = goidc.ClientContext(ctx, p.http)
	token, err := p.config(found, redirect).Exchange(ctx, code, oauth2.VerifierOption(s.Verifier))
	if err != nil {
		return none, p.refused("%s does not accept its own code.", err)
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return none, p.refused("%s sends no ID token.", nil)
	}
	id, err := found.Verifier(&goidc.Config{ClientID: p.opts.ClientID}).Verify(ctx, raw)
	if err != nil {
		return none, p.refused("The ID token of %s can't be trusted.", err)
	}
	if id.IssuedAt.After(time.Now().Add(skew)) {
		return none, p.refused("The ID token of %s is from the future.", nil)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(s.Nonce)) != 1 {
		return none, p.refused("The ID token of %s belongs to another sign-in.", nil)
	}
	claims := map[string]any{}
	if err := id.Claims(&claims); err != nil {
		return none, p.refused("The ID token of %s can't be read.", err)
	}
	if azp := first(claims, "azp"); azp != "" && azp != p.opts.ClientID || azp == "" && len(id.Audience) > 1 {
		return none, p.refused("The ID token of %s was made for another client.", nil)
	}
	if !p.complete(claims) {
		// Some providers put little into the token and the rest here.
		info, err := found.UserInfo(ctx, oauth2.StaticTokenSource(token))
		if err == nil && info.Subject == id.Subject { // else it is somebody else's
			more := map[string]any{}
			if info.Claims(&more) == nil {
				addClaims(claims, more)
			}
		}
	}
	return p.external(id.Issuer, id.Subject, claims)
}

// addClaims adds what user info says to what the ID token does. Whether an
// address is verified goes with that address.
func addClaims(claims, more map[string]any) {
	if first(claims, "email") != "" && first(claims, "email") != first(more, "email") {
		delete(more, "email_verified")
	}
	if first(claims, "email") == "" {
		delete(claims, "email_verified")
	}
	for k, v := range more {
		if claims[k] == nil {
			claims[k] = v
		}
	}
}

func (p *Provider) refused(format string, err error) error {
	return errdefs.New(errdefs.ErrForbidden, "provider-answer-invalid", format, p.opts.Title).WithHint("Sign in again; if it stays so, the server's log has the reason.").WithCause(err)
}

func (p *Provider) config(found *goidc.Provider, redirect string) *oauth2.Config {
	return &oauth2.Config{ClientID: p.opts.ClientID, ClientSecret: p.opts.ClientSecret, Endpoint: found.Endpoint(), RedirectURL: redirect, Scopes: p.opts.Scopes}
}

// askAgain is how long a provider that did not answer is left alone, so that
// sign-ins do not wait for it one after the other.
const askAgain = 5 * time.Second

// discover asks the provider what it is, until it has answered once.
func (p *Provider) discover(ctx context.Context) (*goidc.Provider, error) {
	select {
	case p.asks <- struct{}{}:
		defer func() { <-p.asks }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if p.provider != nil {
		return p.provider, nil
	}
	if p.failed != nil && time.Since(p.failedAt) < askAgain {
		return nil, p.failed
	}
	// The provider keeps the context for its keys: it must not be a request's.
	found, err := goidc.NewProvider(goidc.ClientContext(context.WithoutCancel(ctx), p.http), p.opts.Issuer)
	if err == nil {
		err = p.checkPlaces(found)
	}
	if err != nil {
		p.failed, p.failedAt = errdefs.New(errdefs.ErrUnavailable, "provider-unreachable", "%s does not answer, so nobody can sign in with it now.", p.opts.Title).
			WithHint("Try again in a minute; else an operator checks the issuer's address.").WithCause(err), time.Now()
		return nil, p.failed
	}
	p.provider = found
	return found, nil
}

// checkPlaces refuses a provider with TLS that has codes, secrets or keys go
// without.
func (p *Provider) checkPlaces(found *goidc.Provider) error {
	if !strings.HasPrefix(p.opts.Issuer, "https://") {
		return nil
	}
	var doc struct {
		Keys string `json:"jwks_uri"`
	}
	if err := found.Claims(&doc); err != nil {
		return err
	}
	end := found.Endpoint()
	for _, place := range []string{end.AuthURL, end.TokenURL, doc.Keys, found.UserInfoEndpoint()} {
		if place != "" && !strings.HasPrefix(place, "https://") {
			return fmt.Errorf("oidc: the issuer %s names the address %.200s, without TLS", p.opts.Issuer, place)
		}
	}
	return nil
}

// complete reports whether claims have all that is asked for.
func (p *Provider) complete(claims map[string]any) bool {
	for _, c := range []string{"email", p.opts.OrgClaim, p.opts.RoleClaim} {
		if c != "" && len(values(claims, c)) == 0 {
			return false
		}
	}
	return true
}

// external applies the rules to what the provider says.
func (p *Provider) external(issuer, subject string, claims map[string]any) (accounts.External, error) {
	x := accounts.External{Issuer: issuer, Subject: subject, Email: first(claims, "email"), Name: first(claims, "name"), Link: p.opts.LinkByEmail, Org: p.opts.Org}
	x.Verified, _ = claims["email_verified"].(bool)
	_, domain, _ := strings.Cut(x.Email, "@")
	if len(p.opts.Domains) > 0 && (!x.Verified || !slices.ContainsFunc(p.opts.Domains, func(d string) bool { return sameDomain(d, domain) })) {
		return x, errdefs.New(errdefs.ErrForbidden, "provider-domain-refused", "Addresses such as yours may not sign in here.").WithHint("Ask whoever runs this server.")
	}
	if p.opts.OrgClaim != "" {
		for _, v := range values(claims, p.opts.OrgClaim) {
			if len(p.opts.Orgs) == 0 {
				x.Org = v
				break
			}
			if name, ok := p.opts.Orgs[v]; ok {
				x.Org = name
				break
			}
		}
	}
	if x.Org == "" {
		return x, errdefs.New(errdefs.ErrForbidden, "provider-no-organisation", "%s names no organisation of yours that is known here.", p.opts.Title).WithHint("Ask whoever runs this server.")
	}
	groups := values(claims, p.opts.RoleClaim)
	x.Role = p.opts.DefaultRole
	best := identity.Role("")
	for _, g := range groups {
		if r, ok := p.opts.Roles[g]; ok && (best == "" || r.AtLeast(best)) {
			best = r
		}
	}
	if best != "" {
		x.Role = best
	}
	if len(p.opts.Operators) > 0 {
		is := slices.ContainsFunc(groups, func(g string) bool { return slices.Contains(p.opts.Operators, g) })
		x.Operator = &is
	}
	if x.Role == "" {
		return x, errdefs.New(errdefs.ErrForbidden, "provider-no-role", "%s names no group of yours that has a role here.", p.opts.Title).WithHint("Ask whoever runs this server.")
	}
	return x, nil
}

// sameDomain is of ASCII: other letters that Unicode folds together are others.
func sameDomain(a, b string) bool {
	ascii := func(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r > '~' }) }
	return ascii(b) && strings.EqualFold(a, b)
}

func first(claims map[string]any, name string) string {
	if list := values(claims, name); len(list) > 0 {
		return list[0]
	}
	return ""
}

// values gives the texts of a claim, which may be one or a list; dots lead into
// objects unless a claim has that very name.
func values(claims map[string]any, name string) []string {
	if name == "" {
		return nil
	}
	v, ok := claims[name]
	if !ok {
		head, rest, found := strings.Cut(name, ".")
		if inner, is := claims[head].(map[string]any); found && is {
			return values(inner, rest)
		}
		return nil
	}
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var list []string
		for _, e := range v {
			if s, ok := e.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}
