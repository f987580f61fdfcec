package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// testRollingUpdate replaces all servers, as an upgrade does, under ten running
// streams and somebody who looks at the list all the time.
func (w *world) testRollingUpdate(t *testing.T) {
	var streams []*stream
	for range 6 {
		streams = append(streams, w.inSession(t, counting))
	}
	for range 4 {
		streams = append(streams, w.inSandbox(t, counting))
	}
	boxes := w.inUse(t)
	before, err := w.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	list := func(ctx context.Context, base string) error {
		a, err := w.try(ctx, base, http.MethodGet, "/v1/sandboxes", nil)
		var list v1.SandboxList
		if err == nil && a.status == http.StatusOK {
			err = json.Unmarshal(a.body, &list)
		}
		if err != nil || a.status != http.StatusOK || len(list.Sandboxes) != len(streams) {
			return fmt.Errorf("the list: %d, %d sandboxes, %.200s: %w", a.status, len(list.Sandboxes), a.body, err)
		}
		return nil
	}
	// What one server has made the others list when the kubelet says that it runs.
	for _, server := range before {
		w.eventually(t, "all servers to list all sandboxes", func(ctx context.Context) error { return list(ctx, at(server)) })
	}
	looks := w.stays(t, 100*time.Millisecond, func(ctx context.Context) error { return list(ctx, w.service) })
	begin := time.Now()
	w.Upgrade(t, "server.podAnnotations.round=second")
	t.Logf("the update took %v", time.Since(begin).Round(time.Millisecond))
	var after []corev1.Pod
	w.eventually(t, "the old servers to have ended", func(ctx context.Context) error {
		list, err := w.Kube.CoreV1().Pods(w.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=server"})
		if err == nil && len(list.Items) != len(before) {
			err = fmt.Errorf("there are %d", len(list.Items))
		}
		after = list.Items
		return err
	})
	t.Logf("the old servers were gone after %v; the list was asked for %d times", time.Since(begin).Round(time.Millisecond), looks())
	for _, p := range after {
		if slices.ContainsFunc(before, func(b corev1.Pod) bool { return b.UID == p.UID }) {
			t.Errorf("%s was not replaced", p.Name)
		}
	}
	breaks := 0
	for _, s := range streams {
		s.wantMore(t, 2)
	}
	w.wantInUse(t, boxes)
	for _, s := range streams {
		s.finish(t)
		breaks += s.breaks
	}
	if breaks < len(streams) {
		t.Errorf("%d streams broke %d times: they were not on the servers that went", len(streams), breaks)
	}
}

// testServerKilled kills the owner of running executions twice: its process, as
// a crash does, and its pod, as a person in despair does.
func (w *world) testServerKilled(t *testing.T) {
	streams := []*stream{w.inSession(t, counting), w.inSandbox(t, counting), w.inSession(t, counting)}
	boxes := w.inUse(t)
	now := int64(0)
	for _, kill := range []struct {
		how string
		do  func(pod string) error
	}{
		{"kill -9", func(pod string) error { w.Signal(t, pod, unix.SIGKILL); return nil }},
		{"delete --force", func(pod string) error {
			return w.Kube.CoreV1().Pods(w.Namespace).Delete(t.Context(), pod, metav1.DeleteOptions{GracePeriodSeconds: &now})
		}},
	} {
		pod, process := w.mustOwner(t, streams[0].key)
		begin := time.Now()
		if err := kill.do(pod); err != nil {
			t.Fatal(err)
		}
		w.eventually(t, "another owner", func(ctx context.Context) error {
			_, next, err := w.owner(ctx, streams[0].key)
			if err == nil && next == process {
				err = errNotYet
			}
			return err
		})
		took := time.Since(begin)
		t.Logf("%s: another server has the session after %v", kill.how, took.Round(time.Millisecond))
		for _, s := range streams {
			s.wantMore(t, 2)
		}
		w.whole(t)
	}
	w.wantInUse(t, boxes)
	for _, s := range streams {
		s.finish(t)
	}
	if streams[0].breaks == 0 {
		t.Error("no stream broke: nothing was tested")
	}
	w.wantInUse(t, boxes)
}

// testOneSandbox asks all servers at once for the sandbox of the same session,
// also while one of them dies.
func (w *world) testOneSandbox(t *testing.T) {
	for _, dying := range []bool{false, true} {
		t.Run(fmt.Sprintf("dying=%v", dying), func(t *testing.T) {
			servers, err := w.Servers(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			const sessions = 3
			var wg sync.WaitGroup
			var mu sync.Mutex
			names := map[string]map[string]bool{} // session → names of its sandbox
			victim := servers[0]
			for i := range sessions {
				session := fmt.Sprintf("client-%v-%d", dying, i)
				names[session] = map[string]bool{}
				for _, server := range servers {
					wg.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						defer cancel()
						a, err := w.try(ctx, at(server), http.MethodPost, "/api/sessions/"+session+"/initialize", map[string]any{})
						var said struct {
							Status  string `json:"status"`
							Sandbox string `json:"sandbox_id"`
						}
						if err == nil {
							err = json.Unmarshal(a.body, &said)
						}
						mu.Lock()
						defer mu.Unlock()
						switch {
						case err == nil && a.status == http.StatusOK && (said.Status == "created" || said.Status == "exists"):
							names[session][said.Sandbox] = true
						case !dying:
							t.Errorf("%s by %s: %d %.300s %v", session, server.Name, a.status, a.body, err)
						default: // it was with the one that died: the client asks again
							t.Logf("%s by %s: %d %.300s %v", session, server.Name, a.status, a.body, err)
						}
					})
				}
			}
			if dying {
				w.Signal(t, victim.Name, unix.SIGKILL)
			}
			wg.Wait()
			w.whole(t)
			for session, said := range names {
				var now string
				w.eventually(t, "the sandbox of "+session, func(ctx context.Context) error {
					a, err := w.try(ctx, w.service, http.MethodPost, "/api/sessions/"+session+"/initialize", map[string]any{})
					var got struct {
						Status  string `json:"status"`
						Sandbox string `json:"sandbox_id"`
					}
					if err == nil {
						err = json.Unmarshal(a.body, &got)
					}
					if err == nil && got.Sandbox == "" {
						err = fmt.Errorf("%d %.300s", a.status, a.body)
					}
					now = got.Sandbox
					return err
				})
				said[now] = true
				if len(said) != 1 && !dying {
					t.Errorf("%s got sandboxes %v", session, said)
				}
			}
			// One pod each, and none that nobody knows of.
			w.eventually(t, "one pod for each session", func(ctx context.Context) error {
				boxes, err := w.boxes(ctx)
				if err != nil {
					return err
				}
				var used []string
				for name, p := range boxes {
					if !pooled(p) {
						used = append(used, name)
					}
				}
				if len(used) != sessions {
					return fmt.Errorf("%d sessions have the pods %v", sessions, used)
				}
				return nil
			})
			w.clean(t)
		})
	}
}

