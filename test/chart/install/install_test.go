package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/chart/helmtest"
	"github.com/caesarion/caesarion/test/kubetest"
)

// The templates of the installation: one that may go nowhere, one that may
// call one address and cluster DNS, one under gVisor.
const templates = `
sandboxes:
  requests: {cpu: 10m, memory: 256Mi, ephemeral-storage: 64Mi}
  templates:
    python: {memory: 1Gi, cpus: 0.5, poolSize: 1}
    open:
      memory: 1Gi
      cpus: 0.5
      network:
        dns: true
        egress: [{to: [{ipBlock: {cidr: %s/32}}], ports: [{port: 80, protocol: TCP}]}]
    isolated:
      memory: 1Gi
      cpus: 0.5
      kubernetes: {runtimeClassName: gvisor}
`

// TestInstallation installs the chart once and looks at all of it.
func TestInstallation(t *testing.T) {
	t.Parallel()
	in := install(t, fmt.Sprintf(templates, kubetest.OutsideIP))

	t.Run("helm test", func(t *testing.T) {
		out, log, err := helmtest.Run(t, "test", release, "--namespace", in.Namespace, "--timeout=3m")
		if err != nil || !strings.Contains(log, "the answer is 45") {
			t.Errorf("no answer (%v) in:\n%s%s", err, out, log)
		}
	})
	t.Run("stateful", func(t *testing.T) {
		api := in.api(t)
		box := create(t, api, "")
		python(t, api, box, "x = 6 * 7")
		if got := python(t, api, box, "print(x)"); got != "42\n" {
			t.Errorf("x is %q", got)
		}
		if err := api.DeleteSandbox(t.Context(), box); err != nil {
			t.Error(err)
		}
		eventually(t, "the pod of a deleted sandbox goes", func(ctx context.Context) (bool, error) {
			_, err := in.Kube.CoreV1().Pods(in.Sandboxes).Get(ctx, podOf(box), metav1.GetOptions{})
			return apierrors.IsNotFound(err), err
		})
	})
	t.Run("gvisor", func(t *testing.T) {
		api := in.api(t)
		box := create(t, api, "isolated")
		if got := python(t, api, box, "print(open('/proc/version').read())"); !strings.Contains(got, "gvisor") {
			t.Errorf("not gVisor's kernel: %s", got)
		}
		_ = api.DeleteSandbox(t.Context(), box)
	})
	t.Run("doctor", func(t *testing.T) {
		out := kubetest.Kubectl(t, "-n", in.Namespace, "exec", "deployment/"+release, "--", "/caesarion", "doctor")
		for _, want := range []string{"ok    cluster ", "takes the pods of 3 templates", "ok    database "} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
	})
	t.Run("metrics", in.testMetrics)
	t.Run("rights", in.testRights)
	t.Run("network", in.testNetwork)
	t.Run("pods", in.testPods)
	t.Run("disruption", in.testDisruption)
	t.Run("quota", in.testQuota)
	t.Run("upgrade", in.testUpgrade)
	t.Run("uninstall", in.testUninstall)
}

// testMetrics checks that the replicas tell an autoscaler what runs, and tell
// nobody without the token.
func (in *installation) testMetrics(t *testing.T) {
	api := in.api(t)
	running := func(ctx context.Context) (int, error) {
		pods, err := in.Kube.CoreV1().Pods(in.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=server"})
		if err != nil {
			return 0, err
		}
		n := 0
		for _, p := range pods.Items {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(p.Status.PodIP, "8000")+"/metrics", nil)
			if err != nil {
				return 0, err
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return 0, err
			}
			_ = resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("metrics without the token: %s", resp.Status)
			}
			req.Header.Set("Authorization", "Bearer "+in.Token(t))
			if resp, err = http.DefaultClient.Do(req); err != nil {
				return 0, err
			}
			text, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				return 0, err
			}
			_, rest, ok := strings.Cut(string(text), "\ncaesarion_executions_running ")
			value, _, _ := strings.Cut(rest, "\n")
			of, err := strconv.Atoi(value)
			if !ok || err != nil {
				return 0, fmt.Errorf("no running executions in %s", text)
			}
			n += of
		}
		return n, nil
	}
	want := func(want int) func(context.Context) (bool, error) {
		return func(ctx context.Context) (bool, error) {
			n, err := running(ctx)
			return n == want && err == nil, errors.Join(err, fmt.Errorf("%d run", n))
		}
	}
	eventually(t, "nothing runs", want(0))
	box := create(t, api, "")
	stream, err := api.Execute(t.Context(), box, v1.Execute{Code: "import time; time.sleep(200)"})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	eventually(t, "one runs", want(1))
	if err := api.DeleteSandbox(t.Context(), box); err != nil {
		t.Error(err)
	}
	eventually(t, "nothing runs again", want(0))
}

