package cleanup_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
	"github.com/caesarion/caesarion/test/kubetest"
)

// patience bounds what takes seconds on an idle machine.
const patience = 4 * time.Minute

// agents answers for the agent of every pod: all their addresses are made this
// machine's, which is a network of the test's own.
func agents(t *testing.T) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	_, all, _ := net.ParseCIDR("10.0.0.0/8")
	err = netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all, Type: syscall.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Table: syscall.RT_TABLE_LOCAL})
	if err != nil && !errors.Is(err, syscall.EEXIST) {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = json.NewEncoder(w).Encode(agentapi.Health{Configured: true})
	})
	l, err := net.Listen("tcp", ":"+strconv.Itoa(agentapi.Port))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: mux, ReadHeaderTimeout: patience}
	go s.Serve(l) //nolint:errcheck // closed at the end
	t.Cleanup(func() { s.Close() })
}

// process is a server that runs.
type process struct {
	name string
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{}

	mu      sync.Mutex
	waiting map[int]chan answer
}

func (p *process) ask(o order) (answer, bool) {
	ch := make(chan answer, 1)
	p.mu.Lock()
	p.waiting[o.N] = ch
	p.mu.Unlock()
	text, _ := json.Marshal(o)
	_, _ = p.in.Write(append(text, '\n'))
	select {
	case a := <-ch:
		return a, true
	case <-p.done:
		return answer{}, false
	}
}

// world is the installation and what the test knows of it.
type world struct {
	t         *testing.T
	namespace string
	client    kubernetes.Interface
	registry  string
	orders    atomic.Int64
	names     int

	mu      sync.Mutex
	servers []*process
	alive   map[string]bool
	owner   map[string]string         // session → server
	held    map[string]order          // session → a sandbox in use
	forced  map[types.UID]string      // pods that the test itself ended, and how
	uids    map[sandbox.ID]types.UID  // of pods seen
	ended   map[types.UID]*corev1.Pod // pods whose end was asked for, as they were
	wrong   []string                  // ends that should not have been
	starts  map[pool.Start]int
	codes   map[string]int
}

func newWorld(t *testing.T) *world {
	w := &world{
		t: t, namespace: kubetest.Namespace(t), client: kubetest.Client(t),
		alive: map[string]bool{}, owner: map[string]string{}, held: map[string]order{}, forced: map[types.UID]string{},
		uids: map[sandbox.ID]types.UID{}, ended: map[types.UID]*corev1.Pod{}, starts: map[pool.Start]int{}, codes: map[string]int{},
	}
	yes := func(w http.ResponseWriter, is bool) {
		if is {
			_, _ = io.WriteString(w, "yes")
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/owned", func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		yes(rw, w.alive[w.owner[r.URL.Query().Get("of")]])
	})
	mux.HandleFunc("/alive", func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		defer w.mu.Unlock()
		yes(rw, w.alive[r.URL.Query().Get("of")])
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	w.registry = s.URL
	w.audit()
	return w
}

// audit follows every pod, and judges each end that somebody asks for.
func (w *world) audit() {
	list := cache.NewListWatchFromClient(w.client.CoreV1().RESTClient(), "pods", w.namespace, fields.Everything())
	_, follow := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: list, ObjectType: &corev1.Pod{}, Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { w.see(obj, false) },
			UpdateFunc: func(_, obj any) { w.see(obj, false) },
			DeleteFunc: func(obj any) { w.see(obj, true) },
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		follow.RunWithContext(ctx)
	}()
	w.t.Cleanup(func() {
		cancel()
		<-done
	})
}

