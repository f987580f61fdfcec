// Package installed installs the chart in a test's cluster as a person would,
// for tests of what is there then: the real images, Postgres on the node, helm.
package installed

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/caesarion/caesarion/test/chart/helmtest"
	"github.com/caesarion/caesarion/test/kubetest"
)

// Release is the name that the chart is installed under, and so that of the
// service and the deployment.
const Release = "caesarion"

// Installation is the chart, installed by helm in namespaces of its own.
type Installation struct {
	Namespace string // of the server
	Sandboxes string // namespace of the pods that are sandboxes
	Kube      *kubernetes.Clientset
	Database  string   // HOST:PORT, as pods reach it
	files     []string // of values
}

// Install installs the chart with its defaults and more values (YAML) on top.
// The database is the URL of an empty one, as the tests reach it. All of it goes
// with the test.
func Install(tb testing.TB, database, values string) *Installation {
	tb.Helper()
	return InstallWith(tb, database, values, func(*Installation) {})
}

// InstallWith calls prepare before it installs, when the server's namespace is
// there: for secrets that values name.
func InstallWith(tb testing.TB, database, values string, prepare func(*Installation)) *Installation {
	tb.Helper()
	in := &Installation{Namespace: kubetest.Namespace(tb), Kube: kubernetes.NewForConfigOrDie(kubetest.Config(tb))}
	in.Sandboxes = in.Namespace + "-sandboxes"
	kubetest.Kubectl(tb, "-n", in.Namespace, "create", "secret", "generic", "database", "--from-literal=url="+in.OpenDatabase(tb, database))

	prepare(in)
	server, serverDigest, _ := strings.Cut(kubetest.Image(tb, "server"), "@")
	python, pythonDigest, _ := strings.Cut(kubetest.Image(tb, "python"), "@")
	dir := tb.TempDir()
	for name, text := range map[string]string{
		"1-images.yaml": fmt.Sprintf("image: {repository: %q, digest: %q}\ndatabase: {existingSecret: {name: database}}\nsandboxes: {image: {repository: %q, digest: %q}}\n",
			server, serverDigest, python, pythonDigest),
		"2-more.yaml": values,
	} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
		in.files = append(in.files, file)
	}
	slices.Sort(in.files) // the later one wins
	tb.Cleanup(func() {
		if tb.Failed() {
			in.Explain(tb)
		}
		out, errOut, err := helmtest.Run(tb, "uninstall", Release, "--namespace", in.Namespace, "--ignore-not-found", "--wait", "--timeout=2m")
		if err != nil {
			tb.Errorf("helm uninstall: %v\n%s%s", err, out, errOut)
		}
	})
	in.helm(tb, "install")
	return in
}

// OpenDatabase gives the URL of a database as pods reach it: Postgres of tests
// listens on the node's loopback.
func (in *Installation) OpenDatabase(tb testing.TB, database string) string {
	tb.Helper()
	dsn, err := url.Parse(database)
	if err != nil {
		tb.Fatal(err)
	}
	in.Database = pass(tb, kubetest.NodeIP, dsn.Host)
	dsn.Host = in.Database
	return dsn.String()
}

// Upgrade installs the chart anew with some values set.
func (in *Installation) Upgrade(tb testing.TB, set ...string) {
	tb.Helper()
	in.helm(tb, "upgrade", set...)
}

func (in *Installation) helm(tb testing.TB, what string, set ...string) {
	tb.Helper()
	args := []string{what, Release, helmtest.Chart(), "--namespace", in.Namespace, "--values", strings.Join(in.files, ","), "--wait", "--timeout=3m"}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	if out, errOut, err := helmtest.Run(tb, args...); err != nil {
		tb.Fatalf("helm %s %v: %v\n%s%s", what, set, err, out, errOut)
	}
	// Ready pods are part of the service when kube-proxy has heard of them, too.
	service := in.URL(tb) + "/healthz"
	kubetest.Wait(tb, "the service", func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, service, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	})
}

