package kube

import (
	"strconv"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caesarion/caesarion/internal/sandbox"
)

// version gives a version of a sandbox's pod as the API server would.
func version(t testing.TB, d *Driver, id sandbox.ID, uid string, n int, labels map[string]string) *corev1.Pod {
	t.Helper()
	pod, err := d.podOf(sandbox.Spec{ID: id, Image: imageRef, Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	pod.UID, pod.ResourceVersion = types.UID(uid), strconv.Itoa(n)
	return pod
}

func TestTheNewerVersionStays(t *testing.T) {
	d := offline(t, nil)
	at := func(n int) *corev1.Pod {
		return version(t, d, testID, "a", n, map[string]string{"n": strconv.Itoa(n)})
	}
	label := func() string {
		t.Helper()
		info, err := d.Get(t.Context(), testID)
		if err != nil {
			t.Fatal(err)
		}
		return info.Labels["n"]
	}
	d.memory.wrote(at(10)) // this process made it
	d.memory.wrote(at(12)) // and changed it
	d.memory.seen(trim(at(11)))
	if got := label(); got != "12" {
		t.Errorf("after an older version of the watch: %s", got)
	}
	d.memory.seen(trim(at(13)))
	if got := label(); got != "13" {
		t.Errorf("after a newer version of the watch: %s", got)
	}
	d.memory.wrote(at(12))
	if got := label(); got != "13" {
		t.Errorf("after a late answer: %s", got)
	}
}

func TestADeletedPodDoesNotComeBack(t *testing.T) {
	d := offline(t, nil)
	pod := version(t, d, testID, "a", 10, nil)
	d.memory.seen(trim(pod))
	lost, err := d.Lost(testID)
	if err != nil {
		t.Fatal(err)
	}
	last := version(t, d, testID, "a", 12, nil)
	d.memory.removed(trim(last))
	wantClosed(t, lost)
	d.memory.wrote(version(t, d, testID, "a", 11, nil)) // the late answer to a patch
	if n := len(d.memory.list()); n != 0 {
		t.Errorf("%d sandboxes", n)
	}
	// Whoever used it can still be told why it went.
	info, err := d.Get(t.Context(), testID)
	if err != nil || info.State != sandbox.StateStopped || info.Reason != ReasonPodDeleted {
		t.Errorf("after the pod was deleted: %+v, %v", info, err)
	}
	d.memory.forget(podName(testID))
	if _, err := d.Get(t.Context(), testID); err == nil {
		t.Error("a sandbox that was deleted here is still known")
	}
}

func wantClosed(t *testing.T, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	default:
		t.Error("lost is not closed")
	}
}

// A list that the API server made before a pod was written does not bury it.
func TestReplaceKeepsWhatIsNewerThanTheList(t *testing.T) {
	d := offline(t, nil)
	old, young := sandbox.NewID(), sandbox.NewID()
	d.memory.wrote(version(t, d, old, "a", 10, nil))
	d.memory.wrote(version(t, d, young, "b", 20, nil))
	lostOld, _ := d.Lost(old)
	lostYoung, _ := d.Lost(young)
	d.memory.replace(nil, 15)
	wantClosed(t, lostOld)
	select {
	case <-lostYoung:
		t.Error("a pod that is newer than the list is taken for lost")
	default:
	}
	select {
	case <-d.memory.synced:
	default:
		t.Error("not in sync after a list")
	}
	if n := len(d.memory.list()); n != 1 {
		t.Errorf("%d sandboxes, want 1", n)
	}
}

func TestAnotherPodOfTheSameNameIsAnotherSandbox(t *testing.T) {
	d := offline(t, nil)
	d.memory.seen(trim(version(t, d, testID, "a", 10, nil)))
	lost, _ := d.Lost(testID)
	d.memory.seen(trim(version(t, d, testID, "b", 20, nil)))
	wantClosed(t, lost)
	again, _ := d.Lost(testID)
	select {
	case <-again:
		t.Error("the new one is lost too")
	default:
	}
}

// What is kept of sandboxes that are gone is bounded in number and time.
func TestGhostsAreBounded(t *testing.T) {
	d := offline(t, nil)
	for i := range maxGhosts + 10 {
		id := sandbox.NewID()
		d.memory.seen(trim(version(t, d, id, "u"+strconv.Itoa(i), 2*i+1, nil)))
		d.memory.removed(trim(version(t, d, id, "u"+strconv.Itoa(i), 2*i+2, nil)))
	}
	if n := len(d.memory.ghosts); n != maxGhosts {
		t.Errorf("%d ghosts, want %d", n, maxGhosts)
	}
	d.memory.ghosts[maxGhosts-1].buried = time.Now().Add(-ghostTime)
	if _, err := d.Get(t.Context(), idOf(d.memory.ghosts[maxGhosts-1].pod.Name)); err == nil {
		t.Error("an old ghost is still known")
	}
}

// A pod whose kubelet has not said so yet runs for the one whose question its
// agent has answered.
func TestAnAnswerIsEnough(t *testing.T) {
	d := offline(t, nil)
	pod := version(t, d, testID, "a", 10, nil)
	b := d.memory.wrote(pod)
	d.memory.answers(b)
	info, err := d.Get(t.Context(), testID)
	if err != nil || info.State != sandbox.StateRunning {
		t.Errorf("got %+v, %v", info, err)
	}
	now := metav1.Now()
	ending := version(t, d, testID, "a", 11, nil)
	ending.DeletionTimestamp = &now
	d.memory.seen(trim(ending))
	if info, _ := d.Get(t.Context(), testID); info.State != sandbox.StateStopped {
		t.Errorf("got %+v", info)
	}
}

func TestTrimKeepsLittle(t *testing.T) {
	d := offline(t, nil)
	pod := version(t, d, testID, "a", 10, nil)
	pod.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubelet"}}
	pod.Spec.NodeName, pod.Status.PodIP = "node-1", "10.0.0.1"
	got := trim(pod)
	if got.ManagedFields != nil || got.Spec.Volumes != nil || got.Spec.NodeName != "node-1" || got.Status.PodIP != "10.0.0.1" || got.Spec.Containers[0].Image != imageRef {
		t.Errorf("got %+v", got)
	}
	if trim(got) != got {
		t.Error("a pod that was trimmed is trimmed again")
	}
}
