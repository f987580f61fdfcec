package oidc_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/identity/identitytest"
	"github.com/caesarion/caesarion/internal/identity/oidc"
)

const back = "https://caesarion.example.org/v1/sign-in/oidc/company/return"

func provider(issuer string, change func(*oidc.Options)) *oidc.Provider {
	opts := oidc.Options{
		Name: "company", Issuer: issuer, ClientID: identitytest.ClientID, ClientSecret: identitytest.ClientSecret,
		Org: "Acme", DefaultRole: identity.RoleMember, RoleClaim: "groups", Roles: map[string]identity.Role{"heads": identity.RoleAdmin},
	}
	if change != nil {
		change(&opts)
	}
	return oidc.New(opts)
}

// visit goes to the issuer as a browser, and gives what it brings back.
func visit(t *testing.T, to string) url.Values {
	t.Helper()
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	at, err := resp.Location()
	if err != nil {
		t.Fatal(err)
	}
	return at.Query()
}

func signIn(t *testing.T, p *oidc.Provider) (accounts.External, error) {
	t.Helper()
	to, state, err := p.Begin(t.Context(), back, "/")
	if err != nil {
		return accounts.External{}, err
	}
	q := visit(t, to)
	return p.Finish(t.Context(), state, back, q.Get("state"), q.Get("code"))
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	if got := errdefs.CodeOf(err); got != code {
		t.Errorf("%s: %v (%v), want the code %s", what, err, errors.Unwrap(err), code)
	}
}

var ann = map[string]any{"sub": "1", "email": "ann@example.org", "email_verified": true}

func TestTokensThatCannotBeTrusted(t *testing.T) {
	issuer := identitytest.New(t)
	issuer.Next(ann, nil)
	p := provider(issuer.URL, nil)
	if x, err := signIn(t, p); err != nil || x.Subject != "1" || !x.Verified {
		t.Fatalf("signed in = %+v, %v", x, err)
	}
	public, kid := issuer.Key()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	sign := func(alg jose.SignatureAlgorithm, key any) func([]byte) string {
		return func(claims []byte) string {
			text, err := identitytest.Sign(claims, alg, key, kid)
			if err != nil {
				t.Error(err)
			}
			return text
		}
	}
	for name, forge := range map[string]func([]byte) string{
		"no algorithm":                      func(c []byte) string { return b64([]byte(`{"alg":"none"}`)) + "." + b64(c) + "." },
		"no algorithm, in capitals":         func(c []byte) string { return b64([]byte(`{"alg":"NONE","kid":"`+kid+`"}`)) + "." + b64(c) + ".AA" },
		"HS256 by the client's secret":      sign(jose.HS256, []byte(strings.Repeat(identitytest.ClientSecret, 2))),
		"HS256 by the public key":           sign(jose.HS256, der),
		"HS256 by the public key as a file": sign(jose.HS256, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		"another key of the same name":      sign(jose.RS256, other),
		"a key that the token brings along": func(c []byte) string {
			signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: other}, &jose.SignerOptions{EmbedJWK: true})
			if err != nil {
				t.Error(err)
				return ""
			}
			s, _ := signer.Sign(c)
			text, _ := s.CompactSerialize()
			return text
		},
		"RS512, which the issuer does not name": sign(jose.RS512, other),
		"two signatures":                        func(c []byte) string { return sign(jose.RS256, other)(c) + "." + b64(c) },
		"garbage":                               func([]byte) string { return "x.y.z" },
		"nothing":                               func([]byte) string { return "" },
		"1 MB":                                  func([]byte) string { return strings.Repeat("a", 1<<20) + ".b.c" },
	} {
		issuer.Forge = forge
		_, err := signIn(t, p)
		wantCode(t, name, err, "provider-answer-invalid")
	}
	issuer.Forge = nil
	now := time.Now()
	for name, spoil := range map[string]func(map[string]any){
		"over":                          func(c map[string]any) { c["exp"] = now.Add(-time.Second).Unix() },
		"no end":                        func(c map[string]any) { delete(c, "exp") },
		"not yet":                       func(c map[string]any) { c["nbf"] = now.Add(time.Hour).Unix() },
		"from the future":               func(c map[string]any) { c["iat"] = now.Add(time.Hour).Unix() },
		"for another":                   func(c map[string]any) { c["aud"] = "another" },
		"for nobody":                    func(c map[string]any) { delete(c, "aud") },
		"for several, and no party":     func(c map[string]any) { c["aud"] = []string{"another", identitytest.ClientID} },
		"for several, of another party": func(c map[string]any) { c["aud"], c["azp"] = []string{"another", identitytest.ClientID}, "another" },
		"for this, of another party":    func(c map[string]any) { c["azp"] = "another" },
		"of another issuer":             func(c map[string]any) { c["iss"] = "https://evil.example" },
		"of the issuer with a slash":    func(c map[string]any) { c["iss"] = issuer.URL + "/" },
		"no nonce":                      func(c map[string]any) { delete(c, "nonce") },
		"a nonce of another sign-in":    func(c map[string]any) { c["nonce"] = "x" },
	} {
		issuer.Spoil = spoil
		_, err := signIn(t, p)
		wantCode(t, name, err, "provider-answer-invalid")
	}
	issuer.Spoil = func(c map[string]any) {
		c["aud"], c["azp"] = []string{"another", identitytest.ClientID}, identitytest.ClientID
	}
	if _, err := signIn(t, p); err != nil {
		t.Errorf("for several, of this party: %v", err)
	}
	issuer.Spoil = nil
	issuer.Rotate(t)
	if _, err := signIn(t, p); err != nil {
		t.Errorf("after the issuer took another key: %v", err)
	}
}

