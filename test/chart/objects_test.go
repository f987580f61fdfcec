package chart

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/sandbox/kube"
	"github.com/caesarion/caesarion/test/chart/helmtest"
)

// kinds are the objects that the chart may make. What is not here it may not:
// above all nothing of the cluster's rights.
var kinds = map[string]func() metav1.Object{
	"v1/Namespace":                             func() metav1.Object { return new(corev1.Namespace) },
	"v1/ServiceAccount":                        func() metav1.Object { return new(corev1.ServiceAccount) },
	"v1/Secret":                                func() metav1.Object { return new(corev1.Secret) },
	"v1/ConfigMap":                             func() metav1.Object { return new(corev1.ConfigMap) },
	"v1/Service":                               func() metav1.Object { return new(corev1.Service) },
	"v1/Pod":                                   func() metav1.Object { return new(corev1.Pod) },
	"v1/ResourceQuota":                         func() metav1.Object { return new(corev1.ResourceQuota) },
	"v1/LimitRange":                            func() metav1.Object { return new(corev1.LimitRange) },
	"apps/v1/Deployment":                       func() metav1.Object { return new(appsv1.Deployment) },
	"apps/v1/StatefulSet":                      func() metav1.Object { return new(appsv1.StatefulSet) },
	"batch/v1/Job":                             func() metav1.Object { return new(batchv1.Job) },
	"autoscaling/v2/HorizontalPodAutoscaler":   func() metav1.Object { return new(autoscalingv2.HorizontalPodAutoscaler) },
	"policy/v1/PodDisruptionBudget":            func() metav1.Object { return new(policyv1.PodDisruptionBudget) },
	"networking.k8s.io/v1/NetworkPolicy":       func() metav1.Object { return new(networkingv1.NetworkPolicy) },
	"networking.k8s.io/v1/Ingress":             func() metav1.Object { return new(networkingv1.Ingress) },
	"rbac.authorization.k8s.io/v1/Role":        func() metav1.Object { return new(rbacv1.Role) },
	"rbac.authorization.k8s.io/v1/RoleBinding": func() metav1.Object { return new(rbacv1.RoleBinding) },
	"scheduling.k8s.io/v1/PriorityClass":       func() metav1.Object { return new(schedulingv1.PriorityClass) },
	"gateway.networking.k8s.io/v1/HTTPRoute":   custom,
	"cloud.google.com/v1/BackendConfig":        custom,
	"networking.gke.io/v1/HealthCheckPolicy":   custom,
	"networking.gke.io/v1/GCPBackendPolicy":    custom,
	"monitoring.coreos.com/v1/ServiceMonitor":  custom,
	"monitoring.coreos.com/v1/PrometheusRule":  custom,
}

// customObject is of a kind that its own operator knows; only the head is checked.
type customObject struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              map[string]any `json:"spec"`
}

func custom() metav1.Object { return new(customObject) }

// objects decodes all that a set of values gives. A field that its kind does
// not have is an error, as it is for the API server.
func objects(t *testing.T, docs map[string]string) []metav1.Object {
	t.Helper()
	var out []metav1.Object
	for name, text := range docs {
		for doc := range strings.SplitSeq(text, "---\n") {
			var head metav1.TypeMeta
			if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if head.Kind == "" {
				continue
			}
			decode, ok := kinds[head.APIVersion+"/"+head.Kind]
			if !ok {
				t.Errorf("%s: a %s/%s is none of the chart's business", name, head.APIVersion, head.Kind)
				continue
			}
			object := decode()
			if err := yaml.UnmarshalStrict([]byte(doc), object); err != nil {
				t.Errorf("%s: %s: %v", name, head.Kind, err)
				continue
			}
			out = append(out, object)
		}
	}
	return out
}

// podsOf gives the pods that an object makes.
func podsOf(object metav1.Object) []corev1.PodSpec {
	switch o := object.(type) {
	case *corev1.Pod:
		return []corev1.PodSpec{o.Spec}
	case *appsv1.Deployment:
		return []corev1.PodSpec{o.Spec.Template.Spec}
	case *appsv1.StatefulSet:
		return []corev1.PodSpec{o.Spec.Template.Spec}
	case *batchv1.Job:
		return []corev1.PodSpec{o.Spec.Template.Spec}
	}
	return nil
}

