package identity

import (
	"slices"
	"strings"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// The scopes of API keys: an area and what may be done there. None implies
// another, so that a key has exactly what it says.
const (
	ScopeServerRead       = "server:read" // versions, models, this description
	ScopeMetrics          = "metrics:read"
	ScopeSessionsRead     = "sessions:read"
	ScopeSessionsWrite    = "sessions:write"
	ScopeSessionsExecute  = "sessions:execute"
	ScopeSandboxesRead    = "sandboxes:read"
	ScopeSandboxesWrite   = "sandboxes:write"
	ScopeSandboxesExecute = "sandboxes:execute"
	ScopeAccountRead      = "account:read" // who one is, one's own keys
	ScopeAccountWrite     = "account:write"
	ScopeAdminRead        = "admin:read" // users, audit
	ScopeAdminWrite       = "admin:write"
)

var scopes = []string{
	ScopeServerRead, ScopeMetrics, ScopeSessionsRead, ScopeSessionsWrite, ScopeSessionsExecute, ScopeSandboxesRead, ScopeSandboxesWrite,
	ScopeSandboxesExecute, ScopeAccountRead, ScopeAccountWrite, ScopeAdminRead, ScopeAdminWrite,
}

// Scopes gives all scopes.
func Scopes() []string { return slices.Clone(scopes) }

// CheckScopes says what is wrong with scopes for a key that somebody makes: a
// key can't have more than the key it is made with.
func CheckScopes(asked, own []string) error {
	for _, s := range asked {
		if !slices.Contains(scopes, s) {
			return errdefs.New(errdefs.ErrInvalid, "scope-unknown", "There is no scope %.80q.", s).WithHint("The scopes are: %s.", strings.Join(scopes, ", "))
		}
		if own != nil && !slices.Contains(own, s) {
			return errdefs.New(errdefs.ErrForbidden, "scope-missing", "The API key you use does not have the scope %s, so it can't give it.", s).
				WithHint("Sign in, or use a key that has it.")
		}
	}
	return nil
}