// testClocks has sandboxes adopted whose last use was written down by servers
// with clocks of another time. Pods have the node's clock, and no other can be
// given to them, so the records are changed into what such a server writes.
func (w *world) testClocks(t *testing.T) {
	behind, ahead := w.inSession(t, counting), w.inSession(t, counting)
	var rests v1.Sandbox
	w.call(t, http.MethodPost, "/v1/sandboxes", v1.CreateSandbox{}, 201, &rests)
	boxes := w.inUse(t)
	const off = time.Hour + 5*time.Minute // longer than the idle time
	for _, c := range []struct {
		box string
		by  time.Duration
	}{{behind.box, -off}, {ahead.box, off}, {rests.ID, off}} {
		w.shift(t, c.box, c.by)
	}
	killed := map[string]bool{}
	for _, key := range []string{behind.key, ahead.key, rests.ID} {
		pod, _ := w.mustOwner(t, key)
		if !killed[pod] {
			killed[pod] = true
			w.Signal(t, pod, unix.SIGKILL)
		}
	}
	w.whole(t)
	for _, s := range []*stream{behind, ahead} {
		s.wantMore(t, 2)
	}
	w.wantInUse(t, boxes)
	for _, id := range []string{behind.box, ahead.box, rests.ID} {
		var box v1.Sandbox
		w.call(t, http.MethodGet, "/v1/sandboxes/"+id, nil, 200, &box)
		if age := time.Since(box.LastUsedAt); age < -time.Minute {
			t.Errorf("%s was last used %v ahead of time: it stays for that much longer", id, -age)
		}
	}
	for _, s := range []*stream{behind, ahead} {
		s.finish(t)
	}
}

// shift moves the times in a sandbox's record.
func (w *world) shift(t *testing.T, box string, by time.Duration) {
	t.Helper()
	pods := w.Kube.CoreV1().Pods(w.Sandboxes)
	pod, err := pods.Get(t.Context(), podOf(box), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var labels map[string]string
	if err := json.Unmarshal([]byte(pod.Annotations["caesarion.dev/labels"]), &labels); err != nil {
		t.Fatal(err)
	}
	shifted := 0
	move := func(text string) string {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		shifted++
		return at.Add(by).Format(time.RFC3339Nano)
	}
	for name, value := range labels {
		if strings.HasSuffix(name, ".used") || strings.HasSuffix(name, ".expires") {
			labels[name] = move(value)
		}
	}
	text, err := json.Marshal(labels)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{
		"caesarion.dev/labels": string(text), "caesarion.dev/claimed-at": move(pod.Annotations["caesarion.dev/claimed-at"]),
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pods.Patch(t.Context(), pod.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if shifted != 3 {
		t.Fatalf("%d times of the record were moved: %v", shifted, labels)
	}
}
