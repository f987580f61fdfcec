package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/kubetest"
)

// wantAlive checks that a sandbox runs code, through the service, and that no
// server says otherwise of it.
func (w *world) wantAlive(ctx context.Context, box string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if got, err := w.python(ctx, box, "print(6 * 7)"); err != nil || got != "42\n" {
		return fmt.Errorf("%s says %q: %w", box, got, err)
	}
	a, err := w.try(ctx, w.service, http.MethodGet, "/v1/sandboxes/"+box, nil)
	var got v1.Sandbox
	if err == nil {
		err = json.Unmarshal(a.body, &got)
	}
	if err != nil || a.status != http.StatusOK || got.State != "running" {
		return fmt.Errorf("%s: %d %.300s: %w", box, a.status, a.body, err)
	}
	return nil
}

// creates waits until a sandbox can be made again, and deletes it.
func (w *world) creates(t *testing.T) {
	t.Helper()
	w.eventually(t, "a new sandbox", func(context.Context) error {
		// A scheduler that was cut off comes back when it likes.
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		a, err := w.try(ctx, w.service, http.MethodPost, "/v1/sandboxes", v1.CreateSandbox{})
		if err != nil || a.status != http.StatusCreated {
			return fmt.Errorf("%d %.300s: %w", a.status, a.body, err)
		}
		var box v1.Sandbox
		if err := json.Unmarshal(a.body, &box); err != nil {
			return err
		}
		return w.wantAlive(ctx, box.ID)
	})
}

// testAPIServerAway: for thirty seconds nobody can ask the cluster anything.
func (w *world) testAPIServerAway(t *testing.T) {
	streams := []*stream{w.inSession(t, counting), w.inSandbox(t, counting)}
	var rests v1.Sandbox
	w.call(t, http.MethodPost, "/v1/sandboxes", v1.CreateSandbox{}, 201, &rests)
	boxes := w.inUse(t)
	api := w.component(t, "kube-apiserver")
	api.Kill() // asked to stop, it first waits for its watches
	away := time.Now()
	longest, asked := time.Duration(0), 0
	for time.Since(away) < 30*time.Second {
		if err := w.wantAlive(t.Context(), rests.ID); err != nil {
			t.Errorf("after %v: %v", time.Since(away), err)
		}
		begin := time.Now()
		a, err := w.try(t.Context(), w.service, http.MethodPost, "/v1/sandboxes", v1.CreateSandbox{})
		if err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, "a create without an API server", a, "cluster-unavailable")
		longest, asked = max(longest, time.Since(begin)), asked+1
	}
	if longest > 15*time.Second {
		t.Errorf("a create was refused only after %v", longest)
	}
	t.Logf("%d creates were refused, within %v", asked, longest.Round(time.Millisecond))
	for _, s := range streams {
		s.wantMore(t, 2)
		if s.breaks > 0 {
			t.Errorf("%s broke %d times: servers need the API server for what runs", s.name, s.breaks)
		}
	}
	api.Start()
	back := time.Now()
	w.eventually(t, "the API server", func(ctx context.Context) error { _, err := w.boxes(ctx); return err })
	kubetest.Rejoin(t) // what is tested are the servers
	w.creates(t)
	t.Logf("a sandbox is made %v after the API server's start", time.Since(back).Round(time.Millisecond))
	w.whole(t)
	for name, uid := range boxes {
		if now := w.inUse(t); now[name] != uid {
			t.Errorf("%s is gone: %v", name, now)
		}
	}
	for _, s := range streams {
		s.finish(t)
		if s.gap > 10*time.Second {
			t.Errorf("%s was silent for %v", s.name, s.gap)
		}
	}
}

