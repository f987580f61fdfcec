package httpapitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// cutWithin bounds how long a request outlives the rights it was made with:
// accounts' recheck, and some time for a busy machine.
const cutWithin = 15 * time.Second

// Attacks tries what users with accounts try against the server and each other.
func Attacks(t *testing.T, newDriver func(testing.TB) sandbox.Driver, opts Options) {
	opts.Accounts, opts.MaxSandboxes = true, 20
	s := Start(t, newDriver(t), opts)
	acme, other := s.organisation(t, "Acme"), s.organisation(t, "Other")
	_, err := s.Accounts.CreateUser(t.Context(), accounts.NewUser{Email: "root@example.org", Org: acme, Role: identity.RoleViewer, Operator: true})
	if err != nil {
		t.Fatal(err)
	}
	a := attacked{
		Server: s, acme: acme, other: other,
		chief: s.person(t, "chief", acme, identity.RoleOwner, nil), admin: s.person(t, "admin", acme, identity.RoleAdmin, nil),
		ann: s.person(t, "ann", acme, identity.RoleMember, nil), bob: s.person(t, "bob", other, identity.RoleOwner, nil),
	}
	t.Run("JSON has one reading", a.testOneReading)
	t.Run("bad input on every route is the client's mistake", a.testBadInput)
	t.Run("a key is taken from its headers only", a.testPlacesOfKeys)
	t.Run("a cookie is good for this server's own page only, on every route", a.testForeignPages)
	t.Run("nobody reaches into another organisation, or above himself", a.testRoles)
	t.Run("what is under way ends with the rights it was begun with", a.testUnderWay)
	t.Run("the audit has what was cut, and who signed out", a.testAudit)
}

type attacked struct {
	*Server
	acme, other            string
	chief, admin, ann, bob person
}

func (a *attacked) testOneReading(t *testing.T) {
	js := header{"Content-Type", "application/json"}
	for name, body := range map[string]string{
		"a name twice":                   `{"name":"a","name":"b"}`,
		"a bound beside its twin":        `{"name":"a","expires_ms":60000,"expires_ms":-1}`,
		"another case":                   `{"name":"a","expires_ms":60000,"EXPIRES_MS":-1}`,
		"another case alone":             `{"Name":"a"}`,
		"letters that fold":              `{"name":"a","expire\u017f_ms":-1}`,
		"the same name, escaped":         `{"name":"a","n\u0061me":"b"}`,
		"scopes twice":                   `{"name":"a","scopes":["account:read"],"scopes":["admin:write"]}`,
		"negative":                       `{"name":"a","expires_ms":-1}`,
		"beyond all numbers":             `{"name":"a","expires_ms":1e999}`,
		"beyond 64 bits":                 `{"name":"a","expires_ms":9223372036854775808}`,
		"half a number":                  `{"name":"a","expires_ms":0.5}`,
		"two values":                     `{"name":"a"}{"name":"b"}`,
		"deep":                           `{"name":` + strings.Repeat("[", 101) + strings.Repeat("]", 101) + `}`,
		"very deep":                      strings.Repeat(`{"name":`, 20_000),
		"a mark of byte order":           "\ufeff" + `{"name":"a"}`,
		"a name that turns what follows": `{"name":"a\u202eb"}`,
		"NUL":                            `{"name":"a\u0000b"}`,
		"a constant that is none":        `{"name":"a","expires_ms":NaN}`,
		"too many scopes":                `{"name":"a","scopes":["` + strings.Repeat(`account:read","`, 60) + `x"]}`,
	} {
		if got := a.do(t, "POST", "/v1/keys", strings.NewReader(body), js, a.ann.header); got.Status != 400 && got.Status != 422 {
			t.Errorf("%s: %d %.200s", name, got.Status, got.Body)
		}
	}
	for name, body := range map[string]string{
		"labels that are merged": `{"labels":{"` + strings.Repeat("x", 300) + `":"1"},"labels":{"b":"2"}}`,
		"limits that are merged": `{"limits":{"memory_bytes":-1},"limits":{}}`,
		"in a list":              `{"env":{"A":"1","A":"2"}}`,
	} {
		if got := a.do(t, "POST", "/v1/sandboxes", strings.NewReader(body), js, a.ann.header); got.Status != 400 && got.Status != 422 {
			t.Errorf("%s: %d %.200s", name, got.Status, got.Body)
		}
	}
	if got := a.do(t, "POST", "/v1/keys", strings.NewReader(` {"scopes" : ["account:read"], "name":"\"{[,]}\\" } `), js, a.ann.header); got.Status != 201 {
		t.Errorf("what looks odd and is right: %d %s", got.Status, got.Body)
	}
}

