package kube_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/kube"
	"github.com/caesarion/caesarion/internal/sandbox/sandboxtest"
	"github.com/caesarion/caesarion/test/kubetest"
)

// fails has Create fail with a code, and says how long that took.
func fails(t *testing.T, d *kube.Driver, s sandbox.Spec, code string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sandboxtest.Patience)
	defer cancel()
	begin := time.Now()
	info, err := d.Create(ctx, s)
	if errdefs.CodeOf(err) != code {
		t.Fatalf("create: %+v, %v, want %s", info, err, code)
	}
	t.Logf("after %v: %v", time.Since(begin).Round(time.Millisecond), err)
	if list, err := d.List(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("left: %+v, %v", list, err)
	}
}

// TestStartsThatCantSucceed fail with their reason long before any time-out.
func TestStartsThatCantSucceed(t *testing.T) {
	t.Run("no node fits", func(t *testing.T) {
		t.Parallel()
		opts := options(t, "")
		opts.UnschedulableAfter = time.Second
		opts.Pods = map[string]kube.PodTemplate{"": {NodeSelector: map[string]string{"disk": "none"}}}
		d := open(t, opts)
		fails(t, d, spec(t), kube.ReasonUnschedulable)
		wantNoPods(t, opts.Namespace)
	})
	t.Run("an image that is nowhere", func(t *testing.T) {
		t.Parallel()
		s := spec(t)
		s.Image = "registry.test/nothing@sha256:" + strings.Repeat("1", 64)
		fails(t, open(t, options(t, "")), s, kube.ReasonImagePull)
	})
	t.Run("an agent image without an agent", func(t *testing.T) {
		t.Parallel()
		opts := options(t, "")
		opts.AgentImage = kubetest.Image(t, "probe")
		fails(t, open(t, opts), spec(t), kube.ReasonAgentInstall)
	})
	t.Run("a node without the runtime", func(t *testing.T) {
		t.Parallel()
		classes := kubetest.Client(t).NodeV1().RuntimeClasses()
		class, err := classes.Create(t.Context(), &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{GenerateName: "nothing-"}, Handler: "nothing"}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = classes.Delete(context.WithoutCancel(t.Context()), class.Name, metav1.DeleteOptions{})
		})
		opts := options(t, class.Name)
		opts.UnschedulableAfter = 2 * time.Second
		fails(t, open(t, opts), spec(t), kube.ReasonPodStart)
	})
	t.Run("somebody deletes the pod", func(t *testing.T) {
		t.Parallel()
		opts := options(t, "")
		d := open(t, opts)
		pods := kubetest.Client(t).CoreV1().Pods(opts.Namespace)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() {
			w, err := pods.Watch(ctx, metav1.ListOptions{})
			if err != nil {
				return
			}
			for e := range w.ResultChan() {
				if pod, ok := e.Object.(*corev1.Pod); ok {
					_ = pods.Delete(ctx, pod.Name, metav1.DeleteOptions{})
				}
			}
		}()
		fails(t, d, spec(t), kube.ReasonPodDeleted)
	})
}

// TestTheQuota is said in so many words, and is no matter when there is room.
func TestTheQuota(t *testing.T) {
	t.Parallel()
	opts := options(t, "")
	quotas := kubetest.Client(t).CoreV1().ResourceQuotas(opts.Namespace)
	_, err := quotas.Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "sandboxes"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("1")}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kubetest.Wait(t, "the quota to be counted", func(ctx context.Context) error {
		q, err := quotas.Get(ctx, "sandboxes", metav1.GetOptions{})
		if err == nil && len(q.Status.Hard) == 0 {
			err = errors.New("not yet")
		}
		return err
	})
	d := open(t, opts)
	first := create(t, d, spec(t))
	_, err = d.Create(t.Context(), spec(t))
	if errdefs.CodeOf(err) != kube.ReasonQuota || !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("create over the quota: %v", err)
	}
	open(t, opts) // a server that starts while it is full
	remove(t, d, first.ID)
	kubetest.Wait(t, "room in the quota", func(ctx context.Context) error {
		info, err := d.Create(ctx, spec(t))
		if err == nil {
			remove(t, d, info.ID)
		}
		return err
	})
}

