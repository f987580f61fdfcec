package kube

import (
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// census is what there is of one template at one moment.
type census struct {
	ready    []*corev1.Pod // can be claimed
	starting []*corev1.Pod // will be ready
	stuck    []*corev1.Pod // can't start for now: no node has room, no image
	message  string        // why they are stuck
	outdated []*corev1.Pod // of what the template no longer is
	ended    []*corev1.Pod // will never be ready

	leased time.Time // when one was last given to an owner, by any replica
	cold   int       // that start for an owner
}

// census counts the installation's pods by template. Those that are being
// deleted are not there any more. Every template of the pool has an entry.
func (w *Warm) census() map[string]*census {
	all := make(map[string]*census, len(w.templates))
	for name := range w.templates {
		all[name] = &census{}
	}
	for _, pod := range w.d.cached() {
		if pod.DeletionTimestamp != nil {
			continue
		}
		name := templateName(pod)
		c := all[name]
		if c == nil {
			c = &census{}
			all[name] = c
		}
		c.count(pod, w.templates[name], w.stuckFor(pod))
	}
	return all
}

func (c *census) count(pod *corev1.Pod, t *warmTemplate, stuck string) {
	if !isPooled(pod) {
		if at := claimedAt(pod); at.After(c.leased) {
			c.leased = at
		}
		if !podReady(pod) && !podEnded(pod) && stuck == "" {
			c.cold++
		}
		return
	}
	switch {
	case t == nil || pod.Labels[labelHash] != t.hash:
		c.outdated = append(c.outdated, pod)
	case podEnded(pod):
		c.ended = append(c.ended, pod)
	case podReady(pod):
		c.ready = append(c.ready, pod)
	case stuck != "":
		c.stuck, c.message = append(c.stuck, pod), stuck
	default:
		c.starting = append(c.starting, pod)
	}
}

func (c *census) pooled() int { return len(c.ready) + len(c.starting) + len(c.stuck) }

// wanted says how many pods of t are to be ready now, and why if that is not
// its size.
func (w *Warm) wanted(t *warmTemplate, c *census, now time.Time) (size int, why string) {
	t.mu.Lock()
	if c.leased.After(t.leased) {
		t.leased = c.leased // also when that sandbox is gone
	}
	leased := t.leased
	t.mu.Unlock()
	night := w.opts.Night
	if t.Size > 0 && night.covers(now) && now.Sub(leased) >= night.Idle {
		return 0, fmt.Sprintf("it is night, and nobody has asked for %v: none is kept ready until %s", night.Idle, night.until())
	}
	return t.Size, ""
}

// podEnded reports whether a pod's processes are gone for good.
func podEnded(pod *corev1.Pod) bool {
	state, _ := stateOf(pod)
	return state == sandbox.StateStopped
}

// podReady reports whether the kubelet says that the agent of a pod answers, and
// of a pooled one its kernel. A pod that has just ended may still be said to.
func podReady(pod *corev1.Pod) bool {
	c := condition(pod, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// stuckFor says why a pod can't start for now; "" if it may.
func (w *Warm) stuckFor(pod *corev1.Pod) string {
	if state, _ := stateOf(pod); state != sandbox.StateStarting {
		return ""
	}
	err := w.d.stuck(view{pod: pod})
	if lacksNode(pod) { // at once: a pod of the pool that nobody waits for is no reason to make another
		err = errUnschedulable(pod)
	}
	e, ok := errors.AsType[*errdefs.Error](err)
	if !ok {
		return ""
	}
	if e.Err != nil {
		return e.Msg + ": " + e.Err.Error()
	}
	return e.Msg
}