// abreast does something with each of a few things, all at once: of several
// servers each waits a while for what it does not know.
func abreast[T any](things iter.Seq[T], do func(T)) {
	var wg sync.WaitGroup
	for thing := range things {
		wg.Go(func() { do(thing) })
	}
	wg.Wait()
}

func (a *attacked) testBadInput(t *testing.T) {
	his := strange // nothing of it is there: what is refused is refused before
	bodies := map[string]string{
		"twice": `{"a":1,"a":2}`, "deep": `{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`, "a list": `[]`, "none": `{`, "no UTF-8": "{\"\xff\xfe\":1}", "a number": `1e999`,
		"unknown": `{"planted_field":"planted_value"}`, "large": `{"a":"` + strings.Repeat("x", 2<<20) + `"}`,
	}
	for _, o := range operationsOf(t, a.Server) {
		if o.method == http.MethodGet || o.method == http.MethodHead || o.method == http.MethodDelete || strings.Contains(o.id, "upload") || strings.HasPrefix(o.id, "write-") {
			continue
		}
		abreast(maps.Keys(bodies), func(name string) {
			body := bodies[name]
			if name == "large" && (strings.Contains(o.id, "import") || strings.Contains(o.id, "aisdk") || strings.HasPrefix(o.id, "seed-")) {
				return // these take that much
			}
			got := a.do(t, o.method, his.address(o), strings.NewReader(body), header{"Content-Type", "application/json"}, a.chief.header)
			if got.Status >= 500 && got.Status != http.StatusNotImplemented {
				t.Errorf("%s %s with %s: %d %.300s", o.method, o.path, name, got.Status, got.Body)
			}
			// The original's API repeats it, as the original does, to its sender.
			if bytes.Contains(got.Body, []byte("planted_value")) && !bytes.HasPrefix(got.Body, []byte(`{"detail":[`)) {
				t.Errorf("%s %s repeats what it was sent: %s", o.method, o.path, got.Body)
			}
		})
	}
	// What stands in paths and queries.
	for _, o := range operationsOf(t, a.Server) {
		if strings.HasPrefix(o.id, "provider-") {
			continue
		}
		abreast(slices.Values([]string{"%00", "%ff", "%E2%80%AE", "..%2f..", strings.Repeat("a", 5000), "%F0%9F%98%80"}), func(bad string) {
			path := o.path
			for strings.Contains(path, "{") {
				i, j := strings.IndexByte(path, '{'), strings.IndexByte(path, '}')
				path = path[:i] + bad + path[j+1:]
			}
			if o.method == http.MethodDelete && path == o.path {
				return
			}
			var body io.Reader
			if o.method != http.MethodGet && o.method != http.MethodHead && o.method != http.MethodDelete {
				body = strings.NewReader(`{}`)
			}
			if path == o.path {
				if len(o.query) == 0 || o.method != http.MethodGet {
					return
				}
				path += "?" + o.query[0] + "=" + bad
			}
			got := a.do(t, o.method, path, body, header{"Content-Type", "application/json"}, a.ann.header)
			if got.Status >= 500 && got.Status != http.StatusNotImplemented {
				t.Errorf("%s %s with %.20s: %d %.300s", o.method, o.path, bad, got.Status, got.Body)
			}
			for _, name := range []string{"X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy", "Cross-Origin-Resource-Policy", "Cache-Control"} {
				if got.Header.Get(name) == "" {
					t.Errorf("%s %s: the answer %d has no %s", o.method, o.path, got.Status, name)
				}
			}
		})
	}
	// Addresses of people, which go into a database.
	for _, email := range []string{"a\\u0000b@example.org", strings.Repeat("ä", 127), "\\ud800@example.org", "' OR 1=1 --", "%", "*"} {
		got := a.do(t, "POST", "/v1/login", strings.NewReader(`{"email":"`+email+`","password":"x"}`), header{"Content-Type", "application/json"}, header{"Authorization", ""})
		if got.Status != 401 && got.Status != 429 {
			t.Errorf("signed in as %q: %d %s", email, got.Status, got.Body)
		}
	}
}

