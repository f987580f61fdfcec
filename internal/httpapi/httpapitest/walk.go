package httpapitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/httpapi"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// walked is one of the OpenAPI.
type walked struct {
	id, method, path string
	query            []string // names that are required
}

func operationsOf(t testing.TB, s *Server) []walked {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			ID         string `yaml:"operationId"`
			Parameters []struct {
				Name     string
				In       string
				Required bool
			}
		}
	}
	if err := yaml.Unmarshal(s.API.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	var list []walked
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(doc.Paths[path])) {
			op := doc.Paths[path][method]
			o := walked{id: op.ID, method: strings.ToUpper(method), path: path}
			for _, p := range op.Parameters {
				if p.In == "query" && p.Required {
					o.query = append(o.query, p.Name)
				}
			}
			list = append(list, o)
		}
	}
	if len(list) < 100 {
		t.Fatalf("the OpenAPI has only %d operations", len(list))
	}
	return list
}

// bodies are such that a request gets as far as looking for its object.
var bodies = map[string]any{
	"execute": v1.Execute{Code: "1"}, "answer-input": v1.Input{}, "make-folder": v1.MakeFolder{Path: "x"}, "move-file": v1.MoveFile{From: "a", To: "b"},
	"send-comm": v1.Comm{Type: "comm_close", Content: json.RawMessage(`{"comm_id":"x","data":{}}`)},
	"complete":  v1.Complete{Code: "x"}, "inspect": v1.Inspect{Code: "x"}, "is-complete": v1.IsComplete{Code: "x"}, "run-process": v1.RunProcess{Command: "true"},
	"update-session": map[string]string{"title": "taken over"}, "complete-in-session": v1.Complete{Code: "x"}, "inspect-in-session": v1.Inspect{Code: "x"},
	"is-complete-in-session": v1.IsComplete{Code: "x"}, "make-session-folder": v1.MakeFolder{Path: "x"}, "move-session-file": v1.MoveFile{From: "a", To: "b"},
	"create-item": v1.CreateItem{Kind: "cell", Code: "1"}, "update-item": map[string]string{"code": "taken over"}, "answer-item-input": v1.Input{},
	"send-message": v1.SendMessage{Text: "x"}, "run-items": v1.RunItems{Items: []string{"itm_x"}}, "select-item": map[string]string{"item": "itm_x"},
	"update-user": map[string]string{"name": "taken over"}, "seed-execute": map[string]string{"code": "1"}, "seed-api-execute": map[string]string{"code": "1"},
}

// person is somebody with a key.
type person struct {
	identity.Principal
	header
}

// person makes a user with a key that has these scopes; nil: all.
func (s *Server) person(t testing.TB, name, org string, role identity.Role, scopes []string) person {
	t.Helper()
	u, err := s.Accounts.CreateUser(t.Context(), accounts.NewUser{Email: name + "@example.org", Name: name, Org: org, Role: role})
	if err != nil {
		t.Fatal(err)
	}
	p := identity.Principal{User: u.ID, Org: org, Role: role}
	_, text, err := s.Accounts.CreateKey(t.Context(), p, accounts.NewKey{Name: "test", Scopes: scopes})
	if err != nil {
		t.Fatal(err)
	}
	return person{p, header{"Authorization", "Bearer " + text}}
}

