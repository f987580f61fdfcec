// Package leaks plants secrets in a whole installation, uses all of it, provokes
// its errors, and then looks for the secrets wherever something is written down
// or said: logs, events, answers, metrics, exports, the audit, the database.
package leaks

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/identity/identitytest"
	"github.com/caesarion/caesarion/internal/llm/llmtest"
	"github.com/caesarion/caesarion/internal/store/pgtest"
	"github.com/caesarion/caesarion/test/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// What is planted. None is part of another.
const (
	modelKey  = "sk-planted-model-8f2QzKeyOfTheOperator"
	bound     = "planted-bound-secret-77Ab3xYq"
	password  = "planted password of Ann 51"
	wrong     = "planted wrong password 98"
	dbSecret  = "planted-database-4410"
	indexPass = "planted-index-password-620"
	cellWord  = "planted-in-a-cell-303"
	inFile    = "planted-secret-of-a-file-51z"
	typed     = "planted password in the wrong field 7"
	linked    = "planted password by a link 4.2"
)

// The model's server repeats the key in its failures, as some do.
const models = `
scenarios:
  - {match: refuse, steps: [{status: 401, error: {message: "Incorrect API key provided: ` + modelKey + `"}}]}
  - {match: fail, steps: [{status: 500, error: {message: "Bearer ` + modelKey + ` failed"}}]}
  - {match: answer, steps: [{text: Done.}]}
`

// hunt knows the secrets and where each may be.
type hunt struct {
	t       *testing.T
	secrets map[string]string // name → value
}

// nowhere checks that a text has none of the secrets, as they are or as
// programs write them.
func (h *hunt) nowhere(where string, text []byte, but ...string) {
	h.t.Helper()
	allowed := " " + strings.Join(but, " ") + " "
	for name, value := range h.secrets {
		if strings.Contains(allowed, " "+name+" ") {
			continue
		}
		for _, form := range []string{value, url.QueryEscape(value), url.PathEscape(value), base64.StdEncoding.EncodeToString([]byte(value)), fmt.Sprintf("%x", value)} {
			if i := bytes.Index(text, []byte(form)); i >= 0 {
				h.t.Errorf("the %s is in %s: …%q…", name, where, text[max(i-120, 0):min(i+60, len(text))])
				break
			}
		}
	}
}

// caller is somebody who asks the server: by a token or key, or a browser.
type caller struct {
	h    *hunt
	s    *servertest.Server
	as   string // of Authorization
	http *http.Client
}

// do asks, and looks at the answer.
func (c *caller) do(method, path, body string, but ...string) (int, []byte) {
	c.h.t.Helper()
	ctx, cancel := context.WithTimeout(c.h.t.Context(), servertest.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.s.URL()+path, strings.NewReader(body))
	if err != nil {
		c.h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", v1.MediaJSON)
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	if c.as != "" {
		req.Header.Set("Authorization", "Bearer "+c.as)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil && resp.StatusCode < 400 {
		c.h.t.Errorf("%s %s: %v", method, path, err)
	}
	c.h.nowhere(method+" "+path+"'s answer", text, but...)
	return resp.StatusCode, text
}

// want asks and decodes what must be a success.
func want[T any](c *caller, method, path, body string, but ...string) (out T) {
	c.h.t.Helper()
	status, text := c.do(method, path, body, but...)
	if status >= 300 {
		c.h.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &out); err != nil {
			c.h.t.Fatalf("%s %s: %v in %.200s", method, path, err, text)
		}
	}
	return out
}

// outside is a server that a secret is bound to, and that says what it got.
func outside(t *testing.T) *httptest.Server {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Got", r.Header.Get("Authorization"))
		if r.URL.Path == "/fails" {
			http.Error(w, "no: "+r.Header.Get("Authorization"), http.StatusForbidden)
			return
		}
		fmt.Fprintf(w, "%t %s", r.Header.Get("Authorization") == "Bearer "+bound, r.Header.Get("Authorization"))
	}))
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return srv
}