// TestSettingsAreCheckedAgainstTheCluster before a server takes its first request.
func TestSettingsAreCheckedAgainstTheCluster(t *testing.T) {
	base := options(t, "")
	for _, c := range []struct {
		name   string
		change func(*kube.Options)
		code   string
	}{
		{"a runtime class that does not exist", func(o *kube.Options) {
			o.Pods = map[string]kube.PodTemplate{"python": {RuntimeClass: "nothing"}}
		}, kube.ReasonPodRefused},
		{"a priority class that does not exist", func(o *kube.Options) {
			o.Pods = map[string]kube.PodTemplate{"python": {PriorityClass: "nothing"}}
		}, kube.ReasonPodRefused},
		{"an account that does not exist", func(o *kube.Options) {
			o.Pods = map[string]kube.PodTemplate{"python": {ServiceAccount: "nothing"}}
		}, kube.ReasonPodRefused},
		{"a namespace that does not exist", func(o *kube.Options) { o.Namespace = "nothing" }, kube.ReasonPodRefused},
		{"an account without a role", func(o *kube.Options) {
			o.Config = kubetest.Config(t)
			o.Config.Impersonate.UserName = "system:serviceaccount:default:nobody"
		}, kube.ReasonForbidden},
		{"an API server that is not there", func(o *kube.Options) {
			o.Config = kubetest.Config(t)
			o.Config.Host = "https://127.0.0.1:1"
		}, kube.ReasonNoCluster},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := base
			c.change(&opts)
			_, err := kube.New(t.Context(), opts)
			if errdefs.CodeOf(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			t.Log(err)
		})
	}
}

// ends waits for the end of a sandbox and gives its reason. It is known when
// Lost is closed, and not later.
func ends(t *testing.T, d *kube.Driver, id sandbox.ID, why func()) string {
	t.Helper()
	lost, err := d.Lost(id)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	why()
	select {
	case <-lost:
	case <-time.After(sandboxtest.Patience):
		t.Fatal("lost is not closed")
	}
	info, err := d.Get(t.Context(), id)
	if err != nil || info.State != sandbox.StateStopped {
		t.Errorf("get: %+v, %v", info, err)
	}
	t.Logf("%s after %v", info.Reason, time.Since(begin).Round(time.Millisecond))
	return info.Reason
}

