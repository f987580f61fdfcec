// Package errdefs names the kinds of failure that every part of Caesarion
// agrees on, and pairs a kind with a sentence that is safe to show the caller.
//
// A kind decides the HTTP status (internal/httpapi/problem.go holds the one
// table); a code is the stable, machine-readable name of the exact failure.
package errdefs

import (
	"errors"
	"fmt"
)

// The kinds. Test for them with errors.Is.
var (
	ErrNotFound        = errors.New("not found")
	ErrInvalid         = errors.New("invalid")
	ErrConflict        = errors.New("conflict")
	ErrExhausted       = errors.New("exhausted")
	ErrUnavailable     = errors.New("unavailable")
	ErrUnsupported     = errors.New("unsupported")
	ErrUnauthenticated = errors.New("unauthenticated")
	ErrForbidden       = errors.New("forbidden")
	ErrTooLarge        = errors.New("too large")
)

// Error gives a failure a kind and a sentence that is safe to show the caller.
type Error struct {
	Kind error  // one of the Err… values; decides the HTTP status
	Code string // stable kebab-case name of this failure, e.g. "sandbox-not-found"; empty: the kind's own
	Msg  string // shown to the caller: what happened
	Hint string // shown to the caller: what to do about it; may be empty
	Err  error  // cause, logged only; may be nil
}

// New makes an Error from a kind, a stable code and the sentence shown to the caller.
func New(kind error, code, format string, args ...any) *Error {
	return &Error{Kind: kind, Code: code, Msg: fmt.Sprintf(format, args...)}
}

// WithHint says what the caller can do, and returns e.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// WithCause records the error behind e, which is logged and never shown, and returns e.
func (e *Error) WithCause(err error) *Error {
	e.Err = err
	return e
}

// Error gives message and hint; the cause is for logs, by Unwrap.
func (e *Error) Error() string {
	s := e.Msg
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Is reports whether target is the kind of e.
func (e *Error) Is(target error) bool { return target == e.Kind }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf gives the code of the first Error in err's chain; "" if there is none.
func CodeOf(err error) string {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ""
}

// LimitError says which limit stopped an operation, in the limit's own unit.
type LimitError struct {
	Resource string // "memory_bytes", "sandboxes", "body_bytes", …
	Limit    int64
	Used     int64
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%s: %d is over the limit of %d", e.Resource, e.Used, e.Limit)
}

// Is makes every LimitError an ErrExhausted.
func (e *LimitError) Is(target error) bool { return target == ErrExhausted }
