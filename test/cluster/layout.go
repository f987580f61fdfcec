package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Places inside the cluster's mount namespace. They are short, as sockets need
// it, and the same for every checkout.
const (
	runDir     = "/run/cluster"
	cacheMount = runDir + "/cache" // dirs.cache
	etcDir     = runDir + "/etc"
	pkiDir     = runDir + "/pki"
	kubeconfig = pkiDir + "/admin.kubeconfig"
	ctrdSocket = runDir + "/containerd.sock"
)

// dirs are the places on the machine.
type dirs struct {
	repo  string // the repository
	cache string // .cache/cluster in it
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

func (d dirs) bin(name string) string   { return filepath.Join(d.cache, "bin", name) }
func (d dirs) build(name string) string { return filepath.Join(d.cache, "build", name) } // the product, as it was last built
func (d dirs) run() string              { return filepath.Join(d.cache, "run") }         // gone with the cluster
func (d dirs) logs() string             { return filepath.Join(d.cache, "log") }         // of the last cluster
func (d dirs) images() string           { return filepath.Join(d.cache, "images") }
func (d dirs) state() string            { return filepath.Join(d.run(), "state.json") }

// cgroup is the name of the cluster's cgroup: another checkout has another.
func (d dirs) cgroup() string {
	return fmt.Sprintf("caesarion-cluster-%x", sha256.Sum256([]byte(d.cache)))[:len("caesarion-cluster-")+8]
}

// The lock of the one cluster that may run.
const clusterLock = "lock"

// lockCluster waits until no other cluster of this checkout runs.
func (d dirs) lockCluster() (*os.File, error) {
	return d.lock(clusterLock, "waiting for another cluster of this checkout to end")
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
