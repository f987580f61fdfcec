package kube

import (
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	reapEvery = 30 * time.Second
	// endedGrace is how long an ended sandbox stays, so that its owner can say
	// why it ended.
	endedGrace = time.Minute
	// startGrace is how much longer than the driver's StartTimeout a sandbox may be
	// starting, whoever makes it.
	startGrace = time.Minute
	// orphanLimit is how long one may be starting whose maker is not there: a
	// maker that has just started may not be known yet.
	orphanLimit = time.Minute
	// forceAfter is how long a pod may take to end after it was deleted. Only
	// that of a node that does not answer takes longer; nobody uses it.
	forceAfter = 5 * time.Minute
)

// labelSession is the label by which the rest of the server says what session a
// sandbox belongs to.
const labelSession = "caesarion.session"

// ReaperOptions says what the reaper can't know of sandboxes. Without them it
// deletes no sandbox that runs.
type ReaperOptions struct {
	// Expired reports whether idle time or life of a sandbox are over by its
	// record, and which.
	Expired func(sandbox.Info, time.Time) (reason string, yes bool)
	// Owned reports whether a live replica answers for a sandbox: it deletes it
	// itself, and knows better when.
	Owned func(ctx context.Context, id sandbox.ID, session string) (bool, error)
	// Alive reports whether the replica of this name lives. Without it what a
	// dead one was starting stays until no start takes so long.
	Alive func(ctx context.Context, replica string) (bool, error)
	// Every is the time between two rounds, give or take a quarter; default 30 s.
	Every time.Duration

	grace, orphan, force time.Duration // for tests; default: the constants
}

func (o ReaperOptions) withDefaults() ReaperOptions {
	if o.Expired == nil {
		o.Expired = func(sandbox.Info, time.Time) (string, bool) { return "", false }
	}
	if o.Owned == nil {
		o.Owned = func(context.Context, sandbox.ID, string) (bool, error) { return true, nil }
	}
	if o.Alive == nil {
		o.Alive = func(context.Context, string) (bool, error) { return true, nil }
	}
	for _, d := range []struct {
		to    *time.Duration
		value time.Duration
	}{{&o.Every, reapEvery}, {&o.grace, endedGrace}, {&o.orphan, orphanLimit}, {&o.force, forceAfter}} {
		if *d.to == 0 {
			*d.to = d.value
		}
	}
	return o
}

// reaper deletes pods that nobody needs.
type reaper struct {
	w     *Warm
	opts  ReaperOptions
	log   *slog.Logger
	ended map[types.UID]time.Time // first seen to have ended
	going map[types.UID]time.Time // first seen to be deleted
}

// Why sandboxes are reaped: the names of metrics.Reaped, beside those that
// ReaperOptions.Expired gives.
const (
	reapEnded  = "ended"
	reapSlow   = "slow"
	reapOrphan = "orphan"
	reapForced = "forced"
)

// verdict is why a pod is deleted.
type verdict struct {
	kind   string // for the metrics
	reason string // for people
	owned  bool   // not if a live replica answers for it
	maker  bool   // not if the replica that starts it lives
	force  bool   // without its node's answer
}

// reapUntil reaps at once and then now and again until ctx ends.
func (w *Warm) reapUntil(ctx context.Context) {
	r := &reaper{w: w, opts: w.opts.Reaper, log: w.log, ended: make(map[types.UID]time.Time), going: make(map[types.UID]time.Time)}
	for {
		r.round(ctx)
		if !pause(ctx, jitter(r.opts.Every)) {
			return
		}
	}
}

// round looks at every pod once.
func (r *reaper) round(ctx context.Context) {
	now := time.Now()
	there := make(map[types.UID]bool)
	for _, pod := range r.w.d.cached() {
		if ctx.Err() != nil {
			return
		}
		there[pod.UID] = true
		r.see(pod, now)
		if _, ok := r.judge(pod, now); ok {
			r.reap(ctx, pod.Name, pod.UID)
		}
	}
	for _, seen := range []map[types.UID]time.Time{r.ended, r.going} {
		for uid := range seen {
			if !there[uid] {
				delete(seen, uid)
			}
		}
	}
}

