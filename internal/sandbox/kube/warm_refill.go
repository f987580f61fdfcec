package kube

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// lookEvery is how often the leader looks even if it hears of no change.
	lookEvery = 10 * time.Second
	// updateTime is what servers of two versions may run side by side without
	// each deleting what the other has made ready.
	updateTime = 10 * time.Minute
	// settleTime gathers changes that come together.
	settleTime = 20 * time.Millisecond
	// startLimit is how long a pod of the pool may take to be ready. Others have
	// been stuck for so long that a new one may have more luck.
	startLimit = 10 * time.Minute
	// retryFirst and retryLast bound the waiting after a failure.
	retryFirst = time.Second
	retryLast  = time.Minute
	// roomEvery is how soon it is tried again when room came.
	roomEvery = time.Second
)

// Why pods of the pool are deleted: the names of metrics.Evicted.
const (
	evictAge          = "age"
	evictSurplus      = "surplus"
	evictLost         = "lost"
	evictOutdated     = "outdated"
	evictSlow         = "slow"
	evictUnresponsive = "unresponsive"
	evictAbandoned    = "abandoned"
	evictQuota        = "quota"
)

// leader keeps the pool as it should be while this replica leads.
type leader struct {
	w       *Warm
	refills map[string]*refill
	gone    map[types.UID]time.Time // deleted by this leader, perhaps not yet seen to be
	fresh   map[types.UID]time.Time // made by this leader, not yet seen to be ready
}

// refill spaces the tries to make pods of one template.
type refill struct {
	wait   time.Duration
	failed time.Time
	pods   int // of the installation when it failed: with fewer there is room
}

// due reports whether it may be tried, and otherwise how long to wait.
func (r *refill) due(now time.Time, pods int) (bool, time.Duration) {
	wait := r.wait
	if wait > roomEvery && pods < r.pods {
		wait = roomEvery
	}
	left := r.failed.Add(wait).Sub(now)
	return r.wait == 0 || left <= 0, left
}

func (r *refill) fail(now time.Time, pods int) {
	r.wait = min(max(2*r.wait, retryFirst), retryLast)
	r.failed, r.pods = now, pods
}

func (r *refill) reset() { *r = refill{} }

