package egress

import "github.com/prometheus/client_golang/prometheus"

// counters is what the gateway counts. Labels come from the closed sets of
// kinds and codes.
type counters struct {
	connections *prometheus.CounterVec
	refusals    *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	open        prometheus.Gauge
	doors       prometheus.Gauge
	mirror      *prometheus.CounterVec
	cached      prometheus.Gauge
}

func newCounters(reg prometheus.Registerer) *counters {
	c := &counters{
		connections: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caesarion_egress_connections_total",
			Help: "Connections that sandboxes asked for, by decision: allowed, intercepted, mirror, denied, limited, unreachable, off.",
		}, []string{"decision"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caesarion_egress_refusals_total", Help: "Connections refused or cut off, by the code that the program was told.",
		}, []string{"code"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caesarion_egress_bytes_total", Help: "Bytes that sandboxes sent (out) and received (in).",
		}, []string{"direction"}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "caesarion_egress_connections", Help: "Connections of sandboxes that are open.",
		}),
		doors: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "caesarion_egress_doors", Help: "Sandboxes that are connected to the gateway.",
		}),
		mirror: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "caesarion_egress_mirror_requests_total",
			Help: "Requests to the package mirror, by kind (page, file) and result: hit, miss, joined, stale, passed, failed.",
		}, []string{"kind", "result"}),
		cached: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "caesarion_egress_mirror_cache_bytes", Help: "Bytes of package files kept on disk.",
		}),
	}
	if reg != nil {
		reg.MustRegister(c.connections, c.refusals, c.bytes, c.open, c.doors, c.mirror, c.cached)
	}
	return c
}
