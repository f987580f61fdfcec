package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests start the command that they are in.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"run", "init", "node", "sweep"}, os.Args[1]) {
		main()
		return
	}
	os.Exit(m.Run())
}

// machine is what a cluster must leave as it was.
type machine struct {
	sysctls map[string]string
	links   string
	mounts  map[string]bool // places
	cgroups []string
}

func look(t *testing.T, d dirs) machine {
	t.Helper()
	m := machine{sysctls: map[string]string{}, mounts: map[string]bool{}}
	for _, pattern := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic*", "kernel/keys/*", "net/ipv4/*", "net/ipv4/conf/*/*", "net/bridge/*", "net/netfilter/*", "fs/inotify/*"} {
		files, _ := filepath.Glob("/proc/sys/" + pattern)
		for _, file := range files {
			if value, err := os.ReadFile(file); err == nil && filepath.Base(file) != "nf_conntrack_count" {
				m.sysctls[file] = string(value)
			}
		}
	}
	// Of this checkout's clusters: other sandboxes may come and go meanwhile.
	links, _ := os.ReadDir("/sys/class/net")
	for _, l := range links {
		if l.Name() == "node0" || l.Name() == "cni0" {
			m.links += l.Name() + " "
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if place := strings.Fields(line)[4]; strings.HasPrefix(place, d.slotDir()) || strings.HasPrefix(place, runDir) || place == "/run" || place == "/var" || strings.HasPrefix(place, "/proc") {
			m.mounts[place] = true
		}
	}
	m.cgroups, _ = filepath.Glob("/sys/fs/cgroup/*/" + d.cgroup())
	own, _ := filepath.Glob("/sys/fs/cgroup/" + d.cgroup())
	m.cgroups = append(m.cgroups, own...)
	return m
}

// process is one that a pid alone would not name for long.
type process struct {
	pid     int
	started string // since boot, proc_pid_stat(5)
}

// family gives the processes below pid, and the network namespaces they are in.
func family(t *testing.T, pid int) (processes map[process]string, networks map[string]bool) {
	t.Helper()
	processes, networks = map[process]string{}, map[string]bool{}
	children := map[int][]int{}
	all := map[int]process{}
	names := map[int]string{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		p, name, parent, ok := readStat(file)
		if ok {
			all[p.pid], names[p.pid] = p, name
			children[parent] = append(children[parent], p.pid)
		}
	}
	for todo := []int{pid}; len(todo) > 0; {
		pid, todo = todo[0], append(todo[1:], children[todo[0]]...)
		processes[all[pid]] = names[pid]
		if ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid)); err == nil {
			networks[ns] = true
		}
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	delete(networks, ours)
	return processes, networks
}

func readStat(file string) (p process, name string, parent int, ok bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return p, "", 0, false
	}
	first, rest, _ := bytes.Cut(text, []byte(" ("))
	end := bytes.LastIndexByte(rest, ')')
	fields := strings.Fields(string(rest[end+1:]))
	p.pid, _ = strconv.Atoi(string(first))
	parent, _ = strconv.Atoi(fields[1])
	p.started = fields[19]
	return p, string(rest[:end]), parent, fields[0] != "Z"
}

