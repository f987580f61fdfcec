package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/store/pgtest"
	"github.com/caesarion/caesarion/test/chart/installed"
	"github.com/caesarion/caesarion/test/kubetest"
)

// patience bounds every wait: far beyond what a loaded machine needs.
const patience = 2 * time.Minute

// world is an installation that is used and broken.
type world struct {
	*installed.Installation
	postgres *pgtest.Server
	dsn      string // as the tests reach it
	service  string // URL
	token    string
}

// values are for a small machine; the rest is as the chart has it.
const values = `
server:
  replicas: 3
  preStopSeconds: 3
  resources:
    requests: {cpu: 50m, memory: 128Mi, ephemeral-storage: 64Mi}
sandboxes:
  requests: {cpu: 10m, memory: 128Mi, ephemeral-storage: 64Mi}
  templates:
    python: {memory: 1Gi, cpus: 0.5, poolSize: 2}
`

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{postgres: pgtest.Start(t)}
	w.dsn = w.postgres.Database(t)
	w.Installation = installed.Install(t, w.dsn, values)
	w.service, w.token = w.URL(t), w.Token(t)
	return w
}

// TestFaults installs the chart once and breaks it in every way.
func TestFaults(t *testing.T) {
	w := newWorld(t)
	for _, fault := range []struct {
		name string
		test func(*testing.T)
	}{
		{"rolling update", w.testRollingUpdate},
		{"server killed", w.testServerKilled},
		{"one sandbox for a session", w.testOneSandbox},
		{"clocks", w.testClocks},
		{"API server away", w.testAPIServerAway},
		{"watch expired", w.testWatchExpired},
		{"containerd", w.testContainerd},
		{"database away", w.testDatabaseAway},
		{"node not ready", w.testNodeNotReady},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					w.Explain(t)
				}
			})
			w.clean(t) // what one that failed has left
			w.whole(t)
			fault.test(t)
			w.clean(t)
		})
	}
}

// whole waits until all servers take requests, and pods are ready for the next
// sandboxes.
func (w *world) whole(t *testing.T) {
	t.Helper()
	w.eventually(t, "three servers that are ready", func(ctx context.Context) error {
		pods, err := w.Servers(ctx)
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range pods {
			if isReady(p) {
				ready++
			}
		}
		if ready != 3 {
			return fmt.Errorf("%d of %d are ready", ready, len(pods))
		}
		return nil
	})
	w.eventually(t, "two pods of the pool", func(ctx context.Context) error {
		boxes, err := w.boxes(ctx)
		ready := 0
		for _, p := range boxes {
			if pooled(p) && isReady(p) {
				ready++
			}
		}
		if err == nil && ready != 2 {
			err = fmt.Errorf("%d are ready", ready)
		}
		return err
	})
}

// clean deletes all sandboxes and waits until nothing but the pool is left.
func (w *world) clean(t *testing.T) {
	t.Helper()
	w.eventually(t, "everything to be deleted", func(ctx context.Context) error {
		a, err := w.try(ctx, w.service, http.MethodGet, "/v1/sandboxes", nil)
		if err != nil || a.status != http.StatusOK {
			return fmt.Errorf("%d %s: %w", a.status, a.body, err)
		}
		var list v1.SandboxList
		if err := json.Unmarshal(a.body, &list); err != nil {
			return err
		}
		for _, box := range list.Sandboxes {
			if a, err := w.try(ctx, w.service, http.MethodDelete, "/v1/sandboxes/"+box.ID, nil); err != nil || a.status >= 500 {
				return fmt.Errorf("%d %s: %w", a.status, a.body, err)
			}
		}
		boxes, err := w.boxes(ctx)
		for _, p := range boxes {
			if !pooled(p) {
				return fmt.Errorf("%s is left (%v); %d in the list: %w", p.Name, p.Status.Phase, len(list.Sandboxes), err)
			}
		}
		return err
	})
}

// boxes gives the pods of sandboxes by name.
func (w *world) boxes(ctx context.Context) (map[string]corev1.Pod, error) {
	list, err := w.Kube.CoreV1().Pods(w.Sandboxes).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	boxes := map[string]corev1.Pod{}
	for _, p := range list.Items {
		boxes[p.Name] = p
	}
	return boxes, nil
}

// inUse gives the names of the sandboxes' pods that are somebody's, with what
// tells a pod from another one of its name.
func (w *world) inUse(t *testing.T) map[string]string {
	t.Helper()
	boxes, err := w.boxes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, p := range boxes {
		if !pooled(p) {
			out[name] = string(p.UID)
		}
	}
	return out
}

