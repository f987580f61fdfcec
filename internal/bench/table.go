package bench

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

var header = []string{"scenario", "subject", "N", "failed", "p50", "p90", "p99", "figure", "goal", "against caesarion"}

// Table prints results for people: a scenario's subjects below each other.
func Table(w io.Writer, results []Result) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, strings.Join(header, "\t"))
	for _, r := range results {
		fmt.Fprintln(tw, strings.Join(row(r), "\t"))
	}
	return tw.Flush()
}

// Markdown prints the same for documents.
func Markdown(w io.Writer, results []Result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "| %s |\n|---|---|---:|---:|---:|---:|---:|---:|---|---|\n", strings.Join(header, " | "))
	for _, r := range results {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row(r), " | "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func row(r Result) []string {
	if r.Skipped != "" {
		return []string{r.Scenario, r.Subject, "0", "0", "", "", "", "skipped: " + r.Skipped, "", ""}
	}
	cells := []string{r.Scenario, r.Subject, fmt.Sprint(r.N), fmt.Sprint(r.Failures), "", "", "", "", outcomes(r.Goals), r.against()}
	if r.P50 > 0 {
		cells[4], cells[5], cells[6] = millis(r.P50), millis(r.P90), millis(r.P99)
	}
	if r.Unit != "" {
		cells[7] = number(r.Value) + " " + r.Unit
	}
	if r.Note != "" {
		cells[7] = strings.TrimSpace(cells[7] + " (" + r.Note + ")")
	}
	return cells
}

func outcomes(all []Outcome) string {
	parts := make([]string, len(all))
	for i, o := range all {
		parts[i] = o.Goal + ": met"
		if !o.Met {
			parts[i] = o.Goal + ": MISSED"
		}
	}
	return strings.Join(parts, ", ")
}

func (r *Result) against() string {
	var text string
	switch {
	case r.Ratio == 0:
		return ""
	case r.Ratio >= 1:
		text = fmt.Sprintf("%.1f times slower", r.Ratio)
	default:
		text = fmt.Sprintf("%.1f times FASTER", 1/r.Ratio)
	}
	if r.Ahead != 0 && r.Driver != "" { // the same product: it is the difference that says something
		text += fmt.Sprintf(", %+.2f ms", -r.Ahead)
	}
	return text
}

func millis(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.2f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}

// number prints a figure with the digits that mean something.
func number(v float64) string {
	switch {
	case v == float64(int64(v)):
		return thousands(int64(v))
	case v < 10:
		return fmt.Sprintf("%.2g", v)
	case v < 1000:
		return fmt.Sprintf("%.1f", v)
	default:
		return thousands(int64(v + 0.5))
	}
}

func thousands(n int64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
