package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Why a sandbox stopped, as in sandbox.Info.Reason; and why one could not be
// made, as the code of the error.
const (
	ReasonOutOfMemory      = "out_of_memory"     // the node ended it: over its memory limit
	ReasonDiskFull         = "disk_full"         // the node ended it: over its disk limit
	ReasonLost             = "sandbox_lost"      // its agent ended, nobody knows why
	ReasonEvicted          = "evicted"           // the node ended it because it ran short itself
	ReasonDrained          = "node-drained"      // somebody had the node emptied
	ReasonPreempted        = "preempted"         // made room for a pod of higher priority
	ReasonNodeLost         = "node-lost"         // its node does not answer any more, or is gone
	ReasonNodeShutdown     = "node-shutdown"     // its node was shut down
	ReasonDeadlineExceeded = "deadline-exceeded" // over the deadline of its template
	ReasonPodDeleted       = "pod-deleted"       // somebody deleted the pod
	ReasonRefused          = "node-refused"      // the node had no room after all

	ReasonUnschedulable  = "unschedulable"
	ReasonQuota          = "quota-exceeded"
	ReasonImagePull      = "image-pull-failed"
	ReasonAgentInstall   = "agent-install-failed"
	ReasonPodStart       = "pod-start-failed"
	ReasonPodRefused     = "pod-refused"
	ReasonForbidden      = "cluster-forbidden"
	ReasonNoCluster      = "cluster-unavailable"
	ReasonSandboxTimeout = "sandbox-start-timeout"
)

// sentences say to a person what the reasons of an end mean, and what to do.
var sentences = map[string]struct{ msg, hint string }{
	ReasonOutOfMemory:      {"the sandbox used more memory than it may and was ended by its node", "use less memory at once, or choose a template with more"},
	ReasonDiskFull:         {"the sandbox wrote more than its disk limit and was ended by its node", "delete what is not needed before it fills up, or choose a template with more"},
	ReasonLost:             {"the sandbox ended unexpectedly", "start it again; the server's log has its last words"},
	ReasonEvicted:          {"the sandbox was ended because its node ran short of memory, disk or processes", "try again; if it happens often the cluster needs larger requests or more nodes"},
	ReasonDrained:          {"the sandbox was ended because its node is being emptied for maintenance", "try again: it starts on another node"},
	ReasonPreempted:        {"the sandbox was ended to make room for something more important in the cluster", "try again, or give sandboxes a higher priority class"},
	ReasonNodeLost:         {"the sandbox's node no longer answers", "try again: it starts on another node"},
	ReasonNodeShutdown:     {"the sandbox's node was shut down", "try again: it starts on another node"},
	ReasonDeadlineExceeded: {"the sandbox reached the longest life that the cluster allows it", "start a new one; `deadline` of the template sets it"},
	ReasonPodDeleted:       {"the sandbox's pod was deleted from the cluster", "start a new one"},
	ReasonRefused:          {"the node that was chosen for the sandbox had no room for it after all", "try again"},
}

// lacksNode reports whether the scheduler has found no node for a pod.
func lacksNode(pod *corev1.Pod) bool {
	c := condition(pod, corev1.PodScheduled)
	return c != nil && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable
}

func condition(pod *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == kind {
			return c
		}
	}
	return nil
}