func (a *attacked) testPlacesOfKeys(t *testing.T) {
	_, key, _ := strings.Cut(a.ann.header[1], " ")
	none := header{"Authorization", ""}
	for name, h := range map[string][]header{
		"Basic":            {{"Authorization", "Basic " + key}},
		"no scheme":        {{"Authorization", key}},
		"a cookie":         {none, {"Cookie", "token=" + key + "; session=" + key + "; Authorization=Bearer " + key}},
		"another header":   {none, {"X-Auth-Token", key}, {"X-Token", key}, {"Proxy-Authorization", "Bearer " + key}},
		"its id":           {{"Authorization", "Bearer " + strings.Join(strings.SplitN(key, "_", 3)[:2], "_")}},
		"in small letters": {{"Authorization", "Bearer " + strings.ToLower(key)}},
		"with a NUL":       {none, {"X-API-Key", key + "%00"}},
		"twice":            {{"Authorization", "Bearer " + key + " " + key}},
		"a principal":      {none, {"Caesarion-Principal", "eyJsb2NhbCI6dHJ1ZX0"}, {"Caesarion-Hop", "00"}, {"X-Forwarded-User", "chief@example.org"}, {"X-Forwarded-For", "127.0.0.1"}},
	} {
		got := a.do(t, "GET", "/v1/me", nil, h...)
		if got.Status != 401 && got.Status != 421 && !bytes.Contains(got.Body, []byte("hop-invalid")) {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
		if bytes.Contains(got.Body, []byte(key)) {
			t.Errorf("%s: the answer has the key: %s", name, got.Body)
		}
	}
	for _, q := range []string{"token", "key", "api_key", "access_token", "apiKey"} {
		if got := a.do(t, "GET", "/v1/me?"+q+"="+key, nil, none); got.Status != 401 {
			t.Errorf("?%s: %d", q, got.Status)
		}
		if got := a.do(t, "POST", "/v1/sessions?"+q+"="+key, strings.NewReader("{}"), none, header{"Content-Type", "application/json"}); got.Status != 401 {
			t.Errorf("POST ?%s: %d", q, got.Status)
		}
	}
}

// testForeignPages sends what other pages can have a browser send.
func (a *attacked) testForeignPages(t *testing.T) {
	cookie, who, err := a.Accounts.Begin(t.Context(), a.chief.User, "", accounts.From{})
	if err != nil {
		t.Fatal(err)
	}
	// The cookie's name is the server's own affair: it is taken from an answer.
	out := a.do(t, "POST", "/v1/logout", nil, header{"Authorization", ""})
	name, _, _ := strings.Cut(out.Header.Get("Set-Cookie"), "=")
	own := []header{{"Authorization", ""}, {"Cookie", name + "=" + cookie}}
	if got := a.do(t, "GET", "/v1/me", nil, append(own, header{"Sec-Fetch-Site", "same-origin"})...); got.Status != 200 {
		t.Fatalf("the own page: %d %s", got.Status, got.Body)
	}
	fill := strings.NewReplacer("{", "", "}", "")
	for _, o := range operationsOf(t, a.Server) {
		unsafe := o.method != http.MethodGet && o.method != http.MethodHead
		for _, h := range [][]header{
			{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}, {"Content-Type", "text/plain"}},
			{{"Sec-Fetch-Site", "cross-site"}, {"Content-Type", "multipart/form-data; boundary=b"}},
			{{"Sec-Fetch-Site", "same-site"}, {"Origin", "https://other.example.com"}, {"Content-Type", "application/x-www-form-urlencoded"}},
			{{"Origin", "null"}, {"Content-Type", "application/json"}},
			{{"Origin", "https://evil.example"}},
		} {
			got := a.do(t, o.method, fill.Replace(o.path), strings.NewReader(""), append(own, h...)...)
			if unsafe && got.Status != 403 || !unsafe && a.asks(o) && got.Status != 401 {
				t.Errorf("%s %s with %v: %d %.200s", o.method, o.path, h, got.Status, got.Body)
			}
		}
		// A form can't choose its method.
		got := a.do(t, "POST", fill.Replace(o.path), strings.NewReader("_method="+o.method), append(own, header{"X-Http-Method-Override", o.method}, header{"Sec-Fetch-Site", "cross-site"})...)
		if got.Status != 403 {
			t.Errorf("POST %s as %s: %d", o.path, o.method, got.Status)
		}
	}
	if got := a.do(t, "GET", "/v1/sessions", nil, append(own, header{"Upgrade", "websocket"}, header{"Connection", "Upgrade"}, header{"Origin", "https://evil.example"})...); got.Status != 401 {
		t.Errorf("an upgrade of another origin: %d", got.Status)
	}
	if _, err := a.Accounts.Resume(t.Context(), cookie); err != nil {
		t.Errorf("after all that %s is signed out: %v", who.Name, err)
	}
}

