package httpapitest

import (
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Organisations tests that an organisation is deleted once it has nothing, and
// that admins are told whose the sandboxes are.
func Organisations(t *testing.T, newDriver func(testing.TB) sandbox.Driver, opts Options) {
	opts.Accounts = true
	s := Start(t, newDriver(t), opts)
	home, acme := s.organisation(t, "Home"), s.organisation(t, "Acme")
	ann, carl := s.person(t, "ann", acme, identity.RoleOwner, nil), s.person(t, "carl", acme, identity.RoleMember, nil)
	u, err := s.Accounts.CreateUser(t.Context(), accounts.NewUser{Email: "op@example.org", Org: home, Role: identity.RoleOwner, Operator: true})
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := s.Accounts.CreateKey(t.Context(), identity.Principal{User: u.ID, Org: home, Role: identity.RoleOwner, Operator: true}, accounts.NewKey{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	operator := header{"Authorization", "Bearer " + key}
	del := func(id string, who header) answer { return s.do(t, "DELETE", "/v1/organisations/"+id, nil, who) }

	box := into[v1.Sandbox](t, s.send(t, "POST", "/v1/sandboxes", nil, carl.header), 201)
	t.Cleanup(func() { s.delete(t, box.ID) })
	ses := into[v1.Session](t, s.send(t, "POST", "/v1/sessions", map[string]string{}, carl.header), 201)
	t.Run("admins are told whose a sandbox is", func(t *testing.T) {
		want := v1.Owner{UserID: carl.User, OrganisationID: acme}
		if box.Owner == nil || *box.Owner != want {
			t.Errorf("made: owner = %+v, want %+v", box.Owner, want)
		}
		owner := func(who header) v1.Owner {
			list := into[v1.SandboxList](t, s.do(t, "GET", "/v1/sandboxes", nil, who), 200).Sandboxes
			if len(list) != 1 || list[0].Owner == nil {
				t.Fatalf("list = %+v", list)
			}
			return *list[0].Owner
		}
		if got := owner(carl.header); got != want {
			t.Errorf("he is told %+v, want %+v", got, want)
		}
		want.Email, want.OrganisationName = "carl@example.org", "Acme"
		if got := owner(ann.header); got != want {
			t.Errorf("his admin is told %+v, want %+v", got, want)
		}
		if list := into[v1.SandboxList](t, s.do(t, "GET", "/v1/sandboxes", nil, operator), 200); len(list.Sandboxes) != 0 {
			t.Errorf("an operator of another organisation is told %+v", list)
		}
	})
	t.Run("one that has something stays", func(t *testing.T) {
		wantProblem(t, del(acme, ann.header), 403, "operator-needed")
		p := wantProblem(t, del(acme, operator), 409, "organisation-in-use")
		if !strings.Contains(p.Detail, "users, sandboxes and sessions") || p.Hint == "" {
			t.Errorf("it says %q, %q", p.Detail, p.Hint)
		}
		wantProblem(t, del(home, operator), 409, "organisation-in-use")
		wantProblem(t, del(strange.orgKey, operator), 404, "organisation-not-found")
	})
	t.Run("one that has nothing goes, with its keys", func(t *testing.T) {
		for _, path := range []string{"/v1/sandboxes/" + box.ID, "/v1/sessions/" + ses.ID, "/v1/users/" + carl.User} {
			if a := s.do(t, "DELETE", path, nil, ann.header); a.Status != 204 {
				t.Fatalf("DELETE %s = %d %s", path, a.Status, a.Body)
			}
		}
		if a := s.do(t, "DELETE", "/v1/users/"+ann.User+"?organisation="+acme, nil, operator); a.Status != 204 {
			t.Fatalf("the last user = %d %s", a.Status, a.Body)
		}
		if a := del(acme, operator); a.Status != 204 {
			t.Fatalf("delete = %d %s", a.Status, a.Body)
		}
		wantProblem(t, del(acme, operator), 404, "organisation-not-found")
		for end := time.Now().Add(patience); s.do(t, "GET", "/v1/me", nil, ann.header).Status != 401; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("a key of it is good")
			}
		}
		for _, o := range into[v1.OrganisationList](t, s.do(t, "GET", "/v1/organisations", nil, operator), 200).Organisations {
			if o.ID == acme {
				t.Error("it is listed")
			}
		}
		list := into[v1.AuditList](t, s.do(t, "GET", "/v1/audit?action=delete-organisation&object="+acme, nil, operator), 200)
		if len(list.Entries) == 0 {
			t.Error("the audit does not tell of it")
		}
		s.organisation(t, "Acme") // the name is free
	})
}
