package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// full waits until a replica sees as many ready pods as there are to be.
func (r *replica) full(t testing.TB) {
	t.Helper()
	eventually(t, "the pool is full", func() bool {
		s := r.w.Stats()["python"]
		return s.Ready == s.Size && s.Starting == 0
	})
}

func TestALeaseIsOneWriteAndOneCallOfTheAgent(t *testing.T) {
	c := newCell(t)
	a := c.replica("a", WarmOptions{Templates: templates(3)})
	eventually(t, "a leads", a.leads)
	b := c.replica("b", WarmOptions{Templates: templates(3)})
	a.full(t)
	b.full(t)

	reads, writes := b.reads.Load(), b.writes.Load()
	req := request(map[string]string{"user.x": "y"})
	lease, err := b.w.Lease(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	reads, writes = b.reads.Load()-reads, b.writes.Load()-writes
	t.Logf("a lease of a ready pod: %d writes to and %d reads from the API server", writes, reads)
	if writes != 1 || reads != 0 {
		t.Errorf("%d writes and %d reads, want 1 and none", writes, reads)
	}
	if lease.Start != pool.StartWarm || !lease.KernelReady || lease.Info.Pooled || lease.Info.State != sandbox.StateRunning || !maps.Equal(lease.Info.Labels, req.Spec.Labels) {
		t.Errorf("lease %+v", lease)
	}
	p := c.of(lease.Info.ID)
	if p == nil || p.configured.Load() != 1 {
		t.Fatal("its agent was not configured once")
	}
	if conf := p.conf.Load(); conf.KernelID != req.KernelID || conf.Env["A"] != "1" || conf.SandboxID != string(lease.Info.ID) || conf.UnixTimeNanos == 0 || conf.MemoryBytes == 0 {
		t.Errorf("configured %+v", conf)
	}
	if _, err := lease.Client.Health(t.Context()); err != nil {
		t.Error(err)
	}
	// The leader hears of it and makes another one.
	eventually(t, "another one is made", func() bool { return len(c.list()) >= 4 })
	a.full(t)
	if n := len(c.list()); n != 4 {
		t.Errorf("%d pods, want three ready and one in use", n)
	}
	if s := b.w.Stats()["python"]; s.Hits != 1 || s.Misses != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestTwoReplicasNeverTakeTheSamePod(t *testing.T) {
	const size, leases = 30, 40
	c := newCell(t)
	replicas := []*replica{
		c.replica("a", WarmOptions{Templates: templates(size), StartsAtOnce: size}),
		c.replica("b", WarmOptions{Templates: templates(size), StartsAtOnce: size}),
	}
	for _, r := range replicas {
		r.full(t)
	}
	var mu sync.Mutex
	owner, warm := map[sandbox.ID]string{}, 0
	var wg sync.WaitGroup
	begin := time.Now()
	for i := range leases {
		wg.Go(func() {
			req := request(map[string]string{"n": fmt.Sprint(i)})
			lease, err := replicas[i%2].w.Lease(t.Context(), req)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other, twice := owner[lease.Info.ID]; twice {
				t.Errorf("%s was given to %s and to %d", lease.Info.ID, other, i)
			}
			owner[lease.Info.ID] = fmt.Sprint(i)
			if lease.Start == pool.StartWarm {
				warm++
			}
		})
	}
	wg.Wait()
	t.Logf("%d leases of %d ready pods by two replicas in %v: %d warm", leases, size, time.Since(begin), warm)
	if warm < size {
		t.Errorf("%d were warm, and %d were ready", warm, size)
	}
	for id, n := range owner {
		p := c.of(id)
		if p == nil || p.configured.Load() != 1 {
			t.Errorf("the agent of %s was not configured exactly once", id)
			continue
		}
		pod, err := c.client.getPod(t.Context(), podName(id))
		if err != nil || specLabels(pod)["n"] != n || isPooled(pod) {
			t.Errorf("pod of lease %s: %v %v", n, err, pod)
		}
	}
}

func TestAPodThatDoesNotTakeItsConfigurationIsReplaced(t *testing.T) {
	c := newCell(t)
	a := c.replica("a", WarmOptions{Templates: templates(2)})
	a.full(t)
	var refused atomic.Pointer[corev1.Pod]
	c.mu.Lock()
	c.configure = func(pod *corev1.Pod, _ context.Context) bool { return !refused.CompareAndSwap(nil, pod) }
	c.mu.Unlock()
	lease, err := a.w.Lease(t.Context(), request(nil))
	if err != nil {
		t.Fatal(err)
	}
	bad := refused.Load()
	if lease.Start != pool.StartWarm || bad == nil || podName(lease.Info.ID) == bad.Name {
		t.Errorf("lease %+v, refused %v", lease, bad)
	}
	eventually(t, "the pod is gone", func() bool { return c.of(idOf(bad.Name)) == nil })
	a.full(t)
}

func TestACallerThatLeavesLeavesNothing(t *testing.T) {
	c := newCell(t)
	a := c.replica("a", WarmOptions{Templates: templates(1)})
	a.full(t)
	asked := make(chan *corev1.Pod, 1)
	c.mu.Lock()
	c.configure = func(pod *corev1.Pod, ctx context.Context) bool {
		asked <- pod
		<-ctx.Done()
		return false
	}
	c.mu.Unlock()
	left := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() {
		_, err := a.w.Lease(ctx, request(nil))
		done <- err
	}()
	pod := <-asked
	cancel(left)
	if err := <-done; !errors.Is(err, left) {
		t.Errorf("got %v", err)
	}
	eventually(t, "the pod is gone", func() bool { return c.of(idOf(pod.Name)) == nil })
	a.full(t)
	if n := len(c.list()); n != 1 {
		t.Errorf("%d pods", n)
	}
}

func TestAClaimWhoseAnswerIsLostIsNobodys(t *testing.T) {
	c := newCell(t)
	a := c.replica("a", WarmOptions{Templates: templates(2)})
	a.full(t)
	var once atomic.Bool
	lose := func(r *http.Request) bool { return r.Method == http.MethodPatch && once.CompareAndSwap(false, true) }
	a.lose.Store(&lose)
	lease, err := a.w.Lease(t.Context(), request(map[string]string{"caesarion.kernel": "krn_1"}))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "only what was leased has an owner", func() bool {
		owned := 0
		for _, pod := range c.list() {
			if !isPooled(&pod) && pod.DeletionTimestamp == nil {
				owned++
			}
		}
		return owned == 1
	})
	if c.of(lease.Info.ID) == nil {
		t.Error("what was leased is gone")
	}
}

func TestATemplateThatChangesDrainsWhatNobodyHas(t *testing.T) {
	c := newCell(t)
	a := c.replica("a", WarmOptions{Templates: templates(3)})
	a.full(t)
	lease, err := a.w.Lease(t.Context(), request(nil))
	if err != nil {
		t.Fatal(err)
	}
	a.full(t)
	a.close()
	changed := templates(2)
	changed["python"] = WarmTemplate{Image: testImage2, Limits: testLimits, Size: 2}
	b := c.replica("b", WarmOptions{Templates: changed})
	b.full(t)
	eventually(t, "the old ones are gone", func() bool { return len(c.list()) == 3 })
	for _, pod := range c.list() {
		switch image := pod.Spec.Containers[0].Image; {
		case isPooled(&pod) && image != testImage2, pod.Name == podName(lease.Info.ID) && image != testImage:
			t.Errorf("pod %s is of %s", pod.Name, image)
		}
	}
	if c.of(lease.Info.ID) == nil {
		t.Error("one that was in use is gone")
	}
	// An old server that leads again, as one may during an update, leaves alone
	// what newer ones have made ready.
	b.close()
	old := a.w.opts
	old.began = old.began.Add(-time.Minute) // a pod's age is known to the second
	a = c.replica("a2", old)
	eventually(t, "the old one leads", a.leads)
	a.full(t)
	if n := len(c.pooled()); n != 5 {
		t.Errorf("%d are ready, want three of the old and two of the new", n)
	}
	a.close()
	b = c.replica("b", WarmOptions{Templates: changed})
	b.full(t)
	// A template that is no more has no pods.
	b.close()
	d := c.replica("d", WarmOptions{})
	eventually(t, "the pods without a template are gone", func() bool { return len(c.list()) == 1 })
	d.close()
}

func TestALeaderThatIsKilledIsFollowedByOneThatRefills(t *testing.T) {
	c := newCell(t)
	a := c.replica("a", WarmOptions{Templates: templates(2)})
	a.full(t)
	b := c.replica("b", WarmOptions{Templates: templates(2)})
	b.full(t)
	a.cut.Store(true) // all that is left of it is its lease
	if b.leads() {
		t.Fatal("both lead")
	}
	for range 2 {
		if lease, err := b.w.Lease(t.Context(), request(nil)); err != nil || lease.Start != pool.StartWarm {
			t.Fatal(lease, err)
		}
	}
	begin := time.Now()
	b.full(t)
	t.Logf("refilled %v after the leader was gone", time.Since(begin))
	if !b.leads() {
		t.Error("b does not lead")
	}
	eventually(t, "the old leader has stepped down", func() bool { return !a.leads() })
}

func TestALeaderThatClosesHandsOver(t *testing.T) {
	c := newCell(t)
	a := c.replica("a", WarmOptions{Templates: templates(1)})
	a.full(t)
	b := c.replica("b", WarmOptions{Templates: templates(1)})
	b.full(t)
	begin := time.Now()
	a.close()
	eventually(t, "b leads", b.leads)
	if took := time.Since(begin); took > leaseTime/2 {
		t.Errorf("it took %v", took)
	}
	if n := len(c.pooled()); n != 1 {
		t.Errorf("%d are ready: closing took them away", n)
	}
}

func TestAPodThatIsAboutToBeReadyIsTakenBeforeOneIsStarted(t *testing.T) {
	c := newCell(t)
	hold := make(chan *corev1.Pod, 1)
	c.start = func(pod *corev1.Pod) bool {
		if isPooled(pod) {
			select {
			case hold <- pod.DeepCopy():
				c.status(pod, corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: "True"}}})
				return false
			default:
			}
		}
		return true
	}
	a := c.replica("a", WarmOptions{Templates: templates(1), StartsAtOnce: 1})
	var pod *corev1.Pod
	eventually(t, "a pod is about to be ready", func() bool {
		select {
		case pod = <-hold:
			hold <- pod
		default:
		}
		return pod != nil && a.w.Stats()["python"].Starting == 1
	})
	type result struct {
		lease *pool.Lease
		err   error
	}
	done := make(chan result, 1)
	go func() {
		lease, err := a.w.Lease(t.Context(), request(nil))
		done <- result{lease, err}
	}()
	eventually(t, "it is claimed", func() bool {
		now, err := c.client.getPod(t.Context(), pod.Name)
		return err == nil && !isPooled(now)
	})
	c.run(pod)
	r := <-done
	if r.err != nil || r.lease.Info.ID != idOf(pod.Name) || r.lease.Start != pool.StartWarm || !r.lease.KernelReady {
		t.Fatal(r.lease, r.err)
	}
	if s := a.w.Stats()["python"]; s.Hits != 0 || s.Misses != 1 {
		t.Errorf("stats %+v: it was not ready when it was asked for", s)
	}
}