// asks tells whether an operation needs somebody.
func (a *attacked) asks(o walked) bool {
	switch o.path {
	case "/", "/health", "/api/health", "/healthz", "/readyz", "/v1/sign-in":
		return false
	}
	return !strings.HasPrefix(o.path, "/v1/sign-in/")
}

func (a *attacked) testRoles(t *testing.T) {
	bob := "/v1/users/" + a.bob.User
	bobsKey := into[v1.KeyList](t, a.do(t, "GET", "/v1/keys", nil, a.bob.header), 200).Keys[0].ID
	link := func(p person) string { return "/v1/users/" + p.User + "/link" }
	for _, tt := range []struct {
		who          person
		method, path string
		body         any
		status       int
		code         string
	}{
		{a.ann, "PATCH", "/v1/users/" + a.ann.User, map[string]any{"role": "owner"}, 403, "role-forbidden"},
		{a.ann, "PATCH", "/v1/users/" + a.ann.User, map[string]any{"operator": true}, 403, "role-forbidden"},
		{a.admin, "PATCH", "/v1/users/" + a.admin.User, map[string]any{"role": "owner"}, 403, "owner-needed"},
		{a.admin, "PATCH", "/v1/users/" + a.admin.User, map[string]any{"operator": true}, 403, "operator-needed"},
		{a.admin, "PATCH", "/v1/users/" + a.chief.User, map[string]any{"role": "member"}, 403, "owner-needed"},
		{a.admin, "PATCH", "/v1/users/" + a.chief.User, map[string]any{"disabled": true}, 403, "owner-needed"},
		{a.admin, "DELETE", "/v1/users/" + a.chief.User, nil, 403, "owner-needed"},
		{a.admin, "POST", link(a.chief), nil, 403, "owner-needed"},
		{a.admin, "POST", "/v1/users", map[string]any{"email": "x1@example.org", "role": "owner"}, 403, "owner-needed"},
		{a.admin, "POST", "/v1/users", map[string]any{"email": "x2@example.org", "operator": true}, 403, "operator-needed"},
		{a.chief, "PATCH", "/v1/users/" + a.chief.User, map[string]any{"operator": true}, 403, "operator-needed"},
		{a.chief, "PATCH", "/v1/users/" + a.chief.User, map[string]any{"role": "member"}, 409, "last-owner"},
		{a.chief, "DELETE", "/v1/users/" + a.chief.User, nil, 409, "last-owner"},
		{a.chief, "PATCH", bob, map[string]any{"role": "viewer"}, 404, "user-not-found"},
		{a.chief, "PATCH", bob, map[string]any{"role": "viewer", "organisation_id": a.other}, 404, ""},
		{a.chief, "DELETE", bob, nil, 404, "user-not-found"},
		{a.chief, "DELETE", bob + "?organisation=" + a.other, nil, 404, ""},
		{a.chief, "POST", link(a.bob), nil, 404, "user-not-found"},
		{a.chief, "GET", bob, nil, 404, "user-not-found"},
		{a.chief, "GET", "/v1/users/bob@example.org", nil, 404, "user-not-found"},
		{a.chief, "POST", "/v1/users", map[string]any{"email": "x3@example.org", "organisation_id": a.other}, 404, "organisation-not-found"},
		{a.chief, "GET", "/v1/users?organisation=" + a.other, nil, 404, "organisation-not-found"},
		{a.chief, "GET", "/v1/users?organisation=*", nil, 404, "organisation-not-found"},
		{a.chief, "GET", "/v1/audit?organisation=*", nil, 404, "organisation-not-found"},
		{a.chief, "GET", "/v1/audit?organisation=" + a.other, nil, 404, "organisation-not-found"},
		{a.chief, "GET", "/v1/organisations", nil, 403, "operator-needed"},
		{a.chief, "POST", "/v1/organisations", map[string]any{"name": "Mine"}, 403, "operator-needed"},
		{a.chief, "GET", "/metrics", nil, 403, "operator-needed"},
		{a.chief, "POST", "/v1/keys", map[string]any{"name": "x", "user_id": a.bob.User}, 403, "operator-needed"},
		{a.chief, "POST", "/v1/keys", map[string]any{"name": "x", "organisation_id": a.other}, 201, ""}, // of its maker, in his own
		{a.chief, "DELETE", "/v1/keys/" + bobsKey, nil, 404, "key-not-found"},
		{a.chief, "POST", "/v1/keys/" + bobsKey + "/rotate", nil, 404, "key-not-found"},
		{a.ann, "POST", "/v1/me/organisation", map[string]any{"organisation_id": a.other}, 409, "not-a-login"},
	} {
		got := a.send(t, tt.method, tt.path, tt.body, tt.who.header)
		var p v1.Problem
		_ = json.Unmarshal(got.Body, &p)
		if got.Status != tt.status || tt.code != "" && p.Code != tt.code {
			t.Errorf("%s %s %v: %d %s, want %d %s", tt.method, tt.path, tt.body, got.Status, got.Body, tt.status, tt.code)
		}
		if tt.status == 201 {
			if k := into[v1.NewKey](t, got, 201); k.OrganisationID != a.acme || k.UserID != tt.who.User {
				t.Errorf("the key is of %s in %s", k.UserID, k.OrganisationID)
			}
		}
	}
	// A key of few rights in the hands of somebody of many.
	few := into[v1.NewKey](t, a.send(t, "POST", "/v1/keys", map[string]any{"name": "few", "scopes": []string{"account:read", "account:write"}, "expires_ms": 3_600_000}, a.chief.header), 201)
	h := header{"Authorization", "Bearer " + few.Secret}
	annsKey := into[v1.KeyList](t, a.do(t, "GET", "/v1/keys", nil, a.ann.header), 200).Keys[0].ID
	wantProblem(t, a.do(t, "DELETE", "/v1/keys/"+annsKey, nil, h), 404, "key-not-found")
	wantProblem(t, a.send(t, "POST", "/v1/keys", map[string]any{"name": "x", "scopes": []string{"admin:write"}}, h), 403, "scope-missing")
	wantProblem(t, a.send(t, "POST", "/v1/keys", map[string]any{"name": "x", "expires_ms": 0}, h), 403, "key-outlives-maker")
	for _, k := range into[v1.KeyList](t, a.do(t, "GET", "/v1/keys?all=true", nil, h), 200).Keys {
		if k.UserID != a.chief.User {
			t.Errorf("without admin:read it sees the key %s", k.ID)
		}
	}
}

