package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// component is a process of the cluster.
type component struct {
	name string
	path string
	args []string
	env  []string

	mu     sync.Mutex // guards the rest
	cmd    *exec.Cmd  // nil while it does not run
	ended  chan struct{}
	wanted bool // its end is news
}

func kube(name string, args ...string) *component {
	return &component{name: name, path: cacheMount + "/bin/kube", args: append([]string{name}, args...)}
}

func (c *component) log() string { return filepath.Join(slotMount, "log", c.name+".log") }

// start starts it; it does nothing while it runs.
func (c *component) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd != nil {
		return nil
	}
	log, err := os.OpenFile(c.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(c.path, c.args...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = log, log
	// A signal from the terminal is for the command.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	ended := make(chan struct{})
	c.cmd, c.ended, c.wanted = cmd, ended, true
	go func() {
		err := cmd.Wait()
		c.mu.Lock()
		wanted := c.wanted
		c.cmd = nil
		c.mu.Unlock()
		if wanted {
			fmt.Fprintf(os.Stderr, "cluster: %s ended by itself: %v; see %s\n", c.name, err, filepath.Base(c.log()))
		}
		close(ended)
	}()
	return nil
}

// signal sends it a signal that ends it, and waits for that.
func (c *component) stop(sig syscall.Signal) error {
	c.mu.Lock()
	cmd, ended := c.cmd, c.ended
	c.wanted = false
	c.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-ended:
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("%s does not end", c.name)
	}
}

func (c *component) running() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cmd != nil
}

// send sends a signal that does not end it.
func (c *component) send(sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		return fmt.Errorf("%s does not run", c.name)
	}
	return c.cmd.Process.Signal(sig)
}

// controlSocket takes the commands of tests that break the cluster.
const controlSocket = runDir + "/control.sock"

// serveControl lets tests stop and start components:
// POST /NAME/stop, kill, start, freeze or thaw.
func serveControl(components map[string]*component) error {
	l, err := net.Listen("unix", controlSocket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{name}/{do}", func(w http.ResponseWriter, r *http.Request) {
		c := components[r.PathValue("name")]
		if c == nil {
			http.Error(w, fmt.Sprintf("no component %q; there are %v", r.PathValue("name"), sortedKeys(components)), http.StatusNotFound)
			return
		}
		var err error
		switch r.PathValue("do") {
		case "start":
			err = c.start()
		case "stop":
			err = c.stop(syscall.SIGTERM)
		case "kill":
			err = c.stop(syscall.SIGKILL)
		case "freeze":
			err = c.send(syscall.SIGSTOP)
		case "thaw":
			err = c.send(syscall.SIGCONT)
		default:
			err = errors.New("stop, kill, start, freeze or thaw")
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	go func() { _ = http.Serve(l, mux) }() //nolint:gosec // a socket of tests
	return nil
}

// allComponents are the processes of both tiers, by name.
func allComponents() map[string]*component {
	run := slotMount + "/run"
	list := []*component{
		kube("etcd", "--name=s", "--data-dir="+run+"/etcd",
			"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
			"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
			"--initial-cluster=s=http://127.0.0.1:2380", "--unsafe-no-fsync", "--log-level=warn"),
		kube("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--bind-address=0.0.0.0", "--advertise-address="+nodeIP, "--secure-port=6443",
			"--tls-cert-file="+pkiDir+"/apiserver.crt", "--tls-private-key-file="+pkiDir+"/apiserver.key", "--client-ca-file="+pkiDir+"/ca.crt",
			"--token-auth-file="+pkiDir+"/tokens.csv", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--service-account-key-file="+pkiDir+"/sa.pub", "--service-account-signing-key-file="+pkiDir+"/sa.key",
			"--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16",
			"--allow-privileged=true", "--cert-dir="+run+"/apiserver-certs", "--kubelet-preferred-address-types=InternalIP,Hostname",
			// Asked to end it tells its watches, and does not wait for them to think of it.
			"--shutdown-watch-termination-grace-period=2s"),
		kube("kube-controller-manager", "--kubeconfig="+pkiDir+"/kcm.kubeconfig", "--bind-address=127.0.0.1", "--leader-elect=false",
			"--root-ca-file="+pkiDir+"/ca.crt", "--service-account-private-key-file="+pkiDir+"/sa.key", "--use-service-account-credentials=false",
			"--cluster-signing-cert-file="+pkiDir+"/ca.crt", "--cluster-signing-key-file="+pkiDir+"/ca.key",
			"--authentication-kubeconfig="+pkiDir+"/kcm.kubeconfig", "--authorization-kubeconfig="+pkiDir+"/kcm.kubeconfig",
			"--kube-api-qps=300", "--kube-api-burst=600",
			// Of a node that falls silent the cluster hears after 20 seconds, not 50.
			"--node-monitor-grace-period=20s", "--node-monitor-period=2s"),
		kube("kube-scheduler", "--kubeconfig="+pkiDir+"/scheduler.kubeconfig", "--bind-address=127.0.0.1", "--leader-elect=false",
			"--authentication-kubeconfig="+pkiDir+"/scheduler.kubeconfig", "--authorization-kubeconfig="+pkiDir+"/scheduler.kubeconfig",
			"--kube-api-qps=300", "--kube-api-burst=600"),
		{
			name: "containerd", path: "containerd", args: []string{"-c", etcDir + "/containerd.toml"},
			// One gVisor shim for all containers of a pod. containerd 1.6 wants its
			// bare address, later ones JSON.
			env: append([]string{"RUNSC_SHIM_GROUPING=1"}, shimEnv()...),
		},
		kube("kubelet", "--config="+etcDir+"/kubelet.yaml", "--kubeconfig="+pkiDir+"/kubelet.kubeconfig", "--hostname-override="+nodeName,
			"--node-ip="+nodeIP, "--root-dir="+run+"/kubelet", "--cert-dir="+run+"/kubelet/pki"),
		kube("kube-proxy", "--config="+etcDir+"/proxy.yaml"),
		kube("netpol", kubeconfig, nodeIP, podGateway),
		{
			name: "kwok", path: cacheMount + "/bin/kwok", args: []string{
				"--kubeconfig=" + kubeconfig, "--manage-all-nodes=true", "--node-lease-duration-seconds=20",
				"--server-address=127.0.0.1:10247", "--config=" + cacheMount + "/bin/kwok.yaml",
			},
		},
	}
	all := map[string]*component{}
	for _, c := range list {
		c.env = append(c.env, "PATH="+binPath())
		all[c.name] = c
	}
	return all
}