// TestObjects checks what holds whatever the values say.
func TestObjects(t *testing.T) {
	for path, values := range valueSets(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			seen := map[string]bool{}
			for _, object := range objects(t, render(t, values)) {
				id := fmt.Sprintf("%s %s/%s", reflect.TypeOf(object).Elem().Name(), object.GetNamespace(), object.GetName())
				if seen[id] && !strings.HasPrefix(id, "customObject") {
					t.Errorf("%s is there twice", id)
				}
				seen[id] = true
				if object.GetLabels()["app.kubernetes.io/instance"] != release {
					t.Errorf("%s can't be found by its labels: %v", id, object.GetLabels())
				}
				switch ns := object.GetNamespace(); {
				case strings.HasPrefix(id, "Namespace "), strings.HasPrefix(id, "PriorityClass "):
				case ns != namespace && ns != sandboxes && ns != "boxes":
					t.Errorf("%s: in a foreign namespace", id)
				}
				if len(object.GetName()) > 63 {
					t.Errorf("%s: the name is too long", id)
				}
				for _, pod := range podsOf(object) {
					checkRestricted(t, id, pod)
					if object.GetNamespace() != namespace {
						t.Errorf("%s: the chart's own pods are not among the sandboxes", id)
					}
				}
				if role, ok := object.(*rbacv1.Role); ok {
					checkRole(t, role)
				}
				if secret, ok := object.(*corev1.Secret); ok && secret.Namespace != namespace {
					t.Errorf("%s: no secret may lie beside sandboxes", id)
				}
			}
		})
	}
}

// checkRestricted checks what Pod Security's restricted profile asks for, and
// what is right besides.
//
// Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/
func checkRestricted(t *testing.T, id string, pod corev1.PodSpec) {
	t.Helper()
	s := pod.SecurityContext
	if s == nil || s.RunAsNonRoot == nil || !*s.RunAsNonRoot || s.RunAsUser == nil || *s.RunAsUser == 0 ||
		s.SeccompProfile == nil || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("%s: security context of the pod: %+v", id, s)
	}
	if pod.HostNetwork || pod.HostPID || pod.HostIPC {
		t.Errorf("%s: takes something of the host", id)
	}
	if pod.EnableServiceLinks == nil || *pod.EnableServiceLinks {
		t.Errorf("%s: has service links", id)
	}
	if pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken != strings.HasPrefix(id, "Deployment ") {
		t.Errorf("%s: the server alone has a token of the API server", id)
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		s := c.SecurityContext
		if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation ||
			s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem ||
			s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) {
			t.Errorf("%s: security context of %s: %+v", id, c.Name, s)
		}
		if c.Name != "postgres" && !strings.Contains(c.Image, "@sha256:") {
			t.Errorf("%s: image %s can change under its name", id, c.Image)
		}
		if c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
			t.Errorf("%s: %s says nothing of its memory", id, c.Name)
		}
		for _, env := range c.Env {
			if strings.Contains(env.Value, "postgres://") || env.Name == "CAESARION_TOKEN" {
				t.Errorf("%s: %s holds a secret", id, env.Name)
			}
		}
	}
}

// checkRole checks the server's rights, word by word: more of them needs a
// reason, and a change here.
func checkRole(t *testing.T, role *rbacv1.Role) {
	t.Helper()
	if role.Namespace == namespace {
		t.Errorf("role %s is in the server's own namespace", role.Name)
	}
	want := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"create", "get", "list", "watch", "patch", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"events"}, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update"}},
	}
	if !reflect.DeepEqual(role.Rules, want) {
		t.Errorf("rules %+v, want %+v", role.Rules, want)
	}
}

// TestServer checks what keeps a server's sessions when its pods change.
func TestServer(t *testing.T) {
	for _, object := range objects(t, render(t)) {
		d, ok := object.(*appsv1.Deployment)
		if !ok {
			continue
		}
		if r := d.Spec.Strategy.RollingUpdate; r == nil || r.MaxUnavailable.IntValue() != 0 || r.MaxSurge.IntValue() < 1 {
			t.Errorf("strategy %+v: a replica goes before another is there", d.Spec.Strategy)
		}
		pod := d.Spec.Template.Spec
		c := pod.Containers[0]
		if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Sleep == nil ||
			c.Lifecycle.PreStop.Sleep.Seconds >= *pod.TerminationGracePeriodSeconds {
			t.Errorf("lifecycle %+v within %d s", c.Lifecycle, *pod.TerminationGracePeriodSeconds)
		}
		for name, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
			if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != name {
				t.Errorf("%s is not asked: %+v", name, probe)
			}
		}
		if c.StartupProbe == nil {
			t.Error("no startup probe: a slow start would be a kill")
		}
		if len(pod.TopologySpreadConstraints) < 2 {
			t.Errorf("replicas may all lie on one node: %+v", pod.TopologySpreadConstraints)
		}
		return
	}
	t.Error("no Deployment")
}

