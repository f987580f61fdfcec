package kube

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// The reflectors of client-go list, watch and, when the API server no longer
// knows where a watch was (410) or was away, list again. What they hear goes
// into memory at once: there is no queue and no second copy.

// podStore takes what the reflector tells of pods.
type podStore struct{ memory *memory }

var _ cache.TransformingStore = podStore{}

// Transformer has the reflector keep only what is needed also while it lists.
func (podStore) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		if pod, ok := obj.(*corev1.Pod); ok {
			return trim(pod), nil
		}
		return obj, nil
	}
}

// Add takes a pod that is new or has changed.
func (s podStore) Add(obj any) error { return s.Update(obj) }

// Update takes a pod that is new or has changed.
func (s podStore) Update(obj any) error {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("kube: watch of pods gave %T", obj)
	}
	s.memory.seen(trim(pod))
	return nil
}

// Delete takes a pod that is gone.
func (s podStore) Delete(obj any) error {
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		return fmt.Errorf("kube: watch of pods gave %T", obj)
	}
	s.memory.removed(trim(pod))
	return nil
}

// Replace takes all pods.
func (s podStore) Replace(list []any, version string) error {
	pods := make([]*corev1.Pod, 0, len(list))
	for _, obj := range list {
		pod, ok := obj.(*corev1.Pod)
		if !ok {
			return fmt.Errorf("kube: list of pods gave %T", obj)
		}
		pods = append(pods, trim(pod))
	}
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return fmt.Errorf("kube: list of pods: resource version %q is no number", version)
	}
	s.memory.replace(pods, n)
	return nil
}

// Resync does nothing: there is no queue that could have lost something.
func (podStore) Resync() error { return nil }

// eventStore takes what the reflector tells of events and keeps none of them.
type eventStore struct{ memory *memory }

var _ cache.ReflectorStore = eventStore{}

// Add takes an event.
func (s eventStore) Add(obj any) error {
	if e, ok := obj.(*corev1.Event); ok {
		s.memory.warn(e)
	}
	return nil
}

// Update takes an event that happened again.
func (s eventStore) Update(obj any) error { return s.Add(obj) }

// Delete is an event that was forgotten.
func (eventStore) Delete(any) error { return nil }

// Replace is the beginning of a watch.
func (eventStore) Replace([]any, string) error { return nil }

// Resync does nothing.
func (eventStore) Resync() error { return nil }

// How soon a watch that broke is begun anew: the API server's balancer needs a
// moment, and many replicas must not come at once.
const (
	watchFirst = 200 * time.Millisecond
	watchLast  = 4 * time.Second
)

// watch keeps the memory up to date until ctx ends.
func (d *Driver) watch(ctx context.Context) {
	logger := logr.FromSlogHandler(whileOpen{d.log.Handler(), ctx})
	options := func(name string) cache.ReflectorOptions {
		return cache.ReflectorOptions{Name: name, Logger: &logger, Backoff: &wait.Backoff{Duration: watchFirst, Cap: watchLast, Factor: 2, Jitter: 1, Steps: 10}}
	}
	ctx = klog.NewContext(ctx, logger)
	pods := cache.NewReflectorWithOptions(d.client.pods(selectorOf(d.opts.Installation)), &corev1.Pod{}, podStore{d.memory}, options("pods"))
	events := cache.NewReflectorWithOptions(d.client.events(), &corev1.Event{}, eventStore{d.memory}, options("events"))
	d.busy.Go(func() { pods.RunWithContext(ctx) })
	d.busy.Go(func() { events.RunWithContext(ctx) })
}

// whileOpen is a log that ends with a context: that a watch was cut by Close is
// no news.
type whileOpen struct {
	slog.Handler
	ctx context.Context // ends the log
}

// Enabled reports whether there is anything to say still.
func (h whileOpen) Enabled(ctx context.Context, level slog.Level) bool {
	return h.ctx.Err() == nil && h.Handler.Enabled(ctx, level)
}

// WithAttrs keeps the end.
func (h whileOpen) WithAttrs(attrs []slog.Attr) slog.Handler {
	return whileOpen{h.Handler.WithAttrs(attrs), h.ctx}
}

// WithGroup keeps the end.
func (h whileOpen) WithGroup(name string) slog.Handler {
	return whileOpen{h.Handler.WithGroup(name), h.ctx}
}

// trim gives what is needed of a pod. A pod that was trimmed is given back.
func trim(pod *corev1.Pod) *corev1.Pod {
	if pod.ManagedFields == nil && len(pod.Spec.Volumes) == 0 {
		return pod
	}
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: pod.Name, Namespace: pod.Namespace, UID: pod.UID, ResourceVersion: pod.ResourceVersion,
			CreationTimestamp: pod.CreationTimestamp, DeletionTimestamp: pod.DeletionTimestamp,
			Labels: pod.Labels, Annotations: pod.Annotations,
		},
		Spec: corev1.PodSpec{NodeName: pod.Spec.NodeName},
		Status: corev1.PodStatus{
			Phase: pod.Status.Phase, Reason: pod.Status.Reason, Message: clip(pod.Status.Message), PodIP: pod.Status.PodIP,
			Conditions: slices.DeleteFunc(slices.Clone(pod.Status.Conditions), func(c corev1.PodCondition) bool {
				switch c.Type {
				case corev1.PodScheduled, corev1.PodReady, corev1.DisruptionTarget:
					return false
				}
				return true
			}),
		},
	}
	for _, c := range pod.Spec.Containers {
		if c.Name == container {
			out.Spec.Containers = []corev1.Container{{Name: c.Name, Image: c.Image}}
		}
	}
	for i := range out.Status.Conditions {
		c := &out.Status.Conditions[i]
		c.Message = clip(c.Message)
	}
	out.Status.InitContainerStatuses = trimStatuses(pod.Status.InitContainerStatuses)
	out.Status.ContainerStatuses = trimStatuses(pod.Status.ContainerStatuses)
	return out
}

func trimStatuses(list []corev1.ContainerStatus) []corev1.ContainerStatus {
	var out []corev1.ContainerStatus
	for _, s := range list {
		t := corev1.ContainerStatus{Name: s.Name, Ready: s.Ready, Started: s.Started, State: s.State}
		if w := s.State.Waiting; w != nil {
			t.State.Waiting = &corev1.ContainerStateWaiting{Reason: w.Reason, Message: clip(w.Message)}
		}
		if e := s.State.Terminated; e != nil {
			t.State.Terminated = &corev1.ContainerStateTerminated{ExitCode: e.ExitCode, Signal: e.Signal, Reason: e.Reason, Message: clip(e.Message), FinishedAt: e.FinishedAt}
		}
		out = append(out, t)
	}
	return out
}

// maxMessage bounds what is kept of a sentence of the cluster, in bytes.
const maxMessage = 512

func clip(s string) string {
	if len(s) <= maxMessage {
		return s
	}
	return string([]byte(s[:maxMessage])) // not the whole text by its beginning
}
