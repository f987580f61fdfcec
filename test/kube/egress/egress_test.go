package egress

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/caesarion/caesarion/test/chart/installed"
	"github.com/caesarion/caesarion/test/egress"
	"github.com/caesarion/caesarion/test/kubetest"
)

// TestEgress installs the chart once.
func TestEgress(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"packages", w.testPackages},
		{"a list", w.testList},
		{"nothing else leaves", w.testNothingElse},
		{"the owner is killed", w.testOwnerKilled},
		{"the first user", w.testFirstUser},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					w.Explain(t)
				}
			})
			c.test(t)
		})
	}
}

// A ready pod has no way out before it is somebody's, and the door afterwards.
func (w *world) testPackages(t *testing.T) {
	pod := w.ready(t)
	const ask = `
import urllib.request, urllib.error
try:
    print(urllib.request.build_opener(urllib.request.ProxyHandler({"http": "http://127.0.0.1:44773"})).open("%s", timeout=20).read())
except urllib.error.HTTPError as e:
    print(e, e.headers["Caesarion-Egress"])
except OSError as e:
    print("no answer", e)`
	index := w.outside.Plain.URL + "/simple/tinypure/"
	if got := w.exec(t, pod, fmt.Sprintf(ask, index)); !strings.Contains(got, egress.NoNetwork[len("403: "):]) || !strings.Contains(got, "off") {
		t.Errorf("a ready pod gets %q", got)
	}
	sb := w.create(t, "")
	if podOf(sb.ID) != pod {
		t.Errorf("the sandbox is %s, and %s was ready", sb.ID, pod)
	}
	sb.Want("a pure one", "%pip install tinypure", "Successfully installed tinypure-1.0")
	sb.Want("without a restart", "import tinypure; print(tinypure.answer)", "42\n")
	sb.Want("nothing else", egress.Fetch(w.outside.Plain.URL+"/hello"), "only packages by pip and uv are")

	closed := w.create(t, "closed")
	if got := closed.Run("%pip install tinypure"); strings.Count(got, "[caesarion] This sandbox has no network: nothing can be downloaded or installed.") != 1 {
		t.Errorf("%%pip without a network shows %q", got)
	}
	closed.Want("the index itself", egress.Fetch(index), egress.NoNetwork)
}

func (w *world) testList(t *testing.T) {
	sb := w.create(t, "listed")
	servers, err := w.Servers(t.Context())
	if err != nil || len(servers) != 2 {
		t.Fatalf("%d servers, %v", len(servers), err)
	}
	at := func(host string) string { return "http://" + net.JoinHostPort(host, w.port) + "/hello" }
	const hello = "b'hello'"
	for _, c := range []struct{ name, url, want string }{
		{"an address", at(kubetest.NodeIP), hello},
		{"an address with TLS, whose authority is the company's", w.outside.TLS.URL + "/hello", hello},
		{"a name", at("web.company.test"), hello},
		{"a name below a wildcard", at("a.wild.test"), hello},
		{"a name two below", at("deep.b.wild.test"), hello},
		{"the wildcard's own name", at("wild.test"), "not among"},
		{"another host", "http://example.com/", "not among"},
		{"another host with TLS", "https://example.com/", "not among"},
		{"another port", "http://web.company.test:81/", "not among"},
		{"a name that leads to metadata", "http://inward.test/latest/", "403"},
		{"metadata", "http://" + kubetest.MetadataIP + "/latest/", "403"},
		{"metadata, written as a number", "http://2852039166/latest/", "403"},
		{"metadata as IPv6", "http://[::ffff:169.254.169.254]/latest/", "403"},
		{"a redirect to metadata", w.outside.Plain.URL + "/inward", "403"},
		{"the API server", "https://" + kubetest.ServiceIP + "/healthz", "403"},
		{"the API server by its name", "http://kubernetes.default.svc.cluster.local/", "403"},
		{"cluster DNS", "http://" + kubetest.DNSIP + ":53/", "403"},
		{"a private IPv6 address", "http://[fd00::1]/", "403"},
		{"a public IPv6 address", "http://[2606:4700:4700::1111]/", "not among"},
		{"the server that holds the door", "http://" + servers[0].Status.PodIP + ":8000/healthz", "not among"},
		{"the server's service", strings.Replace(w.URL(t), ":80", "", 1) + "/healthz", "not among"},
		{"the agent", "http://127.0.0.2:44772/health", "not among"},
	} {
		got := sb.Run(egress.Fetch(c.url))
		if !strings.Contains(got, c.want) || strings.Contains(got, "metadata'") {
			t.Errorf("%s: %s: got %q, want %q in it", c.name, c.url, got, c.want)
		}
	}
	// One address of two is metadata: it must never be the one that answers.
	for range 5 {
		if got := sb.Run(egress.Fetch("http://both.test/")); strings.Contains(got, "metadata") {
			t.Fatalf("a name with two addresses: %q", got)
		}
	}
}

// apart is Python that tries addresses of the cluster without the proxy, at
// once, and prints those that answer.
const apart = `
import json, socket
from concurrent.futures import ThreadPoolExecutor
def tcp(host, port):
    socket.create_connection((host, port), timeout=5).close()
def dns(host, port): # a name with something told in it
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.sendto(b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x06secret\x07example\x03com\0\0\x01\0\x01", (host, port))
    s.recv(512)
def attempt(a):
    kind, address = a.split("/")
    host, port = address.rsplit(":", 1)
    try:
        {"tcp": tcp, "dns": dns}[kind](host.strip("[]"), int(port))
        return a
    except OSError:
        return None
all = json.loads('%s')
def resolve(name):
    try:
        socket.getaddrinfo(name, 80)
        return name
    except OSError:
        return None
names = ("kubernetes.default.svc.cluster.local", "secret.example.com", "web.company.test")
with ThreadPoolExecutor(32) as pool:
    found = [a for a in [*pool.map(attempt, all), *pool.map(resolve, names)] if a]
print("tried", len(all), "reached", found)`

