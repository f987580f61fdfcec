package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/agentapi"
)

const (
	nodeName   = "node"
	nodeIP     = "10.77.0.1"
	podGateway = "10.88.0.1"
	serviceIP  = "10.96.0.1"
	// Nothing of the world is reachable, so that these stand for it: what a
	// cloud's machines ask for their credentials, and a host outside.
	metadataIP = "169.254.169.254"
	outsideIP  = "203.0.113.1"
	// fakeNodes of the fake tier, of fakePods each.
	fakeNodes = 20
	fakePods  = 500
)

//go:embed config
var configs embed.FS

// nodeMain makes a node of the new namespaces, starts the cluster and runs the
// command. Its end is the cluster's.
func nodeMain(args []string) error {
	if len(args) < 4 || args[3] != "--" {
		return errors.New("node is started by run")
	}
	repo, t, command := args[0], tier(args[2]), args[4:]
	slot, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	outlive(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	d := dirs{repo: repo, cache: filepath.Join(repo, ".cache", "cluster"), slot: slot}
	started := time.Now()
	if err := mountAll(d); err != nil {
		return err
	}
	if err := network(); err != nil {
		return err
	}
	n := &node{dirs: d, tier: t, components: allComponents()}
	if err := n.up(); err != nil {
		return fmt.Errorf("%w\n%s", err, n.lastWords())
	}
	fmt.Fprintf(os.Stderr, "cluster: ready after %.1f s\n", time.Since(started).Seconds())
	if ready := inheritedReady(); ready != nil {
		if _, err := ready.WriteString("ready"); err != nil {
			return err
		}
		_ = ready.Close()
	}
	if len(command) == 0 {
		select {} // until the runner is killed
	}
	return runCommand(command)
}

func runCommand(command []string) error {
	env := commandEnv()
	for _, kv := range env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok { // for the look-up of the command itself
			if err := os.Setenv("PATH", path); err != nil {
				return err
			}
		}
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		status, _ := exit.Sys().(syscall.WaitStatus)
		if status.Signaled() {
			os.Exit(128 + int(status.Signal()))
		}
		os.Exit(exit.ExitCode())
	}
	return err
}

// mountAll gives the cluster its own view of the machine's files.
func mountAll(d dirs) error {
	type mount struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}
	do := func(list ...mount) error {
		for _, m := range list {
			if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
				return fmt.Errorf("mount %s on %s: %w", m.source, m.target, err)
			}
		}
		return nil
	}
	// Our mounts stay here; pods may see those of the node.
	err := do(
		mount{"", "/", "", unix.MS_SLAVE | unix.MS_REC, ""},
		mount{"", "/", "", unix.MS_SHARED | unix.MS_REC, ""},
		mount{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		mount{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
	)
	if err != nil {
		return err
	}
	for _, dir := range []string{"/run/lock", cacheMount, slotMount, tmpMount, runDir + "/var/upper", runDir + "/var/work", runDir + "/sysctl", etcDir + "/cni"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	err = do(
		mount{d.cache, cacheMount, "", unix.MS_BIND, ""},
		mount{d.slotDir(), slotMount, "", unix.MS_BIND, ""},
		mount{d.tmp(), tmpMount, "", unix.MS_BIND, ""},
		// /var/lib/cni, /var/log/containers and the like: private, and gone afterwards.
		mount{"overlay", "/var", "overlay", 0, "lowerdir=/var,upperdir=" + runDir + "/var/upper,workdir=" + runDir + "/var/work"},
	)
	if err != nil {
		return err
	}
	// The kubelet writes what it wants into these, for the whole machine. Here it
	// finds it written, and the machine's stay.
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		file := filepath.Join(runDir, "sysctl", strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(file, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := do(mount{file, "/proc/sys/" + name, "", unix.MS_BIND, ""}); err != nil {
			return err
		}
	}
	return nil
}

// network gives the node its addresses.
func network() error {
	const batch = `link set lo up
link add node0 type bridge
addr add ` + nodeIP + `/24 dev node0
addr add ` + metadataIP + `/32 dev node0
addr add ` + outsideIP + `/32 dev node0
link set node0 up
route add 10.96.0.0/16 dev node0 src ` + nodeIP + "\n" // so that processes of the node reach services
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(batch)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, out)
	}
	for name, value := range map[string]string{
		"ip_forward": "1",
		// Tests play agents on the node: no connection may happen to have their port.
		"ip_local_reserved_ports": strconv.Itoa(agentapi.Port),
	} {
		if err := os.WriteFile("/proc/sys/net/ipv4/"+name, []byte(value), 0o644); err != nil {
			return err
		}
	}
	for ip, answer := range map[string]string{metadataIP: "metadata", outsideIP: "outside"} {
		l, err := net.Listen("tcp", ip+":80")
		if err != nil {
			return err
		}
		go func() { //nolint:gosec // answers tests only
			_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, answer) }))
		}()
	}
	return nil
}

