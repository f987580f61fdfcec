package kube

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestAPoolThatCantBeFilledSaysWhyAndDoesNotSpin(t *testing.T) {
	for _, c := range []struct {
		what, want string
		status     corev1.PodStatus
	}{
		{"no room", "no room", corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: "False", Reason: corev1.PodReasonUnschedulable, Message: "0/3 nodes are available: 3 Insufficient memory.",
		}}}},
		{"no image", "can't be pulled", corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{
			Type: corev1.PodScheduled, Status: "True",
		}}, ContainerStatuses: []corev1.ContainerStatus{{
			Name: container, State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "Back-off"}},
		}}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			cell := newCell(t)
			cell.start = func(pod *corev1.Pod) bool {
				cell.status(pod, c.status)
				return false
			}
			a := cell.replica("a", WarmOptions{Templates: templates(50), StartsAtOnce: 4})
			eventually(t, "it is said why", func() bool { return strings.Contains(a.w.Stats()["python"].Message, c.want) })
			cell.mu.Lock()
			created := cell.created
			cell.mu.Unlock()
			writes := a.writes.Load()
			for i := range 300 { // whatever wakes the leader
				status := c.status
				status.Message = fmt.Sprint(i)
				cell.status(&cell.list()[0], status)
			}
			cell.mu.Lock()
			defer cell.mu.Unlock()
			if cell.created > created+4 || created > 8 || a.writes.Load()-writes > 8 {
				t.Errorf("%d pods were made, %d more later, with %d writes", created, cell.created-created, a.writes.Load()-writes)
			}
			t.Log(a.w.Stats()["python"])
		})
	}
}

func TestPodsThatEndByThemselvesAreNotMadeAgainAtOnce(t *testing.T) {
	c := newCell(t)
	c.start = func(pod *corev1.Pod) bool {
		go c.end(pod, "Error")
		return false
	}
	a := c.replica("a", WarmOptions{Templates: templates(2)})
	eventually(t, "some have ended", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.created >= 4
	})
	c.mu.Lock()
	begin, created := time.Now(), c.created
	c.mu.Unlock()
	time.Sleep(3 * time.Second) // what must not happen has to have time to
	c.mu.Lock()
	made := c.created - created
	c.start = nil
	c.mu.Unlock()
	if most := 2 * (2 + int(time.Since(begin)/time.Second)); made > most {
		t.Errorf("%d more were made in %v", made, time.Since(begin))
	}
	if s := a.w.Stats()["python"]; s.Message == "" {
		t.Errorf("stats %+v say nothing", s)
	}
	a.full(t)
	if s := a.w.Stats()["python"]; s.Message != "" {
		t.Errorf("stats %+v", s)
	}
}
