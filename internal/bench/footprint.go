package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// footprint is the memory that exists because of one sandbox, in bytes.
type footprint struct {
	anonymous int64 // heaps and stacks of the sandbox's processes: the sentry's own
	shared    int64 // memory files: all that the programs in the sandbox have, and their files
	kernel    int64 // page tables and the like; 0 where the host does not count them
	source    string
}

func (f *footprint) add(o footprint) {
	f.anonymous += o.anonymous
	f.shared += o.shared
	f.kernel += o.kernel
	f.source = o.source
}

func (f footprint) mebibytes() float64 {
	return float64(f.anonymous+f.shared+f.kernel) / (1 << 20)
}

// errNoProcess says that nothing of a sandbox runs on this machine.
var errNoProcess = errors.New("no process of the sandbox on this machine")

// footprintOf reads what a sandbox costs this machine, from its memory cgroup.
// Page cache of files is left out: the image's pages are shared by all
// sandboxes, and are given back when memory is needed.
//
// Adding up processes instead counts too much: the processes in which gVisor's
// systrap platform runs a sandbox's programs come in groups that share one
// address space, so that the same pages stand in the accounts of each, in
// smaps_rollup's Pss too: 140 to 184 MiB where the cgroup has 115. Where there
// is no memory cgroup they are told apart by kcmp(2), which gives the cgroup's
// figure to 0.1 MiB; the source says so.
//
// Source: memory.stat of cgroup v2 (anon, shmem, kernel), or of v1 (total_rss,
// total_shmem) with memory.kmem.usage_in_bytes.
func footprintOf(id string) (footprint, error) {
	for _, pattern := range []string{"/sys/fs/cgroup/memory/*/" + id, "/sys/fs/cgroup/*/" + id} {
		dirs, err := filepath.Glob(pattern)
		if err != nil {
			return footprint{}, err
		}
		for _, dir := range dirs {
			if f, err := cgroupFootprint(dir); err == nil {
				return f, nil
			}
		}
	}
	return processFootprint(id)
}

func cgroupFootprint(dir string) (footprint, error) {
	b, err := os.ReadFile(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return footprint{}, err
	}
	stat := map[string]int64{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			stat[key], _ = strconv.ParseInt(value, 10, 64)
		}
	}
	if _, v2 := stat["anon"]; v2 {
		return footprint{stat["anon"], stat["shmem"], stat["kernel"], "cgroup v2"}, nil
	}
	f := footprint{anonymous: stat["total_rss"], shared: stat["total_shmem"], source: "cgroup v1"}
	if _, ok := stat["total_shmem"]; !ok {
		return footprint{}, fmt.Errorf("%s/memory.stat does not tell shared memory", dir)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "memory.kmem.usage_in_bytes")); err == nil {
		f.kernel, _ = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	}
	return f, nil
}

// processFootprint adds up the proportional memory of a sandbox's processes,
// one of each group that shares an address space.
//
// Source: Pss_Anon and Pss_Shmem of /proc/<pid>/smaps_rollup.
func processFootprint(id string) (footprint, error) {
	f := footprint{source: "proportional memory of its processes"}
	var counted []int
	pids, err := processesOf(id)
	if err != nil {
		return f, err
	}
	for _, pid := range pids {
		if slices.ContainsFunc(counted, func(other int) bool { return sameMemory(pid, other) }) {
			continue
		}
		path := fmt.Sprintf("/proc/%d/smaps_rollup", pid)
		anon, err1 := field(path, "Pss_Anon:")
		shmem, err2 := field(path, "Pss_Shmem:")
		if err1 != nil || err2 != nil {
			continue // it ended meanwhile
		}
		f.anonymous += anon
		f.shared += shmem
		counted = append(counted, pid)
	}
	if len(counted) == 0 {
		return f, fmt.Errorf("%s: %w", id, errNoProcess)
	}
	return f, nil
}

// processesOf lists the processes whose cgroup or command line names a sandbox.
func processesOf(id string) ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, dir := range dirs {
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if !strings.Contains(string(cgroup), id) && (!strings.HasPrefix(string(cmdline), "runsc") || !strings.Contains(string(cmdline), id)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// kcmpVM asks kcmp(2) whether two processes share their address space.
const kcmpVM = 1

func sameMemory(a, b int) bool {
	order, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(a), uintptr(b), kcmpVM, 0, 0, 0)
	return errno == 0 && order == 0
}

// memoryOf gives a process's resident memory in bytes; 0 for process 0.
func memoryOf(pid int) (int64, error) {
	if pid == 0 {
		return 0, nil
	}
	return field(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
}

// field reads a field of a /proc file that is given in kB, in bytes.
func field(path, name string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("%s has no %s", path, name)
}
