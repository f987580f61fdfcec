package warm_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/kube"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
	"github.com/caesarion/caesarion/test/kubetest"
)

// startPatience bounds how long many pods may take to be ready on a small and
// busy machine.
const startPatience = 5 * time.Minute

var (
	warmLimits  = sandbox.Limits{MemoryBytes: 768 << 20, CPUs: 1, Processes: 128, DiskBytes: 1 << 30}
	warmPreload = []string{"numpy", "pandas", "matplotlib.pyplot"}
)

// warmReplica is what one server of an installation has of warm pods.
type warmReplica struct {
	t    testing.TB
	d    *kube.Driver
	w    *kube.Warm
	next http.RoundTripper
	cut  atomic.Bool // it can't reach the API server any more
}

// WrappedRoundTripper is asked by client-go.
func (r *warmReplica) WrappedRoundTripper() http.RoundTripper { return r.next }

func (r *warmReplica) RoundTrip(req *http.Request) (*http.Response, error) {
	if r.cut.Load() {
		return nil, errors.New("the network is cut")
	}
	return r.next.RoundTrip(req)
}

func newWarmReplica(t testing.TB, namespace, name, runtimeClass string, template kube.WarmTemplate) *warmReplica {
	t.Helper()
	r := &warmReplica{t: t}
	cfg := rest.CopyConfig(kubetest.Config(t))
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		r.next = next
		return r
	})
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo})).With("replica", name)
	}
	var err error
	r.d, err = kube.New(t.Context(), kube.Options{
		Config: cfg, Namespace: namespace, Replica: name, Secret: []byte(strings.Repeat("secret ", 8)),
		AgentImage: kubetest.Image(t, "server"), Logger: log,
		Pods: map[string]kube.PodTemplate{"": {
			RuntimeClass: runtimeClass, RequestMemory: resource.MustParse("64Mi"), RequestCPU: resource.MustParse("10m"), RequestEphemeralStorage: resource.MustParse("16Mi"),
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.w, err = kube.NewWarm(t.Context(), r.d, kube.WarmOptions{Templates: map[string]kube.WarmTemplate{"python": template}, StartsAtOnce: 4, Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

func (r *warmReplica) close() {
	if err := errors.Join(r.w.Close(), r.d.Close()); err != nil {
		r.t.Error(err)
	}
}

// full waits until all that is to be ready is.
func (r *warmReplica) full() {
	r.t.Helper()
	waitLong(r.t, "a full pool", func() error {
		if s := r.w.Stats()["python"]; s.Ready < s.Size || s.Starting > 0 {
			return fmt.Errorf("stats %+v", s)
		}
		return nil
	})
}

func waitLong(t testing.TB, what string, ask func() error) {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		err := ask()
		if err == nil {
			return
		}
		if time.Since(begin) > startPatience {
			t.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

func warmTemplate(t testing.TB, size int) kube.WarmTemplate {
	return kube.WarmTemplate{Image: kubetest.Image(t, "python"), Limits: warmLimits, Preload: warmPreload, Size: size}
}

const warmKernel = "krn_mine"

func warmRequest(t testing.TB, env map[string]string) pool.Request {
	return pool.Request{KernelID: warmKernel, Spec: sandbox.Spec{
		ID: sandbox.NewID(), Template: "python", Image: kubetest.Image(t, "python"), Limits: warmLimits, Env: env,
	}}
}

func pods(t testing.TB, namespace, selector string) []corev1.Pod {
	t.Helper()
	list, err := kubetest.Client(t).CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// TestWarmPods has two replicas over real pods: what is leased works and is
// nobody else's, a leader that is gone is followed, a changed template drains
// what nobody has.
func TestWarmPods(t *testing.T) {
	const size, leases = 8, 12
	namespace := kubetest.Namespace(t)
	a := newWarmReplica(t, namespace, "a", "", warmTemplate(t, size))
	a.full() // a leads: nobody else was there
	b := newWarmReplica(t, namespace, "b", "", warmTemplate(t, size))
	b.full()

	var mu sync.Mutex
	owner := map[sandbox.ID]string{}
	var leased []*pool.Lease
	warm := 0
	var wg sync.WaitGroup
	for i := range leases {
		wg.Go(func() {
			mine := fmt.Sprint("lease ", i)
			lease, err := []*warmReplica{a, b}[i%2].w.Lease(t.Context(), warmRequest(t, map[string]string{"MINE": mine}))
			if err != nil {
				t.Error(err)
				return
			}
			kernel := warmKernel
			if !lease.KernelReady {
				if _, err := lease.Client.StartKernel(t.Context(), agentapi.StartKernel{ID: kernel}); err != nil {
					t.Error(err)
					return
				}
			}
			out, err := agenttest.Output(t.Context(), lease.Client, kernel, "import os; print(os.environ['MINE'])")
			if err != nil || out != mine+"\n" {
				t.Errorf("%s of %s printed %q: %v", mine, lease.Info.ID, out, err)
			}
			mu.Lock()
			defer mu.Unlock()
			if other, twice := owner[lease.Info.ID]; twice {
				t.Errorf("%s was given to %s and to %s", lease.Info.ID, other, mine)
			}
			owner[lease.Info.ID] = mine
			leased = append(leased, lease)
			if lease.Start == pool.StartWarm {
				warm++
			}
		})
	}
	wg.Wait()
	if warm < size {
		t.Errorf("%d of %d leases were warm, and %d pods were ready", warm, leases, size)
	}

	a.cut.Store(true) // as if it was killed: nobody lets its lease go
	b.full()
	b.close()

	changed := warmTemplate(t, 2)
	changed.Preload = []string{"json"}
	c := newWarmReplica(t, namespace, "c", "", changed)
	c.full()
	waitLong(t, "the end of the old pods", func() error {
		if n := len(pods(t, namespace, "caesarion.dev/pooled=true")); n != 2 {
			return fmt.Errorf("%d pods of the pool", n)
		}
		return nil
	})
	if n := len(pods(t, namespace, "caesarion.dev/pooled=false")); n != len(owner) {
		t.Errorf("%d sandboxes that somebody has, want %d", n, len(owner))
	}
	for _, l := range leased {
		client := agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return c.d.Dial(ctx, l.Info.ID) }, l.Info.AgentToken)
		out, err := agenttest.Output(t.Context(), client, warmKernel, "import os; print(os.environ['MINE'])")
		if want := owner[l.Info.ID] + "\n"; err != nil || out != want {
			t.Errorf("%s now prints %q, want %q: %v", l.Info.ID, out, want, err)
		}
		client.CloseIdle()
	}
	a.cut.Store(false)
}

// figures are what a benchmark measures each time.
type figures []time.Duration

func (f figures) report(b *testing.B, what string) {
	b.Helper()
	s := slices.Sorted(slices.Values(f))
	for _, p := range []int{50, 99} {
		at := s[min(len(s)-1, p*len(s)/100)]
		b.ReportMetric(float64(at.Microseconds())/1000, fmt.Sprintf("%s-p%d-ms", what, p))
	}
}

// BenchmarkLease is from asking for a sandbox to the first output of its first
// cell, when one is ready.
func BenchmarkLease(b *testing.B) {
	for _, class := range []string{"", kubetest.RuntimeClass} {
		name := class
		if name == "" {
			name = "runc"
		}
		b.Run(name, func(b *testing.B) {
			r := newWarmReplica(b, kubetest.Namespace(b), "bench", class, warmTemplate(b, 4))
			var leases, outputs, seconds figures
			cold := 0
			for b.Loop() {
				b.StopTimer()
				r.full()
				b.StartTimer()
				begin := time.Now()
				lease, err := r.w.Lease(b.Context(), warmRequest(b, nil))
				if err != nil {
					b.Fatal(err)
				}
				leases = append(leases, time.Since(begin))
				out, err := agenttest.Output(b.Context(), lease.Client, warmKernel, "print(1)")
				outputs = append(outputs, time.Since(begin))
				b.StopTimer()
				if err != nil || out != "1\n" {
					b.Fatal(out, err)
				}
				if lease.Start != pool.StartWarm {
					cold++
				}
				begin = time.Now()
				if _, err := agenttest.Output(b.Context(), lease.Client, warmKernel, "print(2)"); err != nil {
					b.Fatal(err)
				}
				seconds = append(seconds, time.Since(begin))
				lease.Client.CloseIdle()
				if err := r.d.Delete(b.Context(), lease.Info.ID); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
			leases.report(b, "lease")
			outputs.report(b, "first-output")
			seconds.report(b, "second-cell")
			b.ReportMetric(float64(cold), "cold")
		})
	}
}
