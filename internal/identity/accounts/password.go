package accounts

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// HashOptions says how much work a password's hash is. The zero value is the first
// that OWASP names: 46 MiB, and some 80 ms of one core of 2023
// (docs/security/identity.md has what was measured).
type HashOptions struct {
	Time   uint32 // passes over the memory; default 1
	Memory uint32 // KiB; default 46 MiB
	AtOnce int    // hashes at the same time; default half of the cores, at least one
	Queue  int    // that may wait beyond those; default 32
}

func (o *HashOptions) setDefaults() {
	if o.Time == 0 {
		o.Time = 1
	}
	if o.Memory == 0 {
		o.Memory = 46 << 10
	}
	if o.AtOnce <= 0 {
		o.AtOnce = max(1, runtime.GOMAXPROCS(0)/2)
	}
	if o.Queue <= 0 {
		o.Queue = 32
	}
}

// Bounds of passwords. Long ones cost nothing more, but the hash reads them.
const (
	minPassword = 10   // characters
	maxPassword = 1024 // bytes
)

// normal gives a password as it is hashed: keyboards and systems write the same
// characters in several ways.
func normal(password string) string { return norm.NFKC.String(password) }

func checkPassword(password, email string) error {
	n := utf8.RuneCountInString(normal(password))
	switch {
	case n < minPassword:
		return errInvalid("password-too-short", "The password has %d characters, and needs %d.", n, minPassword).WithHint("A few words make a good one.")
	case len(password) > maxPassword:
		return errInvalid("password-too-long", "The password has more than %d bytes.", maxPassword).WithHint("Choose a shorter one.")
	case strings.EqualFold(normal(password), email):
		return errInvalid("password-guessable", "The password is the address of the account.").WithHint("Choose another one.")
	}
	return nil
}

// hasher makes and compares hashes, a few at the same time, so that sign-ins
// can't take the cores and the memory from everything else.
type hasher struct {
	opts  HashOptions
	slots chan struct{}
	line  chan struct{} // who hashes or waits
	none  string        // the hash of nobody's password
}

func newHasher(opts HashOptions) *hasher {
	h := &hasher{opts: opts, slots: make(chan struct{}, opts.AtOnce), line: make(chan struct{}, opts.AtOnce+opts.Queue)}
	h.none = h.encode(make([]byte, 16), make([]byte, 32))
	return h
}

func errBusy() error {
	return errdefs.New(errdefs.ErrUnavailable, "sign-in-busy", "Too many people sign in at this moment.").WithHint("Try again in a few seconds.")
}

// enter gives a place in the line, or refuses at once if it is full.
func (h *hasher) enter() (leave func(), err error) {
	select {
	case h.line <- struct{}{}:
		return func() { <-h.line }, nil
	default:
		return nil, errBusy()
	}
}

// turn waits until it is the turn of somebody in the line.
func (h *hasher) turn(ctx context.Context) (done func(), err error) {
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// hash gives what is kept of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	leave, err := h.enter()
	if err != nil {
		return "", err
	}
	defer leave()
	done, err := h.turn(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	return h.encode(salt, argon2.IDKey([]byte(normal(password)), salt, h.opts.Time, h.opts.Memory, 1, 32)), nil
}

func (h *hasher) encode(salt, sum []byte) string {
	b := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=1$%s$%s", argon2.Version, h.opts.Memory, h.opts.Time, b.EncodeToString(salt), b.EncodeToString(sum))
}

// matches compares a password with what is kept. Where nothing is kept it takes
// the same time. weak says that the hash was made with less work than is asked
// for today. The caller has entered the line.
func (h *hasher) matches(ctx context.Context, kept, password string) (ok, weak bool, err error) {
	done, err := h.turn(ctx)
	if err != nil {
		return false, false, err
	}
	defer done()
	there := kept != ""
	if !there {
		kept = h.none
	}
	var version int
	var memory, passes uint32
	parts := strings.Split(kept, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, false, fmt.Errorf("accounts: a password's hash is of an unknown form")
	}
	if _, err := fmt.Sscanf(parts[2]+" "+parts[3], "v=%d m=%d,t=%d,p=1", &version, &memory, &passes); err != nil || version != argon2.Version || memory > 1<<20 || passes > 100 || passes == 0 {
		return false, false, fmt.Errorf("accounts: a password's hash is of an unknown form: %w", err)
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(want) != 32 {
		return false, false, fmt.Errorf("accounts: a password's hash is of an unknown form")
	}
	got := argon2.IDKey([]byte(normal(password)), salt, passes, memory, 1, 32)
	ok = subtle.ConstantTimeCompare(got, want) == 1 && there
	return ok, memory < h.opts.Memory || passes < h.opts.Time, nil
}
