package kubetest

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Tier is how much of a cluster is real.
type Tier string

// The tiers.
const (
	Node Tier = "node" // all of it
	Fake Tier = "fake" // pods are only said to run
)

// inside is set in the cluster: the folder of its files.
const inside = "CAESARION_KUBE"

// why tests of this process have no cluster.
var whyNot string

// Main runs the tests of a package in a cluster of their own and gives the exit
// status.
func Main(m *testing.M, tiers ...Tier) int {
	if os.Getenv(inside) != "" {
		return m.Run()
	}
	flag.Parse()
	tier := Node
	if len(tiers) > 0 {
		tier = tiers[0]
	}
	switch {
	case testing.Short():
		whyNot = "-short: no cluster"
	case flag.Lookup("test.list").Value.String() != "":
		whyNot = "only listing"
	case os.Geteuid() != 0:
		whyNot = "a cluster needs root"
	default:
		whyNot = lacks(tier)
	}
	if whyNot != "" {
		return m.Run() // the tests that need none
	}
	status, err := again(tier)
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubetest:", err)
		return 1
	}
	return status
}

// lacks says which of the distribution's packages is missing.
func lacks(tier Tier) string {
	if tier == Fake {
		return ""
	}
	for _, name := range []string{"containerd", "runc", "nft", "iptables", "ip", "conntrack"} {
		if _, err := exec.LookPath(name); err != nil {
			return "there is no " + name + "; scripts/deps.sh kube installs what a cluster needs"
		}
	}
	return ""
}

// again runs this test binary in the cluster.
func again(tier Tier) (status int, err error) {
	tool, err := clusterTool()
	if err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	args := []string{"run", "--tier=" + string(tier), "--", self}
	if os.Getenv("CAESARION_CLUSTER") == "up" {
		args = []string{"exec", "--", self}
	}
	// The kernel ends the cluster with the thread that started it.
	runtime.LockOSThread()
	cmd := exec.Command(tool, append(args, os.Args[1:]...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() { // go test that is killed takes nobody with it
		for parent := os.Getppid(); os.Getppid() == parent; {
			time.Sleep(time.Second)
		}
		_ = cmd.Process.Kill()
	}()
	err = cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// clusterTool builds the command that starts clusters; go build knows whether
// there is anything to do.
func clusterTool() (string, error) {
	dir, err := repository()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, ".cache", "cluster", "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	tool := filepath.Join(bin, "cluster")
	mine := fmt.Sprintf("%s.%d", tool, os.Getpid()) // others may be building it, too
	build := exec.Command("go", "build", "-o", mine, "./test/cluster")
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build of test/cluster: %w\n%s", err, out)
	}
	return tool, os.Rename(mine, tool)
}

// lookAtInputs lets go test know that the result depends on what the cluster is
// made of: the binaries are built and used by other processes.
var lookAtInputs = sync.OnceFunc(func() {
	if dir, err := repository(); err == nil {
		_, _ = os.Stat(filepath.Join(dir, ".cache", "cluster", "build", "inputs")) // that it was asked for is noted
	}
})

// repository gives the folder of the product's module.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/caesarion/caesarion\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("the tests do not run in the repository")
		}
		dir = filepath.Dir(dir)
	}
}

// Need skips where there is no cluster; with CI=true that fails.
func Need(tb testing.TB) {
	tb.Helper()
	switch {
	case os.Getenv(inside) != "":
		lookAtInputs()
	case whyNot == "":
		tb.Fatal("the package's TestMain does not call kubetest.Main")
	case os.Getenv("CI") == "true" && !testing.Short():
		tb.Fatal(whyNot)
	default:
		tb.Skip(whyNot)
	}
}
