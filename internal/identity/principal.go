package identity

import (
	"context"
	"slices"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Role is what somebody is in an organisation. Each may do what those before
// it may.
type Role string

// The roles.
const (
	RoleViewer Role = "viewer" // looks at what is his
	RoleMember Role = "member" // makes, changes and runs
	RoleAdmin  Role = "admin"  // sees all of the organisation, and has its users
	RoleOwner  Role = "owner"  // an admin whom only owners can change
)

var roles = []Role{RoleViewer, RoleMember, RoleAdmin, RoleOwner}

// Valid reports whether there is such a role.
func (r Role) Valid() bool { return slices.Contains(roles, r) }

// AtLeast reports whether a role may do what another may.
func (r Role) AtLeast(least Role) bool {
	return r.Valid() && slices.Index(roles, r) >= slices.Index(roles, least)
}

// Roles gives all roles, the least first.
func Roles() []Role { return slices.Clone(roles) }

// Action is a sort of things to do.
type Action string

// The actions.
const (
	Read       Action = "read"
	Write      Action = "write"
	Execute    Action = "execute"
	Manage     Action = "manage"     // one's own account and keys
	Administer Action = "administer" // an organisation
	Operate    Action = "operate"    // the installation
)

var least = map[Action]Role{Read: RoleViewer, Manage: RoleViewer, Write: RoleMember, Execute: RoleMember, Administer: RoleAdmin}

// Owner is whose something is. The zero value is nobody: it was made where
// there is one user only, or by an operator in no organisation.
type Owner struct {
	User string `json:"user,omitempty"`
	Org  string `json:"org,omitempty"`
}

// Principal is who asks. The zero value is nobody, who may nothing.
type Principal struct {
	User     string   `json:"user,omitempty"` // usr_…; empty: no user
	Org      string   `json:"org,omitempty"`  // org_…: in which one acts
	Name     string   `json:"name,omitempty"` // for people
	Role     Role     `json:"role,omitempty"`
	Scopes   []string `json:"scopes"`          // nil: all
	Key      string   `json:"key,omitempty"`   // id of the API key; empty: another way
	Login    string   `json:"login,omitempty"` // id of the browser's sign-in; empty: another way
	Operator bool     `json:"operator,omitempty"`
	Local    bool     `json:"local,omitempty"` // the only user there is: everything is his
}

// Local is whoever calls a server that has one user.
func Local() Principal {
	return Principal{Name: "local", Role: RoleOwner, Operator: true, Local: true}
}

// Installation is whoever has the installation's token where there are
// accounts: he operates it, and what users own is not his.
func Installation() Principal {
	return Principal{Name: "installation", Role: RoleOwner, Operator: true}
}

type key struct{}

// With gives a context of somebody's request.
func With(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, key{}, &p)
}

// From gives who asks; nobody, if the context is of no request.
func From(ctx context.Context) Principal {
	if p, ok := ctx.Value(key{}).(*Principal); ok {
		return *p
	}
	return Principal{}
}

// Known reports whether it is somebody.
func (p Principal) Known() bool { return p.Role != "" }

// Owner gives whose the things are that he makes.
func (p Principal) Owner() Owner { return Owner{p.User, p.Org} }

// Owns reports whether something is there for him.
func (p Principal) Owns(o Owner) bool {
	switch {
	case p.Local:
		return true
	case o == Owner{}:
		return p.Operator
	case p.Org == "" || p.Org != o.Org:
		return false
	}
	return p.User == o.User || p.Role.AtLeast(RoleAdmin)
}

// May says whether his role allows something. Whether the thing is his is
// another question.
func (p Principal) May(a Action) error {
	switch {
	case p.Local:
		return nil
	case !p.Known():
		return errdefs.New(errdefs.ErrUnauthenticated, "unauthenticated", "Nobody is signed in.").WithHint("Sign in, or send an API key.")
	case a == Operate:
		if p.Operator {
			return nil
		}
		return errdefs.New(errdefs.ErrForbidden, "operator-needed", "Only an operator of the installation may do this.").
			WithHint("Ask whoever runs this server.")
	case p.Operator && p.User == "": // by the installation's token
		return nil
	}
	need, ok := least[a]
	if ok && p.Role.AtLeast(need) {
		return nil
	}
	return errdefs.New(errdefs.ErrForbidden, "role-forbidden", "You are %s in this organisation, and this needs %s.", p.Role, need).
		WithHint("An admin of the organisation can change your role.")
}

// Allow says whether his key has a scope.
func (p Principal) Allow(scope string) error {
	if scope == "" || p.Scopes == nil || slices.Contains(p.Scopes, scope) {
		return nil
	}
	return errdefs.New(errdefs.ErrForbidden, "scope-missing", "The API key does not have the scope %s.", scope).
		WithHint("Make a key that has it.")
}

// Filter is which objects a list shows.
type Filter struct {
	All     bool   // every one
	Org     string // those of an organisation; empty: none of any
	User    string // of this user only; empty: of all users
	Unowned bool   // and those that nobody owns
}

// Filter gives what Owns says, for a query.
func (p Principal) Filter() Filter {
	f := Filter{All: p.Local, Org: p.Org, Unowned: p.Operator}
	if !p.Role.AtLeast(RoleAdmin) {
		f.User = p.User
	}
	return f
}