func (s *Server) organisation(t testing.TB, name string) string {
	t.Helper()
	o, err := s.Accounts.CreateOrg(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return o.ID
}

const (
	clientName = "walk-chat" // what two clients call their sessions
	planted    = "plantedword"
)

// belongings are the objects of one user.
type belongings struct {
	sandbox, seed, execution, process  string
	session, item, clientSession       string
	snapshot, key, user, login, orgKey string
	snapshotName                       string
}

// strange are objects that nobody ever had.
var strange = belongings{
	sandbox: "sbx_" + strings.Repeat("a", 26), seed: "sandbox-00000000", execution: "exe_" + strings.Repeat("a", 26), process: "prc_a",
	session: "ses_" + strings.Repeat("a", 26), item: "itm_" + strings.Repeat("a", 26), snapshot: "snp_" + strings.Repeat("a", 26), snapshotName: "never-made",
	key: "csk_" + strings.Repeat("a", 16), user: "usr_" + strings.Repeat("a", 16), login: "lgn_" + strings.Repeat("a", 16), orgKey: "org_" + strings.Repeat("a", 16),
	clientSession: "never-made",
}

func (b belongings) ids() []string {
	return []string{b.sandbox, b.seed, b.execution, b.session, b.item, b.snapshot, b.snapshotName, b.key, b.user, b.login, b.orgKey, b.clientSession}
}

// settle gives somebody one object of each sort.
func (s *Server) settle(t *testing.T, p person) belongings {
	t.Helper()
	b := belongings{user: p.User, orgKey: p.Org, key: strings.Join(strings.SplitN(strings.TrimPrefix(p.header[1], "Bearer "), "_", 3)[:2], "_")}
	box := into[v1.Sandbox](t, s.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{Labels: map[string]string{"of": planted}}, p.header), 201)
	t.Cleanup(func() { s.delete(t, box.ID) })
	b.sandbox = box.ID
	sb, err := s.Fleet.Get(sandbox.ID(b.sandbox))
	if err != nil {
		t.Fatal(err)
	}
	b.seed = sb.View().SeedID
	b.execution = into[v1.Execution](t, s.send(t, "POST", "/v1/sandboxes/"+b.sandbox+"/executions", v1.Execute{Code: "open('" + planted + "', 'w').write('x'); print('" + planted + "')"}, p.header), 200).ID
	b.process = "prc_x"
	b.session = into[v1.Session](t, s.send(t, "POST", "/v1/sessions", v1.CreateSession{Title: planted}, p.header), 201).ID
	b.item = into[v1.Item](t, s.send(t, "POST", "/v1/sessions/"+b.session+"/items", v1.CreateItem{Kind: "cell", Code: "# " + planted}, p.header), 201).ID
	made := into[struct {
		Sandbox string `json:"sandbox_id"`
	}](t, s.send(t, "POST", "/api/sessions/"+clientName+"/initialize", nil, p.header), 200)
	b.clientSession = made.Sandbox
	if sb, ok := s.Fleet.BySeedID(made.Sandbox); ok {
		t.Cleanup(func() { s.delete(t, string(sb.ID())) })
	}
	b.snapshotName = "prepared"
	switch a := s.send(t, "POST", "/v1/sandboxes/"+b.sandbox+"/snapshot", v1.SnapshotSandbox{Name: b.snapshotName}, p.header); a.Status {
	case 201:
		b.snapshot = into[v1.Snapshot](t, a, 201).ID
		t.Cleanup(func() { s.send(t, "DELETE", "/v1/snapshots/"+b.snapshot, nil, p.header) })
	case 501:
		b.snapshot = "snp_" + strings.Repeat("b", 26) // the driver makes none
	default:
		t.Fatalf("snapshot = %d %s", a.Status, a.Body)
	}
	_, who, err := s.Accounts.Begin(t.Context(), p.User, "", accounts.From{})
	if err != nil {
		t.Fatal(err)
	}
	b.login = who.Login
	return b
}

// address fills in an operation's path.
func (b belongings) address(o walked) string {
	box := b.sandbox
	if strings.HasPrefix(o.id, "seed-") {
		box = b.seed
	}
	path := strings.NewReplacer("{sandbox_id}", box, "{session_id}", b.session, "{item_id}", b.item, "{execution_id}", b.execution, "{process_id}", b.process,
		"{kernel_id}", "default", "{snapshot}", b.snapshot, "{key_id}", b.key, "{user_id}", b.user, "{login_id}", b.login, "{organisation_id}", b.orgKey, "{index}", "0", "{message_id}", "msg_x",
		"{chat_id}", b.session, "{provider}", "none").Replace(o.path)
	var query []string
	for _, name := range o.query {
		value := "x"
		if name == "path" {
			value = "/workspace/" + planted
		}
		query = append(query, name+"="+value)
	}
	if len(query) > 0 {
		path += "?" + strings.Join(query, "&")
	}
	return path
}

