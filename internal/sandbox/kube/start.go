package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// A start asks the agent itself as soon as the pod has an address: the
	// kubelet looks once a second, and needs another to say what it saw.
	askFirst = 10 * time.Millisecond
	askLast  = 100 * time.Millisecond
	// askTimeout bounds one question.
	askTimeout = 2 * time.Second
	// undoEvery and undoFor say how often and how long it is tried to delete what
	// a failed start has left, when the API server is away.
	undoEvery = 2 * time.Second
	undoFor   = 10 * time.Minute
	// tellTime is waited for the news of a pod that stopped answering.
	tellTime = 2 * time.Second
)

// Create makes a pod and returns when its agent has answered and knows who it
// is. The API server is written to once.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Info, error) {
	if spec.ID == "" {
		spec.ID = sandbox.NewID()
	}
	if !spec.ID.Valid() {
		return sandbox.Info{}, errdefs.New(errdefs.ErrInvalid, "invalid-id", "%.80q is not a sandbox id", spec.ID)
	}
	if err := d.enter(spec.ID); err != nil {
		return sandbox.Info{}, err
	}
	defer d.leave(spec.ID)
	timeout := errdefs.New(errdefs.ErrUnavailable, ReasonSandboxTimeout, "the sandbox did not start within %v", d.opts.StartTimeout).
		WithHint("the cluster may be overloaded or still pull the image; try again")
	ctx, cancel := context.WithTimeoutCause(ctx, d.opts.StartTimeout, timeout)
	defer cancel()
	if ctx.Err() != nil {
		return sandbox.Info{}, context.Cause(ctx)
	}
	pod, err := d.podOf(spec)
	if err != nil {
		return sandbox.Info{}, err
	}
	b, err := d.post(ctx, pod)
	if err != nil {
		return sandbox.Info{}, err
	}
	info, err := d.start(ctx, b, spec)
	if err != nil {
		d.undo(ctx, spec.ID)
		if e, ok := errors.AsType[*errdefs.Error](err); ok && e == timeout {
			err = errdefs.New(e.Kind, e.Code, "%s", e.Msg).WithHint("%s", e.Hint).WithCause(waitsFor(d.memory.look(b)))
		}
		return sandbox.Info{}, err
	}
	return info, nil
}

// post creates the pod. The call is never cut short, so that it is always
// known whether there is something to clean up.
func (d *Driver) post(ctx context.Context, pod *corev1.Pod) (*box, error) {
	tried, doubt := false, false
	err := d.retry(context.WithoutCancel(ctx), func(within context.Context) error {
		if ctx.Err() != nil && tried {
			return context.Cause(ctx)
		}
		made, err := d.client.createPod(within, pod)
		if apierrors.IsAlreadyExists(err) && tried {
			made, err = d.client.getPod(within, pod.Name) // by the try before, whose answer was lost
		}
		tried = true
		if err == nil {
			d.memory.wrote(made)
		}
		doubt = doubt || err != nil && unavailable(err) && !utilnet.IsConnectionRefused(err)
		return err
	})
	switch {
	case err == nil:
		if b := d.memory.find(pod.Name); b != nil {
			return b, nil
		}
		return nil, errdefs.New(errdefs.ErrUnavailable, ReasonPodDeleted, "%s", sentences[ReasonPodDeleted].msg)
	case apierrors.IsAlreadyExists(err):
		return nil, errExists(idOf(pod.Name))
	case doubt: // it may have been made
		d.undo(ctx, idOf(pod.Name))
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, apiError(err)
}

// undo deletes what a start that failed has left, in a time of its own. What it
// can't say to the cluster now is said as soon as the cluster hears.
func (d *Driver) undo(ctx context.Context, id sandbox.ID) {
	err := d.Delete(context.WithoutCancel(ctx), id)
	if err == nil {
		return
	}
	d.log.Warn("a sandbox that failed to start is not gone yet", "sandbox_id", id, "err", err)
	d.busy.Go(func() {
		for end := time.Now().Add(undoFor); errdefs.CodeOf(err) == ReasonNoCluster && time.Now().Before(end); {
			select {
			case <-time.After(undoEvery):
			case <-d.stopped:
				return // the reaper of another process finds it
			}
			err = d.Delete(context.WithoutCancel(ctx), id)
		}
		if err != nil {
			d.log.Error("could not remove a sandbox that failed to start", "sandbox_id", id, "err", err)
		}
	})
}

// start waits for the agent of a new pod and tells it who it is.
func (d *Driver) start(ctx context.Context, b *box, spec sandbox.Spec) (sandbox.Info, error) {
	if err := d.await(ctx, b, true); err != nil {
		return sandbox.Info{}, err
	}
	v := d.memory.look(b)
	client := agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return d.dial(ctx, v.pod) }, v.info.AgentToken)
	defer client.CloseIdle()
	if _, err := client.Configure(ctx, d.configureOf(v.info, spec.Env, "")); err != nil {
		if ctx.Err() != nil {
			return sandbox.Info{}, context.Cause(ctx)
		}
		// If the pod has ended meanwhile, the cluster is about to say why.
		news, cancel := context.WithTimeoutCause(ctx, tellTime, fmt.Errorf("kube: configure agent: %w", err))
		defer cancel()
		for {
			v := d.memory.look(b)
			if v.info.State == sandbox.StateStopped {
				return sandbox.Info{}, endError(v.pod, v.info.Reason)
			}
			select {
			case <-v.changed:
			case <-news.Done():
				return sandbox.Info{}, context.Cause(news)
			}
		}
	}
	return d.memory.look(b).info, nil
}

