package httpapitest

import (
	"encoding/json"
	"io"
	"slices"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Gone tests that of a sandbox that is gone nobody learns but those whose it
// was: from the server that had it, and when that one is gone, too.
func Gone(t *testing.T, newDriver func(testing.TB) sandbox.Driver, opts Options) {
	opts.Accounts = true
	s := Start(t, newDriver(t), opts)
	acme, other := s.organisation(t, "Acme"), s.organisation(t, "Other")
	chief := s.person(t, "chief", acme, identity.RoleOwner, nil)
	ann, carl := s.person(t, "ann", acme, identity.RoleMember, nil), s.person(t, "carl", acme, identity.RoleMember, nil)
	bob := s.person(t, "bob", other, identity.RoleOwner, nil)
	box := into[v1.Sandbox](t, s.send(t, "POST", "/v1/sandboxes", nil, ann.header), 201)
	exe := into[v1.Execution](t, s.send(t, "POST", "/v1/sandboxes/"+box.ID+"/executions", v1.Execute{Code: "1"}, ann.header), 200)
	sb, err := s.Fleet.Get(sandbox.ID(box.ID))
	if err != nil {
		t.Fatal(err)
	}
	seed := sb.View().SeedID
	if a := s.do(t, "DELETE", "/v1/sandboxes/"+box.ID, nil, ann.header); a.Status != 204 {
		t.Fatalf("delete = %d %s", a.Status, a.Body)
	}
	check := func(t *testing.T) {
		for _, path := range []string{"", "/usage", "/files?path=/", "/kernels", "/executions/" + exe.ID} {
			for name, who := range map[string]person{"a colleague": carl, "another organisation": bob, "an operator": {header: header{"Authorization", "Bearer " + Token}}} {
				never := plain(s.do(t, "GET", "/v1/sandboxes/"+strange.sandbox+path, nil, who.header), strange.sandbox)
				if got := plain(s.do(t, "GET", "/v1/sandboxes/"+box.ID+path, nil, who.header), box.ID); got != never {
					t.Errorf("%s is told of %q:\n%s\nand of what never was:\n%s", name, path, got, never)
				}
			}
		}
		for _, id := range []string{seed, box.ID} {
			never := plain(s.do(t, "GET", "/sandboxes/"+strange.sandbox, nil, bob.header), strange.sandbox)
			if got := plain(s.do(t, "GET", "/sandboxes/"+id, nil, bob.header), id); got != never {
				t.Errorf("another organisation is told by the original's door:\n%s\nand of what never was:\n%s", got, never)
			}
		}
		for name, who := range map[string]person{"she": ann, "her admin": chief} {
			if p := wantProblem(t, s.do(t, "GET", "/v1/sandboxes/"+box.ID, nil, who.header), 410, "sandbox-gone"); p.Reason != "deleted" {
				t.Errorf("%s is told %+v", name, p)
			}
		}
	}
	t.Run("by the server that had it", check)
	if s.front != nil {
		s.halt()
		t.Run("by another, when that one is gone", check)
	}
}

// testFeeds tests that the news without contents, which every reader of a session
// gets, tells nobody that there was something with another's.
func (s *Server) testFeeds(t *testing.T, ann, chief, bob person) {
	t.Helper()
	open := func(who person) (id string, types <-chan string) {
		id = into[v1.Session](t, s.send(t, "POST", "/v1/sessions", v1.CreateSession{Title: "mine"}, who.header), 201).ID
		resp := s.open(t, "GET", "/v1/sessions/"+id+"/events", nil, who.header, header{"Accept", "application/x-ndjson"})
		t.Cleanup(func() { _ = resp.Body.Close() })
		return id, eventTypes(resp.Body)
	}
	_, chiefs := open(chief)
	bobsID, bobs := open(bob)
	maker := s
	if s.front != nil {
		maker = s.front // so that one server has to tell the other
	}
	next := func(types <-chan string, again func()) string {
		t.Helper()
		for end := time.After(patience); ; again() {
			select {
			case typ, ok := <-types:
				if !ok {
					t.Fatal("the stream ended")
				}
				return typ
			case <-time.After(100 * time.Millisecond): // a server may not listen yet
			case <-end:
				t.Fatal("nothing comes")
			}
		}
	}
	create := func() {
		into[v1.Session](t, maker.send(t, "POST", "/v1/sessions", v1.CreateSession{Title: "another"}, ann.header), 201)
	}
	create()
	for next(chiefs, create) != "sessions.changed" {
	}
	into[v1.Item](t, s.send(t, "POST", "/v1/sessions/"+bobsID+"/items", v1.CreateItem{Kind: "cell", Code: "1"}, bob.header), 201)
	var heard []string
	for !slices.Contains(heard, "item.added") {
		heard = append(heard, next(bobs, func() {}))
	}
	if slices.Contains(heard, "sessions.changed") {
		t.Errorf("a reader in another organisation was told %q", heard)
	}
}

// eventTypes gives the types of a stream's events as they come.
func eventTypes(body io.Reader) <-chan string {
	types := make(chan string, 1000)
	go func() { // ends with the stream
		defer close(types)
		dec := json.NewDecoder(body)
		for {
			var e event.Event
			if dec.Decode(&e) != nil {
				return
			}
			types <- string(e.Type)
		}
	}()
	return types
}
