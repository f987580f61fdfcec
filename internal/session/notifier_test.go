package session_test

import (
	"context"
	"errors"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/session"
)

// Who may not see a session does not learn that there was something with it,
// not even without its name.
func TestOnlyThoseWhoSeeASessionHearThatTheListChanged(t *testing.T) {
	svc := newWorld(t, false).start(t)
	somebody := func(user, org string, role identity.Role) identity.Principal {
		return identity.Principal{User: user, Org: org, Role: role}
	}
	ann := somebody("usr_ann", "acme", identity.RoleMember)
	readers := map[string]*session.Reader{}
	for name, who := range map[string]identity.Principal{
		"herself": ann, "the admin": somebody("usr_chief", "acme", identity.RoleAdmin), "a colleague": somebody("usr_carl", "acme", identity.RoleMember),
		"the admin of another organisation": somebody("usr_bob", "other", identity.RoleOwner), "the only user": identity.Local(), "an operator": identity.Installation(),
	} {
		s, err := svc.Create(identity.With(t.Context(), who), v1.CreateSession{})
		if err != nil {
			t.Fatal(err)
		}
		r := s.ReaderFor(s.Detail().LastSeq, who.Owns)
		defer r.Close()
		readers[name] = r
	}
	hears := func(r *session.Reader) bool {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // what is there is there at once
		batch, err := r.Next(ctx)
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		return err == nil && batch[0].Type == event.SessionsChanged
	}
	for name, r := range readers { // of the others' sessions that were made here
		for hears(r) {
			t.Logf("%s heard of what was made before", name)
		}
	}
	s, err := svc.Create(identity.With(t.Context(), ann), v1.CreateSession{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Update(v1.UpdateSession{}); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"herself": true, "the admin": true, "the only user": true}
	for name, r := range readers {
		if got := hears(r); got != want[name] {
			t.Errorf("%s hears of it: %v", name, got)
		}
		if hears(r) {
			t.Errorf("%s hears of it twice", name)
		}
	}
}
