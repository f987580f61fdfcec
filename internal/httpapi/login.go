package httpapi

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// cookieLife is how long a browser stays logged in without being told the
// token again.
const cookieLife = 30 * 24 * time.Hour

// derive gives a value that follows from the token and does not tell it.
func (a *API) derive(purpose string) []byte {
	mac := hmac.New(sha256.New, []byte(a.opts.Token))
	mac.Write([]byte(purpose)) // never fails
	return mac.Sum(nil)
}

// cookieName differs from server to server: cookies know no ports, and servers
// on one host would throw each other's out.
func (a *API) cookieName() string {
	return "caesarion_" + hex.EncodeToString(a.derive("cookie name")[:4])
}

func (a *API) cookieValue() string {
	return base64.RawURLEncoding.EncodeToString(a.derive("cookie value"))
}

func (a *API) cookie(r *http.Request) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // Secure follows the connection: on loopback there is no TLS
		Name: a.cookieName(), Value: a.cookieValue(), Path: "/", MaxAge: int(cookieLife.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: a.secure(r),
	}
}

func (a *API) setCookie(w http.ResponseWriter, r *http.Request) {
	if !a.opts.AuthNone {
		http.SetCookie(w, a.cookie(r))
	}
}

// tokenGood compares hashes, which have one length: the time it takes tells
// nothing of the token's.
func (a *API) tokenGood(token string) bool {
	want, got := sha256.Sum256([]byte(a.opts.Token)), sha256.Sum256([]byte(token))
	return a.opts.Token != "" && subtle.ConstantTimeCompare(want[:], got[:]) == 1
}

// cookieGood tells whether the page itself sends this: its cookie, and no page
// of another origin that made the browser send it along.
func (a *API) cookieGood(r *http.Request) bool {
	c, err := r.Cookie(a.cookieName())
	if err != nil || a.opts.Token == "" || foreignPage(r) {
		return false
	}
	return subtle.ConstantTimeCompare([]byte(a.cookieValue()), []byte(c.Value)) == 1
}

// foreignPage tells whether a page of another origin asks. Another port of the
// same host is another origin too, though browsers send it the same cookies.
// What a person opens by an address or a bookmark has no page behind it.
func foreignPage(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		// No browser of today; an older one may still send Origin.
		origin := r.Header.Get("Origin")
		if origin == "" {
			return false
		}
		u, err := url.Parse(origin)
		return err != nil || !strings.EqualFold(u.Host, r.Host)
	}
	return true
}

// followed tells whether a person opens this in the window itself.
func followed(r *http.Request) bool {
	return r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// LoginInput is the body of a login.
type LoginInput struct {
	Raw
	Body v1.Login
}

// cookieAnswer is an answer of nothing but a cookie.
type cookieAnswer struct {
	SetCookie []http.Cookie `header:"Set-Cookie"`
}

func (a *API) loginRoutes() {
	register(a, huma.Operation{
		OperationID: "login", Method: http.MethodPost, Path: "/v1/login", Tags: []string{tagServer}, Security: []map[string][]string{},
		DefaultStatus: http.StatusNoContent,
		Summary:       "Trade the token, or address and password, for a cookie",
		Description:   "For pages in a browser. The cookie does what the token does, for requests of this server's own pages, for 30 days; scripts can't read it. Where there are accounts it is the user's, is always new, and ends after a week without use.\n\nFailures: 401 `token-wrong`, `sign-in-failed`; 429 `sign-in-throttled`; 503 `sign-in-busy`.",
	}, func(ctx context.Context, in *LoginInput) (*cookieAnswer, error) {
		if a.opts.Accounts != nil {
			return a.signInWith(ctx, in)
		}
		if a.opts.AuthNone {
			return &cookieAnswer{}, nil
		}
		if !a.tokenGood(strings.TrimSpace(in.Body.Token)) {
			return nil, errdefs.New(errdefs.ErrUnauthenticated, "token-wrong", "This is not the server's token.").
				WithHint("The server printed an address with the token at its start, and keeps the token in the file named token in its data directory.")
		}
		return &cookieAnswer{[]http.Cookie{*a.cookie(in.r)}}, nil
	})
	register(a, huma.Operation{
		OperationID: "logout", Method: http.MethodPost, Path: "/v1/logout", Tags: []string{tagServer}, Security: []map[string][]string{},
		DefaultStatus: http.StatusNoContent,
		Summary:       "Remove the cookie of a login",
		Description:   "From this browser. The token stays valid; for another one, start the server with another token. Where there are accounts the sign-in ends.",
	}, func(ctx context.Context, in *Raw) (*cookieAnswer, error) {
		if a.opts.Accounts != nil {
			a.forgetLogin(ctx, in.r)
			return &cookieAnswer{[]http.Cookie{*a.newLogin(in.r, "")}}, nil
		}
		c := a.cookie(in.r) //nolint:gosec // see there
		c.Value, c.MaxAge = "", -1
		return &cookieAnswer{[]http.Cookie{*c}}, nil
	})
}
