package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Table prints results for people: a scenario's subjects side by side, with
// the ratio of the second's median to the first's.
func Table(w io.Writer, results []Result) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, "scenario\tsubject\tN\tfailed\tp50\tp90\tp99\tfigure\tagainst caesarion")
	first := map[string]Result{}
	for _, r := range results {
		if _, ok := first[r.Scenario]; !ok {
			first[r.Scenario] = r
		}
		base := first[r.Scenario]
		times, figure, ratio := "\t\t", "", ""
		if r.P50 > 0 {
			times = fmt.Sprintf("%s\t%s\t%s", millis(r.P50), millis(r.P90), millis(r.P99))
			if base.Subject != r.Subject && base.P50 > 0 {
				ratio = fmt.Sprintf("%.1f times slower", r.P50/base.P50)
			}
		}
		if r.Unit != "" {
			figure = fmt.Sprintf("%.0f %s %s", r.Value, r.Unit, r.Note)
			if base.Subject != r.Subject && r.Value > 0 {
				ratio = fmt.Sprintf("%.1f times slower", base.Value/r.Value)
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", r.Scenario, r.Subject, r.N, r.Failures, times, figure, ratio)
	}
	return tw.Flush()
}

func millis(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.2f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}