// drip is a body that never ends.
type drip struct{ stop chan struct{} }

func (d drip) Read(p []byte) (int, error) {
	select {
	case <-d.stop:
		return 0, io.ErrUnexpectedEOF
	case <-time.After(20 * time.Millisecond):
		return copy(p, "x"), nil
	}
}

func (a *attacked) testUnderWay(t *testing.T) {
	box := into[v1.Sandbox](t, a.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{}, a.ann.header), 201)
	t.Cleanup(func() { a.delete(t, box.ID) })
	session := into[v1.Session](t, a.send(t, "POST", "/v1/sessions", v1.CreateSession{}, a.ann.header), 201)
	yes, no, viewer, member := true, false, identity.RoleViewer, identity.RoleMember
	for name, end := range map[string]func(keyID string) error{
		"the key is revoked": func(id string) error { return a.Accounts.RevokeKey(t.Context(), a.ann.Principal, id) },
		"the user is disabled": func(string) error {
			_, err := a.Accounts.ChangeUser(t.Context(), a.ann.User, accounts.Change{Disabled: &yes})
			return err
		},
		"the user is but viewer": func(string) error {
			_, err := a.Accounts.ChangeUser(t.Context(), a.ann.User, accounts.Change{Org: a.acme, Role: &viewer})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			k, text, err := a.Accounts.CreateKey(t.Context(), a.ann.Principal, accounts.NewKey{Name: "under way"})
			if err != nil {
				t.Fatal(err)
			}
			h := header{"Authorization", "Bearer " + text}
			stop := make(chan struct{})
			defer close(stop)
			over := make(chan string, 10)
			flows := map[string]func() *http.Response{
				"an upload": func() *http.Response { return a.try(t, "PUT", fileURL(box.ID, "/workspace/up"), drip{stop}, h) },
				"an upload to a session": func() *http.Response {
					return a.try(t, "PUT", "/v1/sessions/"+session.ID+"/files/content?path=/workspace/up", drip{stop}, h)
				},
				"events of a session": func() *http.Response { return a.try(t, "GET", "/v1/sessions/"+session.ID+"/events", nil, h) },
				"an execution that is awaited": func() *http.Response {
					return a.try(t, "POST", "/v1/sandboxes/"+box.ID+"/executions", strings.NewReader(`{"code":"import time; time.sleep(120)","timeout_ms":200000}`), h, header{"Content-Type", "application/json"}, header{"Accept", v1.MediaNDJSON})
				},
			}
			for what, flow := range flows {
				go func() {
					if resp := flow(); resp != nil {
						what += fmt.Sprint(" with ", resp.StatusCode)
						_, _ = io.Copy(io.Discard, resp.Body) // until it is cut
						_ = resp.Body.Close()
					}
					over <- what
				}()
			}
			a.awaitHeld(t, k.ID, len(flows), over)
			begin := time.Now()
			if err := end(k.ID); err != nil {
				t.Fatal(err)
			}
			for left := len(flows); left > 0; left-- {
				select {
				case what := <-over:
					if strings.HasPrefix(what, "an upload") && strings.Contains(what, " with 2") {
						t.Errorf("%s: it was cut, and is told to be done", what)
					}
					t.Logf("%s ended after %v", what, time.Since(begin).Round(time.Millisecond))
				case <-time.After(cutWithin):
					t.Fatalf("%d of %d requests outlive the rights they were made with", left, len(flows))
				}
			}
			if got := a.do(t, "GET", "/v1/sessions/"+session.ID, nil, a.chief.header); got.Status != 200 {
				t.Errorf("what a disabled user made is gone for the organisation: %d", got.Status)
			}
			_, err1 := a.Accounts.ChangeUser(t.Context(), a.ann.User, accounts.Change{Disabled: &no})
			_, err2 := a.Accounts.ChangeUser(t.Context(), a.ann.User, accounts.Change{Org: a.acme, Role: &member})
			if err1 != nil || err2 != nil {
				t.Fatal(err1, err2)
			}
			a.do(t, "POST", "/v1/sandboxes/"+box.ID+"/kernels/default/interrupt", nil, a.ann.header)
		})
	}
}