// call sends an operation.
func (s *Server) call(t testing.TB, o walked, path string, headers ...header) answer {
	t.Helper()
	if body, ok := bodies[o.id]; ok {
		return s.send(t, o.method, path, body, headers...)
	}
	var body io.Reader
	switch {
	case strings.HasPrefix(o.id, "seed-") && strings.Contains(o.id, "upload"):
		headers = append(headers, header{"Content-Type", "multipart/form-data; boundary=b"})
		body = strings.NewReader("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f.txt\"\r\n\r\nx\r\n--b--\r\n")
	case o.method == http.MethodPut:
		headers = append(headers, header{"Content-Type", "application/octet-stream"})
		body = strings.NewReader("taken over")
	}
	return s.do(t, o.method, path, body, headers...)
}

// plain gives an answer without what may differ: the ids that were asked for,
// and the request's.
func plain(a answer, ids ...string) string {
	text := string(a.Body)
	var p v1.Problem
	if json.Unmarshal(a.Body, &p) == nil && p.Code != "" {
		p.RequestID, p.Instance = "", ""
		raw, _ := json.Marshal(p)
		text = string(raw)
	}
	for _, id := range ids {
		if id != "" {
			text = strings.ReplaceAll(text, id, "ID")
		}
	}
	return fmt.Sprintf("%d %s %s", a.Status, a.Header.Get("Content-Type"), text)
}

// Walk goes over the whole OpenAPI with the objects of one user in the hands of
// others: of another organisation, and of the same.
func Walk(t *testing.T, newDriver func(testing.TB) sandbox.Driver, opts Options) {
	opts.Accounts, opts.MaxSandboxes = true, 20
	s := Start(t, newDriver(t), opts)
	acme, other := s.organisation(t, "Acme"), s.organisation(t, "Other")
	chief := s.person(t, "chief", acme, identity.RoleOwner, nil)
	ann, carl := s.person(t, "ann", acme, identity.RoleMember, nil), s.person(t, "carl", acme, identity.RoleMember, nil)
	bob := s.person(t, "bob", other, identity.RoleOwner, nil)
	his := s.settle(t, ann)
	before := s.look(t, his, ann)

	asks := map[string]identity.Action{}
	for id, text := range httpapi.AccessTable() {
		action, _, _ := strings.Cut(text, " ")
		asks[id] = identity.Action(action)
	}
	for _, o := range operationsOf(t, s) {
		if !strings.Contains(o.path, "{") && asks[o.id] != "public" && !slices.Contains(strays, o.id) {
			t.Errorf("nobody tries %s %s (%s) with what is another's: see stray", o.method, o.path, o.id)
		}
	}
	reference := map[string]string{}
	for name, who := range map[string]person{"of another organisation": bob, "of the same organisation": carl} {
		t.Run("somebody "+name, func(t *testing.T) {
			for _, o := range operationsOf(t, s) {
				if !strings.Contains(o.path, "{") || strings.HasPrefix(o.id, "provider-") || o.id == "seed-api-initialize-session" {
					continue // see stray
				}
				key := o.id
				// An admin's route refuses a member before, and an operator's both.
				before := asks[o.id] == identity.Operate || asks[o.id] == identity.Administer && who.Role == identity.RoleMember
				if asks[o.id] == identity.Administer {
					key += string(who.Role)
				}
				if _, ok := reference[key]; !ok {
					reference[key] = plain(s.call(t, o, strange.address(o), who.header), strange.ids()...)
				}
				a := s.call(t, o, his.address(o), who.header)
				if got := plain(a, his.ids()...); got != reference[key] {
					t.Errorf("%s %s of another:\n%s\nof what never was:\n%s", o.method, o.path, got, reference[key])
				}
				if want := http.StatusNotFound; a.Status != want && !before && a.Status != http.StatusNoContent {
					t.Errorf("%s %s of another = %d %s, want %d", o.method, o.path, a.Status, a.Body, want)
				}
				if a.Status == http.StatusNoContent && !strings.HasPrefix(o.id, "aisdk-") { // those say so of every chat that does nothing
					t.Errorf("%s %s of another was done", o.method, o.path)
				}
			}
			s.stray(t, his, who)
		})
	}
	if after := s.look(t, his, ann); after != before {
		t.Errorf("what others did is felt:\nbefore %s\nafter %s", before, after)
	}
	t.Run("its user and the organisation's admin find it", func(t *testing.T) {
		for _, o := range operationsOf(t, s) {
			if o.method != http.MethodGet || strings.HasSuffix(o.path, "/events") || !strings.Contains(o.path, "{") || strings.HasPrefix(o.id, "provider-") {
				continue
			}
			if o.id == "get-snapshot" && strings.HasSuffix(his.snapshot, "bbbb") || o.id == "aisdk-resume" || o.id == "get-item-output" || strings.Contains(o.path, "/sessions/{session_id}/files") || o.id == "get-kernel" || o.id == "list-session-variables" || o.id == "get-session-table" {
				continue // there is none of it
			}
			for name, who := range map[string]person{"user": ann, "admin": chief} {
				if a := s.call(t, o, his.address(o), who.header); a.Status == http.StatusNotFound || a.Status >= 500 || a.Status == http.StatusForbidden && !strings.Contains(o.path, "user") {
					t.Errorf("%s: %s %s = %d %s", name, o.method, o.path, a.Status, a.Body)
				}
			}
		}
		if a := s.do(t, "GET", "/v1/sessions?query="+planted, nil, chief.header); !bytes.Contains(a.Body, []byte(his.session)) {
			t.Errorf("the admin's list = %s", a.Body)
		}
	})
	t.Run("nobody is told that others change something", func(t *testing.T) { s.testFeeds(t, ann, chief, bob) })
	t.Run("gone, it is still nobody else's", func(t *testing.T) {
		if a := s.do(t, "DELETE", "/v1/sandboxes/"+his.sandbox, nil, ann.header); a.Status != 204 {
			t.Fatalf("delete = %d %s", a.Status, a.Body)
		}
		wantProblem(t, s.do(t, "GET", "/v1/sandboxes/"+his.sandbox, nil, ann.header), 410, "sandbox-gone")
		for _, path := range []string{"", "/executions", "/executions/" + his.execution, "/usage"} {
			wantProblem(t, s.do(t, "GET", "/v1/sandboxes/"+his.sandbox+path, nil, bob.header), 404, "sandbox-not-found")
		}
	})
	t.Run("what was done is in the audit", func(t *testing.T) { s.checkAudit(t, his, ann, chief, bob) })
}