// A cluster in use is killed without warning. Another one, which waited for it,
// then has the machine as the first one had.
func TestKilledClusterLeavesNothing(t *testing.T) {
	d := needCluster(t)
	d, lock, err := d.lockCluster() // until others are done
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CAESARION_CLUSTER_SLOT", strconv.Itoa(d.slot)) // the second has to wait for the first
	before := look(t, d)
	_ = lock.Close()

	first := exec.Command("/proc/self/exe", "run", "--", "sh", "-ec", `
kubectl run plain --image=`+registry+`probe:test --restart=Never
kubectl run gvisor --image=`+registry+`probe:test --restart=Never --overrides='{"spec":{"runtimeClassName":"gvisor"}}'
kubectl wait --for=condition=Ready pod/plain pod/gvisor --timeout=120s
echo in use
sleep 1000`)
	out := start(t, first)
	waitFor(t, out, "in use")

	second := exec.Command("/proc/self/exe", "run", "--", "sh", "-ec", "test $(kubectl get pods -A -o name | wc -l) = 1; exit 7")
	waits := start(t, second)
	waitFor(t, waits, "waiting for another cluster")

	during := look(t, d)
	if !maps.Equal(before.sysctls, during.sysctls) {
		t.Errorf("while a cluster runs: %s", difference(before.sysctls, during.sysctls))
	}
	processes, networks := family(t, first.Process.Pid)
	t.Logf("killing %d processes in %d networks", len(processes), len(networks))
	if len(processes) < 15 || len(networks) < 3 {
		t.Errorf("a cluster with two pods has more processes and networks than these: %v %v", processes, networks)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	waitFor(t, waits, "ready after") // the second has the lock: the first is gone
	inside := func(networks map[string]bool) (pids []int) {
		links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
		seconds, _ := family(t, second.Process.Pid)
		for _, link := range links {
			pid, _ := strconv.Atoi(strings.Split(link, "/")[2])
			now, _, _, ok := readStat(fmt.Sprintf("/proc/%d/stat", pid))
			if _, known := seconds[now]; known || !ok {
				continue
			}
			if ns, err := os.Readlink(link); err == nil && networks[ns] {
				pids = append(pids, pid)
			}
		}
		return pids
	}

	for p, name := range processes {
		if now, _, _, ok := readStat(fmt.Sprintf("/proc/%d/stat", p.pid)); ok && now == p {
			t.Errorf("left behind: process %d %s", p.pid, name)
		}
	}
	// The second cluster's networks may have the same numbers again.
	for _, pid := range inside(networks) {
		t.Errorf("left behind: process %d in one of %v", pid, networks)
	}
	err = second.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 7 {
		t.Errorf("the second cluster's command: %v, want its exit status 7", err)
	}

	if _, lock, err = d.lockCluster(); err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	after := look(t, d)
	if !maps.Equal(before.sysctls, after.sysctls) {
		t.Errorf("after the cluster: %s", difference(before.sysctls, after.sysctls))
	}
	if !maps.Equal(before.mounts, after.mounts) || before.links != after.links {
		t.Errorf("mounts and links were %v %s, are %v %s", before.mounts, before.links, after.mounts, after.links)
	}
	if len(after.cgroups) > 0 {
		t.Errorf("left behind: %v", after.cgroups)
	}
	if _, err := os.Stat(d.run()); err == nil {
		t.Errorf("left behind: %s", d.run())
	}
}

// What even the sweeper could not clean up, the next cluster does.
func TestKilledSweeper(t *testing.T) {
	d := needCluster(t)
	d, lock, err := d.lockCluster()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CAESARION_CLUSTER_SLOT", strconv.Itoa(d.slot))
	_ = lock.Close()
	first := exec.Command("/proc/self/exe", "run", "--tier=fake", "--", "sh", "-c", "echo in use; sleep 1000")
	waitFor(t, start(t, first), "in use")
	processes, _ := family(t, first.Process.Pid)
	killed := 0
	for p := range processes {
		cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
		if bytes.HasPrefix(cmdline, []byte("/proc/self/exe\x00sweep\x00")) {
			if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			killed++
		}
	}
	if killed != 1 {
		t.Fatalf("%d sweepers", killed)
	}
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	if _, err := os.Stat(d.run()); err != nil {
		t.Errorf("somebody has cleaned up: %v", err)
	}
	second := exec.Command("/proc/self/exe", "run", "--tier=fake", "--", "kubectl", "get", "nodes")
	out := start(t, second)
	waitFor(t, out, "fake-1 ")
	if err := second.Wait(); err != nil {
		t.Errorf("the next cluster: %v", err)
	}
	if after := look(t, d); len(after.cgroups) > 0 {
		t.Errorf("left behind: %v", after.cgroups)
	}
	for p, name := range processes {
		if now, _, _, ok := readStat(fmt.Sprintf("/proc/%d/stat", p.pid)); ok && now == p {
			t.Errorf("left behind: process %d %s", p.pid, name)
		}
	}
}

func needCluster(t *testing.T) dirs {
	t.Helper()
	err := checkHost(tierNode)
	if os.Geteuid() != 0 {
		err = errors.New("a cluster needs root")
	}
	if testing.Short() {
		t.Skip("-short: no cluster")
	}
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	d, err := findDirs()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// start starts a command and gives the lines that it writes to either output.
func start(t *testing.T, cmd *exec.Cmd) <-chan string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := make(chan string, 1000)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines
}

func waitFor(t *testing.T, lines <-chan string, text string) {
	t.Helper()
	late := time.After(15 * time.Minute) // a first build is among it
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("it ended without saying %q", text)
			}
			t.Log(line)
			if strings.Contains(line, text) {
				return
			}
		case <-late:
			t.Fatalf("it does not say %q", text)
		}
	}
}

func difference(a, b map[string]string) string {
	var list []string
	for name := range a {
		if a[name] != b[name] {
			list = append(list, fmt.Sprintf("%s was %q, is %q", name, a[name], b[name]))
		}
	}
	return strings.Join(list, "; ")
}