func (w *world) see(obj any, gone bool) {
	if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = last.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	if !ok {
		w.t.Errorf("the watch gave %T", obj)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.uids[idOf(pod.Name)] = pod.UID
	if pod.DeletionTimestamp == nil && !gone || w.ended[pod.UID] != nil {
		return
	}
	w.ended[pod.UID] = pod
	var kept map[string]string
	_ = json.Unmarshal([]byte(pod.Annotations["caesarion.dev/labels"]), &kept)
	info := sandbox.Info{Labels: kept, CreatedAt: pod.CreationTimestamp.Time}
	_, over := fleet.Expired(info, fleet.Template{}, time.Now())
	session := kept["caesarion.session"]
	held, inUse := w.held[session]
	switch {
	case w.forced[pod.UID] != "" || pod.Labels["caesarion.dev/pooled"] == "true" || pod.Status.Phase == corev1.PodFailed:
	case inUse && held.ID == idOf(pod.Name):
		w.wrong = append(w.wrong, fmt.Sprintf("%s of %s was in use: %v", pod.Name, session, kept))
	case !over:
		w.wrong = append(w.wrong, fmt.Sprintf("%s of %s was not over: %v", pod.Name, session, kept))
	}
}

func idOf(pod string) sandbox.ID   { return sandbox.ID("sbx_" + pod[min(4, len(pod)):]) }
func podName(id sandbox.ID) string { return "sbx-" + string(id)[4:] }

// start starts a server and returns when it is ready.
func (w *world) start(size int) *process {
	w.t.Helper()
	w.mu.Lock()
	w.names++
	name := fmt.Sprintf("server-%d", w.names)
	w.alive[name] = true
	w.mu.Unlock()
	set, _ := json.Marshal(settings{Name: name, Namespace: w.namespace, Kubeconfig: os.Getenv("KUBECONFIG"), Registry: w.registry, Pool: size, Log: os.Getenv("CLEANUP_TEST_LOG") != ""})
	p := &process{name: name, done: make(chan struct{}), waiting: map[int]chan answer{}}
	ready := make(chan answer, 1)
	p.waiting[-1] = ready
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), serverEnv+"="+string(set))
	p.cmd.Stderr = w.t.Output()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		w.t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		defer p.cmd.Wait() //nolint:errcheck // it is killed
		for in := bufio.NewScanner(out); in.Scan(); {
			var a answer
			if json.Unmarshal(in.Bytes(), &a) != nil {
				continue
			}
			p.mu.Lock()
			ch := p.waiting[a.N]
			delete(p.waiting, a.N)
			p.mu.Unlock()
			if ch != nil {
				ch <- a
			}
		}
	}()
	w.t.Cleanup(func() { w.kill(p) })
	select {
	case <-ready:
	case <-p.done:
		w.t.Fatalf("%s did not start", name)
	case <-time.After(patience):
		w.t.Fatalf("%s does not start", name)
	}
	w.mu.Lock()
	w.servers = append(w.servers, p)
	w.mu.Unlock()
	return p
}

// kill ends a server as kill -9 does. Others take over what is in use.
func (w *world) kill(p *process) {
	_ = p.cmd.Process.Kill()
	<-p.done
	w.mu.Lock()
	w.alive[p.name] = false
	w.servers = slices.DeleteFunc(w.servers, func(o *process) bool { return o == p })
	var orphans []order
	for session, o := range w.held {
		if w.owner[session] == p.name {
			orphans = append(orphans, o)
		}
	}
	w.mu.Unlock()
	for _, o := range orphans {
		for adopted := false; !adopted; {
			q := w.any()
			if q == nil {
				return
			}
			o.N, o.Op = int(w.orders.Add(1)), "adopt"
			w.mu.Lock()
			w.owner[o.Session] = q.name
			w.mu.Unlock()
			_, adopted = q.ask(o)
		}
	}
}

// inUse gives the number of sandboxes that are in use.
func (w *world) inUse() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.held)
}

func (w *world) any() *process {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.servers) == 0 {
		return nil
	}
	return w.servers[rand.IntN(len(w.servers))]
}

// lease has some server make a sandbox. With used its owner goes on using it;
// otherwise it is left behind.
func (w *world) lease(used bool) answer {
	p := w.any()
	o := order{N: int(w.orders.Add(1)), Op: "lease", Used: used}
	o.Session = fmt.Sprintf("ses_%d", o.N)
	w.mu.Lock()
	w.owner[o.Session] = p.name
	w.mu.Unlock()
	a, ok := p.ask(o)
	w.mu.Lock()
	defer w.mu.Unlock()
	if !ok {
		a.Code = "server-killed"
	}
	w.codes[a.Code]++
	if a.Code != "" {
		return a
	}
	w.starts[a.Start]++
	if used {
		o.ID = a.ID
		w.held[o.Session] = o
		// Its server may have been killed since, without this one in its books.
		if !w.alive[w.owner[o.Session]] {
			delete(w.held, o.Session)
		}
	}
	return a
}

