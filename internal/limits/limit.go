package limits

import (
	"maps"
	"slices"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Name is one limit, as settings and answers call it.
type Name string

// The limits.
const (
	Sandboxes  Name = "sandboxes"             // awake at once
	Memory     Name = "memory"                // that these may take, bytes
	Disk       Name = "disk"                  // that these may take, and those that sleep do, bytes
	Creates    Name = "creates_per_minute"    // of sandboxes
	Executions Name = "executions_per_minute" // and processes
	CPU        Name = "cpu_per_day"           // milliseconds, all cores together
	Egress     Name = "egress_per_day"        // bytes, both directions
	Tokens     Name = "model_tokens_per_day"  //nolint:gosec // of language models, in and out: no credentials
	UploadSize Name = "upload_size"           // bytes of one file
)

// Unlimited is a limit that is none.
const Unlimited int64 = -1

// kind is what is known of a limit.
type kind struct {
	name   Name
	code   string        // of the refusal
	window time.Duration // 0: what exists at a moment
	unit   unit
	units  string // what it is counted in, for programs
	reach  string // "You have %s of %s …", with used and limit
	hint   string // of those at a moment
	after  bool   // it is only known afterwards
}

var kinds = []kind{
	{name: Sandboxes, code: "limit-sandboxes", unit: count, units: "number", reach: "%s %s of %s sandboxes awake", hint: "Delete or pause one that is not needed."},
	{name: Memory, code: "limit-memory", unit: bytes, units: "bytes", reach: "%s sandboxes that may take %s of %s of memory", hint: "Delete or pause one that is not needed, or ask for less memory."},
	{name: Disk, code: "limit-disk", unit: bytes, units: "bytes", reach: "%s sandboxes that may take %s of %s of disk", hint: "Delete sandboxes that are not needed, also those that sleep, or ask for less disk."},
	{name: Creates, code: "limit-creates", window: time.Minute, unit: count, units: "number", reach: "%s asked for %s of %s new sandboxes in this minute"},
	{name: Executions, code: "limit-executions", window: time.Minute, unit: count, units: "number", reach: "%s run %s of %s executions in this minute"},
	{name: CPU, code: "limit-cpu", window: day, unit: millis, units: "milliseconds", reach: "%s used %s of %s of CPU time today", after: true},
	{name: Egress, code: "limit-egress", window: day, unit: bytes, units: "bytes", reach: "%s used %s of %s of network traffic today", after: true},
	{name: Tokens, code: "limit-model-tokens", window: day, unit: count, units: "number", reach: "%s used %s of %s tokens of language models today", after: true},
}

const day = 24 * time.Hour

// UnitOf names what a limit is counted in: number, bytes or milliseconds.
func UnitOf(name Name) string {
	for _, k := range kinds {
		if k.name == name {
			return k.units
		}
	}
	if name == UploadSize {
		return "bytes"
	}
	return ""
}

// counted are those that are counted in windows, in the order of counters.
var counted = slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool { return k.window == 0 })

// place gives the index of a limit among counted.
func place(name Name) int {
	return slices.IndexFunc(counted, func(k kind) bool { return k.name == name })
}

var (
	atExecutions = place(Executions)
	atCreates    = place(Creates)
	atCPU        = place(CPU)
	atEgress     = place(Egress)
	atTokens     = place(Tokens)
)

// Set is limits by name; one that is missing is left as it is by others, and in
// the end there is none.
type Set struct {
	Most        map[Name]int64
	UploadTypes []string // extensions with a dot, in lower case; nil: left as it is; empty: all
}

// over gives a Set whose limits count more than those of s.
func (s Set) over(more Set) Set {
	out := Set{Most: map[Name]int64{}, UploadTypes: s.UploadTypes}
	for _, from := range []Set{s, more} {
		maps.Copy(out.Most, from.Most)
	}
	if more.UploadTypes != nil {
		out.UploadTypes = more.UploadTypes
	}
	return out
}

// of gives a limit, or Unlimited.
func (s Set) of(name Name) int64 {
	if most, ok := s.Most[name]; ok {
		return most
	}
	return Unlimited
}

// Rules say who may use how much. The zero Rules limit nothing.
type Rules struct {
	Default       Set            // each user
	Roles         map[string]Set // each user with this role
	Users         map[string]Set // one user, by address or id; Local: who has the token
	Organisations map[string]Set // all users of one together, by name or id; Any: of one that is not named
}

const (
	// Local is the user of a server that has no other, and whoever has the
	// installation's token where there are users.
	Local = "local"
	// Any stands for every organisation that is not named.
	Any = "*"
)

// named reports whether the rules need to know more of users than their ids.
func (r Rules) named() bool { return len(r.Roles)+len(r.Users)+len(r.Organisations) > 0 }

// Scope says whose limit it is.
type Scope string

// The scopes.
const (
	User         Scope = "user"
	Organisation Scope = "organisation"
)

// Error is a refusal. It is an *errdefs.Error to those who only need a kind and
// a sentence.
type Error struct {
	Err   *errdefs.Error
	Limit Name
	Scope Scope
	Used  int64
	Most  int64
	Frees time.Time // when there is more; zero: when something is given back, or never
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the sentence and its kind.
func (e *Error) Unwrap() error { return e.Err }

// refuse makes the refusal of n more. What can never be is forbidden; everything
// else can be asked for again.
func refuse(k kind, scope Scope, used, most, n int64, now time.Time) *Error {
	who := "You have"
	if scope == Organisation {
		who = "The users of your organisation have"
	}
	e := &Error{Limit: k.name, Scope: scope, Used: used, Most: most}
	kindOf := errdefs.ErrExhausted
	if n > most {
		kindOf = errdefs.ErrForbidden
	}
	e.Err = errdefs.New(kindOf, k.code, k.reach+".", who, k.unit(used), k.unit(most))
	switch {
	case n > most && most > 0:
		e.Err.Msg = sentenceFor(k, n, most)
		e.Err = e.Err.WithHint("Ask for less, or ask whoever runs this server for a higher limit.")
	case n > most:
		e.Err = e.Err.WithHint("Ask whoever runs this server for a higher limit.")
	case k.window > 0:
		e.Frees = windowOf(now, k.window).Add(k.window)
		e.Err = e.Err.WithHint("There is more at %s UTC, in %s.", e.Frees.UTC().Format(timeFormat(k.window)), wait(e.Frees.Sub(now)))
	default:
		e.Err = e.Err.WithHint("%s", k.hint)
	}
	return e
}

// sentenceFor says that one request asks for more than there ever is.
func sentenceFor(k kind, n, most int64) string {
	return "This asks for " + k.unit(n) + ", and the limit " + string(k.name) + " is " + k.unit(most) + "."
}

func timeFormat(window time.Duration) string {
	if window >= day {
		return "2006-01-02 15:04"
	}
	return "15:04:05"
}

// windowOf gives the begin of the window that a moment is in.
func windowOf(now time.Time, window time.Duration) time.Time { return now.UTC().Truncate(window) }