func statusOf(list []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// stateOf gives a sandbox's state by its pod alone, and why it has stopped.
func stateOf(pod *corev1.Pod) (sandbox.State, string) {
	main := statusOf(pod.Status.ContainerStatuses, container)
	ended := pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded ||
		main != nil && main.State.Terminated != nil
	switch {
	case ended:
		return sandbox.StateStopped, endOf(pod, main)
	case main != nil && main.State.Running != nil && (main.Started != nil && *main.Started || main.Ready):
		return sandbox.StateRunning, ""
	}
	return sandbox.StateStarting, ""
}

// endOf says why a pod has ended or is about to.
func endOf(pod *corev1.Pod, main *corev1.ContainerStatus) string {
	if main != nil && main.State.Terminated != nil && oomKilled(main.State.Terminated) {
		return ReasonOutOfMemory
	}
	switch s := &pod.Status; s.Reason {
	case "Evicted":
		// The kubelet's words: "Usage of EmptyDir volume …", "Pod ephemeral local
		// storage usage …", "Container … exceeded its local ephemeral storage limit".
		if m := strings.ToLower(s.Message); strings.Contains(m, "emptydir volume") || strings.Contains(m, "ephemeral local storage") || strings.Contains(m, "local ephemeral storage limit") {
			return ReasonDiskFull
		}
		return ReasonEvicted
	case "Preempting", "Preempted":
		return ReasonPreempted
	case "NodeLost":
		return ReasonNodeLost
	case "NodeShutdown", "Shutdown", "Terminated":
		return ReasonNodeShutdown
	case "DeadlineExceeded":
		return ReasonDeadlineExceeded
	case "OutOfcpu", "OutOfmemory", "OutOfephemeral-storage", "OutOfpods", "NodeAffinity", "UnexpectedAdmissionError":
		return ReasonRefused
	}
	if c := condition(pod, corev1.DisruptionTarget); c != nil && c.Status == corev1.ConditionTrue {
		switch c.Reason {
		case corev1.PodReasonPreemptionByScheduler:
			return ReasonPreempted
		case "DeletionByTaintManager", "DeletionByPodGC":
			return ReasonNodeLost
		case "EvictionByEvictionAPI":
			return ReasonDrained
		case corev1.PodReasonTerminationByKubelet:
			return ReasonEvicted
		}
	}
	if pod.DeletionTimestamp != nil {
		return ReasonPodDeleted
	}
	return ReasonLost
}

// oomKilled tells that a container was over its memory limit. runc's has exit
// code 137, gVisor's 128: there it is gVisor itself that the kernel ended.
func oomKilled(t *corev1.ContainerStateTerminated) bool { return t.Reason == "OOMKilled" }

// endError is the failure of a start whose pod has ended.
func endError(pod *corev1.Pod, reason string) error {
	if s := statusOf(pod.Status.InitContainerStatuses, installer); s != nil && s.State.Terminated != nil && s.State.Terminated.ExitCode != 0 {
		return errdefs.New(errdefs.ErrUnavailable, ReasonAgentInstall, "the agent could not be put into the sandbox").
			WithHint("the agent image has to contain /caesarion-agent of this version").
			WithCause(fmt.Errorf("init container: exit code %d: %s", s.State.Terminated.ExitCode, s.State.Terminated.Message))
	}
	text, ok := sentences[reason]
	if !ok {
		text = sentences[ReasonLost]
	}
	var cause error
	if s := statusOf(pod.Status.ContainerStatuses, container); s != nil && s.State.Terminated != nil {
		t := s.State.Terminated
		if reason == ReasonLost && (t.Reason == "StartError" || t.Reason == "ContainerCannotRun") {
			reason, text.msg, text.hint = ReasonPodStart, "the sandbox's first process could not be started", "the image may be of another processor architecture, or lack what the agent needs"
		}
		cause = fmt.Errorf("container: %s, exit code %d: %s", t.Reason, t.ExitCode, t.Message)
	} else if pod.Status.Message != "" {
		cause = errors.New(pod.Status.Message)
	}
	return errdefs.New(errdefs.ErrUnavailable, reason, "%s", text.msg).WithHint("%s", text.hint).WithCause(cause)
}

// stuck gives the failure of a start that goes on but can't succeed; nil: it may.
func (d *Driver) stuck(v view) error {
	if !v.unplaced.IsZero() && !v.scaling && time.Since(v.unplaced) >= d.opts.UnschedulableAfter {
		return errUnschedulable(v.pod)
	}
	for _, s := range append(append([]corev1.ContainerStatus(nil), v.pod.Status.InitContainerStatuses...), v.pod.Status.ContainerStatuses...) {
		w := s.State.Waiting
		if w == nil {
			continue
		}
		cause := fmt.Errorf("container %s: %s: %s", s.Name, w.Reason, w.Message)
		what := "the sandbox's image"
		if s.Name == installer {
			what = "the agent's image"
		}
		reason := w.Reason
		if reason == "ErrImagePull" && refusedByRegistry(w.Message) {
			reason = "ImagePullBackOff"
		}
		switch reason {
		case "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ErrInvalidImageName", "ImageInspectError", "RegistryUnavailable", "SignatureValidationFailed":
			// ErrImagePull alone may pass: it is tried again soon, and the back-off
			// begins with the second.
			return errdefs.New(errdefs.ErrUnavailable, ReasonImagePull, "%s can't be pulled", what).
				WithHint("check the reference, the registry and the template's image_pull_secrets").WithCause(cause)
		case "CreateContainerConfigError", "CreateContainerError", "RunContainerError":
			return errdefs.New(errdefs.ErrUnavailable, ReasonPodStart, "the node can't start the sandbox's container").
				WithHint("the server's log has the node's own words").WithCause(cause)
		}
	}
	if !v.warned.IsZero() && time.Since(v.warned) >= d.opts.UnschedulableAfter && v.pod.Status.PodIP == "" {
		return errdefs.New(errdefs.ErrUnavailable, ReasonPodStart, "the node can't set up the sandbox").
			WithHint("the node may lack the template's runtime class; the server's log has the node's own words").WithCause(errors.New(v.warning))
	}
	return nil
}

// refusedByRegistry reports whether a registry answered that it has no such
// image, or not for us: asking again gives the same. These are the words of
// containerd and of registries.
func refusedByRegistry(message string) bool {
	message = strings.ToLower(message)
	for _, words := range []string{": not found", "manifest unknown", "name unknown", "unauthorized", "access denied", "authorization failed", "403 forbidden", "no match for platform", "failed size validation", "failed precondition: unexpected digest"} {
		if strings.Contains(message, words) {
			return true
		}
	}
	return false
}

func errUnschedulable(pod *corev1.Pod) error {
	msg := "no node fits"
	if c := condition(pod, corev1.PodScheduled); c != nil && c.Message != "" {
		msg = c.Message
	}
	return errdefs.New(errdefs.ErrUnavailable, ReasonUnschedulable, "the cluster has no room for another sandbox now").
		WithHint("try again later; whoever runs the cluster can add nodes or lower the template's requests").
		WithCause(errors.New(msg))
}

// unavailable reports whether a failure says nothing but that the API server
// was not there or did not want: the same call may succeed a moment later.
func unavailable(err error) bool {
	if errors.Is(err, context.Canceled) {
		return false
	}
	return apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) || apierrors.IsTooManyRequests(err) ||
		apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsUnexpectedServerError(err) ||
		utilnet.IsConnectionReset(err) || utilnet.IsConnectionRefused(err) || utilnet.IsTimeout(err) || utilnet.IsProbableEOF(err) ||
		utilnet.IsHTTP2ConnectionLost(err) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, context.DeadlineExceeded) || isNetError(err)
}

