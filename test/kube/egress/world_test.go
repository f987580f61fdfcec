package egress

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/store/pgtest"
	"github.com/caesarion/caesarion/test/chart/installed"
	"github.com/caesarion/caesarion/test/egress"
	"github.com/caesarion/caesarion/test/kubetest"
	"github.com/caesarion/caesarion/test/servertest"
)

// planted is a secret's value.
const planted = "planted-90be3f"

// world is an installation, and what lies outside of it: on the node, which is
// a company's network as far as the installation knows.
type world struct {
	*installed.Installation
	api     *servertest.Server
	dsn     string
	outside *egress.Outside
	port    string // of outside without TLS
}

// values are for a small machine. What lists name that is not to be had, is
// there in the cluster, and answers whoever gets to it.
const values = `
server:
  replicas: 2
  preStopSeconds: 3
  resources:
    requests: {cpu: 50m, memory: 128Mi, ephemeral-storage: 64Mi}
  hostAliases:
    - {ip: %[1]s, hostnames: [web.company.test, a.wild.test, deep.b.wild.test, wild.test, both.test]}
    - {ip: %[2]s, hostnames: [inward.test, both.test]}
auth: {mode: accounts, publicURL: "https://python.example.org", signIn: {idle: 1d}}
limits: {default: {egress_per_day: 1GiB}}
egress:
  network: packages
  allowPrivate: [%[1]s/32]
  caCerts: {configMap: {name: company}}
  packageIndexSecret: {name: index}
  cache: {size: 64Mi, volumeSize: 128Mi}
sandboxes:
  requests: {cpu: 10m, memory: 128Mi, ephemeral-storage: 64Mi}
  templates:
    python: {memory: 1Gi, cpus: 0.5, poolSize: 1}
    closed: {memory: 1Gi, cpus: 0.5, network: none}
    listed:
      memory: 1Gi
      cpus: 0.5
      network:
        allow: ["%[1]s:%[3]s", "%[4]s", "web.company.test:%[3]s", "*.wild.test:%[3]s", inward.test, both.test, "%[2]s",
          "%[5]s:443", kubernetes.default.svc.cluster.local, "%[6]s:53", "fd00::1"]
    boxed:
      memory: 1Gi
      cpus: 0.5
      network: {allow: ["%[1]s:%[3]s"]}
      kubernetes: {runtimeClassName: gvisor}
    secret:
      memory: 1Gi
      cpus: 0.5
      network:
        secrets: [{name: KEY, host: "%[4]s", secret: {name: keys, key: api}}]
`

func newWorld(t *testing.T) *world {
	t.Helper()
	o := egress.NewOutside(t, kubetest.NodeIP)
	_, port, _ := net.SplitHostPort(o.Plain.Listener.Addr().String())
	w := &world{dsn: pgtest.New(t), outside: o, port: port}
	text := fmt.Sprintf(values, kubetest.NodeIP, kubetest.MetadataIP, port, o.TLS.Listener.Addr(), kubetest.ServiceIP, kubetest.DNSIP)
	w.Installation = installed.InstallWith(t, w.dsn, text, func(in *installed.Installation) {
		kubetest.Kubectl(t, "-n", in.Namespace, "create", "configmap", "company", "--from-file=ca.crt="+filepath.Clean(o.CAFile))
		kubetest.Kubectl(t, "-n", in.Namespace, "create", "secret", "generic", "index", "--from-literal=url="+o.Plain.URL+"/simple")
		kubetest.Kubectl(t, "-n", in.Namespace, "create", "secret", "generic", "keys", "--from-literal=api="+planted)
	})
	c, err := client.New(w.Loopback(t), client.Options{Token: w.Token(t)})
	if err != nil {
		t.Fatal(err)
	}
	w.api = &servertest.Server{Client: c, Token: w.Token(t)}
	return w
}

// create makes a sandbox of a template.
func (w *world) create(t *testing.T, template string) egress.Box {
	t.Helper()
	return egress.Create(t, w.api, v1.CreateSandbox{Template: template})
}

// podOf gives the name of a sandbox's pod.
func podOf(sandbox string) string { return strings.Replace(sandbox, "_", "-", 1) }

// ready waits for a pod that is nobody's yet.
func (w *world) ready(t *testing.T) (pod string) {
	t.Helper()
	kubetest.Wait(t, "a ready pod", func(ctx context.Context) error {
		list, err := w.Kube.CoreV1().Pods(w.Sandboxes).List(ctx, metav1.ListOptions{LabelSelector: "caesarion.dev/pooled=true"})
		if err != nil {
			return err
		}
		for _, p := range list.Items {
			for _, c := range p.Status.Conditions {
				if c.Type == "Ready" && c.Status == "True" && p.DeletionTimestamp == nil {
					pod = p.Name
					return nil
				}
			}
		}
		return fmt.Errorf("none of %d", len(list.Items))
	})
	return pod
}

// exec runs Python in a pod, as the cluster's administrator can.
func (w *world) exec(t *testing.T, pod, code string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "kubectl", "-n", w.Sandboxes, "exec", pod, "--", "python3", "-c", code).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

// owner gives the pod of the server that has a sandbox.
func (w *world) owner(ctx context.Context, sandbox string) (pod string, err error) {
	conn, err := pgx.Connect(ctx, w.dsn)
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var process string
	err = conn.QueryRow(ctx, "SELECT o.replica FROM owners o JOIN replicas r ON r.id = o.replica WHERE o.key=$1", sandbox).Scan(&process)
	pod, _, _ = strings.Cut(process, "/")
	return pod, err
}

// whoami is a cell that sends a placeholder, and prints what the other end got
// of it; want is that when it got the value.
func (w *world) whoami() (code, want string) {
	return fmt.Sprintf(`import urllib.request
r = urllib.request.Request("%s/whoami", headers={"Authorization": "Bearer {{secret.KEY}}"})
print(urllib.request.urlopen(r, timeout=20).read().decode())`, w.outside.TLS.URL), fmt.Sprintf("%x", sha256.Sum256([]byte("Bearer "+planted)))
}