func TestAnswersOfOtherSignIns(t *testing.T) {
	issuer, second := identitytest.New(t), identitytest.New(t)
	issuer.Next(ann, nil)
	second.Next(map[string]any{"sub": "1", "email": "eve@example.org"}, nil)
	p := provider(issuer.URL, nil)
	q := provider(second.URL, func(o *oidc.Options) { o.Name = "second" })
	to, state, err := p.Begin(t.Context(), back, "/")
	if err != nil {
		t.Fatal(err)
	}
	got := visit(t, to)
	finish := func(p *oidc.Provider, s oidc.State, redirect, state, code string) error {
		_, err := p.Finish(t.Context(), s, redirect, state, code)
		return err
	}
	wantCode(t, "without a code", finish(p, state, back, state.State, ""), "provider-state-wrong")
	wantCode(t, "with another state", finish(p, state, back, "x", got.Get("code")), "provider-state-wrong")
	wantCode(t, "without a state", finish(p, state, back, "", got.Get("code")), "provider-state-wrong")
	wantCode(t, "at another provider", finish(q, state, back, state.State, got.Get("code")), "provider-state-wrong")
	mixed := state
	mixed.Provider = "second"
	wantCode(t, "a code of another provider", finish(q, mixed, back, state.State, got.Get("code")), "provider-answer-invalid")
	if err := finish(p, state, back, got.Get("state"), got.Get("code")); err != nil {
		t.Errorf("rightly: %v", err)
	}
	wantCode(t, "a code again", finish(p, state, back, got.Get("state"), got.Get("code")), "provider-answer-invalid")
	to, state, _ = p.Begin(t.Context(), back, "/")
	got = visit(t, to)
	stolen := state
	stolen.Verifier = strings.Repeat("x", 43)
	wantCode(t, "a stolen code without its verifier", finish(p, stolen, back, state.State, got.Get("code")), "provider-answer-invalid")

	key := []byte("key")
	sealed := state.Seal(key)
	if s, ok := oidc.Open(sealed, key); !ok || s != state {
		t.Error("a state can't be opened")
	}
	head, mac, _ := strings.Cut(sealed, ".")
	old := state
	old.Until = time.Now().Add(-time.Second).Unix()
	forged, _ := json.Marshal(oidc.State{Provider: "company", State: "x", Until: time.Now().Add(time.Hour).Unix()})
	for _, bad := range []string{"", ".", head, head + ".", sealed + "x", base64.RawURLEncoding.EncodeToString(forged) + "." + mac, old.Seal(key), state.Seal([]byte("another"))} {
		if _, ok := oidc.Open(bad, key); ok {
			t.Errorf("%q is taken for a state", bad)
		}
	}
}

// What user info says of one address does not make another one verified.
func TestVerifiedGoesWithItsAddress(t *testing.T) {
	issuer := identitytest.New(t)
	p := provider(issuer.URL, func(o *oidc.Options) { o.LinkByEmail = true })
	for name, tt := range map[string]struct {
		claims, info map[string]any
		email        string
		verified     bool
	}{
		"of another address":   {map[string]any{"sub": "1", "email": "chief@example.org"}, map[string]any{"email": "eve@example.org", "email_verified": true}, "chief@example.org", false},
		"of the same":          {map[string]any{"sub": "1", "email": "eve@example.org"}, map[string]any{"email": "eve@example.org", "email_verified": true}, "eve@example.org", true},
		"of one without it":    {map[string]any{"sub": "1", "email_verified": true}, map[string]any{"email": "chief@example.org"}, "chief@example.org", false},
		"both in user info":    {map[string]any{"sub": "1"}, map[string]any{"email": "eve@example.org", "email_verified": true}, "eve@example.org", true},
		"as a text":            {map[string]any{"sub": "1", "email": "eve@example.org", "email_verified": "true"}, nil, "eve@example.org", false},
		"user info of another": {map[string]any{"sub": "1"}, map[string]any{"sub": "2", "email": "eve@example.org", "email_verified": true}, "", false},
	} {
		issuer.Next(tt.claims, tt.info)
		x, err := signIn(t, p)
		if err != nil || x.Email != tt.email || x.Verified != tt.verified {
			t.Errorf("%s: %q verified %t, %v; want %q %t", name, x.Email, x.Verified, err, tt.email, tt.verified)
		}
	}
}