func TestWhatDoesNotFitThePoolIsStartedCold(t *testing.T) {
	c := newCell(t)
	a := c.replica("a", WarmOptions{Templates: templates(1)})
	a.full(t)
	req := request(nil)
	req.Spec.Limits.MemoryBytes /= 2
	lease, err := a.w.Lease(t.Context(), req)
	if err != nil || lease.Start != pool.StartCold || lease.Info.ID != req.Spec.ID {
		t.Fatal(lease, err)
	}
	if _, err := lease.Client.Health(t.Context()); err != nil {
		t.Error(err)
	}
	if s := a.w.Stats()["python"]; s.Ready != 1 {
		t.Errorf("stats %+v", s)
	}
}

func TestAgeIsOneAtATime(t *testing.T) {
	c := newCell(t)
	a := c.replica("a", WarmOptions{Templates: templates(3), MaxAge: 2 * time.Second})
	a.full(t)
	first := map[string]bool{}
	for _, pod := range c.pooled() {
		first[pod.Name] = true
	}
	least := 3
	eventually(t, "all are others", func() bool {
		old, now := 0, c.pooled()
		for _, pod := range now {
			if first[pod.Name] {
				old++
			}
		}
		least = min(least, len(now))
		return old == 0
	})
	if least < 2 {
		t.Errorf("there were only %d of 3 for a while", least)
	}
}

