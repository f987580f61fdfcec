package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
	"github.com/caesarion/caesarion/test/kubetest"
)

// These tests have a real API server, so that conditional writes, watches,
// preconditions and leases are real, and no node: kubelet pretends to be one.
// Its pods are "on" addresses of the loopback interface, each with an agent
// that only takes its configuration.

// patience bounds each wait of these tests.
const patience = 60 * time.Second

// eventually waits for a condition.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for begin := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > patience {
			t.Fatalf("after %v still not: %s", patience, what)
		}
	}
}

// pretended is one pod that the kubelet pretends to run.
type pretended struct {
	pod        *corev1.Pod
	server     *http.Server
	configured atomic.Int32
	conf       atomic.Pointer[agentapi.Configure]
}

// kubelet makes every pod of a namespace ready as soon as it sees it.
type kubelet struct {
	t      testing.TB
	client *client

	deaf atomic.Bool // it does not hear that pods are to end

	mu      sync.Mutex
	pods    map[types.UID]*pretended
	created int
	// Hooks, called without the lock; nil: the ordinary thing happens.
	start     func(*corev1.Pod) bool                       // false: the pod is left alone
	configure func(*corev1.Pod, context.Context) (ok bool) // false: the agent refuses
}

var loopback atomic.Uint32

func newKubelet(t testing.TB, cfg *rest.Config, namespace string) *kubelet {
	t.Helper()
	c, err := newClient(cfg, namespace)
	if err != nil {
		t.Fatal(err)
	}
	k := &kubelet{t: t, client: c, pods: make(map[types.UID]*pretended)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	w, err := c.core.Get().Namespace(namespace).Resource("pods").VersionedParams(&metav1.ListOptions{Watch: true}, parameters()).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	wg.Go(func() {
		for e := range w.ResultChan() {
			pod, ok := e.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			switch e.Type {
			case "ADDED":
				k.mu.Lock()
				k.created++
				start := k.start
				k.mu.Unlock()
				k.bind(pod)
				if start == nil || start(pod) {
					k.run(pod)
				}
			case "MODIFIED":
				if pod.DeletionTimestamp == nil || k.deaf.Load() {
					continue
				}
				now := metav1.DeleteOptions{GracePeriodSeconds: new(int64(0)), Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
				if err := c.deletePod(context.Background(), pod.Name, now); err != nil && !apierrors.IsConflict(err) {
					t.Errorf("end of %s: %v", pod.Name, err)
				}
			case "DELETED":
				k.mu.Lock()
				p := k.pods[pod.UID]
				delete(k.pods, pod.UID)
				k.mu.Unlock()
				if p != nil {
					p.server.Close()
				}
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		w.Stop()
		wg.Wait()
		for _, p := range k.pods {
			p.server.Close()
		}
	})
	return k
}

// bind puts a pod on a node, so that the scheduler leaves it alone. Each has its
// own, which does not exist: the cluster takes pods away from one that has not
// existed for a while.
func (k *kubelet) bind(pod *corev1.Pod) {
	body := []byte(`{"metadata":{"name":"` + pod.Name + `"},"target":{"kind":"Node","name":"of-` + pod.Name + `"}}`)
	err := k.client.core.Post().Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("binding").
		SetHeader("Content-Type", "application/json").Body(body).Do(context.Background()).Error()
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		k.t.Errorf("bind %s: %v", pod.Name, err)
	}
}

// run makes a pod ready.
func (k *kubelet) run(pod *corev1.Pod) {
	n := loopback.Add(1)
	ip := fmt.Sprintf("127.%d.%d.%d", 100+n/62500, n/250%250, 1+n%250)
	p := &pretended{pod: pod}
	p.server = &http.Server{Handler: k.agent(p)}
	l, err := net.Listen("tcp", net.JoinHostPort(ip, fmt.Sprint(agentapi.Port)))
	if err != nil {
		k.t.Error(err)
		return
	}
	go p.server.Serve(l)
	k.mu.Lock()
	k.pods[pod.UID] = p
	k.mu.Unlock()
	started := true
	k.status(pod, corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "True"}, {Type: corev1.PodReady, Status: "True"}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: container, Ready: true, Started: &started, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}},
		}},
	})
}

// status replaces a pod's status; that the pod is gone is nothing new.
func (k *kubelet) status(pod *corev1.Pod, status corev1.PodStatus) {
	body, err := json.Marshal(map[string]any{"status": status})
	if err == nil {
		err = k.client.core.Patch(types.MergePatchType).Namespace(pod.Namespace).Resource("pods").Name(pod.Name).SubResource("status").Body(body).Do(context.Background()).Error()
	}
	if err != nil && !apierrors.IsNotFound(err) {
		k.t.Errorf("status of %s: %v", pod.Name, err)
	}
}

// end has a pod fail as one does whose process was killed.
func (k *kubelet) end(pod *corev1.Pod, reason string) {
	k.status(pod, corev1.PodStatus{
		Phase:      corev1.PodFailed,
		Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "True"}, {Type: corev1.PodReady, Status: "False"}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: container, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: 137, Reason: reason, FinishedAt: metav1.Now()}},
		}},
	})
}

