package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Places inside the cluster's mount namespace. They are short, as sockets need
// it, and the same for every checkout.
const (
	runDir     = "/run/cluster"
	cacheMount = runDir + "/cache" // dirs.cache
	slotMount  = runDir + "/slot"  // dirs.slotDir
	tmpMount   = runDir + "/tmp"   // dirs.tmp
	etcDir     = runDir + "/etc"
	pkiDir     = runDir + "/pki"
	kubeconfig = pkiDir + "/admin.kubeconfig"
	ctrdSocket = runDir + "/containerd.sock"
)

// dirs are the places on the machine.
type dirs struct {
	repo  string // the repository
	cache string // .cache/cluster in it
	slot  int    // of the clusters that may run at a time; the first is 0
}

// findDirs looks for the repository around the working directory.
func findDirs() (dirs, error) {
	wd, err := os.Getwd()
	if err != nil {
		return dirs{}, err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/caesarion/caesarion\n") {
			return dirs{repo: dir, cache: filepath.Join(dir, ".cache", "cluster")}, nil
		}
		if dir == filepath.Dir(dir) {
			return dirs{}, fmt.Errorf("%s is not in the repository", wd)
		}
	}
}

func (d dirs) bin(name string) string   { return filepath.Join(d.cache, "bin", name) }   // what is built once
func (d dirs) build(name string) string { return filepath.Join(d.cache, "build", name) } // the product, as it was last built
func (d dirs) layouts() string          { return filepath.Join(d.cache, "images") }

// slotDir has what belongs to one cluster, or to those that follow it.
func (d dirs) slotDir() string {
	if d.slot == 0 {
		return d.cache
	}
	return filepath.Join(d.cache, fmt.Sprintf("slot%d", d.slot))
}

func (d dirs) slotBin(name string) string { return filepath.Join(d.slotDir(), "bin", name) } // the product, as the cluster uses it
func (d dirs) images() string             { return filepath.Join(d.slotDir(), "images.json") }
func (d dirs) run() string                { return filepath.Join(d.slotDir(), "run") } // gone with the cluster
func (d dirs) logs() string               { return filepath.Join(d.slotDir(), "log") } // of the last cluster
func (d dirs) tmp() string                { return filepath.Join(d.run(), "tmp") }     // of the command
func (d dirs) state() string              { return filepath.Join(d.run(), "state.json") }

// cgroup is the name of the cluster's cgroup: another checkout has another.
func (d dirs) cgroup() string {
	return fmt.Sprintf("caesarion-cluster-%x", sha256.Sum256([]byte(d.slotDir())))[:len("caesarion-cluster-")+8]
}

// slots are the places for clusters that run at a time: one, unless
// CAESARION_CLUSTER_SLOTS or the file "slots" in the cache says more. Each has its own
// images on disk. CAESARION_CLUSTER_SLOT is the number of the only one to take.
func (d dirs) slots() []int {
	if n, err := strconv.Atoi(os.Getenv("CAESARION_CLUSTER_SLOT")); err == nil {
		return []int{n}
	}
	text := os.Getenv("CAESARION_CLUSTER_SLOTS")
	if file, err := os.ReadFile(filepath.Join(d.cache, "slots")); text == "" && err == nil {
		text = string(file)
	}
	n, _ := strconv.Atoi(strings.TrimSpace(text))
	slots := []int{0}
	for len(slots) < n {
		slots = append(slots, len(slots))
	}
	return slots
}

// clusterLock is the name of the lock of the cluster in this slot.
func (d dirs) clusterLock() string {
	if d.slot == 0 {
		return "lock"
	}
	return fmt.Sprintf("lock%d", d.slot)
}

// lockCluster waits until a cluster may run, and gives where.
func (d dirs) lockCluster() (dirs, *os.File, error) {
	const waiting = "waiting for another cluster of this checkout to end"
	for said := false; ; said = true {
		for _, d.slot = range d.slots() {
			if f, err := d.tryLock(d.clusterLock()); err != nil || f != nil {
				return d, f, err
			}
		}
		if !said {
			fmt.Fprintln(os.Stderr, "cluster:", waiting)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// lock waits for a lock and says so. The lock belongs to the open file: a process
// that inherits it keeps it.
func (d dirs) lock(name, waiting string) (*os.File, error) {
	f, err := d.tryLock(name)
	if err != nil || f != nil {
		return f, err
	}
	fmt.Fprintln(os.Stderr, "cluster:", waiting)
	if f, err = d.openLock(name); err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return f, nil
}

// tryLock gives nil when somebody else has the lock.
func (d dirs) tryLock(name string) (*os.File, error) {
	f, err := d.openLock(name)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, f.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return f, nil
}

func (d dirs) openLock(name string) (*os.File, error) {
	if err := os.MkdirAll(d.cache, 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(d.cache, name), os.O_CREATE|os.O_RDWR, 0o600)
}