type node struct {
	dirs       dirs
	tier       tier
	components map[string]*component
	api        *api
}

// up starts the components in their order.
func (n *node) up() error {
	token, err := writePKI(pkiDir)
	if err != nil {
		return err
	}
	if n.api, err = newAPI(token); err != nil {
		return err
	}
	if err := n.writeConfigs(); err != nil {
		return err
	}
	if err := serveControl(n.components); err != nil {
		return err
	}
	if err := n.start("etcd", "kube-apiserver"); err != nil {
		return err
	}
	imported := make(chan error, 1)
	go func() {
		if n.tier == tierNode {
			imported <- n.containerd()
			return
		}
		imported <- nil
	}()
	apiserver := func() error { return n.api.healthy("/readyz") }
	if err := n.wait("kube-apiserver", apiserver); err != nil {
		return err
	}
	if err := n.start("kube-controller-manager", "kube-scheduler"); err != nil {
		return err
	}
	if err := <-imported; err != nil {
		return err
	}
	if n.tier == tierNode {
		err = n.start("kubelet", "kube-proxy", "netpol")
	} else {
		err = n.start("kwok")
	}
	if err != nil {
		return err
	}
	if err := n.apply(); err != nil {
		return err
	}
	for name, url := range map[string]string{"kube-controller-manager": "https://127.0.0.1:10257/healthz", "kube-scheduler": "https://127.0.0.1:10259/healthz"} {
		if err := n.wait(name, func() error { return n.api.healthy(url) }); err != nil {
			return err
		}
	}
	// Until its account is there no pod can be made in a namespace.
	account := func() error { return n.api.healthy("/api/v1/namespaces/default/serviceaccounts/default") }
	if err := n.wait("service account", account); err != nil {
		return err
	}
	if n.tier == tierFake {
		return n.wait("node", func() error { return n.api.condition(fmt.Sprintf("/api/v1/nodes/fake-%d", fakeNodes), "Ready") })
	}
	if err := n.wait("node", func() error { return n.api.condition("/api/v1/nodes/"+nodeName, "Ready") }); err != nil {
		return err
	}
	return n.wait("coredns", func() error {
		return n.api.condition("/apis/apps/v1/namespaces/kube-system/deployments/coredns", "Available")
	})
}

func (n *node) start(names ...string) error {
	for _, name := range names {
		if err := n.components[name].start(); err != nil {
			return err
		}
	}
	return nil
}

// wait waits for a component, but not for one that has ended.
func (n *node) wait(name string, ask func() error) error {
	var dead error
	err := wait(name, func() error {
		if c := n.components[name]; c != nil && !c.running() {
			dead = fmt.Errorf("%s has ended", name)
			return nil
		}
		return ask()
	})
	return errors.Join(err, dead)
}

