// Package metrics counts and times what the server does, for Prometheus.
//
//	pool ──Started, Stage, Evicted, …──▶ Metrics ──Handler──▶ GET /metrics
//
// Each Metrics has a registry of its own. A nil *Metrics takes everything and
// keeps nothing, so that whoever has nobody to tell needs no special case.
// Labels come from closed sets: templates of the configuration, stages and
// reasons named in the code, never ids.
package metrics
