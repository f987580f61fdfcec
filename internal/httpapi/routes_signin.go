package httpapi

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/identity/oidc"
)

const tagAccounts = "Accounts"

// accountsOn gives the accounts, or says that there are none.
func (a *API) accountsOn() (*accounts.Service, error) {
	if a.opts.Accounts == nil {
		return nil, errdefs.New(errdefs.ErrUnsupported, "accounts-off", "This server has one user, and no accounts.").
			WithHint("Start it with --auth accounts.")
	}
	return a.opts.Accounts, nil
}

// keyFor gives a key that all servers of the installation have, for one purpose.
func (a *API) keyFor(purpose string) []byte {
	secret := a.opts.Secret
	if len(secret) == 0 {
		secret = []byte(a.opts.Token)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(purpose)) // never fails
	return mac.Sum(nil)
}

// secure tells whether browsers reach this server by TLS.
func (a *API) secure(r *http.Request) bool {
	return r.TLS != nil || strings.HasPrefix(a.opts.PublicURL, "https://")
}

// loginName is the name of the cookie of a sign-in. With TLS the browser sees to
// it that no other server, not even one of a sub-domain, can set it.
func (a *API) loginName(r *http.Request) string {
	name := "caesarion_" + hex.EncodeToString(a.keyFor("login cookie")[:4])
	if a.secure(r) {
		return "__Host-" + name
	}
	return name
}

func (a *API) loginCookie(r *http.Request) string {
	c, err := r.Cookie(a.loginName(r))
	if err != nil {
		return ""
	}
	return c.Value
}

