package fake

import (
	"context"
	"io/fs"
	"maps"
	"net"
	"path/filepath"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

var (
	_ sandbox.Pauser  = (*Driver)(nil)
	_ sandbox.Claimer = (*Driver)(nil)
)

const (
	// pausedBytes is what the memory of a paused sandbox is said to take. None
	// is saved: the agent and its kernels stay, and nobody reaches them.
	pausedBytes = 1 << 20
	// closeWait bounds the wait for connections that the caller has closed.
	closeWait = time.Second
)

// counted is a connection that Pause waits for.
type counted struct {
	net.Conn
	done func()
}

func (c *counted) Close() error {
	defer c.done()
	return c.Conn.Close()
}

// Pause is part of sandbox.Pauser.
func (d *Driver) Pause(ctx context.Context, id sandbox.ID) error {
	h := d.host
	b, err := h.find(id)
	if err != nil {
		return err
	}
	b.op.Lock()
	defer b.op.Unlock()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if f := h.current().BeforePause; f != nil {
		if err := f(ctx, id); err != nil {
			return err
		}
	}
	h.mu.Lock()
	l, state := b.life, b.info.State
	h.mu.Unlock()
	switch state {
	case sandbox.StatePaused:
		return nil
	case sandbox.StateRunning:
	default:
		return errdefs.New(errdefs.ErrUnavailable, "sandbox-lost", "sandbox %s has stopped", id)
	}
	for begin := time.Now(); l.open.Load() > 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > closeWait {
			return errdefs.New(errdefs.ErrConflict, "sandbox-busy", "a connection to the sandbox is open").WithHint("wait until what uses it has ended")
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.info.State != sandbox.StateRunning {
		return errdefs.New(errdefs.ErrUnavailable, "sandbox-lost", "sandbox %s has stopped", id)
	}
	b.info.State, b.info.PausedAt, b.info.MemoryBytes, b.info.FilesBytes = sandbox.StatePaused, time.Now().UTC(), pausedBytes, size(b.dir)
	return nil
}

// size sums a folder's files.
func size(dir string) (bytes int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if info, err := e.Info(); err == nil {
				bytes += info.Size()
			}
		}
		return nil
	})
	return bytes
}

// Resume is part of sandbox.Pauser. With filesOnly the agent is another one.
func (d *Driver) Resume(ctx context.Context, id sandbox.ID, filesOnly bool) (sandbox.Info, error) {
	h := d.host
	b, err := h.find(id)
	if err != nil {
		return sandbox.Info{}, err
	}
	b.op.Lock()
	defer b.op.Unlock()
	if cause := context.Cause(ctx); cause != nil {
		return sandbox.Info{}, cause
	}
	if f := h.current().BeforeResume; f != nil {
		if err := f(ctx, id, filesOnly); err != nil {
			return sandbox.Info{}, err
		}
	}
	h.mu.Lock()
	info, old := b.snapshotLocked(), b.life
	h.mu.Unlock()
	switch {
	case info.State == sandbox.StateRunning:
		return info, nil
	case info.State != sandbox.StatePaused:
		return sandbox.Info{}, errdefs.New(errdefs.ErrUnavailable, "sandbox-lost", "sandbox %s has stopped", id)
	case !filesOnly && info.MemoryBytes == 0:
		return sandbox.Info{}, errdefs.New(errdefs.ErrConflict, sandbox.CodeNoMemory, "only the files were kept, the memory is gone").WithHint("its files can still be used")
	}
	l := old
	if filesOnly {
		if l, err = h.serve(b.dir, sandbox.Spec{}); err != nil {
			return sandbox.Info{}, err
		}
		if err := l.configure(ctx, info, b.spec.Env); err != nil {
			l.shut()
			return sandbox.Info{}, err
		}
		old.shut()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.info.State != sandbox.StatePaused { // deleted meanwhile
		defer l.shut()
		return sandbox.Info{}, errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "there is no sandbox %s", id)
	}
	b.life, b.info.State, b.info.PausedAt, b.info.MemoryBytes, b.info.FilesBytes = l, sandbox.StateRunning, time.Time{}, 0, 0
	return b.snapshotLocked(), nil
}

// ForgetMemory is part of sandbox.Pauser.
func (d *Driver) ForgetMemory(_ context.Context, id sandbox.ID) error {
	b, err := d.host.find(id)
	if err != nil {
		return err
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	if b.info.State != sandbox.StatePaused {
		return errdefs.New(errdefs.ErrConflict, "sandbox-running", "sandbox %s is not paused", id)
	}
	b.info.MemoryBytes = 0
	return nil
}

// Claim is part of sandbox.Claimer.
func (d *Driver) Claim(_ context.Context, id sandbox.ID, labels, env map[string]string) (sandbox.Info, error) {
	b, err := d.host.find(id)
	if err != nil {
		return sandbox.Info{}, err
	}
	d.host.mu.Lock()
	defer d.host.mu.Unlock()
	switch {
	case !b.info.Pooled:
		return sandbox.Info{}, errdefs.New(errdefs.ErrConflict, "sandbox-claimed", "sandbox %s has an owner already", id)
	case b.info.State != sandbox.StateRunning:
		return sandbox.Info{}, errdefs.New(errdefs.ErrUnavailable, "sandbox-lost", "sandbox %s has stopped", id)
	}
	b.info.Pooled, b.info.Labels, b.info.CreatedAt = false, maps.Clone(labels), time.Now().UTC()
	b.spec.Env = maps.Clone(env)
	return b.snapshotLocked(), nil
}
