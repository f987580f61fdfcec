package kubetest_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/caesarion/caesarion/test/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// probe is a pod that may stand in a restricted namespace.
func probe(image, name, runtime string, args ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: new(int64(1)),
			AutomountServiceAccountToken:  new(bool),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   new(true),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "c", Image: image, Args: args,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(bool),
					ReadOnlyRootFilesystem:   new(true),
					Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
			}},
		},
	}
	if runtime != "" {
		pod.Spec.RuntimeClassName = &runtime
	}
	if len(args) == 0 {
		pod.Spec.Containers[0].ReadinessProbe = &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromString("http"), Path: "/"}},
			PeriodSeconds: 1,
		}
	}
	return pod
}

// start makes a pod and waits until it is ready.
func start(t *testing.T, ns string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	pods := kubetest.Client(t).CoreV1().Pods(ns)
	if _, err := pods.Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	kubetest.Wait(t, "pod "+pod.Name, func(ctx context.Context) error {
		var err error
		if pod, err = pods.Get(ctx, pod.Name, metav1.GetOptions{}); err != nil {
			return err
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("not ready: %s %+v", pod.Status.Phase, pod.Status.ContainerStatuses)
	})
	return pod
}

// ask runs a probe's question in a pod.
func ask(t *testing.T, pod *corev1.Pod, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "kubectl", append([]string{"exec", "-n", pod.Namespace, pod.Name, "--", "/probe"}, args...)...).CombinedOutput()
	return string(out), err
}

func serverOf(pod *corev1.Pod) string { return "http://" + pod.Status.PodIP + ":8080/" }

func TestPods(t *testing.T) {
	for runtime, want := range map[string]string{"": "Linux version", kubetest.RuntimeClass: "gvisor"} {
		t.Run("runtime "+runtime, func(t *testing.T) {
			ns := kubetest.Namespace(t)
			pod := start(t, ns, probe(kubetest.Image(t, "probe"), "p", runtime))
			client := http.Client{Timeout: kubetest.Patience}
			resp, err := client.Get(serverOf(pod))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if !strings.Contains(string(body), "hello from p") || !strings.Contains(string(body), want) {
				t.Errorf("the pod says %q", body)
			}
			if logs := kubetest.Kubectl(t, "logs", "-n", ns, "p"); !strings.Contains(logs, "listening") {
				t.Errorf("its log says %q", logs)
			}
		})
	}
}

// The sandbox image and the server's are there, and run under gVisor as in a
// restricted namespace.
func TestImages(t *testing.T) {
	ns := kubetest.Namespace(t)
	python := probe(kubetest.Image(t, "python"), "python", kubetest.RuntimeClass, "-c", "import numpy; print('numpy', numpy.__version__)")
	python.Spec.Containers[0].Command = []string{"python3"}
	python.Spec.SecurityContext.RunAsUser = new(int64(1000))
	server := probe(kubetest.Image(t, "server"), "server", "", "version")
	for _, pod := range []*corev1.Pod{python, server} {
		if _, err := kubetest.Client(t).CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		kubetest.Wait(t, pod.Name, func(ctx context.Context) error {
			got, err := kubetest.Client(t).CoreV1().Pods(ns).Get(ctx, pod.Name, metav1.GetOptions{})
			if err == nil && got.Status.Phase != corev1.PodSucceeded {
				err = fmt.Errorf("%s %+v", got.Status.Phase, got.Status.ContainerStatuses)
			}
			return err
		})
	}
	if out := kubetest.Kubectl(t, "logs", "-n", ns, "python"); !strings.HasPrefix(out, "numpy ") {
		t.Errorf("python says %q", out)
	}
	if out := kubetest.Kubectl(t, "logs", "-n", ns, "server"); !strings.Contains(out, "v0.0.0-test") {
		t.Errorf("the server says %q", out)
	}
}

func TestDNS(t *testing.T) {
	ns := kubetest.Namespace(t)
	image := kubetest.Image(t, "probe")
	start(t, ns, probe(image, "web", ""))
	_, err := kubetest.Client(t).CoreV1().Services(ns).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "web"},
			Ports:    []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, runtime := range []string{"", kubetest.RuntimeClass} {
		client := start(t, ns, probe(image, "client"+runtime, runtime))
		for _, host := range []string{"web", "web." + ns + ".svc.cluster.local"} {
			kubetest.Wait(t, "service "+host, func(context.Context) error {
				out, err := ask(t, client, "get", "http://"+host+"/")
				if err != nil || !strings.Contains(out, "hello from web") {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			})
		}
		if out, err := ask(t, client, "get", "http://no-such."+ns+".svc.cluster.local/"); err == nil || !strings.Contains(out, "no such host") {
			t.Errorf("an unknown name gives %q", out)
		}
	}
}

