package egress

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Headers of an answer that comes from the door, not from the host asked for.
// Both are taken from what hosts answer, so that none can pretend.
const (
	HeaderKind = "Caesarion-Egress"      // denied, limited, unreachable or off
	HeaderCode = "Caesarion-Egress-Code" // the exact reason, stable
)

// Kind is the sort of a refusal, as in HeaderKind.
type Kind string

// The kinds.
const (
	KindDenied      Kind = "denied"      // the policy or the guard says no
	KindLimited     Kind = "limited"     // a limit is reached
	KindUnreachable Kind = "unreachable" // allowed, but the other side can't be had
	KindOff         Kind = "off"         // the sandbox has no network at all
)

// The codes, in HeaderCode, logs and counters.
const (
	codeOff         = "no-network"
	codeHost        = "host-not-allowed"
	codeInward      = "inward-name"
	codeBadHost     = "host-invalid"
	codeAddress     = "address-refused"
	codePolicy      = "policy-unreadable"
	codeMirrorOff   = "packages-not-allowed"
	codeSecret      = "secret-unavailable" //nolint:gosec // a code, no credential
	codeSecretPlain = "secret-needs-https" //nolint:gosec // a code, no credential
	codeMisdirected = "host-mismatch"
	codeMethod      = "request-invalid"
	codeConns       = "too-many-connections"
	codeRate        = "connections-too-fast"
	codeLookups     = "too-many-lookups"
	codeBytes       = "bytes-used-up"
	codeAccount     = "account-limit"
	codeIdle        = "idle"
	codeName        = "name-not-found"
	codeLookup      = "lookup-failed"
	codeDial        = "connect-failed"
	codeProxy       = "company-proxy-failed"
	codeTLS         = "certificate-not-trusted"
	codeUpstream    = "answer-broken"
	codeEcho        = "answer-unmaskable"
)

// Refusal is a no of the door, with a sentence for the person whose program
// asked.
type Refusal struct {
	Kind Kind
	Code string
	Text string
	Err  error // cause, logged only
}

func (r *Refusal) Error() string { return r.Text }

// Unwrap gives the cause.
func (r *Refusal) Unwrap() error { return r.Err }

// Status is the HTTP status of the refusal.
func (r *Refusal) Status() int {
	switch r.Kind {
	case KindLimited:
		return http.StatusTooManyRequests
	case KindUnreachable:
		return http.StatusBadGateway
	default:
		return http.StatusForbidden
	}
}

// write answers a request with the refusal: one line, which the agent also
// makes the reason of its status line.
func (r *Refusal) write(w http.ResponseWriter) {
	text := printable(r.Text, 400) + "\n"
	h := w.Header()
	clear(h)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(HeaderKind, string(r.Kind))
	h.Set(HeaderCode, r.Code)
	w.WriteHeader(r.Status())
	_, _ = w.Write([]byte(text)) //nolint:errcheck,gosec // whoever asked may be gone; it is plain text
}

func denied(code, format string, args ...any) *Refusal {
	return &Refusal{Kind: KindDenied, Code: code, Text: fmt.Sprintf(format, args...)}
}

func limited(code, format string, args ...any) *Refusal {
	return &Refusal{Kind: KindLimited, Code: code, Text: fmt.Sprintf(format, args...)}
}

func unreachable(code string, err error, format string, args ...any) *Refusal {
	return &Refusal{Kind: KindUnreachable, Code: code, Text: fmt.Sprintf(format, args...), Err: err}
}

// asRefusal finds the refusal in err, or makes one that tells nothing of err.
func asRefusal(err error, t target) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	return unreachable(codeDial, err, "%s can't be reached", t)
}

// shown is the part of err that its maker wrote for people.
func shown(err error, otherwise string) string {
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		if e.Hint != "" {
			return e.Msg + " (" + e.Hint + ")"
		}
		return e.Msg
	}
	if e, ok := errors.AsType[*errdefs.LimitError](err); ok {
		return e.Error()
	}
	return otherwise
}
