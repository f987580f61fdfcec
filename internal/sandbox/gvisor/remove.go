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
// a kill in between leaves is found again by its folder or cgroup. b is nil
// when nothing but the id is known.
func (d *Driver) remove(id sandbox.ID, b *box) error {
	var errs []error
	if b != nil {
		// The sentry is init of its process namespace: the kernel ends
		// everything in it with it.
		errs = append(errs, b.sentry.kill(removeTimeout), b.gofer.kill(removeTimeout))
		b.sentry.close()
		b.gofer.close()
	}
	errs = append(errs, d.killStrays(id))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("gvisor: remove %s: %w", id, err)
	}
	errs = append(errs, d.cgroups.remove(string(id)))
	states, _ := filepath.Glob(filepath.Join(d.opts.RunDir, "*"+string(id)+"*"))
	for _, path := range states {
		errs = append(errs, os.RemoveAll(path))
	}
	errs = append(errs, os.RemoveAll(filepath.Join(d.sandboxesDir(), string(id))))
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
// and, where there is none, by their command line.
func (d *Driver) killStrays(id sandbox.ID) error {
	// A dying runsc may still start a process: look again until none is left.
	for range 100 {
		pids := d.cgroups.pids(string(id))
		for _, pid := range runscProcesses(d.opts.RunDir) {
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
		b, err := d.adoptOne(id)
		if err != nil {
			d.log.Info("removing what an earlier process left of a sandbox", "sandbox_id", id, "err", err)
			note(id)
			continue
		}
		d.boxes[id] = b
		go d.watchLoss(b)
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

func (d *Driver) adoptOne(id sandbox.ID) (*box, error) {
	dir := filepath.Join(d.sandboxesDir(), string(id))
	r, err := loadRecord(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !r.Ready {
		return nil, errIncomplete
	}
	if err != nil {
		return nil, err
	}
	if !r.Sentry.alive() || !r.Gofer.alive() {
		return nil, errors.New("it has ended")
	}
	b := &box{dir: dir, record: *r, agentLog: &agentLog{}, lost: make(chan struct{})}
	if err := d.attach(b); err != nil {
		return nil, err
	}
	return b, nil
}
