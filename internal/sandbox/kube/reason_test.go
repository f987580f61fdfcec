package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Each file has the status of a pod as a cluster says it, and what it means:
// the sandbox's state and reason, and the failure of a Create that waits for it.
func TestReasons(t *testing.T) {
	files, err := filepath.Glob("testdata/reasons/*.txtar")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want struct {
				State  sandbox.State `json:"state"`
				Reason string        `json:"reason"`
				Error  string        `json:"error"` // code of the failed start; "": it goes on
				Says   string        `json:"says"`  // in the sentence
			}
			d := offline(t, nil)
			pod := version(t, d, testID, "a", 10, nil)
			if err := errors.Join(yaml.UnmarshalStrict(ar.Files[0].Data, &pod), yaml.UnmarshalStrict(ar.Files[1].Data, &want)); err != nil {
				t.Fatal(err)
			}
			b := d.memory.wrote(pod)
			info, err := d.Get(t.Context(), testID)
			if err != nil || info.State != want.State || info.Reason != want.Reason {
				t.Errorf("state %s, reason %q, %v; want %s, %q", info.State, info.Reason, err, want.State, want.Reason)
			}
			d.opts.UnschedulableAfter = time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			err = d.await(ctx, b, false)
			if errors.Is(err, context.DeadlineExceeded) {
				err = nil // it would wait on
			}
			if got := errdefs.CodeOf(err); got != want.Error {
				t.Errorf("the start fails with %q (%v), want %q", got, err, want.Error)
			}
			if err != nil && !strings.Contains(err.Error(), want.Says) {
				t.Errorf("the start fails with %v, want %q in it", err, want.Says)
			}
			if e, ok := errors.AsType[*errdefs.Error](err); ok && (e.Hint == "" || !errors.Is(err, errdefs.ErrUnavailable)) {
				t.Errorf("%v: hint %q", e, e.Hint)
			}
		})
	}
}

// A node is waited for as long as an autoscaler may need to say that it comes.
func TestUnschedulableHasAGrace(t *testing.T) {
	d := offline(t, nil)
	d.opts.UnschedulableAfter = time.Hour
	pod := version(t, d, testID, "a", 10, nil)
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/1 nodes"}}
	b := d.memory.wrote(pod)
	if err := d.stuck(d.memory.look(b)); err != nil {
		t.Errorf("at once: %v", err)
	}
	d.opts.UnschedulableAfter = time.Nanosecond
	if err := d.stuck(d.memory.look(b)); errdefs.CodeOf(err) != ReasonUnschedulable {
		t.Errorf("after its grace: %v", err)
	}
	d.memory.warn(&corev1.Event{Reason: "TriggeredScaleUp", InvolvedObject: corev1.ObjectReference{Name: pod.Name, UID: pod.UID}})
	if err := d.stuck(d.memory.look(b)); err != nil {
		t.Errorf("while a node is added: %v", err)
	}
}

func TestEventsOfANodeThatCantSetUpAPod(t *testing.T) {
	d := offline(t, nil)
	pod := version(t, d, testID, "a", 10, nil)
	b := d.memory.wrote(pod)
	event := &corev1.Event{
		Reason: "FailedCreatePodSandBox", InvolvedObject: corev1.ObjectReference{Name: pod.Name, UID: pod.UID},
		Message: `Failed to create pod sandbox: rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for "runsc" is configured`,
	}
	d.memory.warn(event)
	if err := d.stuck(d.memory.look(b)); err != nil {
		t.Errorf("at once: %v", err)
	}
	d.opts.UnschedulableAfter = time.Nanosecond
	err := d.stuck(d.memory.look(b))
	if errdefs.CodeOf(err) != ReasonPodStart || !strings.Contains(err.Error(), "runsc") {
		t.Errorf("when it goes on: %v", err)
	}
	stranger := event.DeepCopy()
	stranger.InvolvedObject.UID, stranger.Message = "b", "another pod"
	d.memory.warn(stranger)
	if v := d.memory.look(b); v.warning == "another pod" {
		t.Error("an event of another pod is taken")
	}
}

