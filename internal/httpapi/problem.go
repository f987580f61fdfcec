package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
)

// kinds maps the kind of an error to its status and to the code used when the
// error has none of its own. It is read top down.
var kinds = []struct {
	kind   error
	status int
	code   string
}{
	{errdefs.ErrNotFound, http.StatusNotFound, "not-found"},
	{errdefs.ErrInvalid, http.StatusBadRequest, "invalid-request"},
	{errdefs.ErrConflict, http.StatusConflict, "conflict"},
	{errdefs.ErrTooLarge, http.StatusRequestEntityTooLarge, "too-large"},
	{errdefs.ErrExhausted, http.StatusTooManyRequests, "exhausted"},
	{errdefs.ErrUnavailable, http.StatusServiceUnavailable, "unavailable"},
	{errdefs.ErrUnsupported, http.StatusNotImplemented, "unsupported"},
	{errdefs.ErrUnauthenticated, http.StatusUnauthorized, "unauthenticated"},
	{errdefs.ErrForbidden, http.StatusForbidden, "forbidden"},
}

// codeStatus has the few codes whose status says more than that of their kind.
var codeStatus = map[string]int{
	"image-not-found":     http.StatusServiceUnavailable, // the template's, so not the caller's mistake
	"quota-exceeded":      http.StatusServiceUnavailable, // the whole cluster's, and none of the caller's doing
	"disk-full":           http.StatusInsufficientStorage,
	"host-disk-full":      http.StatusInsufficientStorage,
	"disk-quota":          http.StatusInsufficientStorage,
	"save-timeout":        http.StatusGatewayTimeout,
	"invalid-range":       http.StatusRequestedRangeNotSatisfiable,
	"host-not-allowed":    http.StatusMisdirectedRequest,
	"method-not-allowed":  http.StatusMethodNotAllowed,
	"media-type-unknown":  http.StatusUnsupportedMediaType,
	"limit-upload-type":   http.StatusUnsupportedMediaType,
	"sandbox-timeout":     http.StatusGatewayTimeout,
	"table-timeout":       http.StatusGatewayTimeout,
	"preview-timeout":     http.StatusGatewayTimeout,
	"sandbox-unreachable": http.StatusBadGateway,
	"sandbox-bad-answer":  http.StatusBadGateway,
}

// What a caller that was refused for now should wait, in seconds.
const (
	retryExhausted   = 10 // until something idle may have ended
	retryUnavailable = 2  // about the time of a restart
)

// problem is a failure on its way to the client. huma takes it as an error
// with a status.
type problem struct {
	v1.Problem
	header http.Header
	cause  error // logged only
}

func (p *problem) GetStatus() int          { return p.Status }
func (p *problem) GetHeaders() http.Header { return p.header }
func (p *problem) Unwrap() error           { return p.cause }

// ContentType makes huma answer with the media type of problems.
func (p *problem) ContentType(string) string { return v1.MediaProblem }

// Schema describes a problem in the OpenAPI as what it is on the wire.
func (p *problem) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(typeFor[v1.Problem](), true, "Problem")
}

// errClientLeft marks that nobody waits for the answer.
const statusClientLeft = 499

// problemFor turns any error into what the caller may know of it.
func problemFor(ctx context.Context, err error) *problem {
	var p *problem
	if !errors.As(err, &p) {
		if cause := context.Cause(ctx); errors.Is(err, context.Canceled) && errdefs.CodeOf(cause) != "" {
			err = cause // this server ended it, and not the client
		}
		p = newProblem(err)
	}
	if req := requestFrom(ctx); req != nil {
		p.RequestID, p.Instance = req.id, req.path
		req.problem = p
	}
	return p
}

func newProblem(err error) *problem {
	p := &problem{cause: err, header: http.Header{}}
	if gone, ok := errors.AsType[*fleet.GoneError](err); ok {
		p.Status, p.Code, p.Detail, p.Reason = http.StatusGone, "sandbox-gone", gone.Error(), gone.Reason
		p.Hint = "Create a new sandbox."
		return p.complete()
	}
	for _, k := range kinds {
		if !errors.Is(err, k.kind) {
			continue
		}
		p.Status, p.Code = k.status, k.code
		if e, ok := errors.AsType[*errdefs.Error](err); ok {
			p.Detail, p.Hint = e.Msg, e.Hint
			if e.Code != "" {
				p.Code = e.Code
			}
		} else if e, ok := errors.AsType[*errdefs.LimitError](err); ok {
			p.Detail = e.Error()
		}
		if status, ok := codeStatus[p.Code]; ok {
			p.Status = status
		}
		p.limited(err)
		return p.complete()
	}
	switch {
	case errors.Is(err, context.Canceled):
		p.Status, p.Code, p.Detail = statusClientLeft, "client-left", "The client closed the connection."
	case errors.Is(err, context.DeadlineExceeded):
		p.Status, p.Code, p.Detail = http.StatusGatewayTimeout, "timeout", "This took too long and was given up."
	default:
		// No kind: nobody has thought of what the caller may know.
		p.Status, p.Code = http.StatusInternalServerError, "internal"
		p.Detail = "Something went wrong in the server."
		p.Hint = "The server's log has the reason under this request_id."
	}
	return p.complete()
}