func TestNothingIsReadyAtNightUnlessSomebodyAsks(t *testing.T) {
	now := time.Now().UTC()
	midnight := now.Truncate(24 * time.Hour)
	night := Night{From: now.Add(-time.Hour).Sub(midnight), To: now.Add(time.Hour).Sub(midnight), Idle: 4 * time.Second}
	for _, at := range []*time.Duration{&night.From, &night.To} {
		*at = (*at + 24*time.Hour) % (24 * time.Hour)
	}
	c := newCell(t)
	a := c.replica("a", WarmOptions{Templates: templates(2), Night: night})
	eventually(t, "a leads", a.leads)
	if s := a.w.Stats()["python"]; s.Size != 0 || !strings.Contains(s.Message, "night") {
		t.Errorf("stats %+v", s)
	}
	lease, err := a.w.Lease(t.Context(), request(nil))
	if err != nil || lease.Start != pool.StartCold {
		t.Fatal(lease, err)
	}
	// Whoever goes on asking has them, however slow the machine is.
	eventually(t, "whoever is up has them", func() bool {
		if err := a.d.Delete(t.Context(), lease.Info.ID); err != nil {
			t.Fatal(err)
		}
		if lease, err = a.w.Lease(t.Context(), request(nil)); err != nil {
			t.Fatal(err)
		}
		return lease.Start == pool.StartWarm && a.w.Stats()["python"].Size == 2
	})
	eventually(t, "they are gone when nobody asks", func() bool { return len(c.pooled()) == 0 })
	if c.of(lease.Info.ID) == nil {
		t.Error("one that was in use is gone")
	}
}

