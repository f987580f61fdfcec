package httpapitest

import (
	"bytes"
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/identitytest"
	"github.com/caesarion/caesarion/internal/identity/oidc"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// browser is a browser with cookies of its own, on one server.
type browser struct {
	t    *testing.T
	s    *Server
	http *http.Client
}

func (s *Server) browser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, s: s, http: &http.Client{Jar: jar}}
	t.Cleanup(b.http.CloseIdleConnections)
	return b
}

func (b *browser) do(method, path string, body []byte, headers ...header) answer {
	b.t.Helper()
	to := path
	if strings.HasPrefix(path, "/") {
		to = b.s.URL + path
	}
	req, err := http.NewRequestWithContext(context.WithoutCancel(b.t.Context()), method, to, bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	for _, h := range headers {
		req.Header.Set(h[0], h[1])
	}
	resp, err := b.http.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		b.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, text.Bytes()}
}

// signIn goes the whole way by a provider and gives where it ends.
func (b *browser) signIn(path string) string {
	b.t.Helper()
	// The way back comes from another site: Strict cookies are not sent there,
	// which a jar of Go does not know. What matters is that they are not needed.
	b.http.CheckRedirect = func(req *http.Request, _ []*http.Request) error {
		req.Header.Set("Sec-Fetch-Site", "cross-site")
		if strings.HasPrefix(req.URL.String(), b.s.URL) && !strings.Contains(req.URL.Path, "/oidc/") {
			return http.ErrUseLastResponse
		}
		return nil
	}
	defer func() { b.http.CheckRedirect = nil }()
	a := b.do("GET", path, nil)
	if a.Status != http.StatusSeeOther {
		b.t.Fatalf("sign-in = %d %s", a.Status, a.Body)
	}
	return a.Header.Get("Location")
}

// SignIn tests passwords, cookies, links and providers, over a real socket.
func SignIn(t *testing.T, newDriver func(testing.TB) sandbox.Driver, opts Options) {
	issuer := identitytest.New(t)
	opts.Accounts = true
	opts.Providers = []*oidc.Provider{oidc.New(oidc.Options{
		Name: "company", Title: "Company", Issuer: issuer.URL, ClientID: identitytest.ClientID, ClientSecret: identitytest.ClientSecret,
		Org: "Acme", RoleClaim: "realm_access.roles", Roles: map[string]identity.Role{"staff": identity.RoleMember, "heads": identity.RoleAdmin, "guests": identity.RoleViewer},
		Domains: []string{"example.org"},
	})}
	s := Start(t, newDriver(t), opts)
	t.Run("the first user is made by a link", func(t *testing.T) { s.testSetup(t) })
	t.Run("a cookie is the user's, and nobody else's", func(t *testing.T) { s.testCookie(t) })
	t.Run("a person signs in with a provider, makes a key, uses it, sees it in the audit and revokes it", func(t *testing.T) {
		issuer.Next(map[string]any{"sub": "1", "email": "ann@example.org", "email_verified": true, "name": "Ann", "realm_access": map[string]any{"roles": []string{"other", "staff", "heads"}}}, nil)
		s.testProvider(t)
	})
	t.Run("what is wrong with a provider's answer lets nobody in", func(t *testing.T) { s.testBadAnswers(t, issuer) })
}

