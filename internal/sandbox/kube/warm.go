package kube

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/metrics"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

const (
	// handTimeout bounds how long a ready pod may take to be handed over.
	handTimeout = 3 * time.Second
	// discardTimeout bounds the deletion of a pod nobody waits for.
	discardTimeout = 15 * time.Second
	// triedMost is how many tries to claim are kept before those that are of no
	// use any more are looked for.
	triedMost = 256
	// anyVersion stands for a pod that is not to be tried, whatever its version.
	anyVersion = "any"
	// badMost is how many pods that don't take their configuration are tried
	// before one is started cold: something is wrong with all of them.
	badMost = 3
)

// WarmTemplate is what warm pods are made from.
type WarmTemplate = pool.Template

// WarmOptions configures a Warm. The zero value knows no template: every Lease
// is a cold start.
type WarmOptions struct {
	Templates map[string]WarmTemplate
	MaxAge    time.Duration // a ready pod older than this is replaced; default 1h
	// StartsAtOnce bounds how many pods may be starting, in the installation,
	// for the leader to make another one for the pool; default 8.
	StartsAtOnce int
	Night        Night // nothing is kept ready then of what nobody asks for
	Reaper       ReaperOptions
	Metrics      *metrics.Metrics // default: none
	Logger       *slog.Logger     // default: discard

	began time.Time // of the server; for tests, default: now
}

// Warm has the ready pods of an installation's templates.
//
// Any replica takes a ready pod for its caller by one conditional write: of
// several that try the API server lets one succeed. One replica, the leader,
// keeps enough of them ready (warm_refill.go) and deletes what nobody needs
// (reaper.go). Warm holds nothing of its own: what is ready is in the pods.
type Warm struct {
	d    *Driver
	opts WarmOptions
	log  *slog.Logger
	node *election

	leading atomic.Bool

	cancel context.CancelCauseFunc
	ctx    context.Context //nolint:containedctx // the warm pods' own life
	wg     sync.WaitGroup  // leases, and all that goes on in the background

	templates   map[string]*warmTemplate // fixed
	handTimeout time.Duration            // handTimeout, but in tests

	mu     sync.Mutex
	closed bool
	tried  map[string]string // pod → its version that was tried to be claimed here, or anyVersion
}

// warmTemplate is one template of the pool.
type warmTemplate struct {
	name string
	WarmTemplate
	hash string // of the pods that are made now

	mu           sync.Mutex
	hits, misses int64
	message      string    // of the leader: why it can't refill
	leased       time.Time // when one was last given to an owner, as far as this replica has seen
}

// spec is what a ready pod of t is made from.
func (t *warmTemplate) spec() sandbox.Spec {
	return sandbox.Spec{Template: t.name, Image: t.Image, Limits: t.Limits, Prestart: true, Preload: t.Preload, Pooled: true}
}

func (t *warmTemplate) say(message string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.message = message
}

var (
	errWarmClosed = errdefs.New(errdefs.ErrUnavailable, "pool-closed", "the server is stopping").WithHint("try again when it is up")
	errNotReady   = errors.New("a pod of the pool was not ready in time")
	errNotHanded  = errors.New("a ready pod did not answer in time")
)

// NewWarm takes part in keeping pods of the templates ready, until Close.
func NewWarm(ctx context.Context, d *Driver, opts WarmOptions) (*Warm, error) {
	opts.MaxAge = cmp.Or(opts.MaxAge, time.Hour)
	opts.StartsAtOnce = cmp.Or(opts.StartsAtOnce, 8)
	opts.Night.Idle = cmp.Or(opts.Night.Idle, defaultNightIdle)
	opts.Reaper = opts.Reaper.withDefaults()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.began.IsZero() {
		opts.began = time.Now()
	}
	w := &Warm{
		handTimeout: handTimeout,
		d:           d, opts: opts, log: opts.Logger,
		templates: make(map[string]*warmTemplate, len(opts.Templates)), tried: make(map[string]string),
	}
	for name, tmpl := range opts.Templates {
		t := &warmTemplate{name: name, WarmTemplate: tmpl}
		t.hash = d.hashOf(t.spec())
		w.templates[name] = t
	}
	w.ctx, w.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	w.node = newElection(d.client, d.opts.Installation+"-leader", d.opts.Replica, w.log)
	w.wg.Go(func() { w.node.run(w.ctx, w.lead) })
	w.wg.Go(w.measure)
	return w, nil
}

// Close lets another replica lead and sends away whoever waits for a sandbox.
// Ready pods stay: they are the installation's.
func (w *Warm) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.cancel(errWarmClosed)
	w.wg.Wait()
	return nil
}