func isNetError(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// apiError gives an answer of the API server a kind, and words for who asked.
func apiError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*errdefs.Error](err); ok {
		return err
	}
	text := err.Error()
	switch {
	case apierrors.IsForbidden(err) && strings.Contains(text, "exceeded quota"):
		return errdefs.New(errdefs.ErrExhausted, ReasonQuota, "the cluster's quota for sandboxes is used up").
			WithHint("try again when other sandboxes have ended; whoever runs the cluster can raise the ResourceQuota").WithCause(err)
	case apierrors.IsForbidden(err) && strings.Contains(text, "violates PodSecurity"):
		return refused("the namespace's Pod Security does not allow the sandbox's pod", "sandboxes need no more than \"restricted\": the template's settings add something to it", err)
	case apierrors.IsForbidden(err) && (strings.Contains(text, "usage per") || strings.Contains(text, "request ratio per")):
		return refused("the sandbox's limits do not fit the namespace's LimitRange", "change the template's limits or the LimitRange", err)
	case apierrors.IsForbidden(err) && (strings.Contains(text, "RuntimeClass") || strings.Contains(text, "PriorityClass") || strings.Contains(text, "service account") || strings.Contains(text, "failed quota")):
		return refused("the cluster lacks something that the template names", "check runtime_class, priority_class and service_account of the template, and that the namespace's quota has all that sandboxes set", err)
	case apierrors.IsNotFound(err) && strings.Contains(text, "namespaces"):
		return refused("the namespace of the sandboxes does not exist", "create it, or name another one", err)
	case apierrors.IsForbidden(err) && strings.Contains(text, "because it is being terminated"):
		return refused("the namespace of the sandboxes is being deleted", "wait for its end and install again", err)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return errdefs.New(errdefs.ErrUnavailable, ReasonForbidden, "the server may not do this in the cluster").
			WithHint("try again in a moment: an API server that has just started refuses everything until it has read its rules; if it lasts, the server's Role in the sandboxes' namespace lacks a rule, which the server's log names").WithCause(err)
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		return refused("the cluster does not accept the sandbox's pod", "check the template's kubernetes settings; the server's log has what is wrong", err)
	case unavailable(err):
		return errdefs.New(errdefs.ErrUnavailable, ReasonNoCluster, "the cluster's API server does not answer").
			WithHint("try again in a moment; sandboxes that run go on").WithCause(err)
	}
	return fmt.Errorf("kube: %w", err)
}

func refused(msg, hint string, err error) error {
	return errdefs.New(errdefs.ErrUnavailable, ReasonPodRefused, "%s", msg).WithHint("%s", hint).WithCause(err)
}

// waitsFor says what a pod that has not started waits for, for the log.
func waitsFor(v view) error {
	for _, s := range append(append([]corev1.ContainerStatus(nil), v.pod.Status.InitContainerStatuses...), v.pod.Status.ContainerStatuses...) {
		if w := s.State.Waiting; w != nil && w.Reason != "PodInitializing" {
			return fmt.Errorf("container %s waits: %s: %s", s.Name, w.Reason, w.Message)
		}
	}
	return fmt.Errorf("pod is %s on node %q with address %q; %s", v.pod.Status.Phase, v.pod.Spec.NodeName, v.pod.Status.PodIP, cmp.Or(v.warning, "the cluster warned of nothing"))
}