// try sends a request that may be cut before it is answered.
func (a *attacked) try(t testing.TB, method, path string, body io.Reader, headers ...header) *http.Response {
	req, err := http.NewRequestWithContext(t.Context(), method, a.at(method, path)+path, body)
	if err != nil {
		t.Error(err)
		return nil
	}
	for _, h := range headers {
		req.Header.Set(h[0], h[1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil // cut
	}
	return resp
}

// awaitHeld waits until so many requests of a key are under way.
func (a *attacked) awaitHeld(t *testing.T, key string, n int, over <-chan string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		held := a.Accounts.Held(key)
		if a.front != nil {
			held += a.front.Accounts.Held(key)
		}
		if held >= n {
			return
		}
		select {
		case what := <-over:
			t.Fatalf("%s is over before it is cut", what)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d requests are under way", held, n)
		}
	}
}

func (a *attacked) testAudit(t *testing.T) {
	cookie, who, err := a.Accounts.Begin(t.Context(), a.chief.User, "", accounts.From{})
	if err != nil {
		t.Fatal(err)
	}
	out := a.do(t, "POST", "/v1/logout", nil, header{"Authorization", ""})
	name, _, _ := strings.Cut(out.Header.Get("Set-Cookie"), "=")
	a.do(t, "POST", "/v1/logout", nil, header{"Authorization", ""}, header{"Cookie", name + "=" + cookie})
	if _, err := a.Accounts.Resume(t.Context(), cookie); err == nil {
		t.Error("signed out, and the cookie is good")
	}
	find := func(query string) []v1.AuditEntry {
		return into[v1.AuditList](t, a.do(t, "GET", "/v1/audit?"+query, nil, a.chief.header), 200).Entries
	}
	for end := time.Now().Add(patience); len(find("action=sign-out")) == 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
	}
	if list := find("action=sign-out"); len(list) == 0 || list[0].Via != who.Login || list[0].Address == "" {
		t.Errorf("who signed out: %+v", list)
	}
	if list := find("action=use-key&user=" + a.ann.User); len(list) == 0 || list[0].Address == "" {
		t.Errorf("the first use of keys: %+v", list)
	}
	cut := 0
	for end := time.Now().Add(patience); cut == 0 && time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		cut = len(find("action=write-file&user=" + a.ann.User))
	}
	if cut == 0 {
		t.Error("uploads that were cut are not told")
	}
	for _, e := range find("limit=1000") {
		if e.OrganisationID != a.acme {
			t.Errorf("an admin sees what was done elsewhere: %+v", e)
		}
		if e.At.IsZero() || e.Action == "" || e.Status == 0 {
			t.Errorf("an entry says too little: %+v", e)
		}
		if text := fmt.Sprint(e); strings.Contains(text, "Bearer") || strings.Contains(text, cookie) {
			t.Errorf("an entry says too much: %s", text)
		}
	}
	if list := into[v1.AuditList](t, a.do(t, "GET", "/v1/audit", nil, a.bob.header), 200).Entries; len(list) != 0 {
		for _, e := range list {
			if e.OrganisationID != a.other {
				t.Errorf("another organisation sees %+v", e)
			}
		}
	}
}