// Each question is asked with a policy and, as the control, without.
func TestNetworkPolicy(t *testing.T) {
	ns := kubetest.Namespace(t)
	image := kubetest.Image(t, "probe")
	server := start(t, ns, probe(image, "server", ""))
	friend := start(t, ns, probe(image, "friend", kubetest.RuntimeClass))
	stranger := start(t, ns, probe(image, "stranger", ""))

	questions := map[string]string{
		"metadata": "http://" + kubetest.MetadataIP + "/", "outside": "http://" + kubetest.OutsideIP + "/", "pod": serverOf(server),
	}
	for what, url := range questions {
		for _, pod := range []*corev1.Pod{friend, stranger} {
			if out, err := ask(t, pod, "get", url); err != nil {
				t.Fatalf("without a policy %s can't reach %s: %s", pod.Name, what, out)
			}
		}
	}
	policies := kubetest.Client(t).NetworkingV1().NetworkPolicies(ns)
	apply := func(p *networkingv1.NetworkPolicy) {
		t.Helper()
		if _, err := policies.Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	selects := func(name string) *metav1.LabelSelector {
		return &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}
	}
	apply(&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "server"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *selects("server"),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From:  []networkingv1.NetworkPolicyPeer{{PodSelector: selects("friend")}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromString("http"))}},
			}},
		},
	})
	refused := func(pod *corev1.Pod, what string) {
		t.Helper()
		kubetest.Wait(t, "the policy", func(context.Context) error {
			if out, err := ask(t, pod, "get", questions[what]); err == nil {
				return fmt.Errorf("%s still reaches %s: %s", pod.Name, what, out)
			}
			return nil
		})
	}
	refused(stranger, "pod")
	if out, err := ask(t, friend, "get", questions["pod"]); err != nil {
		t.Errorf("the policy keeps out the friend: %s", out)
	}
	// No way out of the friend at all: nor to the API server, nor to the DNS.
	apply(&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "friend"},
		Spec:       networkingv1.NetworkPolicySpec{PodSelector: *selects("friend"), PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}},
	})
	refused(friend, "pod")
	addresses := []string{kubetest.ServiceIP + ":443", kubetest.NodeIP + ":6443", kubetest.NodeIP + ":10250", kubetest.DNSIP + ":53", kubetest.MetadataIP + ":80", kubetest.OutsideIP + ":80"}
	for _, address := range addresses {
		if out, err := ask(t, stranger, "dial", address); err != nil {
			t.Errorf("without a policy %s can't be reached: %s", address, out)
		}
		if out, err := ask(t, friend, "dial", address); err == nil {
			t.Errorf("the policy lets the friend reach %s: %s", address, out)
		}
	}
}

func TestPodSecurityRefuses(t *testing.T) {
	ns := kubetest.Namespace(t)
	pod := probe(kubetest.Image(t, "probe"), "root", "")
	pod.Spec.SecurityContext.RunAsNonRoot = nil
	_, err := kubetest.Client(t).CoreV1().Pods(ns).Create(t.Context(), pod, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "PodSecurity") {
		t.Errorf("a pod that may be root: %v", err)
	}
}

// A component that a test has stopped is back afterwards.
func TestComponent(t *testing.T) {
	client := kubetest.Client(t)
	version := func(context.Context) error { _, err := client.Discovery().ServerVersion(); return err }
	t.Run("stopped", func(t *testing.T) {
		watching, err := client.CoreV1().Nodes().Watch(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer watching.Stop()
		began := time.Now()
		kubetest.Component(t, "kube-apiserver").Stop() // also while somebody watches
		t.Logf("it has ended after %v", time.Since(began).Round(time.Millisecond))
		if err := version(t.Context()); err == nil {
			t.Error("an API server that has ended answers")
		}
	})
	began := time.Now()
	kubetest.Wait(t, "the API server", version)
	t.Logf("it answers again after %v", time.Since(began).Round(time.Millisecond))
}
