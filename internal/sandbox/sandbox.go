// Package sandbox is the contract between Caesarion and whatever makes
// sandboxes on one kind of host.
//
// A sandbox is an isolated machine-like environment with its own file system,
// in which the agent (internal/agent) is the first process. A Driver starts,
// lists, dials and deletes sandboxes, and nothing more: kernels, executions
// and files are the agent's business, reached through Dial and spoken to with
// internal/agentapi.
//
//	fleet ──Create, List, Delete──▶ Driver ──▶ gVisor | a pod
//	agentapi ──────Dial───────────▶ Driver ──▶ net.Conn to the agent
package sandbox

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"net"
	"regexp"
	"strings"
	"time"
)

// ID names a sandbox: "sbx_" and 26 random lower-case characters.
type ID string

// NewID makes a random ID with 130 bits of entropy.
func NewID() ID { return ID("sbx_" + RandomSuffix()) }

// RandomSuffix gives the 26 random lower-case letters and digits that follow
// the prefix of every identifier of the product.
func RandomSuffix() string {
	var b [17]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))[:26]
}

var idPattern = regexp.MustCompile(`^sbx_[a-z2-7]{26}$`)

// Valid reports whether id has the form NewID gives. Drivers build paths from
// ids, so whoever takes an ID from outside checks it first.
func (id ID) Valid() bool { return idPattern.MatchString(string(id)) }

// State is what a driver observes of a sandbox.
type State string

// The states. A sandbox starts, runs, may sleep, and stops for good.
//
//	starting ──▶ running ◀──▶ paused
//	                │            │
//	                └─▶ stopped ◀┘
const (
	StateStarting State = "starting"
	StateRunning  State = "running"
	StatePaused   State = "paused"  // saved on disk, without processes or memory; see Pauser
	StateStopped  State = "stopped" // its processes are gone; Delete frees the rest
)

// Limits bounds what a sandbox may use. Zero means the driver's own bound.
type Limits struct {
	MemoryBytes int64   `json:"memory_bytes"`
	CPUs        float64 `json:"cpus"`
	Processes   int     `json:"processes"`
	DiskBytes   int64   `json:"disk_bytes"` // all that is written, together
}

// Spec says what sandbox to make.
type Spec struct {
	ID       ID                // empty: the driver makes one
	Template string            // name, for the record
	Image    string            // name or digest in the driver's image store
	Limits   Limits            // what it may use
	Env      map[string]string // added to the environment of kernels and processes
	Labels   map[string]string // kept with the sandbox, also over a restart of the server
	// Prestart has the default kernel started, with these modules imported,
	// before Create returns.
	Prestart bool
	Preload  []string
	Pooled   bool // made beforehand, for whoever claims it; see Claimer
}

// Info is what a driver knows of one sandbox.
type Info struct {
	ID         ID
	Template   string
	Image      string // digest that was started
	State      State
	Reason     string // why it stopped, when the driver knows: "out_of_memory", …
	Limits     Limits
	Labels     map[string]string
	CreatedAt  time.Time // UTC
	AgentToken string    // what the agent of this sandbox asks for; never logged, never shown
	Pooled     bool      // nobody has claimed it yet

	// Of a paused sandbox.
	PausedAt    time.Time // UTC; zero while it runs
	MemoryBytes int64     // on disk, for its memory; 0: only its files are left
	FilesBytes  int64     // on disk, for its files
}

// Driver starts and stops sandboxes on one kind of host.
//
// All methods may be called concurrently. An unknown id gives errdefs.ErrNotFound,
// except from Delete, where it is a success.
type Driver interface {
	// Create returns once the agent answers and has its token. If ctx ends
	// first, whatever was started is removed before Create returns
	// context.Cause(ctx).
	Create(ctx context.Context, spec Spec) (Info, error)
	// Get reports one sandbox, from memory: it is called on every request.
	Get(ctx context.Context, id ID) (Info, error)
	// Dial opens a byte stream to the agent; the caller closes it.
	Dial(ctx context.Context, id ID) (net.Conn, error)
	// List reports every sandbox of this installation, also those that an
	// earlier process created, so that a restart can adopt or delete them.
	List(ctx context.Context) ([]Info, error)
	// SetLabels replaces the labels kept with the sandbox, durably.
	SetLabels(ctx context.Context, id ID, labels map[string]string) error
	// Lost gives a channel that is closed when the sandbox has stopped for
	// whatever reason, Delete included.
	Lost(id ID) (<-chan struct{}, error)
	// Delete stops the sandbox and frees all it holds. It returns when
	// nothing of it is left.
	Delete(ctx context.Context, id ID) error
	// Capabilities says what this driver can do beyond the contract and
	// which limits it enforces.
	Capabilities() Capabilities
	// Close lets go of everything that belongs to this process. Sandboxes
	// stay for the next process.
	Close() error
}

// Capabilities is what a driver can do on this host.
type Capabilities struct {
	Driver   string            `json:"driver"`   // "gvisor", "kube", "fake"
	Enforces map[string]string `json:"enforces"` // limit ("memory_bytes", "cpus", "processes", "disk_bytes", "network") → by what
	Missing  map[string]string `json:"missing"`  // limit → why it can't be enforced here
	Can      []string          `json:"can"`      // beyond the contract, see save.go: CanPause, CanSnapshot, CanFork
}

// What Capabilities.Can may have.
const (
	CanPause    = "pause"    // Pauser
	CanSnapshot = "snapshot" // Snapshotter
	CanFork     = "fork"     // Snapshotter: several from one
)