// look gives all that others could have changed.
func (s *Server) look(t *testing.T, b belongings, who person) string {
	t.Helper()
	var out strings.Builder
	for _, path := range []string{
		"/v1/sessions/" + b.session, "/v1/sessions?query=" + planted, "/v1/sandboxes/" + b.sandbox + "/executions", "/v1/sandboxes/" + b.sandbox + "/files?path=/workspace",
		"/v1/sandboxes/" + b.sandbox + "/kernels", "/v1/snapshots/" + b.snapshot, "/sandboxes/" + b.clientSession, "/v1/me/logins",
	} {
		a := s.do(t, "GET", path, nil, who.header)
		text := plain(a)
		text = strings.Replace(text, `"ready":false`, `"ready":true`, 1) // its kernel may still start
		if a.Status == 200 && strings.HasSuffix(path, "/kernels") {
			text = fmt.Sprint(bytes.Count(a.Body, []byte(`"id"`)))
		}
		out.WriteString(path + " " + text + "\n")
	}
	return out.String()
}

// strays are the operations that name nothing in their path, and that stray
// tries; those of the last line know of no objects.
var strays = strings.Fields(`list-sandboxes list-sessions list-snapshots seed-list-sandboxes seed-api-list-sandboxes list-keys list-my-logins get-info get-me list-models
	get-my-usage list-usage list-users get-audit list-organisations metrics create-sandbox create-session create-user create-key create-organisation choose-organisation
	seed-upload-by-session seed-api-upload-by-session aisdk-chat
	import-session seed-create-sandbox seed-api-create-sandbox seed-execute-here seed-api-execute-here change-password end-my-logins docs openapi-json openapi-yaml`)

