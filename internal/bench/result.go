package bench

import (
	"math"
	"slices"
	"strings"
	"time"
)

// Result is one scenario measured on one subject. Times are in milliseconds,
// of the samples that did not fail; a scenario that measures another quantity
// has it in Value, in Unit.
type Result struct {
	Scenario string  `json:"scenario"`
	Subject  string  `json:"subject"`
	N        int     `json:"n"` // samples, those that failed included
	Failures int     `json:"failures"`
	P50      float64 `json:"p50_ms"`
	P90      float64 `json:"p90_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms,omitzero"`
	Value    float64 `json:"value,omitzero"`
	Unit     string  `json:"unit,omitempty"`
	// Ratio is how many times slower than the first subject this one is: of
	// rates, the first's divided by this one's; of times, the median over rounds
	// of the ratio of the round's two medians. Below 1 it is faster.
	Ratio float64 `json:"ratio,omitzero"`
	// Ahead is by how many milliseconds this one is faster than the first
	// subject: the median over rounds of what the two medians differ by.
	Ahead   float64   `json:"ahead_ms,omitzero"`
	Driver  string    `json:"driver,omitempty"` // what makes the sandboxes, of servers of this product
	Under   string    `json:"under,omitempty"`  // the first subject's driver
	Goals   []Outcome `json:"goals,omitempty"`
	Note    string    `json:"note,omitempty"`
	Skipped string    `json:"skipped,omitempty"` // why it was not measured
	Machine *Machine  `json:"machine,omitempty"`
}

// series is what was measured of one subject: a list of samples a round.
type series struct {
	rounds   [][]float64
	failures int
}

// round begins the next round.
func (s *series) round() { s.rounds = append(s.rounds, nil) }

// add counts a sample.
func (s *series) add(d time.Duration) { s.addValue(float64(d.Nanoseconds()) / 1e6) }

func (s *series) addValue(v float64) {
	if len(s.rounds) == 0 {
		s.round()
	}
	last := len(s.rounds) - 1
	s.rounds[last] = append(s.rounds[last], v)
}

func (s *series) all() []float64 { return slices.Concat(s.rounds...) }

// timed sums up what was measured in milliseconds.
func (s *series) timed(scenario string, subject Subject) Result {
	samples := s.all()
	r := Result{
		Scenario: scenario, Subject: subject.Name(), N: len(samples) + s.failures, Failures: s.failures,
		P50: quantile(samples, 0.5), P90: quantile(samples, 0.9), P99: quantile(samples, 0.99),
	}
	if len(samples) > 0 {
		r.Max = slices.Max(samples)
	}
	return r
}

// quantile gives the smallest sample that q of all do not exceed (nearest
// rank), or 0 without samples. It invents no value between two samples.
func quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(samples))
	rank := int(math.Ceil(q * float64(len(sorted)) * (1 - 1e-12))) // 0.9*10 is a little more than 9
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// against gives Result.Ratio of s to base.
func (s *series) against(base *series) float64 {
	var ratios []float64
	for i := range min(len(s.rounds), len(base.rounds)) {
		if a, b := quantile(s.rounds[i], 0.5), quantile(base.rounds[i], 0.5); a > 0 && b > 0 {
			ratios = append(ratios, a/b)
		}
	}
	return quantile(ratios, 0.5)
}

// ahead gives Result.Ahead of s to base.
func (s *series) ahead(base *series) float64 {
	var by []float64
	for i := range min(len(s.rounds), len(base.rounds)) {
		if a, b := quantile(s.rounds[i], 0.5), quantile(base.rounds[i], 0.5); a > 0 && b > 0 {
			by = append(by, a-b) // as the ratio: of two in the middle, that which is kinder to s
		}
	}
	if len(by) == 0 {
		return 0
	}
	return -quantile(by, 0.5)
}

// reportTimed reports all subjects' times, with ratios to the first. edit, if
// not nil, completes each result.
func (r *run) reportTimed(name string, subjects []Subject, measured []*series, edit func(i int, res *Result)) {
	var first Result
	for i, subject := range subjects {
		res := measured[i].timed(name, subject)
		if i > 0 {
			res.Ratio, res.Ahead = measured[i].against(measured[0]), measured[i].ahead(measured[0])
		}
		if edit != nil {
			edit(i, &res)
		}
		if i == 0 {
			first = res
		} else if strings.HasSuffix(res.Unit, "/s") && res.Value > 0 { // what counts is how much is done
			res.Ratio, res.Ahead = first.Value/res.Value, 0
		}
		r.report(res)
	}
}

// newSeries makes n of them.
func newSeries(n int) []*series {
	all := make([]*series, n)
	for i := range all {
		all[i] = &series{}
	}
	return all
}