// TestEndsHaveTheirReason: what the cluster does to a sandbox is told by name.
func TestEndsHaveTheirReason(t *testing.T) {
	small := func(t testing.TB) sandbox.Spec {
		s := spec(t)
		s.Limits = sandbox.Limits{MemoryBytes: 192 << 20, CPUs: 1, DiskBytes: 24 << 20}
		return s
	}
	command := func(t testing.TB, d *kube.Driver, info sandbox.Info, script string) {
		t.Helper()
		stream, err := sandboxtest.Client(t, d, info).Run(t.Context(), agentapi.Run{ID: agenttest.NewID("prc"), Command: script})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stream.Close() })
	}
	t.Run("over its memory limit in runc", func(t *testing.T) {
		t.Parallel()
		d := open(t, options(t, ""))
		info := create(t, d, small(t))
		got := ends(t, d, info.ID, func() {
			command(t, d, info, "while [ ! -e /tmp/go ]; do sleep 0.1; done; for i in 1 2 3 4 5 6 7 8; do head -c 60M /dev/zero > /dev/shm/$i; done; sleep 60")
			pid := agentPID(t, info) // it would end the command before that is too much
			if err := errors.Join(unix.Kill(pid, unix.SIGSTOP), os.WriteFile(fmt.Sprintf("/proc/%d/root/tmp/go", pid), nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		})
		if got != kube.ReasonOutOfMemory {
			t.Errorf("reason %q", got)
		}
	})
	t.Run("over its memory limit in gVisor", func(t *testing.T) {
		t.Parallel()
		d := open(t, options(t, kubetest.RuntimeClass))
		info := create(t, d, small(t))
		// What waits in pipes is gVisor's own memory: the agent does not see it.
		got := ends(t, d, info.ID, func() {
			command(t, d, info, `exec python3 -c "
import fcntl, os
held = []
while True:
    r, w = os.pipe()
    fcntl.fcntl(w, 1031, 1 << 20)
    os.set_blocking(w, False)
    os.write(w, b'x' * (1 << 20))
    held.append((r, w))
"`)
		})
		if got != kube.ReasonOutOfMemory {
			t.Errorf("reason %q", got)
		}
	})
	t.Run("over its disk limit", func(t *testing.T) {
		t.Parallel()
		d := open(t, options(t, ""))
		info := create(t, d, small(t))
		// What gets around the agent, which lowers the limit of each process.
		got := ends(t, d, info.ID, func() {
			command(t, d, info, "for i in $(seq 80); do ulimit -S -f $(ulimit -H -f); head -c 20M /dev/zero > /workspace/$i; done; sleep 120")
		})
		if got != kube.ReasonDiskFull {
			t.Errorf("reason %q", got)
		}
	})
	t.Run("over its deadline", func(t *testing.T) {
		t.Parallel()
		opts := options(t, "")
		opts.Pods = map[string]kube.PodTemplate{"python": {Deadline: metav1.Duration{Duration: 8 * time.Second}, RequestMemory: resource.MustParse("64Mi"), RequestCPU: resource.MustParse("10m")}}
		d := open(t, opts)
		info := create(t, d, small(t))
		if got := ends(t, d, info.ID, func() {}); got != kube.ReasonDeadlineExceeded {
			t.Errorf("reason %q", got)
		}
	})
	t.Run("its node is drained", func(t *testing.T) {
		t.Parallel()
		opts := options(t, "")
		d := open(t, opts)
		info := create(t, d, small(t))
		got := ends(t, d, info.ID, func() {
			err := kubetest.Client(t).CoreV1().Pods(opts.Namespace).EvictV1(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: podOf(info.ID)}})
			if err != nil {
				t.Fatal(err)
			}
		})
		if got != kube.ReasonDrained {
			t.Errorf("reason %q", got)
		}
	})
	for name, grace := range map[string]*int64{"deleted": nil, "deleted by force": new(int64)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts := options(t, "")
			d := open(t, opts)
			info := create(t, d, small(t))
			got := ends(t, d, info.ID, func() {
				err := kubetest.Client(t).CoreV1().Pods(opts.Namespace).Delete(t.Context(), podOf(info.ID), metav1.DeleteOptions{GracePeriodSeconds: grace})
				if err != nil {
					t.Fatal(err)
				}
			})
			if got != kube.ReasonPodDeleted {
				t.Errorf("reason %q", got)
			}
		})
	}
}

func podOf(id sandbox.ID) string { return strings.Replace(string(id), "_", "-", 1) }

