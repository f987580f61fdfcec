package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

const (
	labelFork = "caesarion.fork" // on a snapshot that is there for a moment only
	maxForks  = 16               // at once
)

var (
	errSnapshotUnsupported = errdefs.New(errdefs.ErrUnsupported, "snapshot-unsupported", "Sandboxes can't be saved on this host.").
				WithHint("Create new ones, and copy the files.")
	errForkUnsupported = errdefs.New(errdefs.ErrUnsupported, "fork-unsupported", "Sandboxes can't be copied on this host.").
				WithHint("Create new ones, and copy the files.")
)

var snapshotName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// save saves the sandbox, which then goes on, and what runs in it too. One that
// sleeps is woken.
func (s *Sandbox) save(ctx context.Context, opts sandbox.SnapshotOptions) (sandbox.Snapshot, error) {
	if s.fleet.saver == nil {
		return sandbox.Snapshot{}, errSnapshotUnsupported
	}
	for {
		if err := s.awaken(ctx); err != nil {
			return sandbox.Snapshot{}, err
		}
		if err := s.started(ctx); err != nil {
			return sandbox.Snapshot{}, err
		}
		if err := s.take(ctx); err != nil {
			return sandbox.Snapshot{}, err
		}
		s.mu.Lock()
		awake := s.sleep.state == sandbox.StateRunning
		s.mu.Unlock()
		if awake {
			break
		}
		s.give() // it fell asleep in between
	}
	defer s.give()
	release, err := s.hold(ctx)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	defer release()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	return s.fleet.saver.Snapshot(ctx, s.id, opts)
}

// Snapshot saves a state of the sandbox, with memory and files, that others can
// be created from. A name that a snapshot has already goes over to the new one.
func (s *Sandbox) Snapshot(ctx context.Context, name string) (sandbox.Snapshot, error) {
	defer s.Use()()
	if name != "" && (!snapshotName.MatchString(name) || strings.HasPrefix(name, "snp_")) {
		return sandbox.Snapshot{}, errdefs.New(errdefs.ErrInvalid, "snapshot-name-invalid", "The name %.80q is not allowed.", name).
			WithHint("Use up to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit, but not with snp_.")
	}
	if err := s.fleet.roomForSnapshot(ctx); err != nil {
		return sandbox.Snapshot{}, err
	}
	s.mu.Lock()
	s.rec.used = s.lastUsed()
	labels := s.rec.labels()
	s.mu.Unlock()
	snap, err := s.save(ctx, sandbox.SnapshotOptions{Name: name, Labels: labels, Files: true})
	if err != nil {
		return sandbox.Snapshot{}, s.Explain(err)
	}
	if err := s.fleet.roomForSnapshot(ctx); err != nil {
		return sandbox.Snapshot{}, errors.Join(err, s.fleet.saver.DeleteSnapshot(context.WithoutCancel(ctx), snap.ID))
	}
	if name != "" {
		s.fleet.takeName(context.WithoutCancel(ctx), snap)
	}
	s.fleet.log.Info("sandbox saved", "sandbox_id", string(s.id), "snapshot_id", string(snap.ID), "bytes", snap.MemoryBytes+snap.FilesBytes)
	s.fleet.background(s.fleet.keepQuota)
	return snap, nil
}

// takeName takes a snapshot's name away from older ones of its owner, which would get it
// back when this one is deleted. Where that fails the newest still has it.
func (f *Fleet) takeName(ctx context.Context, snap sandbox.Snapshot) {
	list, err := f.saver.Snapshots(ctx)
	for _, old := range list {
		if old.Name == snap.Name && old.ID != snap.ID && SnapshotOwner(old) == SnapshotOwner(snap) && old.CreatedAt.Before(snap.CreatedAt) && !pool.Own(old) {
			err = errors.Join(err, f.saver.RenameSnapshot(ctx, old.ID, ""))
		}
	}
	if err != nil {
		f.log.Warn("an older snapshot keeps the name of a new one", "snapshot_id", string(snap.ID), "err", err)
	}
}

