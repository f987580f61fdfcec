package kube

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/test/kubetest"
)

// TestThousandsOfPods measures what a driver holds in memory for each sandbox,
// and how fast it lists them. The pods are gated: no scheduler and no node has
// anything to do with them.
func TestThousandsOfPods(t *testing.T) {
	const (
		n       = 2000
		writers = 16
		perPod  = 12 << 10 // bytes of heap; most of it is the labels and annotations themselves
		listMax = 50 * time.Millisecond
	)
	opts := Options{
		Config: kubetest.Config(t), Namespace: kubetest.Namespace(t), Replica: "test", Secret: bytes.Repeat([]byte("s"), 32),
		AgentImage: kubetest.Image(t, "server"),
	}
	first, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	var wg sync.WaitGroup
	work := make(chan int)
	for range writers {
		wg.Go(func() {
			for range work {
				pod, err := first.podOf(sandbox.Spec{ID: sandbox.NewID(), Template: "python", Image: opts.AgentImage, Labels: map[string]string{"session": "ses_abcdefghijklmnopqrstuvwxyz", "owner": "somebody"}})
				if err == nil {
					pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "caesarion.dev/test"}}
					_, err = first.client.createPod(t.Context(), pod)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		work <- i
	}
	close(work)
	wg.Wait()
	t.Logf("%d pods made in %v", n, time.Since(begin).Round(time.Millisecond))
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	first = nil

	before := heap()
	begin = time.Now()
	d, err := New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	synced := time.Since(begin)
	each := (heap() - before) / n
	begin = time.Now()
	list, err := d.List(t.Context())
	took := time.Since(begin)
	if err != nil || len(list) != n {
		t.Fatalf("%d sandboxes, %v", len(list), err)
	}
	begin = time.Now()
	for _, info := range list {
		if _, err := d.Get(t.Context(), info.ID); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("known after %v, %d bytes each, list %v, get %v", synced.Round(time.Millisecond), each, took, time.Since(begin)/n)
	if each > perPod {
		t.Errorf("%d bytes a sandbox, want at most %d", each, perPod)
	}
	if took > listMax {
		t.Errorf("list took %v, want at most %v", took, listMax)
	}
	// All at once, as when a namespace is emptied.
	begin = time.Now()
	err = d.client.core.Delete().Namespace(opts.Namespace).Resource("pods").Body(&metav1.DeleteOptions{}).Do(t.Context()).Error()
	if err != nil {
		t.Fatal(err)
	}
	for len(d.memory.list()) > 0 {
		select {
		case <-d.changes():
		case <-t.Context().Done():
			t.Fatal("they do not go")
		case <-time.After(kubetest.Patience):
			t.Fatalf("%d are left", len(d.memory.list()))
		}
	}
	t.Logf("all are gone after %v", time.Since(begin).Round(time.Millisecond))
}

// heap gives the bytes that live.
func heap() int {
	var m runtime.MemStats
	for range 3 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