// pods asks the API server for what there is.
func (w *world) pods() []corev1.Pod {
	w.t.Helper()
	list, err := w.client.CoreV1().Pods(w.namespace).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	return list.Items
}

// force notes that the test ends a pod, which then is in use no more.
func (w *world) force(pod *corev1.Pod, how string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.forced[pod.UID] = how
	for session, o := range w.held {
		if podName(o.ID) == pod.Name {
			delete(w.held, session)
		}
	}
}

// some gives up to n pods that somebody has, in random order.
func (w *world) some(n int) []corev1.Pod {
	pods := slices.DeleteFunc(w.pods(), func(p corev1.Pod) bool {
		return p.DeletionTimestamp != nil || p.Labels["caesarion.dev/pooled"] == "true" || p.Status.Phase != corev1.PodRunning
	})
	rand.Shuffle(len(pods), func(i, j int) { pods[i], pods[j] = pods[j], pods[i] })
	return pods[:min(n, len(pods))]
}

func (w *world) deleteBehind(n int) {
	for _, pod := range w.some(n) {
		w.force(&pod, "deleted")
		if err := w.client.CoreV1().Pods(w.namespace).Delete(context.Background(), pod.Name, metav1.DeleteOptions{}); err != nil {
			w.t.Log("delete behind its back: ", err)
		}
	}
}

func (w *world) fail(n int) {
	for _, pod := range w.some(n) {
		w.force(&pod, "failed")
		pod.Status.Phase, pod.Status.Reason, pod.Status.ContainerStatuses = corev1.PodFailed, "Evicted", nil
		for i := range pod.Status.Conditions { // as a kubelet does
			if c := &pod.Status.Conditions[i]; c.Type == corev1.PodReady {
				c.Status, c.LastTransitionTime = corev1.ConditionFalse, metav1.Now()
			}
		}
		if _, err := w.client.CoreV1().Pods(w.namespace).UpdateStatus(context.Background(), &pod, metav1.UpdateOptions{}); err != nil {
			w.t.Log("fail a pod: ", err)
		}
	}
}

// drain empties the node that has most sandboxes, for its maintenance.
func (w *world) drain() int {
	on := map[string]int{}
	for _, pod := range w.some(1000) {
		on[pod.Spec.NodeName]++
	}
	node := ""
	for name, n := range on {
		if n > on[node] {
			node = name
		}
	}
	kubetest.Kubectl(w.t, "cordon", node)
	n := 0
	for _, pod := range w.pods() {
		if pod.Spec.NodeName == node {
			w.force(&pod, "drained")
			n++
		}
	}
	kubetest.Kubectl(w.t, "drain", node, "--force", "--delete-emptydir-data", "--ignore-daemonsets", "--timeout=120s")
	kubetest.Kubectl(w.t, "uncordon", node)
	return n
}

// fillQuota fills the quota, sees that leases are refused for it, makes room and
// sees that they are not any more.
func (w *world) fillQuota() {
	w.t.Helper()
	hard := resource.MustParse(strconv.Itoa(len(w.pods())))
	quotas := w.client.CoreV1().ResourceQuotas(w.namespace)
	quota, err := quotas.Create(w.t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "sandboxes"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: hard}},
	}, metav1.CreateOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.until("a lease is refused for the quota", func() bool {
		a := w.lease(false)
		if a.Code != "" && a.Code != "quota-exceeded" && a.Code != "server-killed" {
			w.t.Errorf("with a full quota: %+v", a)
		}
		return a.Code == "quota-exceeded"
	})
	if err := quotas.Delete(w.t.Context(), quota.Name, metav1.DeleteOptions{}); err != nil {
		w.t.Fatal(err)
	}
	w.until("leases work again", func() bool { return w.lease(false).Code == "" })
}

// surplus gives the pods that nobody has in use and that are none of the pool's.
func (w *world) surplus() (out []string) {
	pods := w.pods()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, pod := range pods {
		var kept map[string]string
		_ = json.Unmarshal([]byte(pod.Annotations["caesarion.dev/labels"]), &kept)
		session := kept["caesarion.session"]
		if o, held := w.held[session]; pod.Labels["caesarion.dev/pooled"] == "true" || held && o.ID == idOf(pod.Name) {
			continue
		}
		out = append(out, fmt.Sprintf("%s (%s, by %s, in use until %s, owner %s alive %v)", pod.Name, pod.Status.Phase,
			pod.Annotations["caesarion.dev/created-by"], kept["caesarion.expires"], w.owner[session], w.alive[w.owner[session]]))
	}
	return out
}