// testPods checks that the pods of both namespaces are what the settings say.
func (in *installation) testPods(t *testing.T) {
	api := in.api(t)
	box := create(t, api, "")
	defer func() { _ = api.DeleteSandbox(t.Context(), box) }()
	pod, err := in.Kube.CoreV1().Pods(in.Sandboxes).Get(t.Context(), podOf(box), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken || pod.Spec.Subdomain != "sandboxes" {
		t.Errorf("pod: %+v", pod.Spec)
	}
	if text, err := json.Marshal(pod); err != nil || strings.Contains(string(text), in.Token(t)) {
		t.Errorf("the server's token is in a pod (%v)", err)
	}
	if got := python(t, api, box, `
import os
print(os.path.exists("/var/run/secrets/kubernetes.io"), sorted(k for k in os.environ if "SERVICE" in k or "TOKEN" in k or "DATABASE" in k))
try:
    open("/etc/passwd", "a")
    print("writes")
except OSError as e:
    print(e.strerror)
`); !strings.HasPrefix(got, "False []\n") || strings.Contains(got, "writes") {
		t.Errorf("inside of a sandbox: %s", got)
	}
}

// testDisruption checks that the budget is in force: of two replicas one may
// go, and no second one until another is ready.
func (in *installation) testDisruption(t *testing.T) {
	pods, err := in.Kube.CoreV1().Pods(in.Namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=server"})
	if err != nil || len(pods.Items) != 2 {
		t.Fatalf("%d replicas: %v", len(pods.Items), err)
	}
	evict := func(name string) error {
		return in.Kube.PolicyV1().Evictions(in.Namespace).Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: in.Namespace}})
	}
	eventually(t, "the budget allows one", func(ctx context.Context) (bool, error) {
		b, err := in.Kube.PolicyV1().PodDisruptionBudgets(in.Namespace).Get(ctx, release, metav1.GetOptions{})
		return err == nil && b.Status.DisruptionsAllowed == 1, err
	})
	if err := evict(pods.Items[0].Name); err != nil {
		t.Errorf("the first replica may not go: %v", err)
	}
	if err := evict(pods.Items[1].Name); !apierrors.IsTooManyRequests(err) {
		t.Errorf("the second replica may go too: %v", err)
	}
	kubetest.Kubectl(t, "-n", in.Namespace, "rollout", "status", "deployment/"+release, "--timeout=3m")
}

// testQuota fills the quota: callers are told when to come again, and what to
// do, and are served again when there is room.
func (in *installation) testQuota(t *testing.T) {
	api := in.api(t)
	in.Upgrade(t, "sandboxes.quota.hard.pods=2", "sandboxes.templates.python.poolSize=0")
	in.wantSandboxes(t, 0)
	boxes := []string{create(t, api, ""), create(t, api, "")}
	resp, p := in.post(t, "/v1/sandboxes", "{}")
	if resp.StatusCode != 503 || p.Code != "quota-exceeded" || p.Detail == "" || p.Hint == "" {
		t.Errorf("quota full: %d %+v", resp.StatusCode, p)
	}
	if after := resp.Header.Get("Retry-After"); after == "" || after == "0" {
		t.Errorf("Retry-After %q", after)
	}
	for _, box := range boxes {
		if got := python(t, api, box, "print('alive')"); got != "alive\n" {
			t.Errorf("a sandbox of a full namespace says %q", got)
		}
	}
	if err := api.DeleteSandbox(t.Context(), boxes[0]); err != nil {
		t.Fatal(err)
	}
	var again string
	eventually(t, "there is room again", func(ctx context.Context) (bool, error) {
		box, err := api.CreateSandbox(ctx, v1.CreateSandbox{})
		again = box.ID
		return err == nil, err
	})
	for _, box := range []string{boxes[1], again} {
		if err := api.DeleteSandbox(t.Context(), box); err != nil {
			t.Error(err)
		}
	}
}