// Lease gives a sandbox to its owner: a ready pod, or one that is about to be
// ready, or one that is started cold. If ctx ends first, nothing is left.
func (w *Warm) Lease(ctx context.Context, req pool.Request) (*pool.Lease, error) {
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil, errWarmClosed
	}
	w.wg.Add(1)
	w.mu.Unlock()
	defer w.wg.Done()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(w.ctx, func() { cancel(context.Cause(w.ctx)) })()

	begin := time.Now()
	t := w.templates[req.Spec.Template]
	lease, hit, err := w.lease(ctx, t, req)
	if err != nil {
		return nil, err
	}
	name := ""
	if t != nil {
		name = t.name
		t.mu.Lock()
		if hit {
			t.hits++
		} else {
			t.misses++
		}
		t.mu.Unlock()
		w.opts.Metrics.Asked(name, hit)
	}
	w.opts.Metrics.Started(string(lease.Start), name, time.Since(begin))
	return lease, nil
}

// lease also says whether the sandbox was ready when it was asked for.
func (w *Warm) lease(ctx context.Context, t *warmTemplate, req pool.Request) (_ *pool.Lease, hit bool, err error) {
	fit := ""
	if t != nil && req.Spec.Image == t.Image && req.Spec.Limits == t.Limits {
		fit = t.hash
		bad := 0
		for bad < badMost {
			pod, ready := w.pick(t)
			if pod == nil {
				break
			}
			lease, err := w.take(ctx, t, pod, ready, req)
			switch {
			case err == nil:
				return lease, ready, nil
			case ctx.Err() != nil:
				return nil, false, context.Cause(ctx)
			case errors.Is(err, errdefs.ErrConflict), errors.Is(err, errdefs.ErrNotFound):
				continue // another replica was first
			}
			bad++
			w.log.Warn("a ready pod could not be handed over: another one is taken", "template", t.name, "pod", pod.Name, "err", err)
		}
	}
	spec := req.Spec
	spec.Prestart, spec.Preload, spec.Pooled = false, nil, false
	info, err := w.startCold(ctx, spec, fit)
	if err != nil {
		return nil, false, err
	}
	return &pool.Lease{Info: info, Start: pool.StartCold, Client: w.d.connect(info)}, false, nil
}

// pick chooses a pod to claim: at random among those that are ready, so that
// replicas rarely choose the same; else the one that began to start first. Each
// version of a pod is chosen once.
func (w *Warm) pick(t *warmTemplate) (pod *corev1.Pod, ready bool) {
	pods := slices.DeleteFunc(w.d.cached(), func(p *corev1.Pod) bool {
		return !isPooled(p) || p.Labels[labelHash] != t.hash || p.DeletionTimestamp != nil || podEnded(p) || templateName(p) != t.name
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.tried) > triedMost {
		maps.DeleteFunc(w.tried, func(name, _ string) bool {
			return !slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return p.Name == name })
		})
	}
	pods = slices.DeleteFunc(pods, func(p *corev1.Pod) bool {
		tried := w.tried[p.Name]
		return tried == p.ResourceVersion || tried == anyVersion
	})
	for _, i := range rand.Perm(len(pods)) { //nolint:gosec // no secret
		p := pods[i]
		if ready = podReady(p); ready {
			pod = p
			break
		}
		if w.stuckFor(p) == "" && (pod == nil || p.CreationTimestamp.Before(&pod.CreationTimestamp)) {
			pod = p
		}
	}
	if pod != nil {
		w.tried[pod.Name] = pod.ResourceVersion
	}
	return pod, ready
}

// take makes a pod of the pool its owner's: one write, and one round trip to
// its agent. A pod that was claimed and can't be handed over is deleted.
func (w *Warm) take(ctx context.Context, t *warmTemplate, pod *corev1.Pod, ready bool, req pool.Request) (_ *pool.Lease, err error) {
	id := idOf(pod.Name)
	begin := time.Now()
	within, cancel := context.WithTimeoutCause(ctx, w.handTimeout, errNotHanded)
	defer cancel()
	info, err := w.d.Claim(within, id, req.Spec.Labels, req.Spec.Env)
	if err != nil {
		if !errors.Is(err, errdefs.ErrConflict) && !errors.Is(err, errdefs.ErrNotFound) {
			// The answer was lost, or the write: it may be claimed for nobody.
			w.unclaim(t, pod, req.Spec.Labels)
		}
		return nil, err
	}
	claimed := time.Now()
	client := w.d.connect(info)
	defer func() {
		if err != nil {
			reason := evictUnresponsive
			if ctx.Err() != nil {
				reason = evictAbandoned
			}
			w.opts.Metrics.Evicted(t.name, reason)
			client.CloseIdle()
			w.discard(id)
		}
	}()
	if !ready {
		if err := w.await(ctx, id); err != nil {
			return nil, err
		}
		within, cancel = context.WithTimeoutCause(ctx, w.handTimeout, errNotHanded)
		defer cancel()
		info.State = sandbox.StateRunning
	}
	asked := time.Now()
	health, err := client.Configure(within, w.d.configureOf(info, req.Spec.Env, req.KernelID))
	if err != nil {
		return nil, err
	}
	w.opts.Metrics.Stage("claim", t.name, claimed.Sub(begin))
	w.opts.Metrics.Stage("configure", t.name, time.Since(asked))
	return &pool.Lease{
		Info: info, Start: pool.StartWarm, Client: client, KernelReady: req.KernelID != "" && health.KernelID == req.KernelID,
	}, nil
}

