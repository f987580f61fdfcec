package install

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/test/kubetest"
)

const agentPort = "44772"

// dial is Python that says which addresses answer, and what names resolve.
const dial = `
import json, socket
from concurrent.futures import ThreadPoolExecutor
def reach(host, port):
    try:
        socket.create_connection((host, port), timeout=2).close()
        return True
    except OSError:
        return False
def resolves(name):
    try:
        socket.getaddrinfo(name, 443)
        return True
    except OSError:
        return False
addresses, names = json.loads(%q), json.loads(%q)
with ThreadPoolExecutor(16) as pool:
    found = pool.map(lambda a: reach(a.rsplit(":", 1)[0], int(a.rsplit(":", 1)[1])), addresses)
    known = pool.map(resolves, names)
print(json.dumps(dict(zip(addresses, found)) | dict(zip(names, known))))
`

// reached gives what a sandbox reaches of some addresses, and which names it
// can resolve.
func reached(t *testing.T, api *client.Client, box string, addresses, names []string) map[string]bool {
	t.Helper()
	list := func(s []string) string {
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var out map[string]bool
	if err := json.Unmarshal([]byte(python(t, api, box, fmt.Sprintf(dial, list(addresses), list(names)))), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// testNetwork looks from inside of sandboxes, and at them from elsewhere. Each
// "does not answer" has somebody for whom the same address does.
func (in *installation) testNetwork(t *testing.T) {
	ctx, api := t.Context(), in.api(t)
	closed, other, open := create(t, api, ""), create(t, api, ""), create(t, api, "open")
	defer func() {
		for _, box := range []string{closed, other, open} {
			_ = api.DeleteSandbox(ctx, box)
		}
	}()
	servers, err := in.Kube.CoreV1().Pods(in.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=server"})
	if err != nil || len(servers.Items) == 0 {
		t.Fatalf("no replicas: %v", err)
	}
	server := net.JoinHostPort(servers.Items[0].Status.PodIP, "8000")
	service := strings.TrimPrefix(in.URL(t), "http://")
	agent := net.JoinHostPort(in.podIP(t, other), agentPort)
	world := net.JoinHostPort(kubetest.OutsideIP, "80")
	dns := net.JoinHostPort(kubetest.DNSIP, "53")
	name := "kubernetes.default.svc.cluster.local"
	addresses := []string{
		agent, server, service, world, in.Database,
		net.JoinHostPort(kubetest.MetadataIP, "80"), net.JoinHostPort(kubetest.NodeIP, "6443"), net.JoinHostPort(kubetest.NodeIP, "10250"),
		net.JoinHostPort(kubetest.ServiceIP, "443"), dns,
	}
	// The control: the node itself reaches all of them.
	for _, a := range addresses {
		if c, err := net.DialTimeout("tcp", a, patience/10); err != nil {
			t.Errorf("nothing is at %s, so that the test would say nothing: %v", a, err)
		} else {
			_ = c.Close()
		}
	}
	for a, yes := range reached(t, api, closed, addresses, []string{name}) {
		if yes {
			t.Errorf("a sandbox reaches %s", a)
		}
	}
	for a, yes := range reached(t, api, open, addresses, []string{name}) {
		if want := a == world || a == name || a == dns; yes != want {
			t.Errorf("a sandbox whose template allows one address and names: %s is %v", a, yes)
		}
	}

	// Agents from elsewhere: by nobody but the server's pods.
	labels := servers.Items[0].Labels
	own := map[string]string{}
	for _, key := range []string{"app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"} {
		own[key] = labels[key]
	}
	for _, from := range []struct {
		who       string
		namespace string
		labels    map[string]string
		want      bool
	}{
		{"somebody with the server's labels beside it", in.Namespace, own, true}, // the control
		{"another pod beside the server", in.Namespace, nil, false},
		{"a pod with the server's labels elsewhere", kubetest.Namespace(t), own, false},
	} {
		if got := in.dials(t, from.namespace, from.labels, agent); got != from.want {
			t.Errorf("%s reaches an agent: %v", from.who, got)
		}
	}
	// The server's pods: their port, and no other.
	if !in.dials(t, in.Namespace, nil, server) {
		t.Error("a pod does not reach the server")
	}
}

func (in *installation) podIP(t *testing.T, sandbox string) string {
	t.Helper()
	pod, err := in.Kube.CoreV1().Pods(in.Sandboxes).Get(t.Context(), podOf(sandbox), metav1.GetOptions{})
	if err != nil || pod.Status.PodIP == "" {
		t.Fatalf("pod of %s: %v", sandbox, err)
	}
	return pod.Status.PodIP
}

// dials reports whether a pod with these labels reaches an address. It is
// never ready, so that no service sends callers to it.
func (in *installation) dials(t *testing.T, namespace string, labels map[string]string, address string) bool {
	t.Helper()
	yes, no, user := true, false, int64(65532)
	pods := in.Kube.CoreV1().Pods(namespace)
	pod, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "dial-", Labels: labels},
		Spec: corev1.PodSpec{
			RestartPolicy:                corev1.RestartPolicyOnFailure, // a policy may not yet know the pod when it starts
			AutomountServiceAccountToken: &no,
			SecurityContext:              &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &user, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "probe", Image: kubetest.Image(t, "probe"), Command: []string{"/probe"},
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
				ReadinessProbe:  &corev1.Probe{PeriodSeconds: 3600, InitialDelaySeconds: 3600, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(1)}}},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	zero := int64(0)
	defer func() {
		_ = pods.Delete(context.WithoutCancel(t.Context()), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
	}()
	eventually(t, "a probe runs", func(ctx context.Context) (bool, error) {
		p, err := pods.Get(ctx, pod.Name, metav1.GetOptions{})
		return err == nil && p.Status.Phase == corev1.PodRunning, err
	})
	// Three times alike: the first may come before the policies know the pod.
	var last bool
	for try, same := 0, 0; try < 20; try++ {
		out, _ := kubectl(t.Context(), "-n", namespace, "exec", pod.Name, "--", "/probe", "dial", address)
		now := strings.Contains(out, "connected")
		if same++; now != last {
			last, same = now, 1
		}
		if same == 3 {
			return now
		}
	}
	t.Fatalf("%s answers now and then", address)
	return false
}
