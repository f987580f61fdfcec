package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// startBuckets are seconds: from a hit in the pool to a cold start behind a
// burst. stageBuckets begin with a round trip to an agent.
var (
	startBuckets = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 15, 30, 60}
	stageBuckets = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 15}
)

// Metrics is everything that is counted. All methods may be called concurrently.
type Metrics struct {
	registry *prometheus.Registry

	start     *prometheus.HistogramVec
	stage     *prometheus.HistogramVec
	ready     *prometheus.GaugeVec
	size      *prometheus.GaugeVec
	hits      *prometheus.CounterVec
	misses    *prometheus.CounterVec
	evictions *prometheus.CounterVec
	reaped    *prometheus.CounterVec
}

// New makes Metrics that have counted nothing.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		start: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "caesarion_sandbox_start_seconds", Buckets: startBuckets,
			Help: "From asking for a sandbox to having it, waiting included, by how it started: warm, restore or cold.",
		}, []string{"start", "template"}),
		stage: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "caesarion_pool_stage_seconds", Buckets: stageBuckets,
			Help: "Stages of making a sandbox ready (restore, create, check) and of handing it over (configure, claim).",
		}, []string{"stage", "template"}),
		ready: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "caesarion_pool_ready_sandboxes", Help: "Sandboxes that wait for an owner.",
		}, []string{"template"}),
		size: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "caesarion_pool_size_sandboxes", Help: "Sandboxes that the pool is to keep ready.",
		}, []string{"template"}),
		hits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caesarion_pool_hits_total", Help: "Sandboxes that were ready when they were asked for.",
		}, []string{"template"}),
		misses: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caesarion_pool_misses_total", Help: "Sandboxes that had to be started when they were asked for.",
		}, []string{"template"}),
		evictions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caesarion_pool_evictions_total",
			Help: "Ready sandboxes that were deleted, by reason: age, surplus, memory, lost, outdated, slow, unresponsive, abandoned, quota.",
		}, []string{"template", "reason"}),
		reaped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caesarion_sandboxes_reaped_total",
			Help: "Pods that nobody had and that were deleted, by reason: ended, expired, idle, slow, orphan, forced.",
		}, []string{"template", "reason"}),
	}
	m.registry.MustRegister(m.start, m.stage, m.ready, m.size, m.hits, m.misses, m.evictions, m.reaped,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Registerer takes metrics of other packages; nil without Metrics.
func (m *Metrics) Registerer() prometheus.Registerer {
	if m == nil {
		return nil
	}
	return m.registry
}

// Handler answers GET /metrics in Prometheus' text format.
func (m *Metrics) Handler() http.Handler {
	if m == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Executions has the number of executions under way counted at each scrape. It
// may be called once.
func (m *Metrics) Executions(running func() int) {
	if m == nil {
		return
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "caesarion_executions_running", Help: "Executions of this server that have not ended, those that wait included.",
	}, func() float64 { return float64(running()) }))
}

// Started notes that a sandbox was handed to its owner.
func (m *Metrics) Started(start, template string, took time.Duration) {
	if m != nil {
		m.start.WithLabelValues(start, template).Observe(took.Seconds())
	}
}

// Stage notes one stage of making a sandbox ready or handing it over.
func (m *Metrics) Stage(stage, template string, took time.Duration) {
	if m != nil {
		m.stage.WithLabelValues(stage, template).Observe(took.Seconds())
	}
}

// Pool notes how many sandboxes of a template are ready, and are to be.
func (m *Metrics) Pool(template string, ready, size int) {
	if m != nil {
		m.ready.WithLabelValues(template).Set(float64(ready))
		m.size.WithLabelValues(template).Set(float64(size))
	}
}

// Asked notes that a sandbox was asked for, and whether one was ready.
func (m *Metrics) Asked(template string, hit bool) {
	if m == nil {
		return
	}
	c := m.misses
	if hit {
		c = m.hits
	}
	c.WithLabelValues(template).Inc()
}

// Evicted notes that a ready sandbox was deleted.
func (m *Metrics) Evicted(template, reason string) {
	if m != nil {
		m.evictions.WithLabelValues(template, reason).Inc()
	}
}

// Reaped notes that a sandbox was deleted that nobody had.
func (m *Metrics) Reaped(template, reason string) {
	if m != nil {
		m.reaped.WithLabelValues(template, reason).Inc()
	}
}
