package kube

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	syncTimeout  = 30 * time.Second // for everything to be known at start
	writeTimeout = 10 * time.Second // of one call of the API server
	// retryFor is how long a write is tried again while the API server is away:
	// longer than it takes to start anew behind its load balancer, and shorter
	// than a caller's patience.
	retryFor = 5 * time.Second
	// lookAgain is how often Delete asks whether the pod is still there, should
	// the watch be behind.
	lookAgain = 5 * time.Second

	dialTimeout = 5 * time.Second
)

// Driver makes sandboxes in a cluster. See the package comment.
type Driver struct {
	opts      Options
	templates map[string]PodTemplate // with defaults; "" is always there
	client    *client
	memory    *memory
	log       *slog.Logger
	dialer    net.Dialer

	stop    context.CancelFunc
	stopped <-chan struct{} // closed by stop
	busy    sync.WaitGroup  // what Close waits for: the watch, starts, clean-up

	mu       sync.Mutex
	starting map[sandbox.ID]bool // guarded by mu: Create is at it, here
	closed   bool                // guarded by mu
}

var (
	_ sandbox.Driver  = (*Driver)(nil)
	_ sandbox.Claimer = (*Driver)(nil)
)

// New checks the settings against the cluster, starts to watch it and returns
// when all sandboxes of the installation are known.
func New(ctx context.Context, opts Options) (*Driver, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	c, err := newClient(opts.Config, opts.Namespace)
	if err != nil {
		return nil, err
	}
	d := &Driver{
		opts: opts, templates: map[string]PodTemplate{"": PodTemplate{}.withDefaults()}, client: c,
		log: opts.Logger.With("driver", "kube"), starting: map[sandbox.ID]bool{},
		// A node that is gone sends nothing: without this a stream would wait for ever.
		dialer: net.Dialer{Timeout: dialTimeout, KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 4}},
	}
	for name, t := range opts.Pods {
		d.templates[name] = t.withDefaults()
	}
	d.memory = newMemory(d.infoOf)
	ctx, cancel := context.WithTimeoutCause(ctx, syncTimeout, errdefs.New(errdefs.ErrUnavailable, ReasonNoCluster, "the cluster's API server did not answer within %v", syncTimeout).
		WithHint("check its address, and the network policies of the server's namespace"))
	defer cancel()
	if err := d.check(ctx); err != nil {
		return nil, err
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop, d.stopped = stop, watching.Done()
	d.watch(watching)
	select {
	case <-d.memory.synced:
	case <-ctx.Done():
		_ = d.Close()
		return nil, context.Cause(ctx)
	}
	d.greet(ctx)
	return d, nil
}

// greet asks the agents of sandboxes that the kubelet has not called started
// yet: what an earlier process saw running is to be seen so again.
func (d *Driver) greet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for _, pod := range d.cached() {
		if state, _ := stateOf(pod); state != sandbox.StateStarting || pod.Status.PodIP == "" {
			continue
		}
		wg.Go(func() {
			b := d.memory.find(pod.Name)
			if b != nil && d.answers(ctx, pod) {
				d.memory.answers(b)
			}
		})
	}
	wg.Wait()
}

// infoOf gives what a pod says of its sandbox.
func (d *Driver) infoOf(pod *corev1.Pod) sandbox.Info {
	id := idOf(pod.Name)
	info := sandbox.Info{
		ID: id, Template: templateName(pod), Limits: specLimits(pod), Labels: specLabels(pod),
		CreatedAt: claimedAt(pod), AgentToken: d.token(id), Pooled: isPooled(pod),
	}
	for _, c := range pod.Spec.Containers {
		if c.Name == container {
			info.Image = c.Image
		}
	}
	info.State, info.Reason = stateOf(pod)
	return info
}

// cached gives the pods of the installation from memory, without what nobody
// here needs; they are not to be changed.
func (d *Driver) cached() []*corev1.Pod { return d.memory.pods() }

// changes gives a channel that is closed with the next change of any pod.
func (d *Driver) changes() <-chan struct{} { return d.memory.next() }

func notFound(id sandbox.ID) error {
	return errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "there is no sandbox %.80s", id)
}

func (d *Driver) lookup(id sandbox.ID) (*box, error) {
	if !id.Valid() {
		return nil, notFound(id)
	}
	b := d.memory.find(podName(id))
	if b == nil {
		return nil, notFound(id)
	}
	return b, nil
}

// Get reports one sandbox from memory.
func (d *Driver) Get(_ context.Context, id sandbox.ID) (sandbox.Info, error) {
	b, err := d.lookup(id)
	if err != nil {
		return sandbox.Info{}, err
	}
	return d.memory.look(b).info, nil
}