func TestPlantedSecretsAreNowhere(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { plantedSecretsAreNowhere(t, "") })
	t.Run("Postgres", func(t *testing.T) { plantedSecretsAreNowhere(t, pgtest.New(t)) })
}

func plantedSecretsAreNowhere(t *testing.T, database string) {
	t.Helper()
	t.Setenv("CAESARION_DATABASE_URL", database)
	data := servertest.DataDir(t)
	model, issuer, host := llmtest.Start(t, models), identitytest.New(t), outside(t)
	at := strings.TrimPrefix(host.URL, "http://")
	for name, value := range map[string]string{"OPENAI_API_KEY": modelKey, "OPENAI_BASE_URL": model.URL, "OPENAI_MODEL": "scripted", "PLANTED_CLIENT": identitytest.ClientSecret, "PLANTED_BOUND": bound} {
		t.Setenv(name, value)
	}
	index := filepath.Join(data, "index")
	if err := os.WriteFile(index, []byte("http://user:"+indexPass+"@"+at+"/simple\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(data, "secret")
	if err := os.WriteFile(secret, []byte(inFile+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(data, "config.yaml")
	err := os.WriteFile(config, fmt.Appendf(nil, `
auth: accounts
sign_in:
  providers:
    - {name: company, issuer: %q, client_id: %s, client_secret_env: PLANTED_CLIENT, organisation: Acme, default_role: member}
    - {name: away, issuer: "http://127.0.0.1:1", client_id: x, client_secret_env: PLANTED_CLIENT, organisation: Acme, default_role: member}
egress:
  allow_private: [127.0.0.0/8]
  package_index_file: %s
templates:
  python: {network: {packages: true, secrets: [{name: KEY, host: %q, value_env: PLANTED_BOUND, plain_http: true}, {name: FILE, host: %q, value_file: %s, plain_http: true}]}}
`, issuer.URL, identitytest.ClientID, index, at, at, secret), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s := servertest.Start(t, data, "--config", config, "--log-level", "debug", "--log-format", "json")
	h := &hunt{t, map[string]string{
		"token": s.Token, "model's key": modelKey, "client's secret": identitytest.ClientSecret, "bound secret": bound, "password": password, "wrong password": wrong, "index password": indexPass,
		"secret of a file": inFile, "password in the wrong field": typed, "password by a link": linked,
	}}
	if database != "" {
		h.secrets["database's password"] = pgtest.Password()
	}
	plain := &http.Client{Timeout: servertest.Patience}
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	operator := &caller{h, s, s.Token, plain}
	nobody := &caller{h, s, "", plain}
	browser := &caller{h, s, "", &http.Client{Jar: jar, Timeout: servertest.Patience}}

	// Accounts, by password, by link and by provider, rightly and wrongly.
	org := want[struct {
		ID string `json:"id"`
	}](operator, "POST", "/v1/organisations", `{"name":"Acme"}`).ID
	want[v1.User](operator, "POST", "/v1/users", `{"email":"ann@example.org","organisation_id":"`+org+`","password":"`+password+`","operator":true}`)
	for range 2 {
		nobody.do("POST", "/v1/login", `{"email":"ann@example.org","password":"`+wrong+`"}`)
	}
	nobody.do("POST", "/v1/login", `{"email":"`+typed+`","password":"`+password+`"}`)
	nobody.do("POST", "/v1/login", `{"email":"ann@example.org","password":"`+typed+`","passwort":"`+password+`"}`)
	if status, text := browser.do("POST", "/v1/login", `{"email":"ann@example.org","password":"`+password+`"}`); status >= 300 {
		t.Fatalf("login: %d %s", status, text)
	}
	base, _ := url.Parse(s.URL())
	for _, c := range jar.Cookies(base) {
		h.secrets["cookie "+c.Name] = c.Value
	}
	if len(jar.Cookies(base)) == 0 {
		t.Fatal("no cookie, so this says nothing")
	}
	// A link is told once, to whom it is made for; then it is used, and used again.
	want[v1.User](operator, "POST", "/v1/users", `{"email":"carl@example.org","organisation_id":"`+org+`"}`)
	_, link, _ := strings.Cut(want[v1.UserLink](operator, "POST", "/v1/users/carl@example.org/link", "").URL, "#set-password=")
	if len(link) < 40 {
		t.Fatalf("no link: %q", link)
	}
	h.secrets["link"] = link
	nobody.do("POST", "/v1/sign-in/link", `{"secret":"`+link+`","password":"short"}`)
	nobody.do("POST", "/v1/sign-in/link", `{"secret":"`+link+`","password":"`+linked+`","to":"`+link+`"}`)
	for _, want := range []int{204, 403} {
		if status, text := nobody.do("POST", "/v1/sign-in/link", `{"secret":"`+link+`","password":"`+linked+`"}`); status != want {
			t.Errorf("by the link: %d %s", status, text)
		}
	}
	key := want[v1.NewKey](browser, "POST", "/v1/keys", `{"name":"planted"}`).Secret
	h.secrets["API key"] = key
	issuer.Next(map[string]any{"sub": "7", "email": "bob@example.org", "email_verified": true}, nil)
	bobs, _ := cookiejar.New(nil)
	bob := &caller{h, s, "", &http.Client{Jar: bobs, Timeout: servertest.Patience}}
	bob.do("GET", "/v1/sign-in/oidc/company", "")
	bob.do("GET", "/v1/sign-in/oidc/away", "")
	bob.do("GET", "/v1/sign-in/oidc/company/return?code=planted&state=wrong", "")
	if len(bobs.Cookies(base)) == 0 {
		t.Error("nobody signed in by the provider, so its client's secret was not used")
	}
	for _, c := range bobs.Cookies(base) {
		h.secrets["other cookie "+c.Name] = c.Value
	}

	// Where tokens end up by mistake: other schemes, queries, paths, bodies.
	api := &caller{h, s, key, plain}
	for _, secret := range []string{s.Token, key} {
		c := &caller{h, s, secret + "x", plain}
		c.do("GET", "/v1/sandboxes", "")
		nobody.do("GET", "/v1/sandboxes?token="+secret, "")
		nobody.do("GET", "/docs?token="+secret+"x", "")
		api.do("POST", "/v1/sandboxes", `{"template":`+secret+`}`)
		api.do("POST", "/v1/sandboxes", `{"labels":{"a":1},"token":"`+secret+`"}`)
	}

	// A session with a cell that uses the bound secret, and the model's failures.
	session := want[v1.Session](api, "POST", "/v1/sessions", `{}`)
	path := "/v1/sessions/" + session.ID
	await := func() (d v1.SessionDetail) {
		t.Helper()
		for end := time.Now().Add(servertest.Patience); ; time.Sleep(50 * time.Millisecond) {
			d = want[v1.SessionDetail](api, "GET", path, "")
			busy := d.Turn != nil
			for _, i := range d.Items {
				busy = busy || i.Status == "queued" || i.Status == "running"
			}
			if !busy {
				return d
			}
			if time.Now().After(end) {
				t.Fatalf("never: %+v", d)
			}
		}
	}
	code := fmt.Sprintf(`import os, urllib.request
for path in ("/", "/fails", "/?q={{secret.KEY}}"):
    try:
        r = urllib.request.urlopen(urllib.request.Request(%q + path, headers={"Authorization": "Bearer {{secret.KEY}}"}), timeout=20)
        print(r.status, r.headers["X-Got"], r.read().decode())
    except Exception as e:
        print(repr(e), getattr(e, "headers", None) and e.headers["X-Got"], getattr(e, "fp", None) and e.read())
try:
    print(urllib.request.urlopen(urllib.request.Request(%q + "/file", headers={"Authorization": "Bearer {{secret.FILE}}"}), timeout=20).read())
except Exception as e:
    print(repr(e))
print(dict(os.environ))
print(open("/proc/self/environ").read(), open("/proc/self/cmdline").read())
!pip install nothere
raise ValueError(%q)`, host.URL, host.URL, cellWord)
	body, _ := json.Marshal(v1.CreateItem{Kind: "cell", Code: code})
	item := want[v1.Item](api, "POST", path+"/items", string(body))
	want[json.RawMessage](api, "POST", path+"/run", `{"items":["`+item.ID+`"]}`)
	d := await()
	if text := fmt.Sprint(d.Items); !strings.Contains(text, "200 Bearer {{secret.KEY}} True") && !strings.Contains(text, "true Bearer {{secret.KEY}}") {
		t.Errorf("the bound secret was not used, so this says nothing: %.1500s", text)
	}
	for _, say := range []string{"refuse", "fail", "answer"} {
		want[json.RawMessage](api, "POST", path+"/messages", `{"text":"`+say+`"}`)
		await()
	}
	if asked := model.Requests(); len(asked) == 0 || asked[0].Header.Get("Authorization") != "Bearer "+modelKey {
		t.Error("the model was not asked with its key, so this says nothing")
	}

	// A sandbox of its own, with events, and files that are and are not there.
	box := want[v1.Sandbox](api, "POST", "/v1/sandboxes", `{}`)
	_, text := api.do("POST", "/v1/sandboxes/"+box.ID+"/executions", `{"code":"print(1); 1/0"}`)
	if !bytes.Contains(text, []byte("ZeroDivisionError")) {
		t.Errorf("it did not run: %.300s", text)
	}
	api.do("GET", "/v1/sandboxes/"+box.ID+"/files/content?path=/none", "")
	api.do("DELETE", "/v1/sandboxes/"+box.ID, "")
	api.do("GET", "/v1/sandboxes/"+box.ID, "")

	processes(h, s.PID)
	modes(t, data)

	// All that says something.
	for _, c := range []*caller{operator, api, browser, nobody} {
		for _, at := range []string{
			"/v1/info", "/v1/me", "/v1/me/logins", "/v1/keys", "/v1/users", "/v1/organisations", "/v1/audit", "/v1/audit?organisation=*", "/v1/sign-in", "/v1/models", "/v1/sessions", "/v1/sandboxes", "/v1/snapshots", "/v1/usage", "/v1/limits",
			"/metrics", "/health", "/readyz", "/openapi.json", "/docs", "/", path, path + "/export?format=ipynb", path + "/export?format=py", path + "/export?format=md", path + "/files?path=/workspace", path + "/variables", "/v1/none",
		} {
			c.do("GET", at, "")
		}
	}
	if _, text := operator.do("GET", "/metrics", ""); !bytes.Contains(text, []byte("caesarion_egress_connections_total")) {
		t.Errorf("no metrics: %.200s", text)
	}
	if _, text := api.do("GET", path+"/export?format=ipynb", ""); !bytes.Contains(text, []byte(cellWord)) {
		t.Error("the export has nothing of the session")
	}
	if _, text := browser.do("GET", "/v1/audit", ""); !bytes.Contains(text, []byte("ann@example.org")) {
		t.Errorf("nothing in the audit: %.300s", text)
	}
	events, err := s.Open(t.Context(), http.MethodGet, path+"/events", nil, [2]string{"Accept", v1.MediaNDJSON}, [2]string{"Authorization", "Bearer " + key})
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(events.Body); ; {
		var raw json.RawMessage
		var line struct{ Seq int64 }
		if err := dec.Decode(&raw); err != nil {
			t.Fatal(err)
		}
		h.nowhere("an event", raw)
		if _ = json.Unmarshal(raw, &line); line.Seq >= await().LastSeq {
			break
		}
	}
	_ = events.Body.Close()
	api.do("DELETE", path, "")
	all, err := s.Sandboxes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, sb := range all {
		_ = s.DeleteSandbox(t.Context(), sb.ID)
	}
	s.Stop(t)

	if _, err := os.Stat(filepath.Join(data, "caesarion.db")); (err == nil) != (database == "") {
		t.Errorf("another database was used: %v", err)
	}
	h.nowhere("the log", []byte(s.Log()))
	for _, sign := range []string{`"level":"DEBUG"`, `"msg":"egress"`, "sandbox"} {
		if !strings.Contains(s.Log(), sign) {
			t.Errorf("the log has no %s, so it says nothing", sign)
		}
	}
	// Of what the server keeps, the token's file has the token, and the
	// operator's own files what he wrote into them.
	err = filepath.WalkDir(data, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !d.Type().IsRegular() || file == index || file == config || file == secret {
			return err
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(data, file)
		if name == "token" || name == "server.json" {
			if info, err := d.Info(); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s may be read by others: %v", name, info.Mode())
			}
			h.nowhere(name, text, "token")
			return nil
		}
		h.nowhere(name, text)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// processes looks into what everybody on the machine sees of the server and of
// all that it started, and into what those were given.
func processes(h *hunt, server int) {
	h.t.Helper()
	parents := map[string]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it ended
		}
		// After the name, which may be anything: state and parent.
		rest := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		parents[strings.Split(file, "/")[2]] = rest[1]
	}
	root := strconv.Itoa(server)
	children := 0
	for pid := range parents {
		at := pid
		for at != root && at != "" {
			at = parents[at]
		}
		if at != root {
			continue
		}
		args, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		h.nowhere("the arguments of process "+pid, args)
		if pid == root {
			continue // its environment is where the operator put them
		}
		children++
		env, _ := os.ReadFile("/proc/" + pid + "/environ")
		h.nowhere(fmt.Sprintf("the environment of %q", args), env)
	}
	if children == 0 {
		h.t.Error("the server started nothing, so this says nothing")
	}
}

// modes looks for files that other users of the machine could read or write.
func modes(t *testing.T, data string) {
	t.Helper()
	err := filepath.WalkDir(data, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // it is gone
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // it is gone
		}
		switch mode := info.Mode(); {
		case d.IsDir() && file != data && mode.Perm()&0o001 == 0:
			return filepath.SkipDir // nobody gets further
		case mode.IsRegular() && (mode.Perm()&0o022 != 0 || mode.Perm()&0o044 != 0 && !strings.Contains(file, "/agents/")) && !strings.Contains(file, "/images/"): // the agent's program is no secret
			t.Errorf("others may read or write %s: %v", strings.TrimPrefix(file, data), mode)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A database that does not answer, or is none, is told without its password.
func TestThePasswordOfTheDatabaseIsNotTold(t *testing.T) {
	data := servertest.DataDir(t)
	h := &hunt{t, map[string]string{"database's password": dbSecret}}
	for _, address := range []string{
		"postgres://caesarion:" + dbSecret + "@127.0.0.1:1/caesarion?connect_timeout=1",
		"postgres://caesarion:" + dbSecret + "@127.0.0.1:bad/caesarion",
		"mysql://caesarion:" + dbSecret + "@127.0.0.1/caesarion",
		"host=127.0.0.1 port=1 password=" + dbSecret + " connect_timeout=1",
	} {
		t.Setenv("CAESARION_DATABASE_URL", address)
		for _, args := range [][]string{{"serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--log-level", "debug"}, {"migrate", "--data-dir", data}} {
			status, p := servertest.Call(t, nil, args...)
			if status == 0 {
				t.Errorf("%v with %s: it works", args, strings.ReplaceAll(address, dbSecret, "…"))
			}
			text, _ := json.Marshal(p)
			h.nowhere(args[0]+"'s failure", append(text, p.Detail...))
			if p.Code == "" && p.Detail == "" {
				t.Errorf("%v fails without a word", args)
			}
		}
	}
}