// TestReplicasSeeOneAnother: what one does the other knows, without being told.
func TestReplicasSeeOneAnother(t *testing.T) {
	t.Parallel()
	opts := options(t, "")
	a, b := open(t, opts), open(t, opts)
	s := spec(t)
	s.Labels = map[string]string{"session": "1"}
	info := create(t, a, s)
	kubetest.Wait(t, "the other replica to see it", func(ctx context.Context) error {
		got, err := b.Get(ctx, info.ID)
		if err == nil && (got.State != sandbox.StateRunning || got.AgentToken != info.AgentToken || got.Labels["session"] != "1") {
			err = errors.New("not yet running")
		}
		return err
	})
	if _, err := sandboxtest.Client(t, b, info).Usage(t.Context()); err != nil {
		t.Errorf("through the other replica: %v", err)
	}
	lost, err := a.Lost(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	remove(t, b, info.ID)
	select {
	case <-lost:
	case <-time.After(sandboxtest.Patience):
		t.Error("the first replica does not know that it is gone")
	}
}

// TestAnExpiredWatch lists again: what happened meanwhile is known, and what did
// not happen is not made up.
func TestAnExpiredWatch(t *testing.T) {
	t.Parallel()
	opts := options(t, "")
	var cut atomic.Bool
	broken := make(chan struct{})
	opts.Config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Query().Get("watch") != "true" || !strings.HasSuffix(r.URL.Path, "/pods") {
				return next.RoundTrip(r)
			}
			if cut.CompareAndSwap(true, false) {
				body := `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"too old resource version","reason":"Expired","code":410}`
				return &http.Response{StatusCode: http.StatusGone, Status: "410 Gone", Proto: "HTTP/1.1", ProtoMajor: 1, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
			}
			answer, err := next.RoundTrip(r)
			if err == nil {
				answer.Body = &until{ReadCloser: answer.Body, broken: broken}
			}
			return answer, err
		})
	})
	d := open(t, opts)
	stays, goes := create(t, d, spec(t)), create(t, d, spec(t))
	lostStays, _ := d.Lost(stays.ID)
	lostGoes, _ := d.Lost(goes.ID)
	cut.Store(true)
	close(broken)
	if err := kubetest.Client(t).CoreV1().Pods(opts.Namespace).Delete(t.Context(), podOf(goes.ID), metav1.DeleteOptions{GracePeriodSeconds: new(int64)}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-lostGoes:
	case <-time.After(sandboxtest.Patience):
		t.Error("what was deleted meanwhile is not known")
	}
	select {
	case <-lostStays:
		t.Error("what is still there is taken for lost")
	default:
	}
	if list, _ := d.List(t.Context()); len(list) != 1 || list[0].ID != stays.ID || cut.Load() {
		t.Errorf("list: %+v; the watch was refused: %v", list, !cut.Load())
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// until is a stream that ends when it is told to.
type until struct {
	io.ReadCloser
	broken <-chan struct{}
	once   atomic.Bool
}

func (u *until) Read(p []byte) (int, error) {
	if u.once.CompareAndSwap(false, true) {
		go func() {
			<-u.broken
			_ = u.ReadCloser.Close()
		}()
	}
	return u.ReadCloser.Read(p)
}

// TestTheAPIServerIsAway: sandboxes go on and are not lost, what needs the
// cluster says so at once, and afterwards all is as it was.
func TestTheAPIServerIsAway(t *testing.T) {
	opts := options(t, "")
	d := open(t, opts)
	info := create(t, d, spec(t))
	lost, err := d.Lost(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	s := agenttest.New(t, sandboxtest.Client(t, d, info))
	api := kubetest.Component(t, "kube-apiserver")
	api.Kill()
	away := time.Now()
	for time.Since(away) < 30*time.Second {
		s.Run("print(1)")
		if got, err := d.Get(t.Context(), info.ID); err != nil || got.State != sandbox.StateRunning {
			t.Fatalf("after %v: %+v, %v", time.Since(away), got, err)
		}
		begin := time.Now()
		if _, err := d.Create(t.Context(), spec(t)); errdefs.CodeOf(err) != kube.ReasonNoCluster && errdefs.CodeOf(err) != "delete-unfinished" {
			t.Errorf("create: %v", err)
		}
		t.Logf("create failed after %v", time.Since(begin).Round(time.Millisecond))
		if err := d.SetLabels(t.Context(), info.ID, nil); errdefs.CodeOf(err) != kube.ReasonNoCluster {
			t.Errorf("set labels: %v", err)
		}
	}
	api.Start()
	kubetest.Wait(t, "the API server", func(ctx context.Context) error {
		return d.SetLabels(ctx, info.ID, map[string]string{"a": "1"})
	})
	select {
	case <-lost:
		t.Error("the sandbox was taken for lost")
	default:
	}
	kubetest.Rejoin(t) // what is tested is the driver
	again := create(t, d, spec(t))
	kubetest.Wait(t, "the watch", func(ctx context.Context) error {
		list, err := d.List(ctx)
		if err == nil && len(list) != 2 {
			err = errors.New("not two sandboxes")
		}
		return err
	})
	s.Usable()
	remove(t, d, again.ID)
}

// TestContainerdStartsAnew: what runs goes on, and can be deleted afterwards.
func TestContainerdStartsAnew(t *testing.T) {
	for _, class := range runtimes {
		t.Run(runtimeName(class), func(t *testing.T) {
			d := open(t, options(t, class))
			info := create(t, d, spec(t))
			lost, err := d.Lost(info.ID)
			if err != nil {
				t.Fatal(err)
			}
			s := agenttest.New(t, sandboxtest.Client(t, d, info))
			s.Run("x = 1").Expect(t, event.StatusOK, "")
			containerd := kubetest.Component(t, "containerd")
			containerd.Stop()
			s.Run("x += 1").Expect(t, event.StatusOK, "")
			containerd.Start()
			kubetest.Wait(t, "another sandbox to start", func(ctx context.Context) error {
				other, err := d.Create(ctx, spec(t))
				if err == nil {
					remove(t, d, other.ID)
				}
				return err
			})
			if got := s.Run("print(x)").Expect(t, event.StatusOK, "").Text("stdout"); got != "2\n" {
				t.Errorf("x is %q", got)
			}
			select {
			case <-lost:
				t.Error("the sandbox was taken for lost")
			default:
			}
			remove(t, d, info.ID)
		})
	}
}

// TestANodeThatDoesNotAnswer: the cluster waits a while for it, and when it gives
// the sandbox up, so does the driver, for that reason. Its end can't be
// confirmed, and Delete says so.
func TestANodeThatDoesNotAnswer(t *testing.T) {
	opts := options(t, "")
	opts.DeleteTimeout = 2 * time.Second
	d := open(t, opts)
	info := create(t, d, spec(t))
	lost, err := d.Lost(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	kubelet := kubetest.Component(t, "kubelet")
	kubelet.Freeze()
	// Its agent still answers: it is in use as long as the cluster has not given it up.
	if _, err := sandboxtest.Client(t, d, info).Usage(t.Context()); err != nil {
		t.Errorf("at once: %v", err)
	}
	begin := time.Now()
	// A cluster whose only node is gone gives up nothing, and takes its own taint
	// for that away again: this one is like it.
	unreachable := corev1.Taint{Key: "caesarion.dev/unreachable", Effect: corev1.TaintEffectNoExecute}
	taint(t, func(list []corev1.Taint) []corev1.Taint { return append(list, unreachable) })
	untaint := func() {
		taint(t, func(list []corev1.Taint) []corev1.Taint {
			return slices.DeleteFunc(list, func(other corev1.Taint) bool { return other.Key == unreachable.Key })
		})
	}
	t.Cleanup(untaint)
	select {
	case <-lost:
	case <-time.After(2 * sandboxtest.Patience):
		t.Fatal("lost is not closed")
	}
	got, err := d.Get(t.Context(), info.ID)
	if err != nil || got.State != sandbox.StateStopped || got.Reason != kube.ReasonNodeLost {
		t.Errorf("get: %+v, %v", got, err)
	}
	t.Logf("%s after %v", got.Reason, time.Since(begin).Round(time.Second))
	if err := d.Delete(t.Context(), info.ID); errdefs.CodeOf(err) != "delete-unfinished" {
		t.Errorf("delete: %v", err)
	}
	kubelet.Thaw()
	untaint()
	opts.DeleteTimeout = 0
	d = open(t, opts)
	kubetest.Wait(t, "the node to be back", func(ctx context.Context) error { return d.Delete(ctx, info.ID) })
	kubetest.Wait(t, "a sandbox to start on it", func(ctx context.Context) error {
		other, err := d.Create(ctx, spec(t))
		if err == nil {
			remove(t, d, other.ID)
		}
		return err
	})
}

// taint changes the taints of the node.
func taint(t testing.TB, change func([]corev1.Taint) []corev1.Taint) {
	t.Helper()
	nodes := kubetest.Client(t).CoreV1().Nodes()
	err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		ctx := context.WithoutCancel(t.Context())
		list, err := nodes.List(ctx, metav1.ListOptions{})
		if err != nil || len(list.Items) != 1 {
			return fmt.Errorf("%d nodes: %w", len(list.Items), err)
		}
		node := &list.Items[0]
		node.Spec.Taints = change(node.Spec.Taints)
		_, err = nodes.Update(ctx, node, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