// Explain logs what a person would look at.
func (in *Installation) Explain(tb testing.TB) {
	tb.Helper()
	for _, args := range [][]string{
		{"-n", in.Namespace, "get", "all"},
		{"-n", in.Namespace, "get", "events", "--sort-by=.lastTimestamp"},
		{"-n", in.Namespace, "logs", "-l", "app.kubernetes.io/component=server", "--all-containers", "--prefix", "--tail=60"},
		{"-n", in.Namespace, "logs", "-l", "app.kubernetes.io/component=migrate", "--tail=20"},
		{"-n", in.Sandboxes, "get", "pods,events"},
	} {
		out, err := exec.CommandContext(context.Background(), "kubectl", args...).CombinedOutput()
		tb.Logf("kubectl %s (%v)\n%s", strings.Join(args, " "), err, out)
	}
}

// Token is what callers need; it was made by the installation.
func (in *Installation) Token(tb testing.TB) string {
	tb.Helper()
	secret, err := in.Kube.CoreV1().Secrets(in.Namespace).Get(tb.Context(), Release+"-generated", metav1.GetOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	return string(secret.Data["token"])
}

// URL is that of the service.
func (in *Installation) URL(tb testing.TB) string {
	tb.Helper()
	service, err := in.Kube.CoreV1().Services(in.Namespace).Get(tb.Context(), Release, metav1.GetOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	return "http://" + net.JoinHostPort(service.Spec.ClusterIP, "80")
}

// Loopback gives an address of loopback that leads to the service: a server
// takes that name from everybody.
func (in *Installation) Loopback(tb testing.TB) string {
	tb.Helper()
	return "http://" + pass(tb, "127.0.0.1", strings.TrimPrefix(in.URL(tb), "http://"))
}

// Signal sends a signal to the server's process in a pod: the tests run on its
// node.
func (in *Installation) Signal(tb testing.TB, pod string, sig unix.Signal) {
	tb.Helper()
	p, err := in.Kube.CoreV1().Pods(in.Namespace).Get(tb.Context(), pod, metav1.GetOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	found := 0
	groups, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range groups {
		group, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(group, []byte("pod"+string(p.UID))) {
			continue
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if !bytes.HasPrefix(command, []byte("/caesarion\x00")) {
			continue // pause
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			tb.Fatal(err)
		}
		if err := unix.Kill(pid, sig); err != nil {
			tb.Fatal(err)
		}
		found++
	}
	if found != 1 {
		tb.Fatalf("%d processes of %s on this node", found, pod)
	}
}

// Servers gives the server's pods that are not on their way out, by name.
func (in *Installation) Servers(ctx context.Context) ([]corev1.Pod, error) {
	list, err := in.Kube.CoreV1().Pods(in.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=server"})
	if err != nil {
		return nil, err
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning })
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	return pods, nil
}

// pass listens on an address of the node and gives each connection on to
// another one, until the test is over.
func pass(tb testing.TB, ip, to string) string {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		tb.Fatal(err)
	}
	var (
		mu     sync.Mutex
		closed bool
		open   = map[net.Conn]bool{}
		wg     sync.WaitGroup
	)
	// keep remembers a connection, and ends it if the test is over already.
	keep := func(c net.Conn) (forget func()) {
		mu.Lock()
		defer mu.Unlock()
		if closed {
			_ = c.Close()
		}
		open[c] = true
		return func() {
			_ = c.Close()
			mu.Lock()
			defer mu.Unlock()
			delete(open, c)
		}
	}
	wg.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer keep(from)()
				dest, err := net.Dial("tcp", to)
				if err != nil {
					return // what is there is gone for now
				}
				defer keep(dest)()
				wg.Go(func() {
					_, _ = io.Copy(dest, from) // either end may go first
					_ = dest.Close()
				})
				_, _ = io.Copy(from, dest)
			})
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		closed = true
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}
