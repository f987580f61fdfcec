package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/alecthomas/kong"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// The exit statuses. They are part of the command line's contract; run, shell
// and sandbox exec also pass on what ran in the sandbox.
const (
	exitOK           = 0
	exitFailed       = 1   // the code raised, or whatever has no status of its own
	exitUsage        = 2   // wrong flags, arguments or settings
	exitNotFound     = 3   // no such sandbox, file, image, …
	exitUnauthorized = 4   // the token is missing or wrong
	exitUnavailable  = 5   // no server, no resources, or the host can't do it
	exitTimeout      = 124 // the code ran longer than allowed, as timeout(1)
	exitInterrupted  = 130 // Ctrl-C, as a shell says it
	exitKilled       = 137 // killed from outside: out of memory, sandbox lost, second Ctrl-C
)

// exitError ends the program with a status of the code that ran; everything
// there is to say has been printed.
type exitError struct{ status int }

func (e *exitError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// exitStatus maps an error to the program's exit status.
func exitStatus(err error) int {
	if err == nil {
		return exitOK
	}
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.status
	}
	if _, ok := errors.AsType[*kong.ParseError](err); ok {
		return exitUsage
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted) {
		return exitInterrupted
	}
	switch problemOf(err).Status {
	case http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusRequestEntityTooLarge:
		return exitUsage
	case http.StatusNotFound, http.StatusGone:
		return exitNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitUnauthorized
	case http.StatusServiceUnavailable, http.StatusTooManyRequests, http.StatusNotImplemented, http.StatusInsufficientStorage:
		return exitUnavailable
	default:
		return exitFailed
	}
}

// kindStatus gives errors of this process the HTTP status that the same kind
// has when the server answers it.
var kindStatus = []struct {
	kind   error
	status int
}{
	{errdefs.ErrNotFound, http.StatusNotFound},
	{errdefs.ErrInvalid, http.StatusBadRequest},
	{errdefs.ErrConflict, http.StatusConflict},
	{errdefs.ErrExhausted, http.StatusTooManyRequests},
	{errdefs.ErrUnavailable, http.StatusServiceUnavailable},
	{errdefs.ErrUnsupported, http.StatusNotImplemented},
	{errdefs.ErrUnauthenticated, http.StatusUnauthorized},
	{errdefs.ErrForbidden, http.StatusForbidden},
	{errdefs.ErrTooLarge, http.StatusRequestEntityTooLarge},
}

// problemOf gives any error the form of the API's problems.
func problemOf(err error) v1.Problem {
	if p, ok := errors.AsType[*v1.Problem](err); ok {
		return *p
	}
	p := v1.Problem{Status: http.StatusInternalServerError, Code: "failed", Detail: err.Error()}
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		p.Code, p.Detail, p.Hint = e.Code, e.Msg, e.Hint
		if e.Err != nil { // whoever sits at the command line may see the cause
			p.Detail = strings.TrimSuffix(p.Detail, ".") + ": " + e.Err.Error()
		}
	} else if e, ok := errors.AsType[*kong.ParseError](err); ok {
		p.Status, p.Code, p.Detail = http.StatusBadRequest, "usage", e.Error()
		p.Hint = "caesarion --help lists the commands"
		if e.Context != nil {
			if node := e.Context.Selected(); node != nil {
				p.Hint = node.FullPath() + " --help shows how it is used"
			}
		}
	}
	for _, k := range kindStatus {
		if errors.Is(err, k.kind) {
			p.Status = k.status
			break
		}
	}
	p.Title = http.StatusText(p.Status)
	return p
}

// report says what went wrong: one line with the cause and one with what to
// do, or a problem as JSON.
func report(err error, asJSON bool, stdout, stderr io.Writer) {
	if _, ok := errors.AsType[*exitError](err); ok {
		return
	}
	p := problemOf(err)
	if asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(p) // standard output is gone: nobody to tell
		return
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, errInterrupted) {
		fmt.Fprintln(stderr, "caesarion: interrupted")
		return
	}
	fmt.Fprintln(stderr, "caesarion: "+oneLine(p.Detail))
	for _, f := range p.Errors {
		fmt.Fprintf(stderr, "  %s: %s\n", oneLine(f.Location), oneLine(f.Message))
	}
	if p.Hint != "" {
		fmt.Fprintln(stderr, "  what to do: "+oneLine(p.Hint))
	}
}

// oneLine keeps text from a server, which may repeat what hostile code said,
// from moving the cursor or looking like several lines.
func oneLine(text string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, text))
}