// testWatchExpired cuts the servers off from the API server, and when they come
// back it does not know any more what they have missed.
func (w *world) testWatchExpired(t *testing.T) {
	stays := w.inSession(t, counting)
	var goes v1.Sandbox
	w.call(t, http.MethodPost, "/v1/sandboxes", v1.CreateSandbox{}, 201, &goes)
	boxes := w.inUse(t)
	delete(boxes, podOf(goes.ID))

	mend := w.cut(t)
	old, err := w.Kube.CoreV1().Pods(w.Sandboxes).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	// Something happens that no server hears of.
	news := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "news"}}
	if _, err := w.Kube.CoreV1().ConfigMaps(w.Namespace).Create(t.Context(), news, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	api := w.component(t, "kube-apiserver")
	api.Kill() // with it all watches, and its memory of what was
	api.Start()
	now := int64(0)
	w.eventually(t, "the API server", func(ctx context.Context) error {
		err := w.Kube.CoreV1().Pods(w.Sandboxes).Delete(ctx, podOf(goes.ID), metav1.DeleteOptions{GracePeriodSeconds: &now})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
	compact(t)
	w.eventually(t, "watches from then to be refused", func(ctx context.Context) error {
		return w.expired(ctx, old.ResourceVersion)
	})
	a, err := w.try(t.Context(), w.service, http.MethodPost, "/v1/sandboxes", v1.CreateSandbox{})
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "a create by a server that is cut off", a, "cluster-unavailable")
	mend()
	w.eventually(t, "the deletion to be known", func(ctx context.Context) error {
		a, err := w.try(ctx, w.service, http.MethodGet, "/v1/sandboxes/"+goes.ID, nil)
		if err == nil && a.status != http.StatusGone && a.status != http.StatusNotFound {
			err = fmt.Errorf("%d %.300s", a.status, a.body)
		}
		return err
	})
	w.wantInUse(t, boxes)
	w.creates(t)
	stays.finish(t)
	if stays.breaks > 0 {
		t.Errorf("%s broke %d times", stays.name, stays.breaks)
	}
}

// expired is nil when a watch from a version on is answered with 410.
func (w *world) expired(ctx context.Context, version string) error {
	watching, err := w.Kube.CoreV1().Pods(w.Sandboxes).Watch(ctx, metav1.ListOptions{ResourceVersion: version})
	if err == nil {
		defer watching.Stop()
		select {
		case e := <-watching.ResultChan():
			if e.Type != watch.Error {
				return fmt.Errorf("the watch gives %s", e.Type)
			}
			err = apierrors.FromObject(e.Object)
		case <-time.After(time.Second):
			return fmt.Errorf("the watch from %s on goes on", version)
		}
	}
	if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
		return nil
	}
	return fmt.Errorf("the watch: %w", err)
}

// cut has the node refuse the servers' connections to the API server.
func (w *world) cut(t *testing.T) (mend func()) {
	t.Helper()
	servers, err := w.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var addresses []string
	for _, p := range servers {
		addresses = append(addresses, p.Status.PodIP)
	}
	nft := func(script string) {
		t.Helper()
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(script)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("nft: %v: %s", err, out)
		}
	}
	nft(`table inet faults {
	chain input {
		type filter hook input priority -5; policy accept;
		ip saddr {` + strings.Join(addresses, ", ") + `} tcp dport 6443 reject with tcp reset
	}
}
`)
	var mended bool
	mend = func() {
		if !mended {
			mended = true
			nft("delete table inet faults\n")
		}
	}
	t.Cleanup(mend)
	return mend
}

// compact has etcd forget everything but what is now.
func compact(t *testing.T) {
	t.Helper()
	ask := func(path, body string) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://127.0.0.1:2379"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("etcd: %s: %d %s %v", path, resp.StatusCode, text, err)
		}
		return bytes.TrimSpace(text)
	}
	var now struct {
		Header struct{ Revision string }
	}
	if err := json.Unmarshal(ask("/v3/kv/range", `{"key":"AA=="}`), &now); err != nil {
		t.Fatal(err)
	}
	if _, err := strconv.ParseInt(now.Header.Revision, 10, 64); err != nil {
		t.Fatalf("etcd's revision: %v", err)
	}
	ask("/v3/kv/compaction", `{"revision":"`+now.Header.Revision+`","physical":true}`)
}

