package httpapi

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
)

// access is what a route asks of who calls it. Whose the object is, its handler
// asks besides (owned.go).
type access struct {
	action identity.Action // his role has to allow it
	scope  string          // his API key has to have it
	public bool            // needs nobody at all
	audit  bool            // is told in the audit

	operation string
}

// accessTable has every route of the API by its operation, and there is no
// other place: a route that is not in it is closed, and a test says so.
var accessTable = func() map[string]access {
	table := map[string]access{}
	add := func(a access, operations string) {
		for op := range strings.FieldsSeq(operations) {
			if _, twice := table[op]; twice {
				panic("httpapi: two entries for " + op) // there at every start
			}
			a.operation = op
			table[op] = a
		}
	}
	add(access{public: true}, `seed-root-get seed-root-post health health-post api-health api-health-post live ready login logout
		sign-in-ways redeem-link provider-sign-in provider-return`)
	add(access{action: identity.Read, scope: identity.ScopeServerRead}, `get-info list-models docs openapi-json openapi-yaml`)
	add(access{action: identity.Operate, scope: identity.ScopeMetrics}, `metrics`)

	add(access{action: identity.Read, scope: identity.ScopeSandboxesRead}, `list-sandboxes get-sandbox get-usage list-executions get-execution get-execution-events
		stat-file read-file head-file archive-folder list-kernels get-kernel list-snapshots get-snapshot
		seed-list-sandboxes seed-get-sandbox seed-files seed-api-list-sandboxes seed-api-get-sandbox seed-api-files`)
	add(access{action: identity.Write, scope: identity.ScopeSandboxesWrite, audit: true}, `create-sandbox delete-sandbox extend-sandbox fork-sandbox pause-sandbox resume-sandbox
		snapshot-sandbox delete-snapshot delete-file write-file make-folder move-file create-kernel delete-kernel restart-kernel
		seed-create-sandbox seed-delete-sandbox seed-upload seed-upload-by-session
		seed-api-create-sandbox seed-api-delete-sandbox seed-api-upload seed-api-upload-by-session seed-api-initialize-session`)
	add(access{action: identity.Execute, scope: identity.ScopeSandboxesExecute, audit: true}, `execute run-process kill-process interrupt-execution interrupt-kernel answer-input
		send-comm seed-execute seed-api-execute seed-execute-here seed-api-execute-here`)
	add(access{action: identity.Execute, scope: identity.ScopeSandboxesExecute}, `complete inspect is-complete`) // at each key that is pressed

	add(access{action: identity.Read, scope: identity.ScopeSessionsRead}, `list-sessions get-session get-session-events get-session-usage get-item-text get-item-output
		stat-session-file read-session-file head-session-file head-session-upload aisdk-resume`)
	add(access{action: identity.Read, scope: identity.ScopeSessionsRead, audit: true}, `export-session archive-session-folder`) // much leaves at once
	add(access{action: identity.Write, scope: identity.ScopeSessionsWrite, audit: true}, `create-session import-session delete-session update-session clear-session duplicate-session restore-session
		create-item delete-item update-item clear-item restore-item select-item
		delete-session-file write-session-file make-session-folder move-session-file restore-session-file`)
	add(access{action: identity.Execute, scope: identity.ScopeSessionsExecute, audit: true}, `run-items interrupt-session interrupt-item answer-item-input send-message regenerate-answer continue-answer
		stop-answer remove-queued-message ensure-session-sandbox free-session-sandbox reset-session-sandbox restart-session-kernel aisdk-chat aisdk-stop`)
	// What looks at variables runs their code.
	add(access{action: identity.Execute, scope: identity.ScopeSessionsExecute}, `complete-in-session inspect-in-session is-complete-in-session list-session-variables get-session-table`)

	add(access{action: identity.Manage, scope: identity.ScopeAccountRead}, `get-me list-my-logins list-keys get-key get-my-usage`)
	add(access{action: identity.Manage, scope: identity.ScopeAccountWrite, audit: true}, `create-key rotate-key revoke-key end-my-logins end-my-login choose-organisation change-password`)
	add(access{action: identity.Administer, scope: identity.ScopeAdminRead}, `list-users get-user get-audit list-usage`)
	add(access{action: identity.Administer, scope: identity.ScopeAdminWrite, audit: true}, `create-user update-user remove-user create-user-link`)
	add(access{action: identity.Operate, scope: identity.ScopeAdminRead}, `list-organisations`)
	add(access{action: identity.Operate, scope: identity.ScopeAdminWrite, audit: true}, `create-organisation delete-organisation`)
	return table
}()