// await waits until a pod that was claimed early is ready.
func (w *Warm) await(ctx context.Context, id sandbox.ID) error {
	ctx, cancel := context.WithTimeoutCause(ctx, w.d.opts.StartTimeout, errNotReady)
	defer cancel()
	b, err := w.d.lookup(id)
	if err != nil {
		return err
	}
	return w.d.await(ctx, b, true)
}

// connect gives a client of a sandbox's agent.
func (d *Driver) connect(info sandbox.Info) *agentapi.Client {
	return agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, info.ID) }, info.AgentToken)
}

// discard deletes a sandbox in the background, and does not wait until it is gone.
func (w *Warm) discard(id sandbox.ID) {
	w.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), discardTimeout)
		defer cancel()
		err := w.d.retry(ctx, func(ctx context.Context) error {
			return w.d.client.deletePod(ctx, podName(id), metav1.DeleteOptions{})
		})
		if err != nil {
			// It has labels that say when its time is over: the reaper finds it.
			w.log.Error("could not delete a sandbox", "sandbox_id", id, "err", err)
		}
	})
}

// unclaim deletes a pod if it was claimed by a call whose answer was lost: then
// it has this replica's name and the caller's labels. Nobody else here takes it
// until that is known.
func (w *Warm) unclaim(t *warmTemplate, pod *corev1.Pod, labels map[string]string) {
	w.mu.Lock()
	w.tried[pod.Name] = anyVersion
	w.mu.Unlock()
	w.wg.Go(func() {
		// For as long as it takes: until then nobody here can have the pod.
		for {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(w.ctx), writeTimeout)
			now, err := w.d.client.getPod(ctx, pod.Name)
			cancel()
			switch {
			case err == nil && isPooled(now):
				w.mu.Lock()
				delete(w.tried, pod.Name)
				w.mu.Unlock()
				return
			case err == nil:
				if now.UID == pod.UID && now.Annotations[annotationCreatedBy] == w.d.opts.Replica && maps.Equal(specLabels(now), labels) {
					w.opts.Metrics.Evicted(t.name, evictAbandoned)
					w.discard(idOf(pod.Name))
				}
				return
			case apierrors.IsNotFound(err):
				return
			}
			if !pause(w.ctx, time.Second) {
				w.log.Error("it is unknown whether a pod was claimed; if so, its idle time ends it", "pod", pod.Name, "err", err)
				return
			}
		}
	})
}

// Stats gives the templates' pools, as this replica sees them.
func (w *Warm) Stats() map[string]pool.Stats {
	all := w.census()
	out := make(map[string]pool.Stats, len(w.templates))
	for name, t := range w.templates {
		c := all[name]
		size, message := w.wanted(t, c, time.Now())
		t.mu.Lock()
		s := pool.Stats{
			Size: size, Ready: len(c.ready), Starting: len(c.starting) + len(c.stuck), Snapshot: "none",
			Message: cmp.Or(message, c.message, t.message), Hits: t.hits, Misses: t.misses,
		}
		t.mu.Unlock()
		if s.Ready >= s.Size && size == t.Size {
			s.Message = ""
		}
		out[name] = s
	}
	return out
}

// measureEvery bounds how often the figures are counted.
const measureEvery = 250 * time.Millisecond

// measure keeps the metrics of the pools: each replica tells what it sees.
func (w *Warm) measure() {
	for {
		news := w.d.changes()
		all := w.census()
		for name, t := range w.templates {
			size, _ := w.wanted(t, all[name], time.Now())
			w.opts.Metrics.Pool(name, len(all[name].ready), size)
		}
		if !pause(w.ctx, measureEvery) {
			return
		}
		select {
		case <-news:
		case <-time.After(lookEvery): // nights begin without a change
		case <-w.ctx.Done():
			return
		}
	}
}
