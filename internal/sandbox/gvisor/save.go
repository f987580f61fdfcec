package gvisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/state/statefile"
	gvisorsandbox "gvisor.dev/gvisor/runsc/sandbox"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// saveTries and saveWait bound how long a save waits for connections to be
	// gone: gVisor notices the closing of the host's end a moment later, and
	// can't save a connection that is open.
	saveTries = 8
	saveWait  = 5 * time.Millisecond // doubles each time: 0.6 s altogether
	// openConnection is what gVisor then says.
	openConnection = "waiter.ChannelNotifier"
)

var _ sandbox.Snapshotter = (*Driver)(nil)

func (d *Driver) snapshotsDir() string { return filepath.Join(d.opts.StateDir, "snapshots") }

// save writes the state of a running sandbox into dir, which it makes, and
// leaves the sandbox frozen. On failure it runs on and dir is gone.
func (d *Driver) save(l *life, dir string, files bool) (err error) {
	for try := range saveTries {
		if err = d.saveOnce(l, dir, files); err == nil || !strings.Contains(err.Error(), openConnection) {
			return err
		}
		err = firstLine(err) // gVisor adds its stacks
		time.Sleep(saveWait << try)
	}
	return errdefs.New(errdefs.ErrConflict, "sandbox-busy", "a connection to the sandbox is open").
		WithHint("wait until what uses it has ended").WithCause(err)
}

func (d *Driver) saveOnce(l *life, dir string, files bool) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	// gVisor counts: the checkpoint's own freezing is within this one, so that
	// nothing goes on between what is saved and what follows.
	c := l.container
	if err := c.Sandbox.Pause(c.ID); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, thaw(l))
		}
	}()
	if files {
		// Not as a tar archive: gVisor holds whole files in memory to make or
		// read one, holes filled, and ends when a file is larger than memory.
		if err := os.Mkdir(filepath.Join(dir, filesDir), 0o700); err != nil {
			return err
		}
		if err := c.Sandbox.FSSave(nil, c.ID, filepath.Join(dir, filesDir), gvisorsandbox.FSSaveOpts{}); err != nil {
			return err
		}
	}
	// Resume only says that gVisor must not end the sandbox afterwards.
	return c.Sandbox.Checkpoint(nil, c.ID, dir, gvisorsandbox.CheckpointOpts{
		Compression: statefile.CompressionLevelNone, Resume: true, ExcludeCommittedZeroPages: true,
	})
}

// thaw lets a frozen sandbox go on.
func thaw(l *life) error { return l.container.Sandbox.Resume(l.container.ID) }

// describe makes the manifest of a state that is about to be saved.
func (d *Driver) describe(ctx context.Context, r *record) (*manifest, error) {
	root, err := d.opts.Rootfs(ctx, r.Image)
	if err != nil {
		return nil, err
	}
	return &manifest{
		Template: r.Template, Image: r.Image, Limits: r.Limits, Sandbox: r.ID, Token: r.Token, Args: r.Args, Env: r.Env,
		Key: d.key(root, r.Args, r.Limits.DiskBytes), CreatedAt: time.Now().UTC(),
	}, nil
}

// saveError gives the failure of a save its name. gVisor hands errors over as
// text.
func (d *Driver) saveError(b *box, l *life, err error) error {
	if _, ok := errors.AsType[*errdefs.Error](err); ok {
		return err
	}
	if strings.Contains(err.Error(), "no space left on device") || strings.Contains(err.Error(), "disk quota exceeded") {
		return diskError(fmt.Errorf("%w: %w", errDiskFull, err))
	}
	b.mu.Lock()
	gone, id := b.gone, b.record.ID
	b.mu.Unlock()
	if gone {
		return notFound(id).WithCause(err)
	}
	select {
	case <-l.sentry.done:
		return errdefs.New(errdefs.ErrUnavailable, "sandbox-lost", "sandbox %s has stopped", id).WithCause(err)
	default:
	}
	return errdefs.New(errdefs.ErrUnavailable, "save-failed", "gVisor could not save the sandbox, which goes on").
		WithHint("the log has gVisor's own words").WithCause(firstLine(err))
}

// firstLine leaves out what follows an error's sentence.
func firstLine(err error) error {
	if line, _, more := strings.Cut(err.Error(), "\n"); more {
		return errors.New(line)
	}
	return err
}

// Snapshot saves a running sandbox. See sandbox.Snapshotter.
func (d *Driver) Snapshot(ctx context.Context, id sandbox.ID, opts sandbox.SnapshotOptions) (sandbox.Snapshot, error) {
	d.busy.Add(1)
	defer d.busy.Done()
	b, err := d.lookup(id)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	b.op.Lock()
	defer b.op.Unlock()
	if cause := context.Cause(ctx); cause != nil {
		return sandbox.Snapshot{}, cause
	}
	l, err := b.awake()
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	b.mu.Lock()
	r := b.record
	b.mu.Unlock()
	m, err := d.describe(ctx, &r)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	m.ID, m.Name, m.Labels = sandbox.NewSnapshotID(), opts.Name, maps.Clone(opts.Labels)

	tmp := filepath.Join(d.snapshotsDir(), tmpPrefix+string(m.ID))
	if err := d.save(l, tmp, opts.Files); err != nil {
		return sandbox.Snapshot{}, d.saveError(b, l, err)
	}
	if err := thaw(l); err != nil {
		return sandbox.Snapshot{}, d.saveError(b, l, errors.Join(err, os.RemoveAll(tmp)))
	}
	s := &saved{dir: filepath.Join(d.snapshotsDir(), string(m.ID)), verified: true}
	err = seal(tmp, m, opts.Files)
	if err == nil {
		err = publish(tmp, s.dir)
	}
	if err != nil {
		return sandbox.Snapshot{}, diskError(errors.Join(err, os.RemoveAll(tmp)))
	}
	s.manifest = *m
	d.mu.Lock()
	d.snapshots[m.ID] = s
	d.mu.Unlock()
	return s.snapshot(), nil
}