// containerd starts it with the images of the list and no others.
func (n *node) containerd() error {
	images, err := readImages(slotMount + "/images.json")
	if err != nil {
		return err
	}
	c := n.components["containerd"]
	up := func() error {
		if err := c.start(); err != nil {
			return err
		}
		return n.wait("containerd", func() error { _, err := ctr("version"); return err })
	}
	if err := up(); err != nil {
		return err
	}
	missing, _, err := wantedImages(images)
	if err != nil || len(missing) == 0 {
		return err
	}
	inside := dirs{repo: n.dirs.repo, cache: slotMount}
	if err := os.RemoveAll(inside.pristine()); err != nil {
		return err
	}
	for _, i := range missing {
		if i.Name == "python" {
			fmt.Fprintln(os.Stderr, "cluster: importing the sandbox image; once, it takes a while")
		}
		if err := importImage(i); err != nil {
			return err
		}
	}
	_, unwanted, err := wantedImages(images) // the tags of new images were those of old ones
	if err != nil {
		return err
	}
	if len(unwanted) > 0 {
		if _, err := ctr(append([]string{"images", "rm", "--sync"}, unwanted...)...); err != nil {
			return err
		}
	}
	if err := c.stop(syscall.SIGTERM); err != nil {
		return err
	}
	if err := savePristine(inside); err != nil {
		return err
	}
	return up()
}

func (n *node) writeConfigs() error {
	images, err := readImages(slotMount + "/images.json")
	if err != nil && n.tier == tierNode {
		return err
	}
	values := []string{"@CGROUP@", n.dirs.cgroup(), "@CNI@", cniDir()}
	for _, i := range images {
		values = append(values, "@"+strings.ToUpper(i.Name)+"@", i.Tag)
	}
	r := strings.NewReplacer(values...)
	entries, err := configs.ReadDir("config")
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := configs.ReadFile("config/" + e.Name())
		if err != nil {
			return err
		}
		out := filepath.Join(etcDir, e.Name())
		if strings.HasSuffix(out, ".conflist") {
			out = filepath.Join(etcDir, "cni", "10-"+e.Name())
		}
		if err := os.WriteFile(out, []byte(r.Replace(string(text))), 0o644); err != nil {
			return err
		}
	}
	for _, dir := range []string{"etcd", "kubelet", "podlogs", "volplugins"} {
		if err := os.MkdirAll(filepath.Join(slotMount, "run", dir), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// apply makes the objects that a cluster has from the start.
func (n *node) apply() error {
	if n.tier == tierNode {
		return kubectl("apply", "-f", etcDir+"/dns.yaml", "-f", etcDir+"/gvisor.yaml")
	}
	for i := 1; i <= fakeNodes; i++ {
		object := fmt.Sprintf(`{"apiVersion":"v1","kind":"Node","metadata":{"name":"fake-%[1]d","labels":{"kubernetes.io/hostname":"fake-%[1]d"}},
"status":{"capacity":{"cpu":"1000","memory":"4Ti","ephemeral-storage":"10Ti","pods":"%[2]d"},"allocatable":{"cpu":"1000","memory":"4Ti","ephemeral-storage":"10Ti","pods":"%[2]d"}}}`, i, fakePods)
		if _, err := n.api.do(http.MethodPost, "/api/v1/nodes", object); err != nil {
			return err
		}
	}
	return kubectl("apply", "-f", etcDir+"/gvisor.yaml")
}

func kubectl(args ...string) error {
	cmd := exec.Command(cacheMount+"/bin/kube", append([]string{"kubectl", "--kubeconfig=" + kubeconfig}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// lastWords is the end of every component's log.
func (n *node) lastWords() string {
	var b strings.Builder
	for _, name := range sortedKeys(n.components) {
		text, err := os.ReadFile(n.components[name].log())
		if err != nil {
			continue
		}
		lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
		fmt.Fprintf(&b, "---- %s\n%s\n", name, bytes.Join(lines[max(0, len(lines)-5):], []byte("\n")))
	}
	return b.String()
}

// shimEnv tells our gVisor shim which containerd asks it.
func shimEnv() []string {
	out, err := exec.Command("containerd", "--version").Output()
	if err == nil && (strings.Contains(string(out), " 1.6.") || strings.Contains(string(out), " v1.6.")) {
		return []string{"SHIM_PLAIN_ADDRESS=1"}
	}
	return nil
}