// List reports the sandboxes that have a pod.
func (d *Driver) List(context.Context) ([]sandbox.Info, error) { return d.memory.list(), nil }

// Lost gives a channel that is closed when the sandbox has stopped.
func (d *Driver) Lost(id sandbox.ID) (<-chan struct{}, error) {
	b, err := d.lookup(id)
	if err != nil {
		return nil, err
	}
	return b.lost, nil
}

// Dial opens a connection to the agent.
func (d *Driver) Dial(ctx context.Context, id sandbox.ID) (net.Conn, error) {
	b, err := d.lookup(id)
	if err != nil {
		return nil, err
	}
	v := d.memory.look(b)
	switch {
	case v.info.State == sandbox.StateStopped:
		return nil, errdefs.New(errdefs.ErrUnavailable, "sandbox-lost", "sandbox %s has stopped", id)
	case v.pod.Status.PodIP == "":
		return nil, errdefs.New(errdefs.ErrUnavailable, "sandbox-starting", "sandbox %s is still starting", id).WithHint("try again in a moment")
	}
	return d.dial(ctx, v.pod)
}

func (d *Driver) dial(ctx context.Context, pod *corev1.Pod) (net.Conn, error) {
	conn, err := d.dialer.DialContext(ctx, "tcp", net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(agentapi.Port)))
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, errdefs.New(errdefs.ErrUnavailable, "sandbox-unreachable", "the sandbox does not answer").WithCause(fmt.Errorf("kube: dial: %w", err))
	}
	return conn, nil
}

// retry makes a call of the API server that may be repeated, again as long as
// the API server is away.
func (d *Driver) retry(ctx context.Context, call func(context.Context) error) error {
	deadline := time.Now().Add(retryFor)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		within, cancel := context.WithTimeout(ctx, writeTimeout)
		err := call(within)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !unavailable(err) || time.Now().After(deadline):
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// SetLabels replaces the labels, in the pod.
func (d *Driver) SetLabels(ctx context.Context, id sandbox.ID, labels map[string]string) error {
	if _, err := d.lookup(id); err != nil {
		return err
	}
	return d.change(ctx, id, map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{annotationLabels: encode(labels)}},
	})
}

// change patches a sandbox's pod and remembers the answer.
func (d *Driver) change(ctx context.Context, id sandbox.ID, patch any) error {
	err := d.retry(ctx, func(ctx context.Context) error {
		pod, err := d.client.patchPod(ctx, podName(id), patch)
		if err == nil {
			d.memory.wrote(pod)
		}
		return err
	})
	if apierrors.IsNotFound(err) {
		return notFound(id)
	}
	return apiError(err)
}

// claimTries bounds the tries to claim a pod that others keep writing to.
const claimTries = 3

// Claim hands over a pooled sandbox by one conditional write. See sandbox.Claimer.
func (d *Driver) Claim(ctx context.Context, id sandbox.ID, labels, _ map[string]string) (sandbox.Info, error) {
	b, err := d.lookup(id)
	if err != nil {
		return sandbox.Info{}, err
	}
	for try := 1; ; try++ {
		v := d.memory.look(b)
		switch {
		case v.info.State == sandbox.StateStopped:
			return sandbox.Info{}, errdefs.New(errdefs.ErrUnavailable, "sandbox-lost", "sandbox %s has stopped", id)
		case !v.info.Pooled:
			return sandbox.Info{}, errdefs.New(errdefs.ErrConflict, "sandbox-claimed", "sandbox %s has an owner already", id)
		}
		within, cancel := context.WithTimeout(ctx, writeTimeout)
		pod, err := d.client.patchPod(within, v.pod.Name, d.claimPatch(v.pod, labels))
		cancel()
		switch {
		case err == nil:
			if b = d.memory.wrote(pod); b == nil {
				return sandbox.Info{}, notFound(id) // deleted since
			}
			return d.memory.look(b).info, nil
		case ctx.Err() != nil:
			return sandbox.Info{}, context.Cause(ctx)
		case apierrors.IsNotFound(err):
			return sandbox.Info{}, notFound(id)
		case !apierrors.IsConflict(err) || try == claimTries:
			return sandbox.Info{}, apiError(err)
		}
		// Somebody was faster; or the kubelet has written something that is of no
		// matter, and the watch has not told it yet.
		within, cancel = context.WithTimeout(ctx, writeTimeout)
		pod, err = d.client.getPod(within, v.pod.Name)
		cancel()
		if err != nil {
			if apierrors.IsNotFound(err) {
				return sandbox.Info{}, notFound(id)
			}
			return sandbox.Info{}, apiError(err)
		}
		b = d.memory.wrote(pod)
		if b == nil {
			return sandbox.Info{}, notFound(id)
		}
	}
}