// wantSandboxes waits until there are so many pods of sandboxes.
func (in *installation) wantSandboxes(t *testing.T, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d sandboxes", n), func(ctx context.Context) (bool, error) {
		pods, err := in.Kube.CoreV1().Pods(in.Sandboxes).List(ctx, metav1.ListOptions{})
		if err != nil {
			return false, err
		}
		return len(pods.Items) == n, fmt.Errorf("there are %d", len(pods.Items))
	})
}

// testUpgrade checks what an upgrade keeps: secrets, sandboxes and their
// variables; and that the autoscaler is taken.
func (in *installation) testUpgrade(t *testing.T) {
	api, token := in.api(t), in.Token(t)
	box := create(t, api, "")
	python(t, api, box, "kept = 'still here'")
	in.Upgrade(t, "autoscaling.enabled=true", "server.logLevel=debug")
	d, err := in.Kube.AppsV1().Deployments(in.Namespace).Get(t.Context(), release, metav1.GetOptions{})
	if err != nil || *d.Spec.Replicas != 2 {
		t.Errorf("the autoscaler began with %d replicas, not with those there were (%v)", *d.Spec.Replicas, err)
	}
	if now := in.Token(t); now != token {
		t.Error("the token is another one")
	}
	if got := python(t, api, box, "print(kept)"); got != "still here\n" {
		t.Errorf("after the upgrade: %q", got)
	}
	hpa, err := in.Kube.AutoscalingV2().HorizontalPodAutoscalers(in.Namespace).Get(t.Context(), release, metav1.GetOptions{})
	if err != nil || len(hpa.Spec.Metrics) != 2 {
		t.Errorf("autoscaler: %+v, %v", hpa, err)
	}
	eventually(t, "the autoscaler finds the deployment", func(ctx context.Context) (bool, error) {
		hpa, err := in.Kube.AutoscalingV2().HorizontalPodAutoscalers(in.Namespace).Get(ctx, release, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		for _, c := range hpa.Status.Conditions {
			if c.Type == "AbleToScale" && c.Status == "True" {
				return true, nil
			}
		}
		return false, fmt.Errorf("%+v", hpa.Status.Conditions)
	})
}

// testUninstall checks that nothing is left but what was there before.
func (in *installation) testUninstall(t *testing.T) {
	helmtest.Must(t, "uninstall", release, "--namespace", in.Namespace, "--wait", "--timeout=3m")
	eventually(t, "the sandboxes' namespace goes", func(ctx context.Context) (bool, error) {
		_, err := in.Kube.CoreV1().Namespaces().Get(ctx, in.Sandboxes, metav1.GetOptions{})
		return apierrors.IsNotFound(err), err
	})
	// Every kind there is, as kubectl get all has only some.
	out := kubetest.Kubectl(t, "api-resources", "--namespaced", "--verbs=list", "--output=name")
	kinds := slices.DeleteFunc(strings.Fields(out), func(kind string) bool { return strings.HasPrefix(kind, "events") })
	var left []string
	eventually(t, "the pods go", func(ctx context.Context) (bool, error) {
		cmd := exec.CommandContext(ctx, "kubectl", "-n", in.Namespace, "get", strings.Join(kinds, ","), "--output=name", "--ignore-not-found")
		text, err := cmd.Output()
		left = slices.DeleteFunc(strings.Fields(string(text)), func(name string) bool {
			return name == "configmap/kube-root-ca.crt" || name == "serviceaccount/default" || name == "secret/database"
		})
		return err == nil && len(left) == 0, fmt.Errorf("left: %v (%w)", left, err)
	})
	// Namespaces of other installations may be there.
	for _, kind := range []string{"clusterroles", "clusterrolebindings", "priorityclasses"} {
		if out := kubetest.Kubectl(t, "get", kind, "-l", "app.kubernetes.io/part-of=caesarion,app.kubernetes.io/instance="+release, "--output=name"); strings.TrimSpace(out) != "" {
			t.Errorf("left: %s", out)
		}
	}
}