func (s *Server) testSetup(t *testing.T) {
	b := s.browser(t)
	ways := into[v1.SignInWays](t, b.do("GET", "/v1/sign-in", nil), 200)
	if ways.Auth != "accounts" || !ways.Password || !ways.Setup || len(ways.Providers) != 1 || ways.Providers[0].Title != "Company" {
		t.Errorf("ways = %+v", ways)
	}
	secret, err := s.Accounts.NewSetup(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantProblem(t, b.do("POST", "/v1/sign-in/link", []byte(`{"secret":"x","password":"correct horse battery","email":"chief@example.org"}`)), 403, "link-invalid")
	a := b.do("POST", "/v1/sign-in/link", []byte(`{"secret":"`+secret+`","password":"correct horse battery","email":"chief@example.org","organisation":"Acme"}`))
	if a.Status != 204 {
		t.Fatalf("redeem = %d %s", a.Status, a.Body)
	}
	for _, part := range []string{"HttpOnly", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(a.Header.Get("Set-Cookie"), part) {
			t.Errorf("cookie = %s, want %s", a.Header.Get("Set-Cookie"), part)
		}
	}
	me := into[v1.Me](t, b.do("GET", "/v1/me", nil), 200)
	if me.Email != "chief@example.org" || !me.Operator || me.Organisation == nil || me.Organisation.Role != "owner" || len(me.May) != 6 || me.SignIn.Setup {
		t.Errorf("me = %+v", me)
	}
}

func (s *Server) testCookie(t *testing.T) {
	b := s.browser(t)
	sign := []byte(`{"email":"chief@example.org","password":"correct horse battery"}`)
	wantProblem(t, b.do("POST", "/v1/login", []byte(`{"email":"chief@example.org","password":"wrong"}`)), 401, "sign-in-failed")
	wantProblem(t, b.do("POST", "/v1/login", []byte(`{"email":"nobody@example.org","password":"wrong"}`)), 401, "sign-in-failed")
	wantProblem(t, b.do("POST", "/v1/login", []byte(`{"token":"`+Token+`"}`)), 401, "sign-in-failed")
	wantProblem(t, b.do("POST", "/v1/login", sign, header{"Origin", "http://evil.example"}, header{"Sec-Fetch-Site", "cross-site"}), 403, "cross-origin")
	wantProblem(t, b.do("GET", "/v1/me", nil), 401, "unauthenticated")
	first := b.do("POST", "/v1/login", sign).Header.Get("Set-Cookie")
	if a := b.do("GET", "/v1/me", nil); a.Status != 200 {
		t.Fatalf("me = %d %s", a.Status, a.Body)
	}
	// A sign-in that was there is over when another begins.
	second := b.do("POST", "/v1/login", sign).Header.Get("Set-Cookie")
	value, _, _ := strings.Cut(first, ";")
	if first == second {
		t.Error("two sign-ins have the same cookie")
	}
	wantProblem(t, s.do(t, "GET", "/v1/me", nil, header{"Authorization", ""}, header{"Cookie", value}), 401, "signed-out")
	// Pages of others.
	for _, h := range [][]header{
		{{"Sec-Fetch-Site", "cross-site"}}, {{"Sec-Fetch-Site", "same-site"}}, {{"Sec-Fetch-Site", "same-site"}, {"Sec-Fetch-Mode", "navigate"}, {"Sec-Fetch-Dest", "document"}},
	} {
		wantProblem(t, b.do("GET", "/v1/sessions", nil, h...), 401, "unauthenticated")
	}
	if a := b.do("POST", "/v1/sessions", []byte(`{}`), header{"Sec-Fetch-Site", "cross-site"}, header{"Origin", "http://evil.example"}); a.Status != 403 {
		t.Errorf("a change by another's page = %d", a.Status)
	}
	other := s.browser(t)
	if a := other.do("POST", "/v1/login", sign); a.Status != 204 {
		t.Fatalf("login = %d", a.Status)
	}
	list := into[v1.BrowserLoginList](t, b.do("GET", "/v1/me/logins", nil), 200)
	if len(list.Logins) < 2 {
		t.Errorf("logins = %+v", list)
	}
	if a := b.do("DELETE", "/v1/me/logins", nil); a.Status != 204 {
		t.Errorf("sign out everywhere = %d", a.Status)
	}
	wantProblem(t, b.do("GET", "/v1/me", nil), 401, "signed-out")
	wantProblem(t, other.do("GET", "/v1/me", nil), 401, "signed-out")
	if a := b.do("POST", "/v1/login", sign); a.Status != 204 {
		t.Fatal("login")
	}
	if a := b.do("POST", "/v1/logout", nil); a.Status != 204 || !strings.Contains(a.Header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logout = %d %s", a.Status, a.Header.Get("Set-Cookie"))
	}
	wantProblem(t, b.do("GET", "/v1/me", nil), 401, "unauthenticated")
	// The installation's token operates it, and has no cookie.
	me := into[v1.Me](t, s.do(t, "GET", "/v1/me", nil), 200)
	if me.UserID != "" || !me.Operator {
		t.Errorf("the installation = %+v", me)
	}
}

func (s *Server) testProvider(t *testing.T) {
	b := s.browser(t)
	if to := b.signIn("/v1/sign-in/oidc/company?return=/s/ses_x"); to != "/s/ses_x" {
		t.Fatalf("the way ends at %s", to)
	}
	me := into[v1.Me](t, b.do("GET", "/v1/me", nil), 200)
	if me.Email != "ann@example.org" || me.Name != "Ann" || me.Operator || me.Organisation == nil || me.Organisation.Name != "Acme" || me.Organisation.Role != "admin" || me.Password {
		t.Fatalf("me = %+v", me)
	}
	key := into[v1.NewKey](t, b.do("POST", "/v1/keys", []byte(`{"name":"report","scopes":["sessions:read","sessions:write"]}`)), 201)
	bearer := header{"Authorization", "Bearer " + key.Secret}
	made := into[v1.Session](t, s.send(t, "POST", "/v1/sessions", v1.CreateSession{Title: "by key"}, bearer), 201)
	if a := b.do("GET", "/v1/sessions/"+made.ID, nil); a.Status != 200 {
		t.Errorf("what the key made, in the browser = %d", a.Status)
	}
	wantProblem(t, s.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{}, bearer), 403, "scope-missing")
	entries := into[v1.AuditList](t, b.do("GET", "/v1/audit?object="+made.ID, nil), 200).Entries
	if len(entries) != 1 || entries[0].Via != key.ID || entries[0].Action != "create-session" || entries[0].UserID != me.UserID || entries[0].Name != "Ann" {
		t.Errorf("audit = %+v", entries)
	}
	if a := b.do("GET", "/v1/audit?action=sign-in", nil); !bytes.Contains(a.Body, []byte(me.UserID)) {
		t.Errorf("audit of sign-ins = %s", a.Body)
	}
	stream := s.open(t, "GET", "/v1/sessions/"+made.ID+"/events", nil, bearer) //nolint:bodyclose // below, where it is read
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, stream.Body) // it has a comment each second, until it is cut
		_ = stream.Body.Close()
	}()
	if stream.StatusCode != 200 {
		t.Errorf("events = %d", stream.StatusCode)
	}
	if a := b.do("DELETE", "/v1/keys/"+key.ID, nil); a.Status != 204 {
		t.Errorf("revoke = %d %s", a.Status, a.Body)
	}
	wantProblem(t, s.do(t, "GET", "/v1/sessions", nil, header{"Authorization", "Bearer " + key.Secret}, header{"Host", "localhost"}), 401, "key-invalid")
	select {
	case <-over:
	case <-time.After(patience):
		t.Error("a stream outlives the key that opened it")
	}
	for _, bad := range []string{"//evil.example", "https://evil.example", `/\evil.example`, "/%0d%0ax", "javascript:x"} {
		if to := b.signIn("/v1/sign-in/oidc/company?return=" + url.QueryEscape(bad)); to != "/" && to != "/%0d%0ax" {
			t.Errorf("a sign-in ends at %s", to)
		}
	}
}

