// Package faketest tests the tier of test/cluster in which nothing runs.
package faketest

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/caesarion/caesarion/test/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m, kubetest.Fake)) }

// Many pods become ready, each with an address, and go away.
func TestManyPods(t *testing.T) {
	const many = 2000
	client := kubetest.Client(t)
	ns, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "many-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"app": "many"}
	began := time.Now()
	deployments := client.AppsV1().Deployments(ns.Name)
	deployment, err := deployments.Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "many"},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(many)),
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none.test/none:1"}}},
			},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	progress(t, many, "pods ready", func(ctx context.Context) (int, error) {
		got, err := deployments.Get(ctx, deployment.Name, metav1.GetOptions{})
		if err != nil {
			return 0, err
		}
		return int(got.Status.ReadyReplicas), nil
	})
	t.Logf("%d pods ready after %v", many, time.Since(began).Round(100*time.Millisecond))

	pods, err := client.CoreV1().Pods(ns.Name).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	addresses := map[string]bool{}
	for _, p := range pods.Items {
		addresses[p.Status.PodIP] = true
	}
	if len(pods.Items) != many || addresses[""] {
		t.Errorf("%d pods with %d addresses", len(pods.Items), len(addresses))
	}

	began = time.Now()
	kubetest.Kubectl(t, "scale", "-n", ns.Name, "deployment/many", "--replicas=0")
	progress(t, many, "pods gone", func(ctx context.Context) (int, error) {
		left, err := client.CoreV1().Pods(ns.Name).List(ctx, metav1.ListOptions{ResourceVersion: "0"})
		if err != nil {
			return 0, err
		}
		return many - len(left.Items), nil
	})
	t.Logf("gone after %v", time.Since(began).Round(100*time.Millisecond))
}

// progress waits until so many are done, however long that takes, as long as
// there are ever more.
func progress(t *testing.T, want int, what string, count func(context.Context) (int, error)) {
	t.Helper()
	done := -1
	for done < want {
		kubetest.Wait(t, fmt.Sprintf("more than %d %s", done, what), func(ctx context.Context) error {
			now, err := count(ctx)
			if err == nil && now <= done {
				err = fmt.Errorf("no more")
			}
			if err == nil {
				done = now
			}
			return err
		})
	}
}