// lead does what one replica does for all: it refills and it reaps.
func (w *Warm) lead(ctx context.Context) {
	w.leading.Store(true)
	defer w.leading.Store(false)
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { w.reapUntil(ctx) })
	l := &leader{w: w, refills: make(map[string]*refill), gone: make(map[types.UID]time.Time), fresh: make(map[types.UID]time.Time)}
	for name := range w.templates {
		l.refills[name] = &refill{}
	}
	defer func() {
		for _, t := range w.templates {
			t.say("") // the next leader knows
		}
	}()
	for ctx.Err() == nil {
		news := w.d.changes()
		timer := time.NewTimer(l.pass(ctx))
		select {
		case <-news:
			pause(ctx, settleTime)
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// pass does what there is to do and says when to look again at the latest.
func (l *leader) pass(ctx context.Context) time.Duration {
	w, now := l.w, time.Now()
	all := w.census()
	pods, starting := len(w.d.cached()), 0
	for _, c := range all {
		c.ready, c.starting, c.stuck = l.kept(c.ready), l.kept(c.starting), l.kept(c.stuck)
		c.outdated, c.ended = l.kept(c.outdated), l.kept(c.ended)
		starting += len(c.starting) + c.cold
		for _, pod := range c.ready {
			if begun, ok := l.fresh[pod.UID]; ok {
				delete(l.fresh, pod.UID)
				w.opts.Metrics.Stage("create", templateName(pod), now.Sub(begun))
				l.refills[templateName(pod)].reset()
			}
		}
	}
	for _, seen := range []map[types.UID]time.Time{l.gone, l.fresh} {
		maps.DeleteFunc(seen, func(_ types.UID, at time.Time) bool { return now.Sub(at) > startLimit })
	}
	next := lookEvery
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c, t := all[name], w.templates[name]
		l.drain(ctx, t, c, now)
		if t == nil || ctx.Err() != nil {
			continue
		}
		size, _ := w.wanted(t, c, now)
		next = min(next, l.trim(ctx, t, c, size, now))
		r := l.refills[name]
		if due, left := r.due(now, pods); !due {
			next = min(next, left)
			continue
		}
		if len(c.stuck) > 0 { // more of them would be, too; those there go on when they can
			continue
		}
		for n := size - c.pooled(); n > 0 && starting < w.opts.StartsAtOnce && ctx.Err() == nil; n-- {
			if err := l.create(ctx, t); err != nil {
				if ctx.Err() == nil {
					r.fail(now, pods)
					l.explain(t, err, r.wait)
					next = min(next, r.wait)
				}
				break
			}
			t.say("")
			starting++
		}
	}
	return next
}

// kept leaves out what this leader has deleted.
func (l *leader) kept(pods []*corev1.Pod) []*corev1.Pod {
	return slices.DeleteFunc(pods, func(p *corev1.Pod) bool {
		_, gone := l.gone[p.UID]
		return gone
	})
}

// drain deletes what will never be claimed: of another hash or template, ended,
// or too long about to be ready. t is nil for what is no template of the pool.
func (l *leader) drain(ctx context.Context, t *warmTemplate, c *census, now time.Time) {
	why := "its template is gone"
	if t != nil {
		why = "its template has changed"
	}
	for _, pod := range c.outdated {
		// One that is younger than this process may be of a newer server, while
		// servers of both kinds run and lead in turn.
		if pod.CreationTimestamp.Time.Before(l.w.opts.began) || now.Sub(pod.CreationTimestamp.Time) > updateTime {
			l.evict(ctx, pod, evictOutdated, why)
		}
	}
	failed := false
	for _, pod := range c.ended {
		failed = true
		l.evict(ctx, pod, evictLost, "it has ended")
	}
	for _, pod := range c.starting {
		if now.Sub(pod.CreationTimestamp.Time) > startLimit {
			failed = true
			l.evict(ctx, pod, evictSlow, "it was not ready in time")
		}
	}
	c.starting = l.kept(c.starting)
	if failed && t != nil {
		// One that ends each time must not be made again and again at once.
		l.refills[t.name].fail(now, 0)
		t.say("pods of the pool end by themselves; the log says which")
	}
}

// trim deletes what is too many, first what is not ready, and the oldest when
// all are ready and it is too old: one at a time, so that the pool is never
// empty for it. It says when the next one is.
func (l *leader) trim(ctx context.Context, t *warmTemplate, c *census, size int, now time.Time) time.Duration {
	byAge := func(a, b *corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) }
	slices.SortFunc(c.ready, byAge)
	for _, list := range []*[]*corev1.Pod{&c.stuck, &c.starting, &c.ready} {
		for len(*list) > 0 && c.pooled() > size {
			pod := (*list)[0]
			*list = (*list)[1:]
			l.evict(ctx, pod, evictSurplus, "there are more than there are to be")
		}
	}
	if len(c.ready) < size || size == 0 {
		return lookEvery
	}
	t.say("")
	if left := l.w.opts.MaxAge - now.Sub(c.ready[0].CreationTimestamp.Time); left > 0 {
		return left
	}
	l.evict(ctx, c.ready[0], evictAge, "it is too old")
	c.ready = c.ready[1:]
	return lookEvery
}

// create makes one pod for the pool and does not wait for it.
func (l *leader) create(ctx context.Context, t *warmTemplate) error {
	d := l.w.d
	spec := t.spec()
	spec.ID = sandbox.NewID()
	pod, err := d.podOf(spec)
	if err != nil {
		return err
	}
	begin := time.Now()
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	pod, err = d.client.createPod(ctx, pod)
	if err != nil {
		return apiError(err)
	}
	d.memory.wrote(pod)
	l.fresh[pod.UID] = begin
	return nil
}

// explain notes why a pod could not be made.
func (l *leader) explain(t *warmTemplate, err error, wait time.Duration) {
	message := "a pod could not be made; the log says why"
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		message = e.Msg
	}
	t.say(message)
	l.w.log.Warn("no pod could be made for the pool", "template", t.name, "err", err, "again_after", wait)
}

// evict deletes a pod that nobody has claimed.
func (l *leader) evict(ctx context.Context, pod *corev1.Pod, reason, why string) {
	deleted, err := l.w.remove(ctx, pod)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		l.w.log.Warn("a pod of the pool could not be deleted", "pod", pod.Name, "reason", why, "err", err)
	case deleted:
		l.gone[pod.UID] = time.Now()
		l.w.opts.Metrics.Evicted(templateName(pod), reason)
		l.w.log.Info("pod of the pool deleted", "template", templateName(pod), "pod", pod.Name, "reason", why, "age", time.Since(pod.CreationTimestamp.Time))
	}
}

// remove deletes a pod if it still is as it was read: one that somebody has
// claimed, used or replaced meanwhile is left alone.
func (w *Warm) remove(ctx context.Context, pod *corev1.Pod) (deleted bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err = w.d.client.deletePod(ctx, pod.Name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &pod.UID, ResourceVersion: &pod.ResourceVersion},
	})
	if apierrors.IsConflict(err) {
		return false, nil
	}
	return err == nil, err
}