func (w *world) until(what string, is func() bool, why ...func() []string) {
	w.t.Helper()
	for begin := time.Now(); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Since(begin) < patience {
			continue
		}
		for _, f := range why {
			w.t.Log(f())
		}
		w.t.Fatalf("after %v still not: %s", patience, what)
	}
}

func TestNothingIsLeftAndNothingInUseIsTaken(t *testing.T) {
	const sandboxes, servers = 200, 3
	agents(t)
	w := newWorld(t)
	for range servers {
		w.start(poolSize)
	}

	// Two hundred sandboxes, a third of them in use until the end; servers end
	// all the while.
	stop := make(chan struct{})
	var killed atomic.Int64
	var chaos sync.WaitGroup
	chaos.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(1000+rand.IntN(2000)) * time.Millisecond):
			}
			w.start(poolSize)
			w.kill(w.any())
			killed.Add(1)
		}
	})
	var made atomic.Int64
	var makers sync.WaitGroup
	for range 4 {
		makers.Go(func() {
			for n := made.Add(1); n <= sandboxes; n = made.Add(1) {
				for used := n%3 == 0; w.lease(used).Code != ""; {
					time.Sleep(20 * time.Millisecond)
				}
				switch n {
				case 50, 100:
					w.deleteBehind(6)
				case 80, 130:
					w.fail(4)
				case 110:
					t.Logf("drained a node with %d pods", w.drain())
				case 150:
					w.fillQuota()
				}
			}
		})
	}
	makers.Wait()
	// The node that was emptied may have had most of what was in use.
	w.until("many are in use", func() bool {
		if w.inUse() >= sandboxes/4 {
			return true
		}
		w.lease(true)
		return false
	})
	// Servers go on ending until all that was left behind is over.
	time.Sleep(life)
	w.until("servers have been killed", func() bool { return killed.Load() >= 8 })
	w.until("only what is in use is left", func() bool { return len(w.surplus()) == 0 }, w.surplus)
	close(stop)
	chaos.Wait()

	// What is in use is what it was.
	w.mu.Lock()
	held := maps.Clone(w.held)
	maps.DeleteFunc(held, func(_ string, o order) bool {
		return w.forced[w.uids[o.ID]] != "" // it was leased while the test was about to end it
	})
	w.mu.Unlock()
	there := map[string]types.UID{}
	for _, pod := range w.pods() {
		if pod.DeletionTimestamp == nil {
			there[pod.Name] = pod.UID
		}
	}
	taken := 0
	for session, o := range held {
		if there[podName(o.ID)] == "" {
			taken++
			t.Errorf("%s of %s was in use and is gone", o.ID, session)
		}
	}
	inUse := len(held)

	// Nobody uses anything any more, and the last server knows no template.
	begin := time.Now()
	w.mu.Lock()
	clear(w.held)
	all := slices.Clone(w.servers)
	w.mu.Unlock()
	last := w.start(-1)
	for _, p := range all {
		w.kill(p)
	}
	w.until("nothing is left", func() bool { return len(w.pods()) == 0 })
	took := time.Since(begin).Round(time.Second)
	w.kill(last)
	w.until("every end was judged", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.ended) >= len(w.uids)
	})

	w.mu.Lock()
	defer w.mu.Unlock()
	for _, text := range w.wrong {
		t.Error(text)
	}
	by := map[string]int{}
	for _, how := range w.forced {
		by[how]++
	}
	t.Logf("sandboxes %v, servers killed %d, pods made %d and ended %d (by the test %v), in use at the end %d, taken %d; refusals %v; all gone %v after the last use",
		w.starts, killed.Load(), len(w.uids), len(w.ended), by, inUse, taken, w.codes, took)
	if n := w.starts[pool.StartWarm] + w.starts[pool.StartCold]; n < sandboxes {
		t.Errorf("%d sandboxes were made", n)
	}
	if inUse < sandboxes/6 || by["drained"] == 0 || by["deleted"] == 0 || by["failed"] == 0 || w.codes["quota-exceeded"] == 0 {
		t.Error("that proves little")
	}
}