// newLogin gives the cookie of a sign-in; empty: the one that removes it.
func (a *API) newLogin(r *http.Request, value string) *http.Cookie {
	c := &http.Cookie{ //nolint:gosec // Secure follows the connection: on loopback there is no TLS
		Name: a.loginName(r), Value: value, Path: "/", MaxAge: int(cookieLife.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: a.secure(r),
	}
	if value == "" {
		c.MaxAge = -1
	}
	return c
}

// stateCookie carries a sign-in over to the provider and back. It alone is
// Lax: the way back comes from another site.
func (a *API) stateCookie(r *http.Request, value string) *http.Cookie {
	c := a.newLogin(r, value) //nolint:gosec // see there
	c.Name, c.SameSite = c.Name+"_s", http.SameSiteLaxMode
	if value != "" {
		c.MaxAge = int(oidc.StateFor.Seconds())
	}
	return c
}

func (a *API) from(r *http.Request) accounts.From {
	return accounts.From{Address: a.clientAddress(r), Agent: r.UserAgent()}
}

func (a *API) auth() string {
	switch {
	case a.opts.Accounts != nil:
		return "accounts"
	case a.opts.AuthNone:
		return "none"
	}
	return "token"
}

func (a *API) signInWays(ctx context.Context) (v1.SignInWays, error) {
	ways := v1.SignInWays{Auth: a.auth(), Providers: []v1.SignInProvider{}}
	if a.opts.Accounts == nil {
		return ways, nil
	}
	ways.Password = true
	for _, p := range a.opts.Providers {
		ways.Providers = append(ways.Providers, v1.SignInProvider{Name: p.Name(), Title: p.Title(), URL: "/v1/sign-in/oidc/" + url.PathEscape(p.Name())})
	}
	n, err := a.opts.Accounts.Count(ctx)
	ways.Setup = n == 0
	return ways, err
}

// signInWith signs in with address and password.
func (a *API) signInWith(ctx context.Context, in *LoginInput) (*cookieAnswer, error) {
	cookie, who, err := a.opts.Accounts.SignIn(ctx, in.Body.Email, in.Body.Password, a.from(in.r))
	a.auditSignIn(in.r, who, "sign-in", accounts.Address(in.Body.Email), err)
	if err != nil {
		return nil, err
	}
	a.forgetLogin(ctx, in.r)
	return &cookieAnswer{[]http.Cookie{*a.newLogin(in.r, cookie)}}, nil
}

// forgetLogin ends the sign-in that a browser has, if it has one.
func (a *API) forgetLogin(ctx context.Context, r *http.Request) {
	value := a.loginCookie(r)
	if value == "" || foreignPage(r) {
		return
	}
	if who, err := a.opts.Accounts.Resume(ctx, value); err == nil {
		err := a.opts.Accounts.SignOut(ctx, who.User, who.Login) // or it ended by itself
		a.auditSignIn(r, who, "sign-out", who.Login, err)
	}
}

func (a *API) signInRoutes() {
	tags := []string{tagAccounts}
	register(a, huma.Operation{
		OperationID: "sign-in-ways", Method: http.MethodGet, Path: "/v1/sign-in", Tags: tags,
		Summary:     "How people sign in",
		Description: "Where there are accounts this needs no key. Elsewhere it is refused without the token as everything is.",
	}, func(ctx context.Context, _ *struct{}) (*answer[v1.SignInWays], error) {
		ways, err := a.signInWays(ctx)
		return &answer[v1.SignInWays]{ways}, err
	})
	register(a, huma.Operation{
		OperationID: "redeem-link", Method: http.MethodPost, Path: "/v1/sign-in/link", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary:     "Set a password by a link, and sign in",
		Description: "An admin makes the link for a user; the one that the server prints at its first start makes the first user, who operates the installation. Each can be used once, within three days.\n\nFailures: 400 `password-too-short`; 403 `link-invalid`; 429 `sign-in-throttled`.",
	}, func(ctx context.Context, in *struct {
		Raw
		Body v1.RedeemLink
	},
	) (*cookieAnswer, error) {
		svc, err := a.accountsOn()
		if err != nil {
			return nil, err
		}
		var who identity.Principal
		cookie := ""
		user, err := svc.Redeem(ctx, in.Body.Secret, accounts.Setup{Email: in.Body.Email, Name: in.Body.Name, Password: in.Body.Password, Org: in.Body.Organisation}, a.from(in.r))
		if err == nil {
			cookie, who, err = svc.Begin(ctx, user, "", a.from(in.r))
		}
		a.auditSignIn(in.r, who, "redeem-link", user, err)
		if err != nil {
			return nil, err
		}
		a.forgetLogin(ctx, in.r)
		return &cookieAnswer{[]http.Cookie{*a.newLogin(in.r, cookie)}}, nil
	})
	name := []*huma.Param{{Name: "provider", In: "path", Required: true, Schema: &huma.Schema{Type: "string"}}}
	redirects := map[string]*huma.Response{"303": {Description: "To the provider, or back to the page; after a failure with #sign-in-failed=CODE"}}
	a.plain(huma.Operation{
		OperationID: "provider-sign-in", Method: http.MethodGet, Path: "/v1/sign-in/oidc/{provider}", Tags: tags, Parameters: name, Responses: redirects,
		Summary: "Sign in with a provider of OpenID Connect", Description: "For browsers. ?return= is the path to go to afterwards.",
	}, a.providerSignIn)
	a.plain(huma.Operation{
		OperationID: "provider-return", Method: http.MethodGet, Path: "/v1/sign-in/oidc/{provider}/return", Tags: tags, Parameters: name, Responses: redirects,
		Summary: "Where the provider sends the browser", Description: "To be registered with the provider, with the server's address before it.",
	}, a.providerReturn)
}

func (a *API) provider(r *http.Request) (*oidc.Provider, error) {
	if _, err := a.accountsOn(); err != nil {
		return nil, err
	}
	name := r.PathValue("provider")
	i := slices.IndexFunc(a.opts.Providers, func(p *oidc.Provider) bool { return p.Name() == name })
	if i < 0 {
		return nil, errdefs.New(errdefs.ErrNotFound, "provider-not-found", "There is no provider %.80q.", name).WithHint("GET /v1/sign-in lists them.")
	}
	return a.opts.Providers[i], nil
}

func (a *API) redirectOf(r *http.Request, p *oidc.Provider) string {
	return a.base(r) + "/v1/sign-in/oidc/" + url.PathEscape(p.Name()) + "/return"
}

func (a *API) providerSignIn(w http.ResponseWriter, r *http.Request) {
	p, err := a.provider(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	to, state, err := p.Begin(r.Context(), a.redirectOf(r, p), localPath(r.URL.Query().Get("return")))
	if err != nil {
		a.signInFailed(w, r, err)
		return
	}
	http.SetCookie(w, a.stateCookie(r, state.Seal(a.keyFor("sign-in state"))))
	w.Header().Set("Referrer-Policy", "no-referrer")
	http.Redirect(w, r, to, http.StatusSeeOther) //nolint:gosec // to the provider of the settings
}

func (a *API) providerReturn(w http.ResponseWriter, r *http.Request) {
	p, err := a.provider(r)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	var state oidc.State
	ok := false
	if c, err := r.Cookie(a.stateCookie(r, "").Name); err == nil {
		state, ok = oidc.Open(c.Value, a.keyFor("sign-in state"))
	}
	http.SetCookie(w, a.stateCookie(r, "")) // it is good for one answer
	w.Header().Set("Referrer-Policy", "no-referrer")
	query := r.URL.Query()
	var who identity.Principal
	cookie := ""
	switch {
	case !ok:
		err = errdefs.New(errdefs.ErrForbidden, "provider-state-wrong", "This answer of %s belongs to no sign-in of this browser, or came too late.", p.Title()).WithHint("Sign in again.")
	case query.Get("error") != "":
		err = errdefs.New(errdefs.ErrForbidden, "provider-refused", "%s did not let you in: %.200s", p.Title(), query.Get("error")).WithHint("Ask whoever runs it.")
	default:
		var x accounts.External
		if x, err = p.Finish(r.Context(), state, a.redirectOf(r, p), query.Get("state"), query.Get("code")); err == nil {
			var user, org string
			if user, org, err = a.opts.Accounts.Accept(r.Context(), x); err == nil {
				cookie, who, err = a.opts.Accounts.Begin(r.Context(), user, org, a.from(r))
			}
		}
	}
	a.auditSignIn(r, who, "sign-in", p.Name(), err)
	if err != nil {
		a.signInFailed(w, r, err)
		return
	}
	http.SetCookie(w, a.newLogin(r, cookie))
	http.Redirect(w, r, localPath(state.Return), http.StatusSeeOther)
}

// signInFailed sends a browser back to the page, which says what happened.
func (a *API) signInFailed(w http.ResponseWriter, r *http.Request, err error) {
	p := problemFor(r.Context(), err) // which notes it for the log
	http.Redirect(w, r, "/#sign-in-failed="+url.QueryEscape(p.Code), http.StatusSeeOther)
}

// localPath gives a path of this server to go to; / for all that could lead
// away from it.
func localPath(path string) string {
	u, err := url.Parse(path)
	if err != nil || u.IsAbs() || u.Host != "" || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") {
		return "/"
	}
	return path
}
