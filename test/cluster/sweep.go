package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// checkHost says what this machine lacks.
func checkHost(t tier) error {
	needed := []string{"ip", "nsenter"}
	if t == tierNode {
		needed = append(needed, "containerd", "ctr", "containerd-shim-runc-v2", "runc", "iptables", "nft", "conntrack")
	}
	var missing []string
	for _, name := range needed {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	if t == tierNode && cniDir() == "" {
		missing = append(missing, "the CNI plugins")
	}
	if len(missing) > 0 {
		return fmt.Errorf("this machine lacks %s; scripts/deps.sh kube installs it", strings.Join(missing, ", "))
	}
	if _, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables"); t == tierNode && err != nil {
		return errors.New("the kernel's module br_netfilter is not loaded: services and NetworkPolicy would have no effect; modprobe br_netfilter")
	}
	return nil
}

// What a cluster writes at most, images that it finds unpacked not counted, and
// what these and the binaries take when there are none yet.
const (
	roomToRun   = 2 << 30
	roomToBegin = 8 << 30
)

// checkDisk says beforehand that a disk is too full: later it would be a pod that
// does not start, or a database that is broken.
func checkDisk(d dirs, t tier) error {
	if err := os.MkdirAll(d.cache, 0o755); err != nil {
		return err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(d.cache, &st); err != nil {
		return fmt.Errorf("%s: %w", d.cache, err)
	}
	need := int64(roomToRun)
	if _, err := os.Stat(d.pristine()); t == tierNode && err != nil {
		need = roomToBegin
	}
	if free := int64(st.Bavail) * st.Bsize; free < need { //nolint:gosec // below 2^63 on any disk
		return fmt.Errorf("the disk of %s has %d MB left and a cluster needs %d MB: make room, or remove what other clusters have left in its slots (make clean removes all)", d.cache, free>>20, need>>20)
	}
	return nil
}

func cniDir() string {
	for _, dir := range []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"} {
		if _, err := os.Stat(dir + "/bridge"); err == nil {
			return dir
		}
	}
	return ""
}

// cgroupRoots are the hierarchies that pods are limited in: one of version 2
// (which nobody has tried yet), or those of version 1.
func cgroupRoots() []string {
	const root = "/sys/fs/cgroup"
	if _, err := os.Stat(root + "/cgroup.controllers"); err == nil {
		return []string{root}
	}
	var roots []string
	for _, name := range []string{"cpu", "cpuacct", "cpu,cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd", "hugetlb", "net_cls,net_prio", "perf_event"} {
		dir := filepath.Join(root, name)
		if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
			continue
		}
		if _, err := os.Stat(dir + "/tasks"); err == nil {
			roots = append(roots, dir)
		}
	}
	return roots
}

// makeCgroups makes a child in each hierarchy; the hierarchies stay as they are.
func makeCgroups(name string) error {
	for _, root := range cgroupRoots() {
		dir := filepath.Join(root, name)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if controllers, err := os.ReadFile(dir + "/cgroup.controllers"); err == nil {
			for c := range strings.FieldsSeq(string(controllers)) {
				_ = os.WriteFile(dir+"/cgroup.subtree_control", []byte("+"+c), 0o644)
			}
		}
		if filepath.Base(root) != "cpuset" {
			continue
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // empty in a new one, which then takes no process
			value, err := os.ReadFile(filepath.Join(root, file))
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// sweep removes what a cluster leaves when its processes are dead, or about to be.
func sweep(d dirs) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := ended(d)
		if err == nil {
			err = errors.Join(removeCgroups(d.cgroup()), os.RemoveAll(d.run()))
		}
		if err == nil {
			return restoreContainerd(d)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("a dead cluster can't be removed: %w", err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// ended fails while pid 1 of the last cluster lives. The kernel lets it go after
// all other processes of its namespace.
func ended(d dirs) error {
	raw, err := os.ReadFile(d.state())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var s state
	if err = errors.Join(err, json.Unmarshal(raw, &s)); err != nil {
		return err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.Init))
	if err != nil { // gone
		return nil //nolint:nilerr // see above
	}
	// "123 (name) S …", proc_pid_stat(5)
	_, rest, _ := strings.Cut(string(stat), " ")
	if strings.HasPrefix(rest, "(exe) ") && !strings.HasPrefix(rest, "(exe) Z") && !strings.HasPrefix(rest, "(exe) X") {
		return fmt.Errorf("pid 1 of the cluster (%d) is still there", s.Init)
	}
	return nil
}

func removeCgroups(name string) error {
	// runc makes one in this hierarchy too, which limits nothing.
	for _, root := range append(cgroupRoots(), "/sys/fs/cgroup/unified") {
		var all []string
		err := filepath.WalkDir(filepath.Join(root, name), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err == nil && entry.IsDir() {
				all = append(all, path)
			}
			return err
		})
		if err != nil {
			return err
		}
		for _, dir := range slices.Backward(all) {
			if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("%s: %w", dir, err)
			}
		}
	}
	return nil
}