func (w *world) wantInUse(t *testing.T, want map[string]string) {
	t.Helper()
	if got := w.inUse(t); !maps.Equal(got, want) {
		t.Errorf("the sandboxes are %v, were %v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

func pooled(p corev1.Pod) bool { return p.Labels["caesarion.dev/pooled"] == "true" }

func isReady(p corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// podOf gives the name of a sandbox's pod.
func podOf(sandbox string) string { return strings.Replace(sandbox, "_", "-", 1) }

// at gives the URL of one server.
func at(p corev1.Pod) string { return "http://" + net.JoinHostPort(p.Status.PodIP, "8000") }

// owner gives the pod of the server that has a session or sandbox, and its
// process's own name.
func (w *world) owner(ctx context.Context, key string) (pod, process string, err error) {
	conn, err := pgx.Connect(ctx, w.dsn)
	if err != nil {
		return "", "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, "SELECT o.replica FROM owners o JOIN replicas r ON r.id = o.replica WHERE o.key=$1", key).Scan(&process); err != nil {
		return "", "", err
	}
	pod, _, _ = strings.Cut(process, "/")
	return pod, process, nil
}

func (w *world) mustOwner(t *testing.T, key string) (pod, process string) {
	t.Helper()
	w.eventually(t, "an owner of "+key, func(ctx context.Context) (err error) {
		pod, process, err = w.owner(ctx, key)
		return err
	})
	return pod, process
}

// eventually waits until there is no error.
func (w *world) eventually(t *testing.T, what string, ok func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		within, stop := context.WithTimeout(ctx, 20*time.Second)
		err := ok(within)
		stop()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s (%v)", what, patience, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// answer is a response that was read.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) problem() (p v1.Problem) {
	_ = json.Unmarshal(a.body, &p) // not a problem: it stays empty
	return p
}

// Each request has a connection of its own, as from another browser.
var browser = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext}}

// try sends a request to the service or to one server; the connection may fail.
func (w *world) try(ctx context.Context, base, method, path string, body any, header ...string) (answer, error) {
	resp, err := w.open(ctx, base, method, path, body, header...)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, text}, err
}

func (w *world) open(ctx context.Context, base, method, path string, body any, header ...string) (*http.Response, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	default:
		text, err := json.Marshal(b)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, r)
	if err != nil {
		return nil, err
	}
	req.Host = installed.Release // also where one server is asked by its address
	req.Header.Set("Authorization", "Bearer "+w.token)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return browser.Do(req)
}

// call sends a request to the service, which must be answered with a status.
func (w *world) call(t *testing.T, method, path string, body any, want int, into any, header ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := w.try(ctx, w.service, method, path, body, header...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if a.status != want {
		t.Fatalf("%s %s: got %d, want %d: %.500s", method, path, a.status, want, a.body)
	}
	if into == nil {
		return
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		t.Fatalf("%s %s: %v in %.500s", method, path, err, a.body)
	}
}

// ok sends a request that may have to be repeated, as long as it is said to be
// worth it.
func (w *world) ok(t *testing.T, method, path string, body any, header ...string) {
	t.Helper()
	w.eventually(t, method+" "+path, func(ctx context.Context) error {
		a, err := w.try(ctx, w.service, method, path, body, header...)
		if err == nil && a.status >= 300 {
			err = fmt.Errorf("%d: %.300s", a.status, a.body)
			if a.status != http.StatusServiceUnavailable {
				t.Error(err)
				return nil
			}
		}
		return err
	})
}

// wantRefusal checks what a caller is told who can't be served for now: try
// again, when, and why.
func wantRefusal(t *testing.T, what string, a answer, codes ...string) {
	t.Helper()
	p := a.problem()
	seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
	if a.status != http.StatusServiceUnavailable || !slices.Contains(codes, p.Code) || err != nil || seconds < 1 || p.Detail == "" || p.Hint == "" {
		t.Errorf("%s: %d, Retry-After %q, %.500s; want 503 with one of %v", what, a.status, a.header.Get("Retry-After"), a.body, codes)
	}
}

// stays sees to it that a condition holds as long as something else lasts.
func (w *world) stays(t *testing.T, every time.Duration, ask func(context.Context) error) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan int)
	go func() {
		n := 0
		defer func() { done <- n }()
		for ctx.Err() == nil {
			within, end := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
			if err := ask(within); err != nil {
				t.Error(err)
			}
			end()
			n++
			select {
			case <-ctx.Done():
			case <-time.After(every):
			}
		}
	}()
	return func() int { cancel(); return <-done }
}

var errNotYet = errors.New("not yet")

// component is a part of the cluster that the test breaks; the API server
// answers again when the test ends.
func (w *world) component(t *testing.T, name string) kubetest.Process {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		for ctx.Err() == nil {
			if _, err := w.boxes(ctx); err == nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
		t.Error("the API server does not come back")
	})
	return kubetest.Component(t, name)
}