// While programs get out by the door, the pod itself reaches nothing.
func (w *world) testNothingElse(t *testing.T) {
	other := w.create(t, "closed")
	p, err := w.Kube.CoreV1().Pods(w.Sandboxes).Get(t.Context(), podOf(other.ID), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	servers, err := w.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addresses := []string{
		strings.TrimPrefix(w.URL(t), "http://"), w.Database, w.outside.Plain.Listener.Addr().String(),
		kubetest.ServiceIP + ":443", kubetest.NodeIP + ":6443", kubetest.NodeIP + ":10250", kubetest.DNSIP + ":53",
		kubetest.MetadataIP + ":80", kubetest.OutsideIP + ":80", net.JoinHostPort(p.Status.PodIP, "44772"),
	}
	for _, s := range servers {
		addresses = append(addresses, net.JoinHostPort(s.Status.PodIP, "8000"))
	}
	for _, a := range addresses { // from the node all of it is there
		conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp", a)
		if err != nil {
			t.Errorf("not even from the node: %v", err)
			continue
		}
		_ = conn.Close()
	}
	var tries []string
	for _, a := range addresses {
		tries = append(tries, "tcp/"+a)
	}
	for _, ip := range []string{kubetest.DNSIP, kubetest.NodeIP, kubetest.OutsideIP, servers[0].Status.PodIP} {
		tries = append(tries, "dns/"+ip+":53")
	}
	list, err := json.Marshal(append(tries, "tcp/"+net.JoinHostPort(p.Status.PodIP, "44773")))
	if err != nil {
		t.Fatal(err)
	}
	for _, template := range []string{"closed", "listed", "boxed"} {
		t.Run(template, func(t *testing.T) {
			t.Parallel()
			sb := w.create(t, template)
			door, want := egress.Fetch(w.outside.Plain.URL+"/hello"), "b'hello'"
			if template == "closed" {
				want = egress.NoNetwork
			}
			sb.Want("the door before", door, want)
			sb.Want("the cluster", fmt.Sprintf(apart, list), fmt.Sprintf("tried %d reached []", len(tries)+1))
			got := sb.Run(fmt.Sprintf(egress.Nothing, fmt.Sprintf("(%q, %s)", kubetest.NodeIP, w.port)))
			if strings.Contains(got, "GETS OUT") || strings.Count(got, " fails: ") != 12 || !strings.HasSuffix(got, "tried\n") {
				t.Errorf("%s", got)
			}
			sb.Want("the door after", door, want)
		})
	}
}

// A server dies that holds the door of a sandbox: another one opens it, with the
// same policy, the same authority and the same values of secrets.
func (w *world) testOwnerKilled(t *testing.T) {
	sb := w.create(t, "secret")
	whoami, want := w.whoami()
	sb.Want("a secret", whoami, want)
	sb.Want("what is to be there still", "import os; told = os.environ['SSL_CERT_FILE']; n = len(open(told).read()); print('noted')", "noted")
	before, err := w.owner(t.Context(), sb.ID)
	if err != nil {
		t.Fatal(err)
	}
	w.Signal(t, before, unix.SIGKILL) // and it does not come back
	kubetest.Kubectl(t, "-n", w.Namespace, "delete", "pod", before, "--grace-period=0", "--force")
	kubetest.Wait(t, "another owner", func(ctx context.Context) error {
		pod, err := w.owner(ctx, sb.ID)
		if err == nil && pod == before {
			err = errors.New("it is still " + pod)
		}
		return err
	})
	kubetest.Wait(t, "the sandbox", func(ctx context.Context) error {
		r, err := w.api.Run(ctx, sb.ID, "print(n)")
		if err == nil && r.Status != "ok" {
			err = fmt.Errorf("%+v", r)
		}
		return err
	})
	sb.Want("the secret, by another server", whoami, want)
	sb.Want("the same certificates are trusted", "print(n == len(open(told).read()))", "True")
	sb.Want("the same policy", egress.Fetch("http://example.com/"), "not among")
	if got := sb.Run("!env; cat /proc/1/environ 2>/dev/null; grep -rs planted- /tmp /workspace ~"); strings.Contains(got, planted) {
		t.Errorf("the secret is in the sandbox: %s", got)
	}
	kubetest.Wait(t, "both servers", func(ctx context.Context) error {
		return w.bothReady(ctx)
	})
}

// docs/operate/kubernetes.md makes the first user so.
func (w *world) testFirstUser(t *testing.T) {
	out := kubetest.Kubectl(t, "-n", w.Namespace, "exec", "deployment/"+installed.Release, "--", "/caesarion", "--json", "user", "add", "ann@example.org", "--org", "Acme", "--operator")
	var made struct{ ID, Email, Link string }
	if err := json.Unmarshal([]byte(out), &made); err != nil || made.ID == "" || !strings.HasPrefix(made.Link, "https://python.example.org/") {
		t.Errorf("%v in %s", err, out)
	}
}

func (w *world) bothReady(ctx context.Context) error {
	d, err := w.Kube.AppsV1().Deployments(w.Namespace).Get(ctx, installed.Release, metav1.GetOptions{})
	if err == nil && d.Status.ReadyReplicas != 2 {
		err = fmt.Errorf("%d are ready", d.Status.ReadyReplicas)
	}
	return err
}
