package gvisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroups is what this host offers and where this driver's groups are: one
// parent, and below it a group a sandbox, made and filled by runsc.
type cgroups struct {
	version     int               // 1 or 2; 0: none usable
	parent      string            // "/caesarion-<instance>"
	controllers map[string]string // controller → mount point
}

// detectCgroups looks at the mounted hierarchies.
func detectCgroups(instance string) cgroups {
	cg := cgroups{parent: "/caesarion-" + instance, controllers: map[string]string{}}
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err != nil {
		return cg
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		b, err := os.ReadFile(filepath.Join(cgroupRoot, "cgroup.controllers"))
		if err != nil || unix.Access(cgroupRoot, unix.W_OK) != nil {
			return cg
		}
		cg.version = 2
		for c := range strings.FieldsSeq(string(b)) {
			cg.controllers[c] = cgroupRoot
		}
		return cg
	}
	for _, c := range []string{"memory", "cpu", "pids", "freezer"} {
		dir := filepath.Join(cgroupRoot, c)
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP_SUPER_MAGIC && unix.Access(dir, unix.W_OK) == nil {
			cg.controllers[c] = dir
			cg.version = 1
		}
	}
	return cg
}

// path is the cgroup of one sandbox as the OCI spec names it.
func (cg cgroups) path(id string) string {
	if cg.version == 0 {
		return ""
	}
	return cg.parent + "/" + id
}

// dirs lists every hierarchy's folder of name below the parent, or of the
// parent itself when name is empty. runsc makes one in each v1 controller,
// also in those that set no limit.
func (cg cgroups) dirs(name string) []string {
	switch cg.version {
	case 2:
		return []string{filepath.Join(cgroupRoot, cg.parent, name)}
	case 1:
		mounts, _ := filepath.Glob(cgroupRoot + "/*" + cg.parent)
		var out []string
		for _, m := range mounts {
			dir := filepath.Join(m, name)
			// /sys/fs/cgroup may hold links such as cpu → cpu,cpuacct.
			if target, err := filepath.EvalSymlinks(dir); err == nil && !slices.Contains(out, target) {
				out = append(out, target)
			}
		}
		return out
	}
	return nil
}

// children lists the sandbox ids that have a cgroup.
func (cg cgroups) children() []string {
	var out []string
	for _, dir := range cg.dirs("") {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if e.IsDir() && !slices.Contains(out, e.Name()) {
				out = append(out, e.Name())
			}
		}
	}
	return out
}

// pids lists the host processes in a sandbox's cgroup.
func (cg cgroups) pids(id string) []int {
	var out []int
	for _, dir := range cg.dirs(id) {
		_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return nil //nolint:nilerr // a group that vanished has no processes
			}
			b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			for f := range strings.FieldsSeq(string(b)) {
				if pid, err := strconv.Atoi(f); err == nil && !slices.Contains(out, pid) {
					out = append(out, pid)
				}
			}
			return nil
		})
	}
	return out
}

// remove deletes the cgroups of a sandbox, or the parent when id is empty.
// A group stays busy for a moment after its last process died.
func (cg cgroups) remove(id string) error {
	var errs []error
	for _, dir := range cg.dirs(id) {
		if err := removeCgroup(dir); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	for wait := time.Millisecond; ; wait *= 2 {
		err := unix.Rmdir(dir)
		switch {
		case err == nil, errors.Is(err, unix.ENOENT):
			return nil
		case errors.Is(err, unix.EBUSY) && wait < 2*time.Second:
			time.Sleep(wait)
		default:
			return fmt.Errorf("remove cgroup %s: %w", dir, err)
		}
	}
}

// raiseMemory sets the memory limit of a sandbox that runs.
func (cg cgroups) raiseMemory(id string, bytes int64) error {
	var dir, file string
	switch cg.version {
	case 1:
		dir, file = filepath.Join(cg.controllers["memory"], cg.parent, id), "memory.limit_in_bytes"
	case 2:
		dir, file = filepath.Join(cgroupRoot, cg.parent, id), "memory.max"
	}
	if cg.controllers["memory"] == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, file), []byte(strconv.FormatInt(bytes, 10)), 0) //nolint:gosec // a file of the kernel's, which exists
}

// oomKilled reports whether the host ended a process of the sandbox for
// memory. Read it before the cgroup is removed.
//
// Source: memory.oom_control (v1, field oom_kill), memory.events (v2).
func (cg cgroups) oomKilled(id string) bool {
	for _, file := range []string{"memory.oom_control", "memory.events"} {
		for _, dir := range cg.dirs(id) {
			b, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil {
				continue
			}
			for line := range strings.Lines(string(b)) {
				if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" && f[1] != "0" {
					return true
				}
			}
		}
	}
	return false
}