// agent answers as the agent of a pod does that has a kernel beforehand.
func (k *kubelet) agent(p *pretended) http.Handler {
	mux := http.NewServeMux()
	health := func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(agentapi.Health{Configured: p.conf.Load() != nil})
	}
	mux.HandleFunc("GET /health", health)
	mux.HandleFunc("GET /ready", health)
	mux.HandleFunc("POST /configure", func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		sum := sha256.Sum256([]byte(token))
		if want := argument(p.pod, "--token-sha256="); want != hex.EncodeToString(sum[:]) {
			http.Error(w, "another's token", http.StatusUnauthorized)
			return
		}
		k.mu.Lock()
		configure := k.configure
		k.mu.Unlock()
		if configure != nil && !configure(p.pod, r.Context()) {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		var conf agentapi.Configure
		if err := json.NewDecoder(r.Body).Decode(&conf); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		p.configured.Add(1)
		p.conf.Store(&conf)
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(agentapi.Health{Configured: true, KernelID: conf.KernelID})
	})
	return mux
}

func argument(pod *corev1.Pod, prefix string) string {
	for _, c := range pod.Spec.Containers {
		for _, arg := range c.Command {
			if v, ok := strings.CutPrefix(arg, prefix); ok {
				return v
			}
		}
	}
	return ""
}

// of gives what runs in the pod of a sandbox.
func (k *kubelet) of(id sandbox.ID) *pretended {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		if p.pod.Name == podName(id) {
			return p
		}
	}
	return nil
}

// list asks the API server for the pods there are, ended ones included.
func (k *kubelet) list() []corev1.Pod {
	k.t.Helper()
	out := &corev1.PodList{}
	if err := k.client.core.Get().Namespace(k.client.namespace).Resource("pods").Do(context.Background()).Into(out); err != nil {
		k.t.Fatal(err)
	}
	return out.Items
}

func (k *kubelet) pooled() (ready []corev1.Pod) {
	for _, pod := range k.list() {
		if isPooled(&pod) && podReady(&pod) {
			ready = append(ready, pod)
		}
	}
	return ready
}

// traffic is a replica's way to the API server: it counts, and can be cut.
type traffic struct {
	next          http.RoundTripper
	reads, writes atomic.Int64
	cut           atomic.Bool
	// lose has the answer to a request that it says yes to be lost.
	lose atomic.Pointer[func(*http.Request) bool]
}

// WrappedRoundTripper is asked by client-go.
func (t *traffic) WrappedRoundTripper() http.RoundTripper { return t.next }

func (t *traffic) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.cut.Load() {
		return nil, errors.New("the network is cut")
	}
	if !strings.Contains(r.URL.Path, "/leases") {
		if r.Method == http.MethodGet {
			t.reads.Add(1)
		} else {
			t.writes.Add(1)
		}
	}
	resp, err := t.next.RoundTrip(r)
	if lose := t.lose.Load(); err == nil && lose != nil && (*lose)(r) {
		resp.Body.Close()
		return nil, errors.New("the answer was lost")
	}
	return resp, err
}

const (
	testImage  = "registry.test/python@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	testImage2 = "registry.test/python@sha256:1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
)

var testLimits = sandbox.Limits{MemoryBytes: 64 << 20, CPUs: 0.1, DiskBytes: 64 << 20}

// cell is one namespace with a kubelet and any number of replicas.
type cell struct {
	t         testing.TB
	cfg       *rest.Config
	namespace string
	*kubelet
}

func newCell(t testing.TB) *cell {
	cfg, namespace := kubetest.Config(t), kubetest.Namespace(t)
	return &cell{t: t, cfg: cfg, namespace: namespace, kubelet: newKubelet(t, cfg, namespace)}
}

// replica is one server's driver and warm pods.
type replica struct {
	d *Driver
	w *Warm
	*traffic
}

func (c *cell) replica(name string, opts WarmOptions) *replica {
	c.t.Helper()
	r := &replica{traffic: &traffic{}}
	cfg := rest.CopyConfig(c.cfg)
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		r.traffic.next = next
		return r.traffic
	})
	log := slog.New(slog.DiscardHandler)
	if os.Getenv("CAESARION_TEST_LOG") != "" {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("replica", name)
	}
	d, err := New(c.t.Context(), Options{
		Config: cfg, Namespace: c.namespace, Replica: name, Secret: []byte(strings.Repeat("secret ", 8)), AgentImage: testImage,
		// No node has it: where there are nodes, the pods are left to this kubelet.
		Pods:   map[string]PodTemplate{"": {NodeSelector: map[string]string{"caesarion.dev/test": "nowhere"}}},
		Logger: log,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	opts.Logger = log
	w, err := NewWarm(c.t.Context(), d, opts)
	if err != nil {
		c.t.Fatal(err)
	}
	w.handTimeout = patience // on a busy machine, too, a ready pod is what these tests want
	r.d, r.w = d, w
	c.t.Cleanup(r.close)
	return r
}

func (r *replica) close() {
	r.w.Close()
	r.d.Close()
}

func (r *replica) leads() bool { return r.w.leading.Load() }

func templates(size int) map[string]WarmTemplate {
	return map[string]WarmTemplate{"python": {Image: testImage, Limits: testLimits, Size: size}}
}

func request(labels map[string]string) pool.Request {
	return pool.Request{
		KernelID: "krn_" + sandbox.RandomSuffix(),
		Spec:     sandbox.Spec{ID: sandbox.NewID(), Template: "python", Image: testImage, Limits: testLimits, Labels: labels, Env: map[string]string{"A": "1"}},
	}
}
