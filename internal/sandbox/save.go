package sandbox

import (
	"context"
	"regexp"
	"time"
)

// SnapshotID names a saved state: "snp_" and 26 random lower-case characters.
type SnapshotID string

// NewSnapshotID makes a random SnapshotID.
func NewSnapshotID() SnapshotID { return SnapshotID("snp_" + RandomSuffix()) }

var snapshotPattern = regexp.MustCompile(`^snp_[a-z2-7]{26}$`)

// Valid reports whether id has the form NewSnapshotID gives.
func (id SnapshotID) Valid() bool { return snapshotPattern.MatchString(string(id)) }

// Snapshot is the saved state of a sandbox: its files and, as long as Memory
// says so, its memory with all processes. It is independent of the sandbox it
// was made of.
type Snapshot struct {
	ID          SnapshotID
	Name        string            // the caller's; may be empty
	Template    string            // of the sandbox
	Image       string            // digest
	Limits      Limits            // of the sandbox
	Labels      map[string]string // kept with the snapshot
	Sandbox     ID                // what it was made of
	Key         string            // what a host must have to restore the memory, see Snapshotter.StateKey
	Memory      bool              // it has memory; false: only files
	MemoryBytes int64             // on disk, for the memory
	FilesBytes  int64             // on disk, for the files that are kept apart
	CreatedAt   time.Time         // UTC
}

// SnapshotOptions says how to save a sandbox.
type SnapshotOptions struct {
	Name   string
	Labels map[string]string
	// Files keeps the files apart from the memory as well, so that they can be
	// restored where the memory can't.
	Files bool
}

// Errors of Restore and Resume that leave the files to go on with (call again
// with filesOnly), by their code:
//
//	snapshot-incompatible  ErrConflict: of another build, processor or image
//	snapshot-damaged       ErrUnavailable: bytes are missing or changed
//	snapshot-no-memory     ErrConflict: its memory was dropped
//	restore-failed         ErrUnavailable: anything else that gVisor says
const (
	CodeIncompatible  = "snapshot-incompatible"
	CodeDamaged       = "snapshot-damaged"
	CodeNoMemory      = "snapshot-no-memory"
	CodeRestoreFailed = "restore-failed"
)

// Snapshotter is a Driver that can save a sandbox with its memory and make
// others from what was saved.
type Snapshotter interface {
	// StateKey says what must be the same where a sandbox of spec is saved and
	// where it is restored: build, processor features, image, what of the spec
	// can't change.
	StateKey(ctx context.Context, spec Spec) (string, error)
	// Snapshot saves a running sandbox, which then goes on. The caller has
	// closed every connection to its agent and opens none meanwhile. A failure,
	// a full disk or a kill in the middle leave the sandbox running and nothing
	// half-made behind.
	Snapshot(ctx context.Context, id ID, opts SnapshotOptions) (Snapshot, error)
	// Restore makes a sandbox from a snapshot and returns once its agent
	// answers, has its own token and was told that it is a copy: what ran is
	// being interrupted, random generators start anew. With filesOnly it is a
	// cold start with the snapshot's files.
	Restore(ctx context.Context, id SnapshotID, spec Spec, filesOnly bool) (Info, error)
	// Snapshots lists what is saved, those of earlier processes too.
	Snapshots(ctx context.Context) ([]Snapshot, error)
	// RenameSnapshot gives a snapshot another name, or none, durably.
	RenameSnapshot(ctx context.Context, id SnapshotID, name string) error
	// DropMemory deletes the memory of a snapshot and keeps its files. A
	// snapshot without files of its own is deleted.
	DropMemory(ctx context.Context, id SnapshotID) error
	// DeleteSnapshot deletes a snapshot; an unknown one is a success.
	DeleteSnapshot(ctx context.Context, id SnapshotID) error
}

// Pauser is a Driver whose sandboxes can sleep: saved on disk, without any
// process or memory.
type Pauser interface {
	// Pause saves a running sandbox, ends its processes and returns when its
	// memory is free. The caller has closed every connection to its agent and
	// opens none meanwhile. A failure, a full disk or a kill in the middle leave
	// the sandbox running, as it was. The channel of Lost is not closed: a
	// paused sandbox is not lost.
	Pause(ctx context.Context, id ID) error
	// Resume wakes a paused sandbox under its own id, token and labels, with
	// memory and files; background threads go on. With filesOnly it is a cold
	// start with its files. Lost has to be asked for anew. A failure leaves it
	// paused, as it was.
	Resume(ctx context.Context, id ID, filesOnly bool) (Info, error)
	// ForgetMemory deletes the memory of a paused sandbox and keeps its files.
	ForgetMemory(ctx context.Context, id ID) error
}

// Claimer is a Driver that hands a sandbox made beforehand (Spec.Pooled) to
// its owner without a slow write on the way.
type Claimer interface {
	// Claim makes a pooled sandbox an ordinary one with these labels, with
	// CreatedAt now, and with the environment that its agent was told, for a
	// start anew. Of several calls one succeeds, the others get
	// errdefs.ErrConflict. What it says survives a kill of this process at once
	// and a restart of the machine soon after.
	Claim(ctx context.Context, id ID, labels, env map[string]string) (Info, error)
}
