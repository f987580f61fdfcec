package gvisor

import (
	"maps"
	"os"
	"path/filepath"
	"sync"

	"gvisor.dev/gvisor/runsc/container"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// box is one sandbox of this driver, awake or asleep.
type box struct {
	dir string
	// op is held by whatever saves, wakes or deletes the sandbox.
	op sync.Mutex
	// writing is held by whoever writes record.json, and by the removal.
	writing sync.Mutex
	lost    chan struct{} // closed when it has ended and reason says why

	mu     sync.Mutex
	record record // guarded by mu
	life   *life  // nil while it sleeps; guarded by mu
	saved  *saved // while it sleeps; guarded by mu
	reason string // why it stopped; guarded by mu
	gone   bool   // Delete has begun; guarded by mu
	ended  bool   // lost is closed; guarded by mu
}

// life is the processes of a sandbox from a start or waking to its end.
type life struct {
	container *container.Container
	sentry    *watcher
	gofer     *watcher
	words     *agentLog
	asleep    bool // ended by Pause; guarded by box.mu
}

// close stops watching without touching the processes.
func (l *life) close() {
	l.sentry.close()
	l.gofer.close()
}

// kill ends the processes. The sentry is init of its process namespace: the
// kernel ends everything in it with it.
func (l *life) kill() error {
	err := l.sentry.kill(removeTimeout)
	if err2 := l.gofer.kill(removeTimeout); err == nil {
		err = err2
	}
	return err
}

func (b *box) info() sandbox.Info {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.infoLocked()
}

func (b *box) infoLocked() sandbox.Info {
	r := &b.record
	info := sandbox.Info{
		ID: r.ID, Template: r.Template, Image: r.Image, State: sandbox.StateRunning, Limits: r.Limits,
		Labels: maps.Clone(r.Labels), CreatedAt: r.CreatedAt, AgentToken: r.Token, Pooled: r.Pooled,
	}
	if b.life == nil {
		info.State, info.PausedAt = sandbox.StatePaused, r.PausedAt
		info.MemoryBytes, info.FilesBytes = b.saved.sizes()
		return info
	}
	select {
	case <-b.life.sentry.done:
		info.State, info.Reason = sandbox.StateStopped, b.reason
	default:
	}
	return info
}

// awake gives the processes of a sandbox that runs.
func (b *box) awake() (*life, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.gone:
		return nil, notFound(b.record.ID)
	case b.life == nil:
		return nil, errdefs.New(errdefs.ErrConflict, "sandbox-paused", "sandbox %s is paused", b.record.ID).WithHint("resume it first")
	}
	select {
	case <-b.life.sentry.done:
		return nil, errdefs.New(errdefs.ErrUnavailable, "sandbox-lost", "sandbox %s has stopped", b.record.ID)
	default:
		return b.life, nil
	}
}

// write changes the record, on disk first. A durable one survives a crash of
// the machine: only what is said of sleeping sandboxes needs it, the others
// are gone then.
func (b *box) write(durable bool, change func(*record)) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.mu.Lock()
	next, gone := b.record, b.gone
	b.mu.Unlock()
	if gone {
		return notFound(next.ID)
	}
	change(&next)
	if err := next.save(b.dir, durable); err != nil {
		return diskError(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	change(&b.record) // and not next: a claim may have come between
	return nil
}

// end closes the channel of Lost.
func (b *box) end(reason string) (first bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return false
	}
	b.ended, b.reason = true, reason
	close(b.lost)
	return !b.gone
}

func notFound(id sandbox.ID) *errdefs.Error {
	return errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "there is no sandbox %s", id)
}

// savedDir is where a sandbox's own state lies while it sleeps.
func (b *box) savedDir() string { return filepath.Join(b.dir, "saved") }

// dropSaved deletes the state of a sandbox that is awake again. It vanishes
// under its name at once, so that half of it is never taken for it.
func (b *box) dropSaved() error {
	tmp := filepath.Join(b.dir, tmpPrefix+"old")
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := os.Rename(b.savedDir(), tmp); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.RemoveAll(tmp)
}