func (s *Server) testBadAnswers(t *testing.T, issuer *identitytest.Issuer) {
	good := map[string]any{"sub": "9", "email": "eve@example.org", "email_verified": true, "realm_access": map[string]any{"roles": []string{"staff"}}}
	with := func(change map[string]any) map[string]any {
		c := maps.Clone(good)
		maps.Copy(c, change)
		return c
	}
	for name, tt := range map[string]struct {
		claims, info map[string]any
		spoil        func(map[string]any)
		code         string
	}{
		"refused there":                    {nil, nil, nil, "provider-refused"},
		"no group that has a role":         {with(map[string]any{"realm_access": map[string]any{"roles": []string{"x"}}}), nil, nil, "provider-no-role"},
		"no address":                       {with(map[string]any{"email": ""}), nil, nil, "provider-domain-refused"},
		"a foreign domain":                 {with(map[string]any{"email": "eve@evil.example"}), nil, nil, "provider-domain-refused"},
		"an address that is not verified":  {with(map[string]any{"email_verified": false}), nil, nil, "provider-domain-refused"},
		"an account that is another's":     {with(map[string]any{"email": "chief@example.org"}), nil, nil, "provider-email-taken"},
		"for another client":               {good, nil, func(c map[string]any) { c["aud"] = "another" }, "provider-answer-invalid"},
		"of another issuer":                {good, nil, func(c map[string]any) { c["iss"] = "https://evil.example" }, "provider-answer-invalid"},
		"that is over":                     {good, nil, func(c map[string]any) { c["exp"] = 1 }, "provider-answer-invalid"},
		"of another sign-in":               {good, nil, func(c map[string]any) { c["nonce"] = "x" }, "provider-answer-invalid"},
		"groups of somebody's else's info": {with(map[string]any{"realm_access": nil}), map[string]any{"sub": "8", "realm_access": map[string]any{"roles": []string{"staff"}}}, nil, "provider-no-role"},
	} {
		issuer.Next(tt.claims, tt.info)
		issuer.Spoil = tt.spoil
		b := s.browser(t)
		if to := b.signIn("/v1/sign-in/oidc/company"); to != "/#sign-in-failed="+tt.code {
			t.Errorf("%s: the way ends at %s, want the code %s", name, to, tt.code)
		}
		if a := b.do("GET", "/v1/me", nil); a.Status != 401 {
			t.Errorf("%s: somebody is signed in: %s", name, a.Body)
		}
	}
	issuer.Spoil = nil
	// What only user info says counts, too.
	issuer.Next(with(map[string]any{"realm_access": nil}), map[string]any{"realm_access": map[string]any{"roles": []string{"guests"}}})
	b := s.browser(t)
	if to := b.signIn("/v1/sign-in/oidc/company"); to != "/" {
		t.Errorf("with groups in user info the way ends at %s", to)
	}
	if me := into[v1.Me](t, b.do("GET", "/v1/me", nil), 200); me.Organisation.Role != "viewer" {
		t.Errorf("me = %+v", me)
	}
	wantProblem(t, b.do("POST", "/v1/sessions", []byte(`{}`)), 403, "role-forbidden")
	// An answer that another browser began, or that comes twice.
	b = s.browser(t)
	if a := b.do("GET", "/v1/sign-in/oidc/company/return?state=x&code=y", nil, header{"Sec-Fetch-Site", "cross-site"}); !strings.HasSuffix(a.Header.Get("Location"), "") || b.do("GET", "/v1/me", nil).Status != 401 {
		t.Errorf("an answer without a beginning = %d", a.Status)
	}
	wantProblem(t, b.do("GET", "/v1/sign-in/oidc/nobody", nil), 404, "provider-not-found")
}
