package gvisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/runsc/specutils"

	"github.com/caesarion/caesarion/internal/sandbox"
)

// remove ends every process of a sandbox and deletes all that is left of it:
// processes, cgroups, runsc's state, the folder, in this order, so that what
// a kill in between leaves is found again by its folder or cgroup. l is nil
// when the processes are not known, or there are none.
func (d *Driver) remove(id sandbox.ID, l *life) error {
	if err := d.removeProcesses(id, l); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(d.sandboxesDir(), string(id))); err != nil {
		return fmt.Errorf("gvisor: remove %s: %w", id, err)
	}
	return nil
}

// removeProcesses ends what runs of a sandbox and deletes all of it but its
// folder.
func (d *Driver) removeProcesses(id sandbox.ID, l *life) error {
	var errs []error
	if l != nil {
		errs = append(errs, l.kill())
		l.close()
	}
	errs = append(errs, d.killStrays(id, l == nil || d.cgroups.version == 0))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("gvisor: remove %s: %w", id, err)
	}
	errs = append(errs, d.cgroups.remove(string(id)))
	states, _ := filepath.Glob(filepath.Join(d.opts.RunDir, "*"+string(id)+"*"))
	for _, path := range states {
		errs = append(errs, os.RemoveAll(path))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("gvisor: remove %s: %w", id, err)
	}
	return nil
}

// removeRunDir deletes runsc's folder, in which it leaves a network namespace
// mounted: several on one another when sandboxes started side by side.
func removeRunDir(dir string) error {
	for {
		err := unix.Unmount(filepath.Join(dir, specutils.NullNetNSFilename), unix.MNT_DETACH)
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL): // none left
			return os.RemoveAll(dir)
		default:
			return fmt.Errorf("gvisor: unmount: %w", err)
		}
	}
}

// killStrays ends the host processes of a sandbox that no watcher knows: of a
// start that was cut, or whose record is lost. They are known by their cgroup
// and, thoroughly, by their command line: of those whose start was cut some may
// not be in it yet.
func (d *Driver) killStrays(id sandbox.ID, thoroughly bool) error {
	// A dying runsc may still start a process: look again until none is left.
	for range 100 {
		pids := d.cgroups.pids(string(id))
		var all []runscProcess
		if thoroughly {
			all = runscProcesses(d.opts.RunDir)
		}
		for _, pid := range all {
			if pid.id == id && !slices.Contains(pids, pid.PID) {
				pids = append(pids, pid.PID)
			}
		}
		var g errgroup.Group
		found := false
		for _, pid := range pids {
			p, err := currentProcess(pid)
			if err != nil {
				continue // ended, or a zombie that its parent must collect
			}
			found = true
			g.Go(func() error {
				w, err := watch(p)
				if err != nil {
					return err
				}
				defer w.close()
				return w.kill(removeTimeout)
			})
		}
		if err := g.Wait(); err != nil || !found {
			return err
		}
	}
	return fmt.Errorf("processes of %s keep coming", id)
}

// runscProcess is a process of gVisor and the sandbox it works for.
type runscProcess struct {
	process
	id sandbox.ID
}

// runscProcesses lists the gVisor processes whose state folder is runDir.
//
// Source: /proc/<pid>/cmdline; runsc gives its root folder as a flag to all
// it starts, and the sandbox's id as last argument or in the bundle's path.
func runscProcesses(runDir string) []runscProcess {
	entries, _ := os.ReadDir("/proc")
	var out []runscProcess
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !bytes.HasPrefix(cmdline, []byte("runsc")) {
			continue
		}
		args := strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00")
		if !slices.Contains(args, "--root="+runDir) {
			continue
		}
		p, err := currentProcess(pid)
		if err != nil {
			continue
		}
		for _, arg := range slices.Backward(args) {
			if i := strings.Index(arg, "sbx_"); i >= 0 && len(arg) >= i+30 && sandbox.ID(arg[i:i+30]).Valid() {
				out = append(out, runscProcess{p, sandbox.ID(arg[i : i+30])})
				break
			}
		}
	}
	return out
}

// adopt takes over what an earlier process left: complete and running
// sandboxes are kept, everything else is removed.
func (d *Driver) adopt(ctx context.Context) error {
	entries, err := os.ReadDir(d.sandboxesDir())
	if err != nil {
		return fmt.Errorf("gvisor: adopt: %w", err)
	}
	var stale []sandbox.ID
	note := func(id sandbox.ID) {
		if id.Valid() && d.boxes[id] == nil && !slices.Contains(stale, id) {
			stale = append(stale, id)
		}
	}
	for _, e := range entries {
		id := sandbox.ID(e.Name())
		if !id.Valid() {
			d.log.Warn("unknown entry among the sandboxes is left alone", "name", e.Name())
			continue
		}
		b, err := d.adoptOne(ctx, id)
		if err != nil {
			d.log.Info("removing what an earlier process left of a sandbox", "sandbox_id", id, "err", err)
			note(id)
			continue
		}
		d.boxes[id] = b
		if b.life != nil {
			go d.watchLoss(b, b.life)
		}
	}
	for _, name := range d.cgroups.children() {
		note(sandbox.ID(name))
	}
	for _, p := range runscProcesses(d.opts.RunDir) {
		note(p.id)
	}
	g, _ := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, id := range stale {
		g.Go(func() error { return d.remove(id, nil) })
	}
	return g.Wait()
}

var errIncomplete = errors.New("its start was cut")

func (d *Driver) adoptOne(ctx context.Context, id sandbox.ID) (*box, error) {
	dir := filepath.Join(d.sandboxesDir(), string(id))
	r, err := loadRecord(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errIncomplete
	}
	if err != nil {
		return nil, err
	}
	if d.claimed(r) {
		if err := r.save(dir, false); err != nil {
			return nil, err
		}
	}
	b := &box{dir: dir, record: *r, lost: make(chan struct{})}
	for _, left := range []string{"saved", "old"} {
		if err := os.RemoveAll(filepath.Join(dir, tmpPrefix+left)); err != nil {
			return nil, err
		}
	}
	alive := r.Sentry.alive() && r.Gofer.alive()
	if !alive && r.PausedAt.IsZero() {
		// Killed when it was saved but its record did not say so yet: it was
		// frozen ever since, so what is saved is all there was.
		if s, err := loadSaved(b.savedDir()); err == nil {
			b.record.PausedAt = s.CreatedAt
			if err := b.record.save(dir, true); err != nil {
				return nil, err
			}
		}
	}
	if !b.record.PausedAt.IsZero() {
		return b, d.adoptAsleep(b)
	}
	if !alive {
		return nil, errors.New("it has ended")
	}
	// It runs: what is saved of it was being replaced or given up.
	if err := b.dropSaved(); err != nil {
		return nil, err
	}
	b.life = &life{words: &agentLog{}}
	if err := d.attach(&b.record, b.life); err != nil {
		return nil, err
	}
	if err := thawAdopted(ctx, b.life); err != nil {
		b.life.close()
		return nil, err
	}
	return b, nil
}
