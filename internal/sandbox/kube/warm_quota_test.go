package kube

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/metrics"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

func TestAFullQuotaIsWaitedFor(t *testing.T) {
	c := newCell(t)
	c.quota(t, 3)
	a := c.replica("a", WarmOptions{Templates: templates(5)})
	eventually(t, "it is said why", func() bool { return strings.Contains(a.w.Stats()["python"].Message, "quota") })
	eventually(t, "there is what may be", func() bool { return a.w.Stats()["python"].Ready == 3 })
	writes := a.writes.Load()
	var owned []sandbox.ID
	for range 3 {
		lease, err := a.w.Lease(t.Context(), request(nil))
		if err != nil {
			t.Fatal(err)
		}
		owned = append(owned, lease.Info.ID)
	}
	if n := a.writes.Load() - writes; n > 3+5 {
		t.Errorf("%d writes for three leases with a full quota", n)
	}
	if _, err := a.w.Lease(t.Context(), request(nil)); err == nil || !strings.Contains(err.Error(), "quota") {
		t.Errorf("a lease beyond the quota: %v", err)
	}
	begin := time.Now()
	if err := a.d.Delete(t.Context(), owned[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the room is used", func() bool { return a.w.Stats()["python"].Ready == 1 })
	t.Logf("used %v after it came", time.Since(begin))
}

// Ready pods that nobody has asked for make room for what somebody waits for.
func TestAReadyPodMakesRoomInAFullQuota(t *testing.T) {
	c := newCell(t)
	c.quota(t, 2)
	all := templates(2)
	all["other"] = WarmTemplate{Image: testImage2, Limits: testLimits}
	m := metrics.New()
	a := c.replica("a", WarmOptions{Templates: all, Metrics: m})
	a.full(t)
	b := c.replica("b", WarmOptions{Templates: all, Metrics: m}) // whether it leads or not
	req := func() pool.Request {
		r := request(nil)
		r.Spec.Template, r.Spec.Image = "other", testImage2
		return r
	}
	for i, r := range []*replica{a, b} {
		var lease *pool.Lease
		eventually(t, "there is room", func() (is bool) {
			var err error
			// Where the quota's controller is slower than roomTime one is told to try again.
			if lease, err = r.w.Lease(t.Context(), req()); err != nil && errdefs.CodeOf(err) != ReasonQuota {
				t.Fatal(err)
			}
			return err == nil
		})
		if lease.Start != pool.StartCold || !c.there(lease.Info.ID) {
			t.Errorf("lease %+v", lease)
		}
		eventually(t, "one less is ready", func() bool { return r.w.Stats()["python"].Ready == 1-i })
	}
	// Nothing is left to give up: that is said at once.
	begin := time.Now()
	if _, err := a.w.Lease(t.Context(), req()); errdefs.CodeOf(err) != ReasonQuota {
		t.Errorf("a lease beyond the quota: %v", err)
	}
	if took := time.Since(begin); took > roomTime {
		t.Errorf("it took %v", took)
	}
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if !strings.Contains(w.Body.String(), `caesarion_pool_evictions_total{reason="quota",template="python"} `) {
		t.Error("it is not counted")
	}
}

// quota lets there be so many pods. Its figures are counted by the API server
// when a pod is made, and by the controller manager when one is gone.
func (c *cell) quota(t testing.TB, pods int) {
	t.Helper()
	body := fmt.Sprintf(`{"metadata":{"name":"sandboxes"},"spec":{"hard":{"pods":"%d"}}}`, pods)
	if err := c.client.core.Post().Namespace(c.namespace).Resource("resourcequotas").SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(t.Context()).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the quota is in force", func() bool {
		q := &corev1.ResourceQuota{}
		err := c.client.core.Get().Namespace(c.namespace).Resource("resourcequotas").Name("sandboxes").Do(t.Context()).Into(q)
		return err == nil && !q.Status.Hard.Pods().IsZero()
	})
}