func (s *saved) snapshot() sandbox.Snapshot {
	memory, files := s.sizes()
	return sandbox.Snapshot{
		ID: s.ID, Name: s.Name, Template: s.Template, Image: s.Image, Limits: s.Limits, Labels: maps.Clone(s.Labels),
		Sandbox: s.Sandbox, Key: s.Key, Memory: memory > 0, MemoryBytes: memory, FilesBytes: files, CreatedAt: s.CreatedAt,
	}
}

func (d *Driver) lookupSnapshot(id sandbox.SnapshotID) (*saved, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.snapshots[id]
	if s == nil {
		return nil, errdefs.New(errdefs.ErrNotFound, "snapshot-not-found", "there is no snapshot %.80q", id)
	}
	return s, nil
}

// Restore makes a sandbox from a snapshot. See sandbox.Snapshotter.
func (d *Driver) Restore(ctx context.Context, id sandbox.SnapshotID, spec sandbox.Spec, filesOnly bool) (sandbox.Info, error) {
	s, err := d.lookupSnapshot(id)
	if err != nil {
		return sandbox.Info{}, err
	}
	s.use.RLock() // until gVisor has opened the files
	defer s.use.RUnlock()
	if err := s.check(filesOnly); err != nil {
		return sandbox.Info{}, err
	}
	spec.Image = cmp.Or(spec.Image, s.Image)
	// The copy's processes have the original's environment already; those that
	// it starts, and a start anew, must too.
	env := maps.Clone(s.Env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, spec.Env)
	spec.Env = env
	if filesOnly {
		spec.Prestart, spec.Preload = false, nil
	}
	return d.create(ctx, spec, source{s, filesOnly})
}

// Snapshots lists what is saved.
func (d *Driver) Snapshots(context.Context) ([]sandbox.Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]sandbox.Snapshot, 0, len(d.snapshots))
	for _, s := range d.snapshots {
		out = append(out, s.snapshot())
	}
	return out, nil
}

// RenameSnapshot changes a snapshot's name, on disk first. See
// sandbox.Snapshotter.
func (d *Driver) RenameSnapshot(_ context.Context, id sandbox.SnapshotID, name string) error {
	d.busy.Add(1)
	defer d.busy.Done()
	s, err := d.lookupSnapshot(id)
	if err != nil {
		return err
	}
	s.use.Lock()
	defer s.use.Unlock()
	next := &saved{dir: s.dir, manifest: s.manifest, verified: s.verified}
	next.Name = name
	if err := next.write(s.dir); err != nil {
		return diskError(err)
	}
	d.replace(s, next)
	return nil
}

// replace puts next in the place of s, unless s was deleted meanwhile.
func (d *Driver) replace(s, next *saved) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.snapshots[s.ID] == s {
		d.snapshots[s.ID] = next
	}
}

// DropMemory deletes the memory of a snapshot. See sandbox.Snapshotter.
func (d *Driver) DropMemory(ctx context.Context, id sandbox.SnapshotID) error {
	d.busy.Add(1)
	defer d.busy.Done()
	s, err := d.lookupSnapshot(id)
	if err != nil {
		return err
	}
	if _, ok := s.file(filesFiles[0]); !ok {
		return d.DeleteSnapshot(ctx, id)
	}
	s.use.Lock()
	defer s.use.Unlock()
	next, err := s.withoutMemory()
	if err != nil {
		return err
	}
	d.replace(s, next)
	return nil
}

// DeleteSnapshot deletes a snapshot. See sandbox.Snapshotter.
func (d *Driver) DeleteSnapshot(_ context.Context, id sandbox.SnapshotID) error {
	d.busy.Add(1)
	defer d.busy.Done()
	d.mu.Lock()
	s := d.snapshots[id]
	delete(d.snapshots, id)
	d.mu.Unlock()
	if s == nil {
		return nil
	}
	s.use.Lock()
	defer s.use.Unlock()
	tmp := filepath.Join(d.snapshotsDir(), tmpPrefix+string(id))
	if err := os.Rename(s.dir, tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("gvisor: %w", err)
	}
	if err := os.RemoveAll(tmp); err != nil {
		return fmt.Errorf("gvisor: %w", err)
	}
	return nil
}

// loadSnapshots finds what earlier processes saved and removes what they left
// half-made or half-deleted.
func (d *Driver) loadSnapshots() error {
	entries, err := os.ReadDir(d.snapshotsDir())
	if err != nil {
		return fmt.Errorf("gvisor: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(d.snapshotsDir(), e.Name())
		if strings.HasPrefix(e.Name(), tmpPrefix) {
			if err := os.RemoveAll(path); err != nil {
				return fmt.Errorf("gvisor: %w", err)
			}
			continue
		}
		s, err := loadSaved(path)
		if err != nil || !s.ID.Valid() || string(s.ID) != e.Name() {
			d.log.Warn("unknown entry among the snapshots is left alone", "name", e.Name(), "err", err)
			continue
		}
		d.snapshots[s.ID] = s
	}
	return nil
}
