package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/metrics"
)

func scrape(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestWhatIsNotedIsScraped(t *testing.T) {
	m := metrics.New()
	m.Started("warm", "python", 3*time.Millisecond)
	m.Stage("restore", "python", 160*time.Millisecond)
	m.Pool("python", 1, 2)
	m.Asked("python", true)
	m.Asked("python", true)
	m.Asked("python", false)
	m.Evicted("python", "slow")
	m.Reaped("python", "orphan")
	m.Executions(func() int { return 7 })
	got := scrape(t, m)
	for _, want := range []string{
		`caesarion_sandbox_start_seconds_bucket{start="warm",template="python",le="0.0025"} 0`,
		`caesarion_sandbox_start_seconds_bucket{start="warm",template="python",le="0.005"} 1`,
		`caesarion_pool_stage_seconds_count{stage="restore",template="python"} 1`,
		`caesarion_pool_ready_sandboxes{template="python"} 1`,
		`caesarion_pool_size_sandboxes{template="python"} 2`,
		`caesarion_pool_hits_total{template="python"} 2`,
		`caesarion_pool_misses_total{template="python"} 1`,
		`caesarion_pool_evictions_total{reason="slow",template="python"} 1`,
		`caesarion_sandboxes_reaped_total{reason="orphan",template="python"} 1`,
		`caesarion_executions_running 7`,
		`go_goroutines `,
	} {
		if !strings.Contains(got, want+"\n") && !strings.Contains(got, "\n"+want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

func TestTwoMetricsShareNothing(t *testing.T) {
	a, b := metrics.New(), metrics.New()
	a.Asked("python", true)
	if got := scrape(t, b); strings.Contains(got, "caesarion_pool_hits_total{") {
		t.Errorf("the other one's counts are here:\n%s", got)
	}
}

func TestNobodyToTellIsNoSpecialCase(t *testing.T) {
	var m *metrics.Metrics
	m.Executions(nil)
	m.Started("warm", "python", 1)
	m.Stage("check", "python", 1)
	m.Pool("python", 1, 2)
	m.Asked("python", true)
	m.Evicted("python", "age")
	m.Reaped("python", "ended")
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusNotFound {
		t.Errorf("got %d, want 404", w.Code)
	}
}
