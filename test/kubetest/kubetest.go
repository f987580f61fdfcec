package kubetest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Addresses in the cluster.
const (
	NodeIP     = "10.77.0.1"       // of the node, where the tests run
	MetadataIP = "169.254.169.254" // answers "metadata" on port 80
	OutsideIP  = "203.0.113.1"     // answers "outside" on port 80
	ServiceIP  = "10.96.0.1"       // of the API server, for pods
	DNSIP      = "10.96.0.10"
)

// RuntimeClass is the name of gVisor's.
const RuntimeClass = "gvisor"

// Patience bounds what should take a moment, on a busy machine too.
const Patience = 2 * time.Minute

// Config is how the administrator reaches the API server.
func Config(tb testing.TB) *rest.Config {
	tb.Helper()
	Need(tb)
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		tb.Fatal(err)
	}
	config.QPS = -1 // what is measured is the server
	return config
}

// Client is a client of the API server for the administrator.
func Client(tb testing.TB) kubernetes.Interface {
	tb.Helper()
	client, err := kubernetes.NewForConfig(Config(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return client
}

var notOfAName = regexp.MustCompile(`[^a-z0-9]+`)

// Namespace makes a namespace for the test, in which Pod Security "restricted"
// is enforced and pods can be made at once. It is gone when the test ends. Of a test that
// failed the pods and events are in its log.
func Namespace(tb testing.TB) string {
	tb.Helper()
	client := Client(tb)
	ctx, cancel := context.WithTimeout(tb.Context(), Patience)
	defer cancel()
	prefix := strings.Trim(notOfAName.ReplaceAllString(strings.ToLower(tb.Name()), "-"), "-")
	ns, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: prefix[:min(len(prefix), 40)] + "-",
		Labels:       map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}, metav1.CreateOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Log("\n" + kubectl("get", "pods", "-o", "wide", "-n", ns.Name) + kubectl("get", "events", "-n", ns.Name,
				"-o=custom-columns=AT:.firstTimestamp,LAST:.lastTimestamp,OBJECT:.involvedObject.name,REASON:.reason,MESSAGE:.message"))
		}
		deleteNamespace(tb, client, ns.Name)
	})
	// Without the account no pod is let in.
	Wait(tb, "the namespace's service account", func(ctx context.Context) error {
		_, err := client.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return ns.Name
}

// deleteNamespace returns when no pod is left. The rest follows by itself: the
// controller waits five seconds for it, which a test need not.
func deleteNamespace(tb testing.TB, client kubernetes.Interface, name string) {
	tb.Helper()
	err := poll(context.Background(), func(ctx context.Context) error {
		if err := client.CoreV1().Namespaces().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
		// Without their grace: nothing of them is needed any more.
		now := metav1.DeleteOptions{GracePeriodSeconds: new(int64)}
		if err := client.CoreV1().Pods(name).DeleteCollection(ctx, now, metav1.ListOptions{}); err != nil {
			return err
		}
		pods, err := client.CoreV1().Pods(name).List(ctx, metav1.ListOptions{})
		if err == nil && len(pods.Items) > 0 {
			err = fmt.Errorf("%d pods are still there", len(pods.Items))
		}
		return err
	})
	if err != nil {
		tb.Errorf("delete of namespace %s: %v", name, err)
	}
}

// Wait asks until there is no error, and fails the test when that takes too long.
func Wait(tb testing.TB, what string, ask func(ctx context.Context) error) {
	tb.Helper()
	if err := poll(tb.Context(), ask); err != nil {
		tb.Fatalf("waiting for %s: %v", what, err)
	}
}

func poll(ctx context.Context, ask func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	var last error
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil && last != nil {
			return last // err says only that time is over
		}
		last = err
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Image gives the reference by digest of an image that pods can use: "server"
// (the server and the agent), "python" (the sandbox image) or "probe" (test/cluster/probe).
func Image(tb testing.TB, name string) string {
	tb.Helper()
	Need(tb)
	raw, err := os.ReadFile(filepath.Join(os.Getenv(inside), "slot", "images.json"))
	if err != nil {
		tb.Fatal(err)
	}
	var images []struct{ Name, Reference string }
	if err := json.Unmarshal(raw, &images); err != nil {
		tb.Fatal(err)
	}
	for _, i := range images {
		if i.Name == name {
			return i.Reference
		}
	}
	tb.Fatalf("no image %q in %s", name, raw)
	return ""
}

// Kubectl runs kubectl as the administrator and gives what it says on standard
// output; its failure is the test's.
func Kubectl(tb testing.TB, args ...string) string {
	tb.Helper()
	Need(tb)
	cmd := exec.CommandContext(tb.Context(), "kubectl", args...)
	out, err := cmd.Output()
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output returns it bare
		tb.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, exit.Stderr)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return string(out)
}

// kubectl gives whatever kubectl says.
func kubectl(args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	out, _ := exec.CommandContext(ctx, "kubectl", args...).CombinedOutput()
	return string(out)
}

// A Process is a component of the cluster, for tests that break it.
type Process struct {
	tb   testing.TB
	name string
}

// Component gives one of etcd, kube-apiserver, kube-controller-manager,
// kube-scheduler, containerd, kubelet, kube-proxy and netpol; in the fake tier kwok
// instead of the last four. It runs again when the test ends.
func Component(tb testing.TB, name string) Process {
	tb.Helper()
	Need(tb)
	p := Process{tb, name}
	tb.Cleanup(func() {
		_ = p.do("thaw")
		if err := p.do("start"); err != nil {
			tb.Error(err)
		}
	})
	return p
}

// Stop ends it with SIGTERM and returns when it has ended.
func (p Process) Stop() { p.tb.Helper(); p.must("stop") }

// Kill ends it with SIGKILL and returns when it has ended.
func (p Process) Kill() { p.tb.Helper(); p.must("kill") }

// Start starts it again; it does not wait until it works.
func (p Process) Start() { p.tb.Helper(); p.must("start") }

// Freeze lets it stand still, as a machine that hangs.
func (p Process) Freeze() { p.tb.Helper(); p.must("freeze") }

// Thaw lets it go on.
func (p Process) Thaw() { p.tb.Helper(); p.must("thaw") }

// Rejoin has the cluster's own parts begin anew that need the API server. Left
// alone after it was away they come back when they like, up to a minute later.
func Rejoin(tb testing.TB) {
	tb.Helper()
	for _, name := range []string{"kube-controller-manager", "kube-scheduler", "kubelet"} {
		p := Component(tb, name)
		p.Kill()
		p.Start()
	}
}

func (p Process) must(what string) {
	p.tb.Helper()
	if err := p.do(what); err != nil {
		p.tb.Fatal(err)
	}
}

var control = http.Client{Transport: &http.Transport{
	DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(os.Getenv(inside), "control.sock"))
	},
}}

func (p Process) do(what string) error {
	resp, err := control.Post("http://cluster/"+p.name+"/"+what, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s %s: %s", what, p.name, text)
	}
	return nil
}