func (p *problem) complete() *problem {
	if p.header == nil {
		p.header = http.Header{}
	}
	p.Type = "urn:caesarion:problem:" + p.Code
	p.Title = http.StatusText(p.Status)
	if p.Title == "" {
		p.Title = "Client Closed Request"
	}
	if p.Detail == "" {
		p.Detail = p.Title
	}
	p.Detail, p.Hint = sentence(p.Detail), sentence(p.Hint)
	switch p.Status {
	case http.StatusUnauthorized:
		p.header.Set("WWW-Authenticate", `Bearer realm="caesarion"`)
	case http.StatusTooManyRequests:
		if p.header.Get("Retry-After") == "" {
			p.header.Set("Retry-After", strconv.Itoa(retryExhausted))
		}
	case http.StatusServiceUnavailable:
		p.header.Set("Retry-After", strconv.Itoa(retryUnavailable))
	}
	return p
}

// writeProblem answers a request that huma does not handle.
func writeProblem(w http.ResponseWriter, r *http.Request, err error) {
	p := problemFor(r.Context(), err)
	h := w.Header()
	maps.Copy(h, p.header)
	h.Set("Content-Type", v1.MediaProblem)
	h.Del("Content-Length")
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(p.Problem) // the client may have left
	}
}

// useProblems has huma make our problems instead of its own. The hooks are
// package variables of huma; this package alone uses huma, so one assignment
// for the process changes nobody else's answers.
var useProblems = sync.OnceFunc(func() {
	huma.ValidateStrictCasing = true // "Name" is none of "name", which else stood unchecked beside it
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(context.Background(), "", status, msg, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(ctx.Context(), ctx.Operation().OperationID, status, msg, errs)
	}
})

// humaProblem says in our words what huma found wrong with a request. The
// values it found are not sent back: they may be code or secrets.
func humaProblem(ctx context.Context, operation string, status int, msg string, errs []error) *problem {
	p := &problem{}
	p.Status, p.Detail = status, "The request is not valid: see errors."
	p.Code = "invalid-request"
	if status == http.StatusInternalServerError && msg == "cannot read request body" { // huma's words
		p.Status, p.Code, p.Detail = http.StatusBadRequest, "body-incomplete", "The request body could not be read to its end."
		p.Hint, p.cause, status, errs = "Send it again, whole: as many bytes as its header says.", errors.Join(errs...), http.StatusBadRequest, []error{nil}
	}
	switch status {
	case http.StatusRequestEntityTooLarge:
		p.Code, p.Detail = "body-too-large", "The request body is larger than this call takes."
		p.Hint = "Upload large data as files."
		if operation == executeOperation {
			return problemFor(ctx, errCodeTooLarge())
		}
	case http.StatusUnsupportedMediaType:
		p.Code, p.Detail = "media-type-unknown", "The request body must be application/json."
		p.Hint = "With curl, add -H \"Content-Type: application/json\"."
		errs = nil
	case http.StatusRequestTimeout:
		p.Code, p.Detail = "body-timeout", "The request body did not arrive in time."
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		if len(errs) == 0 {
			p.Detail = msg
		}
	default:
		p.Code, p.Detail = "internal", "Something went wrong in the server."
		p.Hint = "The server's log has the reason under this request_id."
		p.cause = errors.Join(errs...)
		errs = nil
	}
	for _, err := range errs {
		if d, ok := err.(huma.ErrorDetailer); ok {
			p.Errors = append(p.Errors, v1.ProblemField{Location: d.ErrorDetail().Location, Message: d.ErrorDetail().Message})
		} else if err != nil {
			p.Errors = append(p.Errors, v1.ProblemField{Message: err.Error()})
		}
	}
	return problemFor(ctx, p.complete())
}

// sentence gives text of others the form ours has: the agent and the drivers
// write theirs as Go errors.
func sentence(s string) string {
	if s == "" {
		return s
	}
	if s[0] >= 'a' && s[0] <= 'z' {
		s = string(s[0]-'a'+'A') + s[1:]
	}
	if !strings.ContainsAny(s[len(s)-1:], ".!?") {
		s += "."
	}
	return s
}