// see notes since when a pod is in a state that it may not stay in. When it
// ended its node may have said: leaders may change more often than a minute.
func (r *reaper) see(pod *corev1.Pod, now time.Time) {
	if _, ok := r.ended[pod.UID]; !ok && podEnded(pod) {
		r.ended[pod.UID] = now
		if at := endedAt(pod); !at.IsZero() && at.Before(now) {
			r.ended[pod.UID] = at
		}
	}
	if _, ok := r.going[pod.UID]; !ok && pod.DeletionTimestamp != nil {
		r.going[pod.UID] = now
	}
}

// judge says whether a pod may be one that nobody needs, as far as the pod
// tells.
func (r *reaper) judge(pod *corev1.Pod, now time.Time) (verdict, bool) {
	if pod.DeletionTimestamp != nil {
		since, ok := r.going[pod.UID]
		return verdict{kind: reapForced, reason: "its node does not say that it has ended", force: true}, ok && now.Sub(since) >= r.opts.force
	}
	if isPooled(pod) {
		return verdict{}, false // see leader
	}
	info := r.w.d.infoOf(pod)
	if podEnded(pod) {
		since, ok := r.ended[pod.UID]
		return verdict{kind: reapEnded, reason: "it has ended: " + info.Reason}, ok && now.Sub(since) >= r.opts.grace
	}
	if reason, yes := r.opts.Expired(info, now); yes {
		return verdict{kind: reason, reason: reason, owned: true}, true
	}
	if age := now.Sub(info.CreatedAt); info.State == sandbox.StateStarting {
		switch {
		case age >= r.w.d.opts.StartTimeout+startGrace:
			return verdict{kind: reapSlow, reason: "it did not start", owned: true}, true
		case age >= r.opts.orphan:
			return verdict{kind: reapOrphan, reason: "the replica that was starting it is gone", owned: true, maker: true}, true
		}
	}
	return verdict{}, false
}

// reap reads a pod again and deletes it if it still is one that nobody needs.
// If it changes after that, for instance because it is used, it stays.
func (r *reaper) reap(ctx context.Context, name string, uid types.UID) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	pod, err := r.w.d.client.getPod(ctx, name)
	if apierrors.IsNotFound(err) {
		return
	}
	if err != nil {
		r.log.Warn("a pod could not be looked at", "pod", name, "err", err)
		return
	}
	v, ok := r.judge(pod, time.Now())
	if !ok || pod.UID != uid {
		return
	}
	if v.owned {
		owned, err := r.opts.Owned(ctx, idOf(name), specLabels(pod)[labelSession])
		if err != nil {
			r.log.Warn("it is unknown whether a sandbox has an owner", "pod", name, "err", err)
		}
		if owned || err != nil {
			return
		}
	}
	if v.maker {
		alive, err := r.opts.Alive(ctx, pod.Annotations[annotationCreatedBy])
		if err != nil {
			r.log.Warn("it is unknown whether a replica lives", "replica", pod.Annotations[annotationCreatedBy], "err", err)
		}
		if alive || err != nil {
			return
		}
	}
	deleted, err := r.delete(ctx, pod, v.force)
	switch {
	case err != nil:
		r.log.Warn("a pod that nobody needs could not be deleted", "pod", name, "reason", v.reason, "err", err)
	case deleted:
		r.w.opts.Metrics.Reaped(templateName(pod), v.kind)
		r.log.Info("pod that nobody needs deleted", "pod", name, "template", templateName(pod), "reason", v.reason)
	}
}

func (r *reaper) delete(ctx context.Context, pod *corev1.Pod, force bool) (bool, error) {
	if !force {
		return r.w.remove(ctx, pod)
	}
	err := r.w.d.client.deletePod(ctx, pod.Name, metav1.DeleteOptions{
		GracePeriodSeconds: new(int64(0)), Preconditions: &metav1.Preconditions{UID: &pod.UID},
	})
	if apierrors.IsConflict(err) {
		return false, nil
	}
	return err == nil, err
}

// endedAt is when a pod ended, by what the cluster says of it; zero: it does
// not say.
func endedAt(pod *corev1.Pod) time.Time {
	if s := statusOf(pod.Status.ContainerStatuses, container); s != nil && s.State.Terminated != nil {
		return s.State.Terminated.FinishedAt.Time
	}
	if c := condition(pod, corev1.PodReady); c != nil && c.Status == corev1.ConditionFalse {
		return c.LastTransitionTime.Time
	}
	return time.Time{}
}
