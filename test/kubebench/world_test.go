package kubebench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/store/pgtest"
	"github.com/caesarion/caesarion/test/kubetest"
	"github.com/caesarion/caesarion/test/servertest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// token is what all servers here want of their clients.
const token = "token-of-the-benchmark-long-enough"

// world is where installations of the product are: a namespace, in which their
// account has the chart's rights, and a database server.
type world struct {
	tb         testing.TB
	dir        string
	namespace  string
	kubeconfig string // of the servers' account
	postgres   *pgtest.Server
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	w := &world{tb: tb, dir: servertest.TempDir(tb), namespace: kubetest.Namespace(tb), postgres: pgtest.Start(tb, "fsync=on")}
	w.kubeconfig = filepath.Join(w.dir, "kubeconfig")
	for name, content := range map[string]string{"token": token, "secret": strings.Repeat("a secret ", 8)} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(content), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	w.makeAccount()
	return w
}

// makeAccount makes the servers' account, with the rights of the chart's Role.
func (w *world) makeAccount() {
	w.tb.Helper()
	ctx, kube, name := w.tb.Context(), kubetest.Client(w.tb), metav1.ObjectMeta{Name: "server"}
	_, err := kube.CoreV1().ServiceAccounts(w.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: name}, metav1.CreateOptions{})
	if err != nil {
		w.tb.Fatal(err)
	}
	_, err = kube.RbacV1().Roles(w.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: name, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"create", "get", "list", "watch", "patch", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		w.tb.Fatal(err)
	}
	_, err = kube.RbacV1().RoleBindings(w.namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: name, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "server"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "server", Namespace: w.namespace}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.tb.Fatal(err)
	}
	secret, err := kube.CoreV1().ServiceAccounts(w.namespace).CreateToken(ctx, "server", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		w.tb.Fatal(err)
	}
	admin := kubetest.Config(w.tb)
	config := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"test": {Server: admin.Host, CertificateAuthority: admin.CAFile, CertificateAuthorityData: admin.CAData}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"server": {Token: secret.Status.Token}},
		Contexts:       map[string]*clientcmdapi.Context{"test": {Cluster: "test", AuthInfo: "server"}},
		CurrentContext: "test",
	}
	if err := clientcmd.WriteToFile(config, w.kubeconfig); err != nil {
		w.tb.Fatal(err)
	}
}

// installation is servers that share a pool and a database.
type installation struct {
	*world
	name     string
	database string
	settings string // file
}

// template is what differs between the installations' only template.
type template struct {
	runtimeClass string
	poolSize     int
	cpus         float64
	memory       string
}

// chartLimits are those of the chart's template, hereLimits those of one on one machine.
func chartLimits(class string, poolSize int) template { return template{class, poolSize, 0.5, "5GiB"} }

func hereLimits(class string, poolSize int) template { return template{class, poolSize, 2, "2GiB"} }

// install makes an installation without servers. Its pods go with the test.
func (w *world) install(tb testing.TB, name string, t template) *installation {
	tb.Helper()
	in := &installation{world: w, name: name, database: w.postgres.Database(tb), settings: filepath.Join(w.dir, name+".yaml")}
	class := ""
	if t.runtimeClass != "" {
		class = ", runtime_class: " + t.runtimeClass
	}
	text := fmt.Sprintf(`templates:
  python:
    image: %s
    memory: %s
    cpus: %v
    pool_size: %d
    preload: [numpy, pandas, matplotlib.pyplot]
    kubernetes: {request_memory: 1Gi%s}
`, kubetest.Image(tb, "python"), t.memory, t.cpus, t.poolSize, class)
	if err := os.WriteFile(in.settings, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	return in
}

// server is a process of the product.
type server struct {
	*client.Client
	tb  testing.TB
	cmd *exec.Cmd
	log bytes.Buffer
}

// serve starts a server of the installation.
func (in *installation) serve(tb testing.TB) *server {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	address := l.Addr().String()
	_ = l.Close()
	return start(tb, in.dir, "serve", "--listen", address, "--config", in.settings, "--data-dir", servertest.TempDir(tb),
		"--driver", "kubernetes", "--kubeconfig", in.kubeconfig, "--kube-namespace", in.namespace, "--kube-installation", in.name,
		"--kube-agent-image", kubetest.Image(tb, "server"), "--database-url-file", in.file(tb, "database", in.database),
		"--secret-file", filepath.Join(in.dir, "secret"), "--replica-address", address)
}

func (in *installation) file(tb testing.TB, name, content string) string {
	tb.Helper()
	path := filepath.Join(in.dir, in.name+"-"+name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// serveHere starts a server with the one-machine driver.
func serveHere(tb testing.TB, dir string) *server {
	tb.Helper()
	settings := filepath.Join(dir, "here.yaml")
	if err := os.WriteFile(settings, []byte("templates: {python: {pool_size: 0, memory: 2GiB, cpus: 2}}\n"), 0o600); err != nil {
		tb.Fatal(err)
	}
	return start(tb, dir, "serve", "--listen", "127.0.0.1:0", "--config", settings, "--data-dir", servertest.DataDir(tb), "--on-exit", "delete", "--no-snapshots")
}

// start starts a server with the program that the cluster was built with, and
// waits until it is ready.
func start(tb testing.TB, dir string, args ...string) *server {
	tb.Helper()
	s := &server{tb: tb, cmd: exec.Command("caesarion", append(args, "--json", "--token-file", filepath.Join(dir, "token"), "--log-level", "warn")...)} //nolint:noctx // end
	s.cmd.Env = append(os.Environ(), "CAESARION_TOKEN=", "CAESARION_AGENT=")
	s.cmd.Stderr = &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.end)
	var ready struct{ URL, Detail string }
	if err := json.NewDecoder(out).Decode(&ready); err != nil || ready.URL == "" {
		tb.Fatalf("the server did not start: %s %v\n%s", ready.Detail, err, s.stop())
	}
	if s.Client, err = client.New(ready.URL, client.Options{Token: token}); err != nil {
		tb.Fatal(err)
	}
	return s
}

// stop ends the process and gives what it logged.
func (s *server) stop() string {
	if s.cmd.ProcessState != nil {
		return s.log.String()
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(kubetest.Patience, func() { _ = s.cmd.Process.Kill() })
	_ = s.cmd.Wait()
	kill.Stop()
	return s.log.String()
}

// end stops it; what it says is told when the test has failed.
func (s *server) end() {
	if s.Client != nil {
		s.Close()
	}
	if log := s.stop(); s.tb.Failed() {
		s.tb.Logf("the server's log:\n%s", log)
	}
}