// stray tries what has no place in a path: bodies, queries, names and lists.
func (s *Server) stray(t *testing.T, his belongings, who person) {
	t.Helper()
	for _, path := range []string{
		"/v1/sandboxes", "/v1/sessions", "/v1/sessions?query=" + planted, "/v1/sessions?deleted=true", "/v1/snapshots", "/sandboxes", "/api/sandboxes", "/v1/keys", "/v1/keys?all=true", "/v1/me/logins",
		"/v1/info", "/v1/me", "/v1/usage", "/v1/models", "/v1/sessions?query=" + his.session, "/v1/sessions?query=" + his.item, "/openapi.yaml",
	} {
		a := s.do(t, "GET", path, nil, who.header)
		if a.Status != 200 {
			t.Errorf("GET %s = %d %s", path, a.Status, a.Body)
		}
		for _, id := range append(his.ids(), planted) {
			if id != "" && id != his.snapshotName && bytes.Contains(a.Body, []byte(id)) && (id != his.orgKey || who.Org != his.orgKey) {
				t.Errorf("GET %s shows %s: %s", path, id, a.Body)
			}
		}
	}
	for _, name := range []string{his.snapshot, his.snapshotName} {
		wantProblem(t, s.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{Snapshot: name}, who.header), 404, "snapshot-not-found")
	}
	for _, name := range []string{clientName, his.session, his.sandbox} {
		o := walked{id: "seed-upload-by-session", method: "POST"}
		for _, door := range []string{"", "/api"} {
			if a := s.call(t, o, door+"/sandboxes/upload?session_id="+name, who.header); a.Status != 404 {
				t.Errorf("an upload by %s to the session %s of another = %d %s", door, name, a.Status, a.Body)
			}
		}
	}
	// The same name of a session is another session, with a sandbox of its own.
	made := into[struct {
		Status  string `json:"status"`
		Sandbox string `json:"sandbox_id"`
	}](t, s.send(t, "POST", "/api/sessions/"+clientName+"/initialize", nil, who.header), 200)
	if made.Status != "created" || made.Sandbox == his.clientSession {
		t.Errorf("a session with the name of another's = %+v", made)
	}
	if a := s.do(t, "DELETE", "/sandboxes/"+made.Sandbox, nil, who.header); a.Status != 200 {
		t.Errorf("delete = %d %s", a.Status, a.Body)
	}
	for _, chat := range []string{his.session, clientName} {
		a := s.send(t, "POST", "/api/chat", map[string]any{"id": chat, "messages": []any{map[string]any{"id": "1", "role": "user", "parts": []any{map[string]any{"type": "text", "text": "hello"}}}}}, who.header)
		if bytes.Contains(a.Body, []byte(planted)) {
			t.Errorf("a chat named %s = %s", chat, a.Body)
		}
	}
	for _, path := range []string{"/metrics", "/v1/organisations"} {
		wantProblem(t, s.do(t, "GET", path, nil, who.header), 403, "operator-needed")
	}
	wantProblem(t, s.send(t, "POST", "/v1/organisations", v1.CreateOrganisation{Name: "mine"}, who.header), 403, "operator-needed")
	for _, user := range []string{his.user, strange.user} {
		wantProblem(t, s.send(t, "POST", "/v1/keys", v1.CreateKey{Name: "his", UserID: user}, who.header), 403, "operator-needed")
	}
	choose := func(org string) string {
		return plain(s.send(t, "POST", "/v1/me/organisation", v1.ChooseOrganisation{OrganisationID: org}, who.header), org)
	}
	if got, never := choose(his.orgKey), choose(strange.orgKey); who.Org != his.orgKey && got != never {
		t.Errorf("an organisation of another to act in: %s, and one that never was: %s", got, never)
	}
	// What one sends again under a key is one's own.
	idle := header{v1.HeaderIdempotencyKey, "walk-" + his.execution}
	own := into[v1.Session](t, s.send(t, "POST", "/v1/sessions", v1.CreateSession{Title: "own"}, who.header, idle), 201)
	if own.ID == his.session || own.Title != "own" {
		t.Errorf("a session with another's key of repetition = %+v", own)
	}
	if who.Role != identity.RoleMember && who.Org != his.orgKey {
		for _, path := range []string{"/v1/audit?limit=1000&user=" + his.user, "/v1/audit?limit=1000&object=" + his.sandbox, "/v1/usage/all", "/v1/users"} {
			if a := s.do(t, "GET", path, nil, who.header); a.Status != 200 || bytes.Contains(a.Body, []byte(his.key)) || bytes.Contains(a.Body, []byte(his.orgKey)) {
				t.Errorf("GET %s = %d %s", path, a.Status, a.Body)
			}
		}
		for _, path := range []string{"/v1/users?organisation=" + his.orgKey, "/v1/audit?organisation=" + his.orgKey, "/v1/usage/all?organisation=" + his.orgKey} {
			wantProblem(t, s.do(t, "GET", path, nil, who.header), 404, "organisation-not-found")
		}
		wantProblem(t, s.send(t, "POST", "/v1/users", v1.CreateUser{Email: "x@example.org", OrganisationID: his.orgKey}, who.header), 404, "organisation-not-found")
	}
}

