package bench

import "fmt"

// Goal is a figure that the product is built to reach on two cores.
type Goal struct {
	Scenario string
	Of       string // p50, p99, value, failures, ratio or ahead
	AtLeast  bool   // otherwise: at most
	Wanted   float64
	// Subject is whose figure counts: the server's, or for a ratio the peer's.
	// "": that of another server of this product, whose sandboxes are on its machine.
	Subject string
}

// The drivers that goals tell apart, as servers call them.
const (
	driverPods = "kube"
	driverHere = "gvisor"
)

// Outcome is what became of a goal.
type Outcome struct {
	Goal string `json:"goal"`
	Met  bool   `json:"met"`
}

// goals of the product, for two cores with everything on one machine.
var goals = []Goal{
	{"create-hit", "p50", false, 5, caesarionName},
	{"create-hit", "p99", false, 25, caesarionName},
	{"create-miss", "p50", false, 200, caesarionName},
	{"create-miss", "p99", false, 400, caesarionName},
	{"live", "p50", false, 1.2, caesarionName},
	{"live", "p99", false, 5, caesarionName},
	{"live", "ratio", true, 5, "jupyter"},
	{"live", "ratio", true, 5, "jupyter-quickack"},
	{"live-parallel", "value", true, 400, caesarionName},
	{"output", "value", true, 200_000, caesarionName},
	{"output", "failures", false, 0, caesarionName},
	{"first-byte", "p99", false, 10, caesarionName},
	{"interrupt", "p99", false, 150, caesarionName},
	{"burst", "failures", false, 0, caesarionName},
	{"burst", "p99", false, 15_000, caesarionName},
	{"sustained", "value", true, 10, caesarionName},
	{"pause", "p50", false, 400, caesarionName},
	{"resume", "p50", false, 300, caesarionName},
	{"memory", "value", false, 80, caesarionName},
	{"memory-asleep", "value", false, 0, caesarionName},
	{"list", "p99", false, 20, caesarionName},
	{"list-server", "value", false, 100, caesarionName},
}

// podGoals are the goals of a server whose sandboxes are pods, for a cluster of
// one node with two cores that has it all.
var podGoals = []Goal{
	{"create-hit", "p50", false, 50, caesarionName},
	{"create-cold", "p99", false, 4000, caesarionName},
	{"live", "ahead", false, 1, ""},
	{"live-rested", "ahead", false, 1, ""},
	{"first-byte", "ahead", false, 1, ""},
}

// counts reports whether a goal is about r.
func (g *Goal) counts(r *Result) bool {
	if g.Scenario != r.Scenario {
		return false
	}
	if g.Subject == "" {
		return r.Subject != caesarionName && r.Driver == driverHere
	}
	return g.Subject == r.Subject
}

// Judge sets the outcomes of the goals that r has.
func (r *Result) Judge() {
	if r.Skipped != "" {
		return
	}
	all := goals
	if r.Under == driverPods {
		all = podGoals
	}
	for _, g := range all {
		if !g.counts(r) {
			continue
		}
		got, unit := r.figure(g.Of)
		sign, met := "≤", got <= g.Wanted
		if g.AtLeast {
			sign, met = "≥", got >= g.Wanted
		}
		if g.Of != "failures" && r.N == r.Failures { // nothing was measured
			met = false
		}
		text := fmt.Sprintf("%s %s %s", g.Of, sign, number(g.Wanted))
		switch {
		case g.Of == "value":
			text = fmt.Sprintf("%s %s %s", sign, number(g.Wanted), unit)
		case g.Of == "failures" && g.Wanted == 0:
			text = "none fails"
		case g.Of == "ahead":
			text = fmt.Sprintf("faster by ≤ %s ms", number(g.Wanted))
		case unit != "":
			text += " " + unit
		}
		r.Goals = append(r.Goals, Outcome{text, met})
	}
}

func (r *Result) figure(of string) (float64, string) {
	switch of {
	case "p50":
		return r.P50, "ms"
	case "p99":
		return r.P99, "ms"
	case "ratio":
		return r.Ratio, "times"
	case "ahead":
		return r.Ahead, "ms"
	case "failures":
		return float64(r.Failures), ""
	default:
		return r.Value, r.Unit
	}
}
