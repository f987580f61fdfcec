package identity_test

import (
	"testing"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
)

func TestWhoseThingsAre(t *testing.T) {
	ann := identity.Owner{User: "ann", Org: "acme"}
	for _, tt := range []struct {
		name string
		who  identity.Principal
		of   identity.Owner
		want bool
	}{
		{"her own", identity.Principal{User: "ann", Org: "acme", Role: identity.RoleMember}, ann, true},
		{"her own as a viewer", identity.Principal{User: "ann", Org: "acme", Role: identity.RoleViewer}, ann, true},
		{"her own, while she acts elsewhere", identity.Principal{User: "ann", Org: "other", Role: identity.RoleOwner}, ann, false},
		{"a colleague's", identity.Principal{User: "bob", Org: "acme", Role: identity.RoleMember}, ann, false},
		{"to an admin", identity.Principal{User: "bob", Org: "acme", Role: identity.RoleAdmin}, ann, true},
		{"to another's owner", identity.Principal{User: "eve", Org: "other", Role: identity.RoleOwner}, ann, false},
		{"to an operator elsewhere", identity.Principal{User: "eve", Org: "other", Role: identity.RoleOwner, Operator: true}, ann, false},
		{"to the installation", identity.Installation(), ann, false},
		{"to the only user", identity.Local(), ann, true},
		{"to nobody", identity.Principal{}, ann, false},
		{"nobody's, to nobody", identity.Principal{}, identity.Owner{}, false},
		{"nobody's, to a user", identity.Principal{User: "ann", Org: "acme", Role: identity.RoleOwner}, identity.Owner{}, false},
		{"nobody's, to an operator", identity.Principal{User: "ann", Org: "acme", Role: identity.RoleViewer, Operator: true}, identity.Owner{}, true},
		{"nobody's, to the installation", identity.Installation(), identity.Owner{}, true},
		{"of no organisation, to one of none", identity.Principal{User: "x", Role: identity.RoleOwner}, identity.Owner{User: "x"}, false},
	} {
		if got := tt.who.Owns(tt.of); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestWhatRolesMay(t *testing.T) {
	all := []identity.Action{identity.Read, identity.Manage, identity.Write, identity.Execute, identity.Administer, identity.Operate, "made up"}
	for name, tt := range map[string]struct {
		who identity.Principal
		may int // of all, from the left
	}{
		"nobody":           {identity.Principal{}, 0},
		"an unknown role":  {identity.Principal{User: "x", Org: "o", Role: "root"}, 0},
		"a viewer":         {identity.Principal{User: "x", Org: "o", Role: identity.RoleViewer}, 2},
		"a member":         {identity.Principal{User: "x", Org: "o", Role: identity.RoleMember}, 4},
		"an admin":         {identity.Principal{User: "x", Org: "o", Role: identity.RoleAdmin}, 5},
		"an owner":         {identity.Principal{User: "x", Org: "o", Role: identity.RoleOwner}, 5},
		"an owner and op":  {identity.Principal{User: "x", Org: "o", Role: identity.RoleOwner, Operator: true}, 6},
		"the only user":    {identity.Local(), 7},
		"the installation": {identity.Installation(), 7},
	} {
		for i, a := range all {
			if err := tt.who.May(a); (err == nil) != (i < tt.may) || err != nil && errdefs.CodeOf(err) == "" {
				t.Errorf("%s, %s: %v", name, a, err)
			}
		}
	}
}

func TestScopesAreWhatTheySay(t *testing.T) {
	p := identity.Principal{Role: identity.RoleOwner, Scopes: []string{identity.ScopeSessionsWrite}}
	if p.Allow(identity.ScopeSessionsWrite) != nil || p.Allow(identity.ScopeSessionsRead) == nil || p.Allow(identity.ScopeAdminWrite) == nil {
		t.Error("a key has what it does not say, or lacks what it says")
	}
	p.Scopes = []string{}
	if p.Allow(identity.ScopeSessionsRead) == nil {
		t.Error("a key without scopes has one")
	}
	p.Scopes = nil
	if p.Allow(identity.ScopeAdminWrite) != nil {
		t.Error("without a list all are allowed")
	}
}
