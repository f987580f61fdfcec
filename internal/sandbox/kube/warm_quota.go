package kube

import (
	"cmp"
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// giveUpTime bounds how long a pod that is given up may take to be gone.
	giveUpTime = 15 * time.Second
	// roomTime is how long the quota may take to count that, and roomLook how
	// often it is asked: more often than the leader asks, who wants the room, too.
	roomTime = 5 * time.Second
	roomLook = 100 * time.Millisecond
	// giveUpMost bounds how many are given up for one sandbox, should the leader
	// be faster all the same.
	giveUpMost = 2
)

// startCold starts a sandbox that no ready pod is fit for. If the quota is used
// up by ready pods that nobody has asked for, one of them makes room: somebody
// waits for this one.
func (w *Warm) startCold(ctx context.Context, spec sandbox.Spec, fit string) (sandbox.Info, error) {
	info, err := w.d.Create(ctx, spec)
	for n := 0; n < giveUpMost && errdefs.CodeOf(err) == ReasonQuota && w.giveUp(ctx, fit); n++ {
		for end := time.Now().Add(roomTime); ; {
			info, err = w.d.Create(ctx, spec)
			if errdefs.CodeOf(err) != ReasonQuota || time.Now().After(end) || !pause(ctx, roomLook) {
				break
			}
		}
	}
	return info, err
}

// giveUp deletes a pod of the pool, and returns when it is gone; false if there
// is none. Those of the hash fit are left to who is about to have them. Those
// that are not ready go first.
func (w *Warm) giveUp(ctx context.Context, fit string) bool {
	pods := slices.DeleteFunc(w.d.cached(), func(p *corev1.Pod) bool {
		return !isPooled(p) || p.DeletionTimestamp != nil || podEnded(p) || p.Labels[labelHash] == fit
	})
	rank := func(p *corev1.Pod) int {
		switch {
		case podReady(p):
			return 2
		case w.stuckFor(p) == "":
			return 1
		}
		return 0
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), a.CreationTimestamp.Compare(b.CreationTimestamp.Time))
	})
	for _, pod := range pods {
		deleted, err := w.remove(ctx, pod)
		switch {
		case ctx.Err() != nil:
			return false
		case err != nil:
			w.log.Warn("a pod of the pool could not be deleted", "pod", pod.Name, "reason", "the quota is used up", "err", err)
			return false
		case !deleted: // somebody has it by now
			continue
		}
		w.opts.Metrics.Evicted(templateName(pod), evictQuota)
		w.log.Info("pod of the pool deleted", "template", templateName(pod), "pod", pod.Name, "reason", "the quota is used up, and somebody waits for another sandbox")
		within, cancel := context.WithTimeout(ctx, giveUpTime)
		defer cancel()
		return w.d.waitGone(within, pod.Name, pod.UID) == nil
	}
	return false
}