// AccessTable gives what each operation asks for, for tests and documents:
// "public", or an action and a scope.
func AccessTable() map[string]string {
	text := map[string]string{}
	for op, a := range accessTable {
		text[op] = string(a.action) + " " + a.scope
		if a.public {
			text[op] = "public"
		}
	}
	return text
}

// accessByPattern gives the table by the patterns of the routes that there are.
func accessByPattern(doc *huma.OpenAPI) map[string]access {
	patterns := map[string]access{}
	for path, item := range doc.Paths {
		for method, op := range map[string]*huma.Operation{
			http.MethodGet: item.Get, http.MethodHead: item.Head, http.MethodPost: item.Post,
			http.MethodPut: item.Put, http.MethodPatch: item.Patch, http.MethodDelete: item.Delete,
		} {
			if op == nil {
				continue
			}
			a, ok := accessTable[op.OperationID]
			if !ok {
				continue // closed
			}
			if path == "/" {
				path = "/{$}"
			}
			patterns[method+" "+path] = a
		}
	}
	return maps.Clone(patterns)
}

// authorize lets through who may do what is asked for, and notes it in the
// audit. front says that the request came from outside, and not from another
// replica, which noted it already.
func (a *API) authorize(next http.Handler, front bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, pattern := a.mux.Handler(r)
		who := identity.From(r.Context())
		asked, known := a.access[pattern]
		switch {
		case pattern == "", asked.public, who.Local && known: // nothing is there; everybody; the only user
			next.ServeHTTP(w, r)
			return
		case !known:
			if a.isPage(r) {
				next.ServeHTTP(w, r)
				return
			}
			a.fail(w, r, errdefs.New(errdefs.ErrForbidden, "route-closed", "Nobody may do this.").WithHint("This is a mistake in the server."))
			return
		}
		if front && a.opts.Accounts != nil {
			at := time.Now()
			defer func() { a.noteAudit(r, who, asked, pattern, at) }()
		}
		err := who.May(asked.action)
		if err == nil {
			err = who.Allow(asked.scope)
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// noteAudit tells what was done, or refused for lack of rights.
func (a *API) noteAudit(r *http.Request, who identity.Principal, asked access, pattern string, at time.Time) {
	req := requestFrom(r.Context())
	if req == nil || !asked.audit && req.w.status != http.StatusForbidden {
		return
	}
	e := accounts.NewEntry(who, asked.operation)
	e.At, e.Status, e.Address, e.Request = at.UTC(), req.w.status, a.clientAddress(r), req.id
	e.Object = objectOf(pattern, r.URL.Path)
	if made := req.w.Header().Get("Location"); req.w.status == http.StatusCreated && made != "" {
		e.Object = made[strings.LastIndexByte(made, '/')+1:]
	}
	if req.problem != nil {
		e.Code = req.problem.Code
	}
	if e.Status == 0 { // it was cut, or broke off
		e.Status, e.Code = statusClientLeft, cmp.Or(errdefs.CodeOf(context.Cause(r.Context())), "client-left")
	}
	a.opts.Accounts.Record(e)
}

// auditSignIn tells of a sign-in, or of one that failed.
func (a *API) auditSignIn(r *http.Request, who identity.Principal, action, object string, err error) {
	e := accounts.NewEntry(who, action)
	e.Object, e.Address, e.Status = object, a.clientAddress(r), http.StatusNoContent
	if req := requestFrom(r.Context()); req != nil {
		e.Request = req.id
	}
	if err != nil {
		p := newProblem(err)
		e.Status, e.Code = p.Status, p.Code
	}
	a.opts.Accounts.Record(e)
}

// objectOf gives the first value that a path has for a {name} of its pattern.
func objectOf(pattern, path string) string {
	_, shape, _ := strings.Cut(pattern, " ")
	parts := strings.Split(path, "/")
	for i, p := range strings.Split(shape, "/") {
		if strings.HasPrefix(p, "{") && i < len(parts) && p != "{$}" {
			return parts[i]
		}
	}
	return ""
}

// noteWho has the log tell who asked.
func noteWho(r *http.Request, who identity.Principal) {
	if who.User != "" {
		note(r.Context(), slog.String("user_id", who.User), slog.String("org_id", who.Org))
	}
	if who.Key != "" {
		note(r.Context(), slog.String("key_id", who.Key))
	}
}

// checkAccess panics if the table names a route that is not there: it is a
// mistake that is there at every start.
func checkAccess(doc *huma.OpenAPI) {
	there := map[string]bool{}
	for _, op := range operations(doc) {
		there[op.OperationID] = true
	}
	for _, item := range doc.Paths {
		if item.Patch != nil {
			there[item.Patch.OperationID] = true
		}
	}
	for op := range accessTable {
		if !there[op] {
			panic(fmt.Sprintf("httpapi: access of %s, which is no route", op))
		}
	}
}
