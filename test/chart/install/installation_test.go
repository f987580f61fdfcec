package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/store/pgtest"
	"github.com/caesarion/caesarion/test/chart/helmtest"
	"github.com/caesarion/caesarion/test/kubetest"
)

const (
	// patience bounds every wait: far beyond what a loaded machine needs.
	patience = 2 * time.Minute
	release  = "caesarion"
)

// installation is the chart, installed by helm in namespaces of its own.
type installation struct {
	namespace string
	sandboxes string
	values    string // file
	kube      *kubernetes.Clientset
	database  string // HOST:PORT, as pods reach it
}

// install installs the chart with its defaults, as docs/operate/kubernetes.md
// says, and more values on top. It goes with the test.
func install(t *testing.T, values string) *installation {
	t.Helper()
	in := &installation{namespace: kubetest.Namespace(t), kube: kubernetes.NewForConfigOrDie(kubetest.Config(t))}
	in.sandboxes = in.namespace + "-sandboxes"
	dsn := in.openDatabase(t)
	kubetest.Kubectl(t, "-n", in.namespace, "create", "secret", "generic", "database", "--from-literal=url="+dsn)

	in.values = filepath.Join(t.TempDir(), "values.yaml")
	server, serverDigest, _ := strings.Cut(kubetest.Image(t, "server"), "@")
	python, pythonDigest, _ := strings.Cut(kubetest.Image(t, "python"), "@")
	text := fmt.Sprintf("image: {repository: %q, digest: %q}\ndatabase: {existingSecret: {name: database}}\nsandboxes: {image: {repository: %q, digest: %q}}\n",
		server, serverDigest, python, pythonDigest)
	if err := os.WriteFile(in.values, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	more := filepath.Join(filepath.Dir(in.values), "more.yaml")
	if err := os.WriteFile(more, []byte(values), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			in.explain(t)
		}
		out, errOut, err := helmtest.Run(t, "uninstall", release, "--namespace", in.namespace, "--ignore-not-found", "--wait", "--timeout=2m")
		if err != nil {
			t.Errorf("helm uninstall: %v\n%s%s", err, out, errOut)
		}
	})
	if out, errOut, err := helmtest.Run(t, "install", release, helmtest.Chart(), "--namespace", in.namespace,
		"--values", in.values, "--values", more, "--wait", "--timeout=3m"); err != nil {
		t.Fatalf("helm install: %v\n%s%s", err, out, errOut)
	}
	in.values += "," + more
	return in
}

// upgrade installs the chart anew with some values set.
func (in *installation) upgrade(t *testing.T, set ...string) {
	t.Helper()
	args := []string{"upgrade", release, helmtest.Chart(), "--namespace", in.namespace, "--values", in.values, "--wait", "--timeout=3m"}
	for _, s := range set {
		args = append(args, "--set", s)
	}
	if out, errOut, err := helmtest.Run(t, args...); err != nil {
		t.Fatalf("helm upgrade %v: %v\n%s%s", set, err, out, errOut)
	}
}

// explain logs what a person would look at.
func (in *installation) explain(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"-n", in.namespace, "get", "all"},
		{"-n", in.namespace, "get", "events", "--sort-by=.lastTimestamp"},
		{"-n", in.namespace, "logs", "-l", "app.kubernetes.io/component=server", "--all-containers", "--prefix", "--tail=40"},
		{"-n", in.namespace, "logs", "-l", "app.kubernetes.io/component=migrate", "--tail=20"},
		{"-n", in.sandboxes, "get", "pods,events"},
	} {
		out, err := exec.CommandContext(context.Background(), "kubectl", args...).CombinedOutput()
		t.Logf("kubectl %s (%v)\n%s", strings.Join(args, " "), err, out)
	}
}

// openDatabase gives the URL of a fresh database as pods reach it: Postgres
// listens on the loopback of the node, and we pass its bytes on.
func (in *installation) openDatabase(t *testing.T) string {
	t.Helper()
	dsn, err := url.Parse(pgtest.New(t))
	if err != nil {
		t.Fatal(err)
	}
	in.database = pass(t, kubetest.NodeIP, dsn.Host)
	dsn.Host = in.database
	return dsn.String()
}

// pass listens on an address of the node and gives each connection on to
// another one, until the test is over.
func pass(t *testing.T, ip, to string) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", net.JoinHostPort(ip, "0"))
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	var wg sync.WaitGroup
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open[c] = true
	}
	wg.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			keep(from)
			wg.Go(func() {
				defer from.Close()
				dest, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				keep(dest)
				defer dest.Close()
				wg.Go(func() {
					_, _ = io.Copy(dest, from) // either end may go first
					_ = dest.Close()
				})
				_, _ = io.Copy(from, dest)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

// api gives a client of the installation's service, with the token that was
// made for it.
func (in *installation) api(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(in.url(t), client.Options{Token: in.token(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func (in *installation) token(t *testing.T) string {
	t.Helper()
	secret, err := in.kube.CoreV1().Secrets(in.namespace).Get(t.Context(), release+"-generated", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return string(secret.Data["token"])
}

func (in *installation) url(t *testing.T) string {
	t.Helper()
	service, err := in.kube.CoreV1().Services(in.namespace).Get(t.Context(), release, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return "http://" + net.JoinHostPort(service.Spec.ClusterIP, "80")
}

// create makes a sandbox.
func create(t *testing.T, api *client.Client, template string) string {
	t.Helper()
	box, err := api.CreateSandbox(t.Context(), v1.CreateSandbox{Template: template})
	if err != nil {
		t.Fatalf("create a sandbox of %q: %v", template, err)
	}
	return box.ID
}

// python runs code in a sandbox and gives what it printed.
func python(t *testing.T, api *client.Client, sandbox, code string) string {
	t.Helper()
	stream, err := api.Execute(t.Context(), sandbox, v1.Execute{Code: code})
	if err != nil {
		t.Fatalf("execute: %v", err)
	}
	defer stream.Close()
	var out strings.Builder
	for {
		e, err := stream.Next()
		if err != nil {
			t.Fatalf("execution: %v (so far: %s)", err, out.String())
		}
		switch e.Type {
		case event.OutputStream:
			var data event.Stream
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Fatal(err)
			}
			out.WriteString(data.Text)
		case event.ExecutionFinished:
			var data event.Finished
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Fatal(err)
			}
			if data.Status != "ok" {
				t.Fatalf("the code ended with %+v: %s", data, out.String())
			}
			return out.String()
		}
	}
}

// podOf gives the name of a sandbox's pod.
func podOf(sandbox string) string { return "sbx-" + strings.TrimPrefix(sandbox, "sbx_") }

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last error
	for {
		done, err := ok(ctx)
		if done {
			return
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s (%v)", what, patience, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// refused gives the problem that a call was answered with.
func refused(t *testing.T, err error) *v1.Problem {
	t.Helper()
	p, ok := errors.AsType[*v1.Problem](err)
	if !ok {
		t.Fatalf("no problem but %v", err)
	}
	return p
}

// post makes a request without a client, for its headers.
func (in *installation) post(t *testing.T, path, body string) (*http.Response, v1.Problem) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, in.url(t)+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+in.token(t))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var p v1.Problem
	_ = json.Unmarshal(text, &p) // not a problem: it stays empty
	return resp, p
}