func TestOnlyTheDomainItself(t *testing.T) {
	issuer := identitytest.New(t)
	p := provider(issuer.URL, func(o *oidc.Options) { o.Domains = []string{"kiosk.example"} })
	for email, good := range map[string]bool{
		"a@kiosk.example": true, "a@KIOSK.example": true, "a@\u212aiosk.example": false, "a@kio\u017fk.example": false, "a@kiosk.example@evil.example": false, "a@evil.example@kiosk.example": false,
		"a@kiosk.example.": false, "a@x.kiosk.example": false, "a@xkiosk.example": false, "kiosk.example": false, "": false,
	} {
		issuer.Next(map[string]any{"sub": "1", "email": email, "email_verified": true}, nil)
		if _, err := signIn(t, p); (err == nil) != good {
			t.Errorf("%q: %v", email, err)
		}
	}
}

// issuerOf is an issuer whose answers are the test's.
func issuerOf(t *testing.T, tls bool, answer func(w http.ResponseWriter, r *http.Request, self string)) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(nil)
	srv.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(w, r, srv.URL) })
	if tls {
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	return srv
}

func TestAnswersWithoutEnd(t *testing.T) {
	var sent atomic.Int64
	srv := issuerOf(t, false, func(w http.ResponseWriter, _ *http.Request, _ string) {
		part := []byte(`{"issuer":"` + strings.Repeat("x", 1<<16))
		for {
			n, err := w.Write(part)
			sent.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	_, _, err := provider(srv.URL, nil).Begin(t.Context(), back, "/")
	wantCode(t, "without end", err, "provider-unreachable")
	srv.Close()
	if n := sent.Load(); n > 32<<20 {
		t.Errorf("%d MB were taken", n>>20)
	}
}

func TestNothingGoesWithoutTLSWhereTheIssuerHasIt(t *testing.T) {
	doc := func(self, token, keys string) string {
		return fmt.Sprintf(`{"issuer":%q,"authorization_endpoint":"%s/a","token_endpoint":%q,"jwks_uri":%q}`, self, self, token, keys)
	}
	plain := issuerOf(t, false, func(http.ResponseWriter, *http.Request, string) { t.Error("somebody came without TLS") })
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request, self string){
		"the secret": func(w http.ResponseWriter, _ *http.Request, self string) {
			fmt.Fprint(w, doc(self, plain.URL, self+"/k"))
		},
		"the keys": func(w http.ResponseWriter, _ *http.Request, self string) {
			fmt.Fprint(w, doc(self, self+"/t", plain.URL))
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request, _ string) {
			http.Redirect(w, r, plain.URL, http.StatusFound)
		},
		"another issuer": func(w http.ResponseWriter, _ *http.Request, _ string) {
			fmt.Fprint(w, doc("https://evil.example", "https://evil.example/t", "https://evil.example/k"))
		},
	} {
		srv := issuerOf(t, true, answer)
		_, _, err := provider(srv.URL, func(o *oidc.Options) { o.HTTP = srv.Client() }).Begin(t.Context(), back, "/")
		wantCode(t, name, err, "provider-unreachable")
	}
}

func TestSignInsDoNotWaitForEachOther(t *testing.T) {
	held := make(chan struct{})
	var asked atomic.Int64
	srv := issuerOf(t, false, func(_ http.ResponseWriter, r *http.Request, _ string) {
		asked.Add(1)
		select {
		case <-held:
		case <-r.Context().Done():
		}
	})
	defer close(held)
	p := provider(srv.URL, func(o *oidc.Options) { o.HTTP = &http.Client{Timeout: 300 * time.Millisecond} })
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			_, _, err := p.Begin(t.Context(), back, "/")
			wantCode(t, "a provider that hangs", err, "provider-unreachable")
		})
	}
	all.Wait()
	if n := asked.Load(); n > 2 {
		t.Errorf("it was asked %d times", n)
	}
	hung := provider(srv.URL, func(o *oidc.Options) { o.HTTP = &http.Client{} })
	go func() { _, _, _ = hung.Begin(context.WithoutCancel(t.Context()), back, "/") }() // until the issuer goes
	for asked.Load() < 2 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := hung.Begin(ctx, back, "/"); !errors.Is(err, context.Canceled) {
		t.Errorf("who leaves waits on: %v", err)
	}
}