// Fork gives n copies of the sandbox with its memory and files. What runs goes
// on in the sandbox and is interrupted in the copies. Nil labels mean the
// sandbox's own.
func (s *Sandbox) Fork(ctx context.Context, n int, labels map[string]string) ([]*Sandbox, error) {
	defer s.Use()()
	f := s.fleet
	if f.saver == nil {
		return nil, errForkUnsupported
	}
	if n == 0 {
		n = 1
	}
	if n < 0 || n > maxForks {
		return nil, errdefs.New(errdefs.ErrInvalid, "invalid-count", "count is %d, and must be 1 to %d.", n, maxForks).
			WithHint("Ask for fewer copies, several times.")
	}
	if err := checkLabels(labels); err != nil {
		return nil, err
	}
	admitted, err := f.admit(ctx, s.owner, n, s.info.Limits)
	if err != nil {
		return nil, err
	}
	defer admitted.end()
	for i := range n {
		if err := f.reserve(s.owner); err != nil {
			for range i {
				f.release(s.owner)
			}
			return nil, err
		}
	}
	defer func() {
		for range n {
			f.release(s.owner)
		}
	}()
	snap, err := s.save(ctx, sandbox.SnapshotOptions{Labels: map[string]string{labelFork: string(s.id)}})
	if err != nil {
		return nil, s.Explain(err)
	}
	defer func() { f.deleteTemporary(snap.ID) }()
	// Copies share nothing: each has all of the original's memory.
	if err := f.roomInMemory(int64(n) * snap.MemoryBytes); err != nil {
		return nil, err
	}

	s.mu.Lock()
	rec := s.rec.clone()
	s.mu.Unlock()
	rec.session, rec.restarted, rec.start = "", nil, pool.StartRestore
	if labels != nil {
		rec.user = maps.Clone(labels)
	}
	copies := make([]*Sandbox, n)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i := range copies {
		g.Go(func() (err error) {
			// Not before: what is being saved may have to be woken for it.
			leave, err := f.starts.Enter(gctx, s.owner)
			if err != nil {
				return err
			}
			defer leave()
			copies[i], err = f.restore(gctx, snap.ID, s.info.Template, sandbox.Spec{Image: s.info.Image, Limits: s.info.Limits}, rec, false, admitted)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		for _, c := range copies {
			if c != nil {
				err = errors.Join(err, c.Delete(context.WithoutCancel(ctx)))
			}
		}
		return nil, err
	}
	return copies, nil
}

// restore makes a sandbox of a snapshot. Of rec, what is of one sandbox only is
// made anew.
func (f *Fleet) restore(ctx context.Context, id sandbox.SnapshotID, template string, spec sandbox.Spec, rec record, filesOnly bool, admitted *admission) (*Sandbox, error) {
	rec = rec.clone()
	rec.used = time.Now()
	rec.expires = rec.used.Add(rec.life)
	rec.seedID = f.newSeedID(ctx)
	rec.maker = f.opts.Replicas.ID()
	spec.ID, spec.Template, spec.Labels = sandbox.NewID(), template, rec.labels()
	info, err := f.saver.Restore(ctx, id, spec, filesOnly)
	if err != nil {
		return nil, err
	}
	var s *Sandbox
	if err := admitted.become(spec.Limits, func() (err error) {
		s, err = f.attach(info, rec, nil)
		return err
	}); err != nil {
		return nil, err
	}
	if err := s.own(ctx); err != nil {
		return nil, err
	}
	s.beginCPU(ctx)
	if rec.kernelID != "" {
		s.startDefaultKernel() // which finds the one that was saved
	}
	f.log.Info("sandbox created", "sandbox_id", string(info.ID), "template", template, "start", string(rec.start), "snapshot_id", string(id))
	return s, nil
}

// createFrom makes a sandbox from a snapshot, with its files alone if its
// memory can't be used.
func (f *Fleet) createFrom(ctx context.Context, req CreateRequest) (*Sandbox, error) {
	snap, err := f.SnapshotFor(ctx, req.Snapshot, req.Owner, req.Sees)
	if err != nil {
		return nil, err
	}
	if req.Template != "" && req.Template != snap.Template {
		return nil, errdefs.New(errdefs.ErrInvalid, "template-mismatch", "The snapshot is of the template %q.", snap.Template).
			WithHint("Leave the template out.")
	}
	t := f.templateOf(snap.Template)
	t.Limits = snap.Limits
	rec, limits, err := f.plan(ctx, req, t)
	if err != nil {
		return nil, err
	}
	if limits.DiskBytes != snap.Limits.DiskBytes {
		return nil, errdefs.New(errdefs.ErrInvalid, "invalid-limit", "The disk limit of a snapshot can't be changed: it is %d.", snap.Limits.DiskBytes).
			WithHint("Leave limits.disk_bytes out.")
	}
	admitted, leave, err := f.enter(ctx, req.Owner, limits)
	if err != nil {
		return nil, err
	}
	defer leave()
	rec.kernelID = snap.Labels[labelKernel]
	rec.start = pool.StartRestore
	if req.Labels == nil {
		rec.user = recordOf(sandbox.Info{Labels: snap.Labels}, t).user
	}
	spec := sandbox.Spec{Image: snap.Image, Limits: limits, Env: f.withNetwork(environment(t, req), snap.Template)}
	s, err := f.restore(ctx, snap.ID, snap.Template, spec, rec, false, admitted)
	if code, ok := filesLeft(err); ok {
		f.log.Warn("memory of a snapshot can't be used, a sandbox is started with its files", "snapshot_id", string(snap.ID), "err", err)
		rec.start, rec.restarted = pool.StartCold, newRestarted(time.Now(), code)
		s, err = f.restore(ctx, snap.ID, snap.Template, spec, rec, true, admitted)
	}
	if err != nil {
		return nil, fmt.Errorf("fleet: create from %s: %w", snap.ID, err)
	}
	return s, nil
}

// templateOf gives a template, or the defaults for one that is no longer there.
func (f *Fleet) templateOf(name string) Template {
	if t, ok := f.opts.Templates[name]; ok {
		return t
	}
	return Template{ExecutionTimeout: DefaultExecutionTimeout, IdleTimeout: DefaultIdleTimeout, Lifetime: DefaultLifetime}
}

// Snapshots lists what users saved, newest first. Of several with one name the
// newest has it.
func (f *Fleet) Snapshots(ctx context.Context) ([]sandbox.Snapshot, error) {
	if f.saver == nil {
		return nil, nil
	}
	list, err := f.saver.Snapshots(ctx)
	if err != nil {
		return nil, fmt.Errorf("fleet: list snapshots: %w", err)
	}
	list = slices.DeleteFunc(list, func(s sandbox.Snapshot) bool {
		return pool.Own(s) || s.Labels[labelFork] != ""
	})
	slices.SortFunc(list, func(a, b sandbox.Snapshot) int { return b.CreatedAt.Compare(a.CreatedAt) })
	type named struct {
		owner identity.Owner
		name  string
	}
	names := map[named]bool{}
	for i := range list {
		if key := (named{SnapshotOwner(list[i]), list[i].Name}); names[key] {
			list[i].Name = ""
		} else {
			names[key] = true
		}
	}
	return list, nil
}

// SnapshotOwner says whose a snapshot is.
func SnapshotOwner(s sandbox.Snapshot) identity.Owner { return ownerOf(s.Labels) }

// SnapshotsFor lists those of owners that somebody sees; nil: everybody's.
func (f *Fleet) SnapshotsFor(ctx context.Context, sees func(identity.Owner) bool) ([]sandbox.Snapshot, error) {
	list, err := f.Snapshots(ctx)
	if sees != nil {
		list = slices.DeleteFunc(list, func(s sandbox.Snapshot) bool { return !sees(SnapshotOwner(s)) })
	}
	return list, err
}

// Snapshot finds a snapshot by id or name.
func (f *Fleet) Snapshot(ctx context.Context, idOrName string) (sandbox.Snapshot, error) {
	return f.SnapshotFor(ctx, idOrName, identity.Owner{}, nil)
}

// SnapshotFor finds one for somebody, of owners that he sees; nil: everybody's.
// An id is nobody's name, and what he named himself comes before what others
// did: nobody can put his own state in the place of another's.
func (f *Fleet) SnapshotFor(ctx context.Context, idOrName string, owner identity.Owner, sees func(identity.Owner) bool) (sandbox.Snapshot, error) {
	list, err := f.SnapshotsFor(ctx, sees)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	for _, is := range []func(sandbox.Snapshot) bool{
		func(s sandbox.Snapshot) bool { return string(s.ID) == idOrName },
		func(s sandbox.Snapshot) bool { return s.Name == idOrName && SnapshotOwner(s) == owner },
		func(s sandbox.Snapshot) bool { return s.Name == idOrName },
	} {
		if i := slices.IndexFunc(list, is); i >= 0 && idOrName != "" {
			return list[i], nil
		}
	}
	return sandbox.Snapshot{}, errdefs.New(errdefs.ErrNotFound, "snapshot-not-found", "There is no snapshot %.80q.", idOrName).
		WithHint("GET /v1/snapshots lists those there are, by id and name.")
}

// DeleteSnapshot deletes a snapshot. Sandboxes made from it stay.
func (f *Fleet) DeleteSnapshot(ctx context.Context, idOrName string) error {
	s, err := f.Snapshot(ctx, idOrName)
	if err != nil {
		return err
	}
	if err := f.saver.DeleteSnapshot(ctx, s.ID); err != nil {
		return fmt.Errorf("fleet: delete %s: %w", s.ID, err)
	}
	f.log.Info("snapshot deleted", "snapshot_id", string(s.ID))
	return nil
}

// snapshotBytes sums what snapshots take on disk, the pool's too. Those that
// are there for a moment only must not cost anybody anything.
func (f *Fleet) snapshotBytes(ctx context.Context) (sum int64, err error) {
	if f.saver == nil {
		return 0, nil
	}
	list, err := f.saver.Snapshots(ctx)
	for _, s := range list {
		if s.Labels[labelFork] == "" {
			sum += s.MemoryBytes + s.FilesBytes
		}
	}
	return sum, err
}

// roomForSnapshot refuses when snapshots, which are never dropped, have used up
// the quota.
func (f *Fleet) roomForSnapshot(ctx context.Context) error {
	if f.saver == nil || f.opts.DiskQuota <= 0 {
		return nil
	}
	sum, err := f.snapshotBytes(ctx)
	if err == nil && sum >= f.opts.DiskQuota {
		err = errdefs.New(errdefs.ErrExhausted, "disk-quota", "Snapshots take %d bytes, and saved sandboxes may take %d together.", sum, f.opts.DiskQuota).
			WithHint("Delete snapshots that are not needed.")
	}
	return err
}

// deleteTemporary deletes a snapshot that was made for copies.
func (f *Fleet) deleteTemporary(id sandbox.SnapshotID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(f.ctx), removeTimeout)
	defer cancel()
	if err := f.saver.DeleteSnapshot(ctx, id); err != nil {
		f.log.Warn("temporary snapshot can't be deleted", "snapshot_id", string(id), "err", err)
	}
}

// temporary lists what an earlier process left of copies.
func (f *Fleet) temporary(ctx context.Context) (left []sandbox.SnapshotID) {
	if f.saver == nil {
		return nil
	}
	list, err := f.saver.Snapshots(ctx)
	if err != nil {
		f.log.Warn("snapshots can't be listed", "err", err)
	}
	for _, s := range list {
		if s.Labels[labelFork] != "" {
			left = append(left, s.ID)
		}
	}
	return left
}