// testContainerd kills what runs the node's containers. They go on.
func (w *world) testContainerd(t *testing.T) {
	streams := []*stream{w.inSession(t, counting), w.inSandbox(t, counting)}
	boxes := w.inUse(t)
	containerd := w.component(t, "containerd")
	containerd.Kill()
	for _, s := range streams {
		s.wantMore(t, 10)
	}
	containerd.Start()
	w.creates(t)
	w.whole(t)
	for name, uid := range boxes {
		if now := w.inUse(t); now[name] != uid {
			t.Errorf("%s is gone: %v", name, now)
		}
	}
	for _, s := range streams {
		s.finish(t)
		if s.breaks > 0 {
			t.Errorf("%s broke %d times", s.name, s.breaks)
		}
	}
}

// testDatabaseAway has Postgres crash and stay away for longer than servers
// believe that they own anything.
func (w *world) testDatabaseAway(t *testing.T) {
	streams := []*stream{w.inSession(t, counting), w.inSandbox(t, counting), w.inSession(t, counting)}
	boxes := w.inUse(t)
	w.postgres.Kill()
	away := time.Now()
	back := make(chan error, 1)
	go func() {
		time.Sleep(10 * time.Second) // it is what the test is about
		back <- w.postgres.Run()
	}()
	refused, made := 0, 0
	for time.Since(away) < 10*time.Second {
		// The service has no endpoint while no server is ready: one is asked itself.
		servers, err := w.Servers(t.Context())
		if err != nil || len(servers) == 0 {
			t.Fatalf("%d servers: %v", len(servers), err)
		}
		a, err := w.try(t.Context(), at(servers[0]), http.MethodPost, "/v1/sessions", v1.CreateSession{})
		switch {
		case err != nil:
			t.Fatal(err)
		case a.status == http.StatusCreated && time.Since(away) > 10*time.Second: // it had the patience
			made++
		default:
			refused++
			wantRefusal(t, "a new session without a database", a, "database-unavailable", "replica-stale", "store-failed")
		}
		time.Sleep(200 * time.Millisecond) // not a wait: callers are not that fast
	}
	if err := <-back; err != nil {
		t.Fatal(err)
	}
	again := time.Now()
	for _, s := range streams {
		s.wantMore(t, 2)
	}
	t.Logf("%d calls were refused, %d waited; output flows %v after the database is back", refused, made, time.Since(again).Round(time.Millisecond))
	w.whole(t)
	w.wantInUse(t, boxes)
	for _, s := range streams {
		s.finish(t)
	}
	w.creates(t)
}

// testNodeNotReady has the node fall silent, as far as the cluster can tell,
// and come back before its sandboxes are given up.
func (w *world) testNodeNotReady(t *testing.T) {
	s := w.inSession(t, counting)
	boxes := w.inUse(t)
	kubelet := w.component(t, "kubelet")
	kubelet.Freeze()
	w.eventually(t, "the node to be given up", func(ctx context.Context) error { return w.node(ctx, false) })
	// The servers' own pods are not ready now, either: what they say is asked of
	// them directly.
	servers, err := w.Servers(t.Context())
	if err != nil || len(servers) != 3 {
		t.Fatalf("%d servers: %v", len(servers), err)
	}
	for _, server := range servers {
		a, err := w.try(t.Context(), at(server), http.MethodGet, "/v1/sandboxes/"+s.box, nil)
		var box v1.Sandbox
		if err == nil {
			err = json.Unmarshal(a.body, &box)
		}
		if err != nil || box.State != "running" {
			t.Errorf("on a node that is silent: %d %.300s: %v", a.status, a.body, err)
		}
	}
	kubelet.Thaw()
	w.eventually(t, "the node to be back", func(ctx context.Context) error { return w.node(ctx, true) })
	w.whole(t)
	s.wantMore(t, 2)
	w.wantInUse(t, boxes)
	s.finish(t)
	w.creates(t)
}

// node is nil when the node is ready, or not ready, as the cluster sees it.
func (w *world) node(ctx context.Context, ready bool) error {
	nodes, err := w.Kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	for _, n := range nodes.Items {
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && (c.Status == corev1.ConditionTrue) != ready {
				return fmt.Errorf("%s is ready: %s", n.Name, c.Status)
			}
		}
	}
	return nil
}
