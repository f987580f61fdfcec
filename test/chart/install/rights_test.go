package install

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	authv1 "k8s.io/api/authentication/v1"
	coordv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/caesarion/caesarion/test/kubetest"
)

// asServer gives the API server's client as the server's pods have it: with a
// token of their account and nothing else.
func (in *installation) asServer(t *testing.T) *kubernetes.Clientset {
	t.Helper()
	answer, err := in.Kube.CoreV1().ServiceAccounts(in.Namespace).CreateToken(t.Context(), release, &authv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cfg := rest.AnonymousClientConfig(kubetest.Config(t))
	cfg.BearerToken = answer.Status.Token
	return kubernetes.NewForConfigOrDie(cfg)
}

// testRights makes each call that the server needs, and many that it must not
// make, as the server.
func (in *installation) testRights(t *testing.T) {
	ctx, server := t.Context(), in.asServer(t)
	core, boxes := server.CoreV1(), in.Sandboxes
	yes, no, user := true, false, int64(65532)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "rights"},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: &no,
			RestartPolicy:                corev1.RestartPolicyNever,
			SecurityContext:              &corev1.PodSecurityContext{RunAsNonRoot: &yes, RunAsUser: &user, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}},
			Containers: []corev1.Container{{
				Name: "probe", Image: kubetest.Image(t, "probe"),
				SecurityContext: &corev1.SecurityContext{AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}},
			}},
		},
	}
	lease := &coordv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "rights"}}
	var list metav1.ListOptions
	patch := []byte(`{"metadata":{"labels":{"a":"b"}}}`)
	watch := func(w interface{ Stop() }, err error) error {
		if err == nil {
			w.Stop()
		}
		return err
	}
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"create a pod", func() error { _, err := core.Pods(boxes).Create(ctx, pod, metav1.CreateOptions{}); return err }},
		{"get a pod", func() error { _, err := core.Pods(boxes).Get(ctx, "rights", metav1.GetOptions{}); return err }},
		{"list pods", func() error { _, err := core.Pods(boxes).List(ctx, list); return err }},
		{"watch pods", func() error { w, err := core.Pods(boxes).Watch(ctx, list); return watch(w, err) }},
		{"patch a pod", func() error {
			_, err := core.Pods(boxes).Patch(ctx, "rights", types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		}},
		{"list events", func() error { _, err := core.Events(boxes).List(ctx, list); return err }},
		{"watch events", func() error { w, err := core.Events(boxes).Watch(ctx, list); return watch(w, err) }},
		{"create a lease", func() error {
			made, err := server.CoordinationV1().Leases(boxes).Create(ctx, lease, metav1.CreateOptions{})
			lease = made
			return err
		}},
		{"get a lease", func() error {
			_, err := server.CoordinationV1().Leases(boxes).Get(ctx, "rights", metav1.GetOptions{})
			return err
		}},
		{"update a lease", func() error {
			_, err := server.CoordinationV1().Leases(boxes).Update(ctx, lease, metav1.UpdateOptions{})
			return err
		}},
	} {
		if err := call.do(); err != nil {
			t.Errorf("%s: %v", call.name, err)
		}
	}

	own, err := in.Kube.CoreV1().Pods(in.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=server"})
	if err != nil || len(own.Items) == 0 {
		t.Fatalf("no replicas: %v", err)
	}
	post := func(namespace, name, sub string) func() error {
		return func() error {
			return core.RESTClient().Post().Namespace(namespace).Resource("pods").Name(name).SubResource(sub).
				Param("command", "/probe").Param("container", "probe").Do(ctx).Error()
		}
	}
	forbidden := map[string]func() error{
		"exec":          post(boxes, "rights", "exec"),
		"attach":        post(boxes, "rights", "attach"),
		"port-forward":  post(boxes, "rights", "portforward"),
		"evict":         post(boxes, "rights", "eviction"),
		"exec own pods": post(in.Namespace, own.Items[0].Name, "exec"),
		"logs": func() error {
			r, err := core.Pods(boxes).GetLogs("rights", &corev1.PodLogOptions{}).Stream(ctx)
			if err == nil {
				_, _ = io.Copy(io.Discard, r) // it should not be there
				_ = r.Close()
			}
			return err
		},
		"ephemeral containers": func() error {
			_, err := core.Pods(boxes).Patch(ctx, "rights", types.MergePatchType, []byte(`{"spec":{"ephemeralContainers":[]}}`), metav1.PatchOptions{}, "ephemeralcontainers")
			return err
		},
		"a pod's status": func() error {
			_, err := core.Pods(boxes).Patch(ctx, "rights", types.MergePatchType, patch, metav1.PatchOptions{}, "status")
			return err
		},
		"delete all pods": func() error {
			return core.Pods(boxes).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "no=such"})
		},
		"create events": func() error {
			_, err := core.Events(boxes).Create(ctx, &corev1.Event{ObjectMeta: metav1.ObjectMeta{GenerateName: "x"}}, metav1.CreateOptions{})
			return err
		},
		"list leases": func() error { _, err := server.CoordinationV1().Leases(boxes).List(ctx, list); return err },
		"delete lease": func() error {
			return server.CoordinationV1().Leases(boxes).Delete(ctx, "rights", metav1.DeleteOptions{})
		},
		"quota":    func() error { _, err := core.ResourceQuotas(boxes).List(ctx, list); return err },
		"policies": func() error { _, err := server.NetworkingV1().NetworkPolicies(boxes).List(ctx, list); return err },
		"account token": func() error {
			_, err := core.ServiceAccounts(boxes).CreateToken(ctx, "default", &authv1.TokenRequest{}, metav1.CreateOptions{})
			return err
		},
		"nodes":      func() error { _, err := core.Nodes().List(ctx, list); return err },
		"namespaces": func() error { _, err := core.Namespaces().List(ctx, list); return err },
		"its own namespace": func() error {
			_, err := core.Namespaces().Get(ctx, in.Namespace, metav1.GetOptions{})
			return err
		},
		"cluster roles": func() error { _, err := server.RbacV1().ClusterRoles().List(ctx, list); return err },
		"roles":         func() error { _, err := server.RbacV1().Roles(boxes).List(ctx, list); return err },
		"all pods":      func() error { _, err := core.Pods("").List(ctx, list); return err },
	}
	for _, namespace := range []string{boxes, in.Namespace, "default", "kube-system"} {
		forbidden["secrets of "+namespace] = func() error { _, err := core.Secrets(namespace).List(ctx, list); return err }
		forbidden["a secret of "+namespace] = func() error {
			_, err := core.Secrets(namespace).Get(ctx, release+"-generated", metav1.GetOptions{})
			return err
		}
		forbidden["config maps of "+namespace] = func() error { _, err := core.ConfigMaps(namespace).List(ctx, list); return err }
		if namespace != boxes {
			forbidden["pods of "+namespace] = func() error { _, err := core.Pods(namespace).List(ctx, list); return err }
			forbidden["a pod in "+namespace] = func() error { _, err := core.Pods(namespace).Create(ctx, pod, metav1.CreateOptions{}); return err }
			forbidden["leases of "+namespace] = func() error {
				_, err := server.CoordinationV1().Leases(namespace).Get(ctx, "rights", metav1.GetOptions{})
				return err
			}
		}
	}
	for name, do := range forbidden {
		if err := do(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: not forbidden: %v", name, err)
		}
	}

	// Where the server may make pods, the namespace still bounds what pods.
	bad := pod.DeepCopy()
	bad.Name, bad.Spec.SecurityContext = "root", nil
	if _, err := core.Pods(boxes).Create(ctx, bad, metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(fmt.Sprint(err), "PodSecurity") {
		t.Errorf("a pod that may be root: %v", err)
	}
	host := pod.DeepCopy()
	host.Name = "host"
	host.Spec.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
	if _, err := core.Pods(boxes).Create(ctx, host, metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(fmt.Sprint(err), "PodSecurity") {
		t.Errorf("a pod with the node's files: %v", err)
	}

	if err := core.Pods(boxes).Delete(ctx, "rights", metav1.DeleteOptions{}); err != nil {
		t.Errorf("delete a pod: %v", err)
	}
	if err := in.Kube.CoordinationV1().Leases(boxes).Delete(ctx, "rights", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
	// The sandboxes' own account has no rights, should its token ever be got at.
	rules := kubetest.Kubectl(t, "auth", "can-i", "--list", "--namespace", boxes, "--no-headers", "--as=system:serviceaccount:"+boxes+":default")
	for line := range strings.Lines(rules) {
		if f := strings.Fields(line); len(f) > 0 && slices.Contains([]string{"pods", "secrets", "*.*", "events", "pods/exec"}, f[0]) {
			t.Errorf("a sandbox's account may: %s", line)
		}
	}
}