func (d *Driver) claimPatch(pod *corev1.Pod, labels map[string]string) any {
	return map[string]any{"metadata": map[string]any{
		"resourceVersion": pod.ResourceVersion,
		"uid":             pod.UID,
		"labels":          map[string]any{labelPooled: "false"},
		"annotations": map[string]any{
			annotationLabels: encode(labels), annotationClaimedAt: time.Now().UTC().Format(time.RFC3339Nano),
			annotationCreatedBy: d.opts.Replica, // it may still be starting
		},
	}}
}

// Delete ends a sandbox. It returns nil when the cluster says that nothing of
// it is left. If that takes longer than DeleteTimeout, most likely because the
// node does not answer, it returns ErrUnavailable with the code
// delete-unfinished: the pod is marked for deletion and goes with its node.
func (d *Driver) Delete(ctx context.Context, id sandbox.ID) error {
	if !id.Valid() {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, d.opts.DeleteTimeout, errdefs.New(errdefs.ErrUnavailable, "delete-unfinished", "the sandbox is being deleted, and its node has not said yet that it is gone").
		WithHint("nothing is to be done: it goes when its node answers or is removed"))
	defer cancel()
	name := podName(id)
	b := d.memory.find(name)
	opts := metav1.DeleteOptions{}
	var uid types.UID
	if b != nil {
		v := d.memory.look(b)
		if v.gone {
			d.memory.forget(name)
			return nil
		}
		uid = v.pod.UID
		opts.Preconditions = &metav1.Preconditions{UID: &uid}
	}
	err := d.retry(ctx, func(ctx context.Context) error { return d.client.deletePod(ctx, name, opts) })
	if err != nil && !apierrors.IsConflict(err) { // a conflict: another pod has the name, ours is gone
		return apiError(err)
	}
	return d.waitGone(ctx, name, uid)
}

// waitGone returns when there is no pod of this name (and uid, if it is known).
func (d *Driver) waitGone(ctx context.Context, name string, uid types.UID) error {
	look := time.NewTimer(0) // a pod that the watch has not told us of yet
	defer look.Stop()
	if uid != "" {
		look.Reset(lookAgain)
	}
	for {
		told := d.memory.next()
		if b := d.memory.find(name); b != nil {
			if v := d.memory.look(b); v.gone || uid != "" && v.pod.UID != uid {
				d.memory.forget(name)
				return nil
			}
		} else if uid != "" {
			return nil
		}
		select {
		case <-told:
		case <-look.C:
			look.Reset(lookAgain)
			within, cancel := context.WithTimeout(ctx, writeTimeout)
			pod, err := d.client.getPod(within, name)
			cancel()
			if apierrors.IsNotFound(err) || err == nil && uid != "" && pod.UID != uid {
				d.memory.forget(name)
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Capabilities says which limits the cluster enforces.
func (d *Driver) Capabilities() sandbox.Capabilities {
	return sandbox.Capabilities{
		Driver: "kube",
		Enforces: map[string]string{
			"memory_bytes": "the container's memory limit and the agent's watch",
			"cpus":         "the container's CPU limit",
			"processes":    "the agent's watch, and the kubelet's podPidsLimit where it is set",
			"disk_bytes":   "the agent's watch and RLIMIT_FSIZE; and the pod's ephemeral-storage limit, where the kubelet ends it",
			"network":      "the NetworkPolicies of the sandboxes' namespace, where the cluster's network enforces them",
		},
		Missing: map[string]string{},
	}
}

// Close lets go of everything of this process; sandboxes go on.
func (d *Driver) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	if d.stop != nil {
		d.stop()
	}
	d.busy.Wait()
	d.client.close()
	return nil
}

var errClosed = errdefs.New(errdefs.ErrUnavailable, "server-stopping", "the server is being stopped")

// enter notes a start, which Close waits for.
func (d *Driver) enter(id sandbox.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errClosed
	}
	if d.starting[id] {
		return errExists(id)
	}
	d.starting[id] = true
	d.busy.Add(1)
	return nil
}

func (d *Driver) leave(id sandbox.ID) {
	d.mu.Lock()
	delete(d.starting, id)
	d.mu.Unlock()
	d.busy.Done()
}

func errExists(id sandbox.ID) error {
	return errdefs.New(errdefs.ErrConflict, "sandbox-exists", "there is a sandbox %s already", id)
}