// await waits until a sandbox runs. With ask its agent is asked, too.
func (d *Driver) await(ctx context.Context, b *box, ask bool) error {
	asked := make(chan struct{})
	defer close(asked)
	for asking := false; ; {
		v := d.memory.look(b)
		switch {
		case v.gone && v.info.Reason == "":
			return endError(v.pod, ReasonPodDeleted)
		case v.info.State == sandbox.StateStopped:
			return endError(v.pod, v.info.Reason)
		case v.info.State == sandbox.StateRunning:
			return nil
		}
		if err := d.stuck(v); err != nil {
			return err
		}
		if ask && !asking && v.pod.Status.PodIP != "" {
			asking = true
			go d.ask(ctx, b, v.pod, asked)
		}
		if err := d.waitChange(ctx, v); err != nil {
			return err
		}
	}
}

// waitChange waits for news of a pod, or until its patience with it is over.
func (d *Driver) waitChange(ctx context.Context, v view) error {
	var over <-chan time.Time
	for _, since := range []time.Time{v.unplaced, v.warned} {
		if left := d.opts.UnschedulableAfter - time.Since(since); !since.IsZero() && left > 0 {
			timer := time.NewTimer(left + time.Millisecond)
			defer timer.Stop()
			over = timer.C
		}
	}
	select {
	case <-v.changed:
	case <-over:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}

// ask asks the agent until it answers, or until nobody waits any more.
func (d *Driver) ask(ctx context.Context, b *box, pod *corev1.Pod, done <-chan struct{}) {
	for wait := askFirst; ; wait = min(2*wait, askLast) {
		if d.answers(ctx, pod) {
			d.memory.answers(b)
			return
		}
		select {
		case <-time.After(wait):
		case <-done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// answers reports whether a pod's agent says that it is ready.
func (d *Driver) answers(ctx context.Context, pod *corev1.Pod) bool {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	conn, err := d.dial(ctx, pod)
	if err != nil {
		return false
	}
	transport := &http.Transport{
		DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
	}
	defer conn.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/ready", nil)
	if err != nil {
		return false
	}
	answer, err := transport.RoundTrip(req)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	var health agentapi.Health
	return answer.StatusCode == http.StatusOK && json.NewDecoder(http.MaxBytesReader(nil, answer.Body, 64<<10)).Decode(&health) == nil
}