func TestAnswersOfTheAPIServer(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	forbidden := func(why string) error { return apierrors.NewForbidden(pods, "sbx-1", errors.New(why)) }
	for _, c := range []struct {
		name string
		err  error
		kind error
		code string
	}{
		{"a full quota", forbidden("exceeded quota: sandboxes, requested: pods=1, used: pods=20, limited: pods=20"), errdefs.ErrExhausted, ReasonQuota},
		{"Pod Security", forbidden(`violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false`), errdefs.ErrUnavailable, ReasonPodRefused},
		{"LimitRange", forbidden("maximum memory usage per Container is 1Gi, but limit is 5Gi"), errdefs.ErrUnavailable, ReasonPodRefused},
		{"runtime class", forbidden(`pod rejected: RuntimeClass "gvisor" not found`), errdefs.ErrUnavailable, ReasonPodRefused},
		{"priority class", forbidden("no PriorityClass with name sandboxes was found"), errdefs.ErrUnavailable, ReasonPodRefused},
		{"a namespace that goes", forbidden("unable to create new content in namespace s because it is being terminated"), errdefs.ErrUnavailable, ReasonPodRefused},
		{"a Role that lacks a rule", forbidden(`User "system:serviceaccount:a:b" cannot create resource "pods" in API group "" in the namespace "s"`), errdefs.ErrUnavailable, ReasonForbidden},
		{"an account that is gone", apierrors.NewUnauthorized("Unauthorized"), errdefs.ErrUnavailable, ReasonForbidden},
		{"no namespace", apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "s"), errdefs.ErrUnavailable, ReasonPodRefused},
		{"nonsense", apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, "sbx-1", nil), errdefs.ErrUnavailable, ReasonPodRefused},
		{"too many requests", apierrors.NewTooManyRequests("slow down", 1), errdefs.ErrUnavailable, ReasonNoCluster},
		{"a timeout", apierrors.NewTimeoutError("etcd", 1), errdefs.ErrUnavailable, ReasonNoCluster},
		{"an API server that fails", apierrors.NewInternalError(errors.New("etcdserver: leader changed")), errdefs.ErrUnavailable, ReasonNoCluster},
		{"a proxy's page", apierrors.NewGenericServerResponse(http.StatusBadGateway, "POST", pods, "", "<html>", 0, true), errdefs.ErrUnavailable, ReasonNoCluster},
		{"nobody there", fmt.Errorf("Post: %w", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), errdefs.ErrUnavailable, ReasonNoCluster},
		{"a connection that broke", fmt.Errorf("Post: %w", io.ErrUnexpectedEOF), errdefs.ErrUnavailable, ReasonNoCluster},
		{"no answer", context.DeadlineExceeded, errdefs.ErrUnavailable, ReasonNoCluster},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := apiError(c.err)
			if !errors.Is(err, c.kind) || errdefs.CodeOf(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			if e, ok := errors.AsType[*errdefs.Error](err); ok && (e.Hint == "" || e.Msg == "") {
				t.Errorf("no words for a person: %+v", e)
			}
		})
	}
	if err := apiError(context.Canceled); errdefs.CodeOf(err) != "" {
		t.Errorf("a caller that left: %v", err)
	}
}

// Every reason of an end has a sentence and a hint, and words for whoever asks
// later.
func TestEveryReasonHasWords(t *testing.T) {
	for reason, text := range sentences {
		if said := fleet.GoneSentence(reason); strings.Contains(said, reason) || said == fleet.GoneSentence("") {
			t.Errorf("%s: %s", reason, said)
		}
		if text.msg == "" || text.hint == "" {
			t.Errorf("%s: %+v", reason, text)
		}
		err := endError(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "sbx-1"}}, reason)
		if errdefs.CodeOf(err) != reason {
			t.Errorf("%s: %v", reason, err)
		}
	}
}
