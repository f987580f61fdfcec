package gvisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

var _ sandbox.Pauser = (*Driver)(nil)

// Pause saves a running sandbox and ends its processes. See sandbox.Pauser,
// and the package comment for the order of steps.
func (d *Driver) Pause(ctx context.Context, id sandbox.ID) error {
	d.busy.Add(1)
	defer d.busy.Done()
	b, err := d.lookup(id)
	if err != nil {
		return err
	}
	b.op.Lock()
	defer b.op.Unlock()
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	b.mu.Lock()
	asleep, r := b.life == nil && !b.gone, b.record
	b.mu.Unlock()
	if asleep {
		return nil
	}
	l, err := b.awake()
	if err != nil {
		return err
	}
	m, err := d.describe(ctx, &r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(b.dir, tmpPrefix+"saved")
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("gvisor: %w", err)
	}
	if err := d.save(l, tmp, true); err != nil {
		return d.saveError(b, l, err)
	}
	err = seal(tmp, m, true)
	if err == nil {
		err = publish(tmp, b.savedDir())
	}
	s := &saved{dir: b.savedDir(), manifest: *m}
	if err == nil {
		err = b.write(true, func(r *record) { r.PausedAt, r.Sentry, r.Gofer = m.CreatedAt, process{}, process{} })
	}
	if err != nil {
		// What is saved must be gone before the sandbox goes on: it would soon
		// be out of date.
		err = errors.Join(err, os.RemoveAll(tmp), b.dropSaved())
		return d.saveError(b, l, errors.Join(err, thaw(l)))
	}
	b.mu.Lock()
	l.asleep, b.life, b.saved = true, nil, s
	b.mu.Unlock()
	// It is asleep from here on, whatever its processes say.
	return d.removeProcesses(id, l)
}

// Resume wakes a paused sandbox. See sandbox.Pauser.
func (d *Driver) Resume(ctx context.Context, id sandbox.ID, filesOnly bool) (sandbox.Info, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errStartTimeout)
	defer cancel()
	d.busy.Add(1)
	defer d.busy.Done()
	b, err := d.lookup(id)
	if err != nil {
		return sandbox.Info{}, err
	}
	b.op.Lock()
	defer b.op.Unlock()
	b.mu.Lock()
	s, r, gone, awake := b.saved, b.record, b.gone, b.life != nil
	b.mu.Unlock()
	switch cause := context.Cause(ctx); {
	case cause != nil:
		return sandbox.Info{}, cause
	case gone:
		return sandbox.Info{}, notFound(id)
	case awake:
		if _, err := b.awake(); err != nil {
			return sandbox.Info{}, err
		}
		return b.info(), nil
	}
	if err := s.check(filesOnly); err != nil {
		return sandbox.Info{}, err
	}
	root, err := d.opts.Rootfs(ctx, r.Image)
	if err != nil {
		return sandbox.Info{}, err
	}
	r.PausedAt = time.Time{}
	if filesOnly {
		r.Args = d.agentArgs(sandbox.Spec{})
	} else if d.key(root, r.Args, r.Limits.DiskBytes) != s.Key {
		return sandbox.Info{}, errIncompatible()
	}
	l, err := d.wake(ctx, b, &r, root, source{s, filesOnly})
	if err != nil {
		return sandbox.Info{}, errors.Join(err, d.removeProcesses(id, l))
	}
	b.mu.Lock()
	b.life, b.saved = l, nil
	b.mu.Unlock()
	go d.watchLoss(b, l)
	if err := b.dropSaved(); err != nil {
		d.log.Warn("the state of a sandbox that is awake again could not be deleted", "sandbox_id", id, "err", err)
	}
	return b.info(), nil
}

// wake starts the processes of a paused sandbox and has its record say so.
func (d *Driver) wake(ctx context.Context, b *box, r *record, root Rootfs, from source) (*life, error) {
	l, err := d.launch(ctx, r, root, from)
	if err != nil {
		return nil, err
	}
	if from.memory() {
		err = d.greet(ctx, l, r.Token)
	} else {
		err = d.introduce(ctx, r, l, from)
	}
	if err == nil {
		err = b.write(true, func(have *record) {
			have.PausedAt, have.Args, have.Sentry, have.Gofer = time.Time{}, r.Args, r.Sentry, r.Gofer
		})
	}
	return l, err
}

// greet waits for the answer of an agent that was restored.
func (d *Driver) greet(ctx context.Context, l *life, token string) error {
	client := agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return dialAgent(ctx, l.container) }, token)
	defer client.CloseIdle()
	for {
		_, err := client.Health(ctx)
		e, _ := errors.AsType[*errdefs.Error](err)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case e != nil && e.Code == "sandbox-timeout":
			// A busy machine: its memory must not be given up for that.
		default:
			return errRestoreFailed(fmt.Errorf("%w: %s", err, l.words.String()))
		}
	}
}

// ForgetMemory deletes the memory of a paused sandbox. See sandbox.Pauser.
func (d *Driver) ForgetMemory(_ context.Context, id sandbox.ID) error {
	d.busy.Add(1)
	defer d.busy.Done()
	b, err := d.lookup(id)
	if err != nil {
		return err
	}
	b.op.Lock()
	defer b.op.Unlock()
	b.mu.Lock()
	s, gone, awake := b.saved, b.gone, b.life != nil
	b.mu.Unlock()
	switch {
	case gone:
		return notFound(id)
	case awake:
		return errdefs.New(errdefs.ErrConflict, "sandbox-running", "sandbox %s is not paused", id)
	case s == nil:
		return nil
	}
	next, err := s.withoutMemory()
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saved = next
	return nil
}

// thawAdopted lets a sandbox go on that an earlier process may have left
// frozen. gVisor does not say whether one is, and ends it when it is thawed
// once too often; but its stacks tell.
func thawAdopted(ctx context.Context, l *life) error {
	for {
		stacks, err := l.container.Sandbox.Stacks()
		if err != nil {
			return fmt.Errorf("gvisor: ask for stacks: %w", err)
		}
		switch {
		case strings.Contains(stacks, "control.(*State).Save") || strings.Contains(stacks, "kernel.(*Kernel).FSSave") || strings.Contains(stacks, "kernel.(*Kernel).Pause("):
			// A save is under way, which ends by itself.
			select {
			case <-time.After(saveWait):
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		case frozen(stacks):
			if err := thaw(l); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// frozen reports whether every task of a sandbox is stopped from outside. A
// task may be stopped for itself (SIGSTOP, a debugger), but the agent is not:
// nothing in the sandbox can stop its init.
func frozen(stacks string) bool {
	tasks := strings.Count(stacks, "kernel.(*Task).run(")
	return tasks > 0 && strings.Count(stacks, "kernel.(*Task).doStop(") >= tasks
}

// adoptAsleep takes over a paused sandbox.
func (d *Driver) adoptAsleep(b *box) error {
	if err := d.removeProcesses(b.record.ID, nil); err != nil {
		return err
	}
	s, err := loadSaved(b.savedDir())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("what was saved of a sandbox is damaged", "sandbox_id", b.record.ID, "err", err)
	}
	if s == nil {
		s = &saved{dir: b.savedDir()}
	}
	b.saved = s
	return nil
}