// TestSandboxesAreShutOff checks the policies of the sandboxes' namespace: who
// is in is chosen by nothing but the server's labels, and what goes out by the
// templates alone.
func TestSandboxesAreShutOff(t *testing.T) {
	for path, values := range valueSets(t) {
		if strings.HasSuffix(path, "/existing.txtar") { // switched off there
			continue
		}
		var denied bool
		for _, object := range objects(t, render(t, values)) {
			p, ok := object.(*networkingv1.NetworkPolicy)
			if !ok || p.Namespace == namespace {
				continue
			}
			if len(p.Spec.PodSelector.MatchLabels) == 0 && len(p.Spec.PolicyTypes) == 2 && len(p.Spec.Ingress)+len(p.Spec.Egress) == 0 {
				denied = true
			}
			for _, rule := range p.Spec.Ingress {
				if len(rule.From) != 1 || rule.From[0].PodSelector == nil || rule.From[0].NamespaceSelector == nil ||
					rule.From[0].PodSelector.MatchLabels["app.kubernetes.io/component"] != "server" ||
					len(rule.Ports) != 1 || rule.Ports[0].Port.IntValue() != 44772 {
					t.Errorf("%s: %s lets in %+v", path, p.Name, rule)
				}
			}
			if len(p.Spec.Egress) > 0 && (p.Spec.PodSelector.MatchLabels["caesarion.dev/template"] == "" || !strings.HasSuffix(path, "/templates.txtar")) {
				t.Errorf("%s: %s lets out %+v", path, p.Name, p.Spec.Egress)
			}
		}
		if !denied {
			t.Errorf("%s: nothing denies what nobody allows", path)
		}
	}
}

// TestSettingsAreTheServers checks that the server takes the file that the
// chart writes for it.
func TestSettingsAreTheServers(t *testing.T) {
	for path, values := range valueSets(t) {
		for _, object := range objects(t, render(t, values)) {
			c, ok := object.(*corev1.ConfigMap)
			if !ok {
				continue
			}
			name := filepath.Join(t.TempDir(), "config.yaml")
			if err := os.WriteFile(name, []byte(c.Data["config.yaml"]), 0o600); err != nil {
				t.Fatal(err)
			}
			settings, err := config.ReadFile(name)
			if err != nil {
				t.Errorf("%s: %v\n%s", path, err, c.Data["config.yaml"])
				continue
			}
			for name, template := range settings.Templates {
				pod, err := kube.ParsePodTemplate(template.Kubernetes)
				if err != nil {
					t.Errorf("%s: template %s: %v", path, name, err)
				} else if pod.RequestMemory.IsZero() || pod.RequestCPU.IsZero() {
					t.Errorf("%s: template %s requests nothing: %+v", path, name, pod)
				}
			}
		}
	}
}

// TestGKE checks the values that are shipped for GKE: they render, and what
// they choose arrives in every template's pods.
func TestGKE(t *testing.T) {
	docs := render(t, filepath.Join(helmtest.Chart(), "values-gke.yaml"))
	objects(t, docs)
	for _, want := range []string{"runtime_class: gvisor", `cloud.google.com/gke-spot: "true"`, "priority_class: demo-caesarion-sandboxes"} {
		if !strings.Contains(docs["templates/configmap.yaml"], want) {
			t.Errorf("no %q in the settings", want)
		}
	}
}

// TestPlainManifests checks that deploy/kubernetes is what somebody without
// Helm needs: both namespaces, no hooks, no generated secrets.
func TestPlainManifests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(helmtest.Root(), "deploy", "kubernetes", "caesarion.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"helm.sh/hook", "kind: Secret", "example.org", "kind: Job"} {
		if strings.Contains(string(text), bad) {
			t.Errorf("%q is in it", bad)
		}
	}
	var names []string
	for _, object := range objects(t, map[string]string{"deploy/kubernetes/caesarion.yaml": string(text)}) {
		if ns, ok := object.(*corev1.Namespace); ok && ns.Labels["pod-security.kubernetes.io/enforce"] == "restricted" {
			names = append(names, ns.Name)
		}
	}
	if !slices.Equal(names, []string{"caesarion", "caesarion-sandboxes"}) {
		t.Errorf("namespaces %v", names)
	}
}