func (s *Server) checkAudit(t *testing.T, his belongings, ann, chief, bob person) {
	t.Helper()
	wantProblem(t, s.do(t, "GET", "/v1/audit", nil, ann.header), 403, "role-forbidden")
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) { // the other replica's comes a moment later
		list := into[v1.AuditList](t, s.do(t, "GET", "/v1/audit?limit=1000", nil, chief.header), 200)
		found := map[string]v1.AuditEntry{}
		for _, e := range list.Entries {
			if e.UserID == ann.User {
				found[e.Action] = e
			}
			if e.OrganisationID != his.orgKey {
				t.Fatalf("an entry of another organisation: %+v", e)
			}
		}
		e := found["delete-sandbox"]
		if e.Object == his.sandbox && found["create-sandbox"].Object == his.sandbox && found["execute"].Object == his.sandbox && found["create-session"].Object == his.session {
			if e.Status != 204 || e.Via != his.key || e.Address == "" || e.RequestID == "" {
				t.Errorf("entry = %+v", e)
			}
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the audit lacks something: %+v", found)
		}
	}
	text := s.do(t, "GET", "/v1/audit?limit=1000", nil, chief.header)
	if bytes.Contains(text.Body, []byte(planted)) {
		t.Error("the audit has contents")
	}
	if a := s.do(t, "GET", "/v1/audit?limit=1000", nil, bob.header); bytes.Contains(a.Body, []byte(ann.User)) && !bytes.Contains(a.Body, []byte(`"object":"`+ann.User)) {
		t.Error("the audit of another organisation tells of a user")
	}
}

// Rights tests roles and scopes on every route.
func Rights(t *testing.T, newDriver func(testing.TB) sandbox.Driver, opts Options) {
	opts.Accounts = true
	s := Start(t, newDriver(t), opts)
	org := s.organisation(t, "Acme")
	s.person(t, "chief", org, identity.RoleOwner, nil)
	viewer := s.person(t, "viewer", org, identity.RoleViewer, nil)
	reader := s.person(t, "reader", org, identity.RoleAdmin, []string{identity.ScopeSandboxesRead})
	table := httpapi.AccessTable()
	code := func(a answer) string {
		var p v1.Problem
		_ = json.Unmarshal(a.Body, &p)
		return p.Code
	}
	for _, o := range operationsOf(t, s) {
		action, scope, _ := strings.Cut(table[o.id], " ")
		if action == "public" {
			continue
		}
		path := strange.address(o)
		a := s.call(t, o, path, viewer.header)
		allowed := action == string(identity.Read) || action == string(identity.Manage)
		if !allowed && a.Status != http.StatusForbidden || allowed && a.Status == http.StatusForbidden {
			t.Errorf("a viewer: %s %s = %d %s", o.method, o.path, a.Status, a.Body)
		}
		if !allowed && strings.HasPrefix(o.path, "/v1/") && o.method != http.MethodHead && code(a) != "role-forbidden" && code(a) != "operator-needed" {
			t.Errorf("a viewer: %s %s has the code %q", o.method, o.path, code(a))
		}
		a = s.call(t, o, path, reader.header)
		if may := scope == identity.ScopeSandboxesRead; may != (a.Status != http.StatusForbidden) {
			t.Errorf("a key for reading sandboxes: %s %s = %d %s", o.method, o.path, a.Status, a.Body)
		}
		if a := s.call(t, o, path, header{"Authorization", ""}); a.Status != http.StatusUnauthorized {
			t.Errorf("nobody: %s %s = %d", o.method, o.path, a.Status)
		}
		if a := s.call(t, o, path, header{"Authorization", "Bearer csk_aaaaaaaaaaaaaaaa_" + strings.Repeat("a", 43)}); a.Status != http.StatusUnauthorized {
			t.Errorf("a key that is none: %s %s = %d", o.method, o.path, a.Status)
		}
	}
}
