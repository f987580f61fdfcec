package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// state is what exec and down know of the cluster that runs.
type state struct {
	Runner int  `json:"runner"` // its death ends the cluster
	Init   int  `json:"init"`   // pid 1 of the cluster, as the machine counts
	Kept   bool `json:"kept"`   // by up, until down
}

// Descriptors that the runner's children inherit.
const (
	readyFD = 3 // node and hold: "ready" is written to it
	aliveFD = 3 // sweep: ends when the runner does
	lockFD  = 4 // sweep: the lock
)

// runMain has a cluster while command runs; without a command until it is killed.
func runMain(d dirs, t tier, command []string) error {
	// The kernel ends our children with the thread that started them.
	runtime.LockOSThread()
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root")
	}
	if err := checkHost(t); err != nil {
		return err
	}
	if err := checkDisk(d, t); err != nil {
		return err
	}
	if err := compile(d, t); err != nil {
		return err
	}
	d, lock, err := d.lockCluster()
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := sweep(d); err != nil { // of a sweeper that was killed
		return err
	}
	if t == tierNode {
		if err := install(d); err != nil {
			return err
		}
	}
	if err := makeCgroups(d.cgroup()); err != nil {
		return err
	}
	for _, dir := range []string{d.run(), d.logs(), d.tmp()} {
		if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
			return err
		}
	}
	if err := os.Chmod(d.tmp(), 0o1777); err != nil { //nolint:gosec // as /tmp is
		return err
	}
	ended, err := startSweeper(d, lock)
	if err != nil {
		return err
	}

	// SIGINT from a terminal reaches the command too, whose end is ours.
	outlive(syscall.SIGINT)
	cmd := exec.Command("/proc/self/exe", append([]string{"init", d.repo, strconv.Itoa(d.slot), string(t), "--"}, command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if ready := inheritedReady(); ready != nil {
		cmd.ExtraFiles = []*os.File{ready}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = cmd.Start()
	if err == nil {
		err = writeJSON(d.state(), state{Runner: os.Getpid(), Init: cmd.Process.Pid, Kept: len(command) == 0})
		if err != nil {
			_ = cmd.Process.Kill()
		}
		werr := cmd.Wait()
		if exit, ok := errors.AsType[*exec.ExitError](werr); ok && exit.ExitCode() > 0 {
			werr = commandStatus(exit.ExitCode())
		}
		err = errors.Join(err, werr)
	}
	return errors.Join(err, ended())
}

// inheritedReady is where "up" waits for the word.
func inheritedReady() *os.File {
	if os.Getenv("CLUSTER_READY") == "" {
		return nil
	}
	return os.NewFile(readyFD, "ready")
}

// startSweeper starts the process that cleans up after this one, however it
// ends. The function that it returns waits for that.
func startSweeper(d dirs, lock *os.File) (ended func() error, err error) {
	alive, mine, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer alive.Close()
	log, err := os.Create(d.logs() + "/sweep.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", "sweep", strconv.Itoa(d.slot))
	cmd.Dir = d.repo
	cmd.Stdout, cmd.Stderr = log, log // not the runner's: whoever reads those would wait for us
	cmd.ExtraFiles = []*os.File{alive, lock}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return func() error {
		_ = mine.Close()
		if err := cmd.Wait(); err != nil {
			return fmt.Errorf("cleaning up: %w, see %s", err, log.Name())
		}
		return nil
	}, nil
}

// upMain starts a cluster in the background.
func upMain(d dirs, t tier) error {
	if _, _, err := kept(d); err == nil {
		return errors.New("a cluster is up; `cluster down` ends it")
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", "hold", "--tier="+string(t))
	cmd.Env = append(os.Environ(), "CLUSTER_READY=1")
	logName := d.cache + "/up.log"
	log, err := os.Create(logName)
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	_ = w.Close()
	word, err := io.ReadAll(io.LimitReader(r, 5))
	if err != nil || string(word) != "ready" {
		_ = cmd.Wait()
		said, _ := os.ReadFile(logName)
		return fmt.Errorf("the cluster did not start:\n%s", said)
	}
	fmt.Println("The cluster is up:  cluster exec -- kubectl get nodes")
	return nil
}

// kept finds the cluster that up has started, never one that a test has.
func kept(d dirs) (dirs, state, error) {
	for _, d.slot = range d.slots() {
		lock, err := d.tryLock(d.clusterLock())
		if err != nil {
			return d, state{}, err
		}
		if lock != nil {
			_ = lock.Close()
			continue
		}
		var s state
		raw, err := os.ReadFile(d.state())
		if err == nil && json.Unmarshal(raw, &s) == nil && s.Kept {
			return d, s, nil
		}
	}
	return d, state{}, errors.New("no cluster is up; `cluster up` starts one")
}

func execMain(d dirs, command []string) error {
	if len(command) == 0 {
		return errors.New("exec needs a command after --")
	}
	_, s, err := kept(d)
	if err != nil {
		return err
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return err
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	args := []string{"nsenter", "-t", strconv.Itoa(s.Init), "-n", "-m", "-p", "--wd=" + wd, "--"}
	return syscall.Exec(nsenter, append(args, command...), commandEnv())
}

func downMain(d dirs) error {
	d, s, err := kept(d)
	if err != nil {
		return err
	}
	if err := unix.Kill(s.Runner, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	lock, err := d.lock(d.clusterLock(), "ending") // the sweeper's, until all is gone
	if err != nil {
		return err
	}
	return lock.Close()
}

// commandEnv is the environment of commands in the cluster.
func commandEnv() []string {
	env := []string{
		"KUBECONFIG=" + kubeconfig,
		"CAESARION_KUBE=" + runDir,
		"PATH=" + binPath(),
		"TMPDIR=" + tmpMount, // goes with the cluster, also when a test is killed
	}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if name != "KUBECONFIG" && name != "PATH" && name != "CLUSTER_READY" && name != "TMPDIR" {
			env = append(env, kv)
		}
	}
	return env
}

// binPath finds the cluster's binaries first.
func binPath() string {
	return slotMount + "/bin:" + cacheMount + "/bin:" + os.Getenv("PATH")
}

// initMain is pid 1 of the cluster: it starts the node and reaps what the
// node's shims leave.
func initMain(args []string) error {
	// Signals from a terminal are for the command; we end when the node does.
	outlive(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	files := []*os.File{os.Stdin, os.Stdout, os.Stderr}
	if ready := inheritedReady(); ready != nil {
		files = append(files, ready)
	}
	node, err := os.StartProcess("/proc/self/exe", append([]string{"cluster", "node"}, args...), &os.ProcAttr{Files: files})
	if err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case pid == node.Pid && status.Signaled():
			os.Exit(128 + int(status.Signal()))
		case pid == node.Pid:
			os.Exit(status.ExitStatus())
		}
	}
}

// sweepMain waits for the runner's end and cleans up.
func sweepMain(args []string) error {
	outlive(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	_ = os.NewFile(lockFD, "lock") // ours until we exit
	if _, err := io.Copy(io.Discard, os.NewFile(aliveFD, "alive")); err != nil {
		return err
	}
	d, err := findDirs()
	if err != nil {
		return err
	}
	if len(args) != 1 {
		return errors.New("sweep is started by run")
	}
	if d.slot, err = strconv.Atoi(args[0]); err != nil {
		return err
	}
	fmt.Println(time.Now().Format(time.TimeOnly), "sweeping")
	return sweep(d)
}

// outlive lets signals pass by. To ignore them would let the children do so too.
func outlive(signals ...os.Signal) { signal.Notify(make(chan os.Signal, 1), signals...) }

func writeJSON(name string, v any) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", raw, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}