func TestARestOfAnotherInstallationIsLeftAlone(t *testing.T) {
	c := newCell(t)
	another := c.replica("another", WarmOptions{})
	another.close()
	pod, err := another.d.podOf(sandbox.Spec{ID: sandbox.NewID(), Template: "python", Image: testImage, Limits: testLimits, Pooled: true})
	if err != nil {
		t.Fatal(err)
	}
	pod.Labels[labelInstallation] = "another"
	if _, err := c.client.createPod(t.Context(), pod); err != nil {
		t.Fatal(err)
	}
	a := c.replica("a", WarmOptions{Templates: templates(1)})
	a.full(t)
	if _, err := c.client.getPod(t.Context(), pod.Name); err != nil {
		t.Error(err)
	}
	if n := len(c.list()); n != 2 {
		t.Errorf("%d pods", n)
	}
}

// Choosing a pod is on every lease's way.
func BenchmarkPickOf1000(b *testing.B) {
	d := &Driver{opts: Options{UnschedulableAfter: time.Second}, templates: map[string]PodTemplate{"": PodTemplate{}.withDefaults()}}
	d.memory = newMemory(d.infoOf)
	w := &Warm{d: d, templates: map[string]*warmTemplate{}, tried: map[string]string{}}
	t := &warmTemplate{name: "python", WarmTemplate: templates(10)["python"], hash: "hash"}
	w.templates["python"] = t
	for i := range 1000 {
		d.memory.wrote(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Name: podName(sandbox.NewID()), ResourceVersion: fmt.Sprint(i + 1),
				Labels: map[string]string{labelTemplate: "python", labelHash: "hash", labelPooled: fmt.Sprint(i%100 == 0)},
			},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: "True"}}},
		})
	}
	b.Run("pick", func(b *testing.B) {
		for b.Loop() {
			clear(w.tried)
			if pod, ready := w.pick(t); pod == nil || !ready {
				b.Fatal("none")
			}
		}
	})
	b.Run("census", func(b *testing.B) {
		for b.Loop() {
			if c := w.census()["python"]; len(c.ready) != 10 {
				b.Fatal(len(c.ready))
			}
		}
	})
}
