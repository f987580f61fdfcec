package escape

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write what was measured into testdata and docs/security/attacks.md")

// Where what was measured and its page are kept, from the repository's root.
const (
	measuredFile = "test/escape/testdata/measured.json"
	pageFile     = "docs/security/attacks.md"
)

// Root is the repository's folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// recorded gives what was measured before: world → attack → answer.
func recorded(tb testing.TB) map[string]map[string]string {
	tb.Helper()
	all := map[string]map[string]string{}
	text, err := os.ReadFile(filepath.Join(Root(), measuredFile))
	if err != nil && !os.IsNotExist(err) {
		tb.Fatal(err)
	}
	if err == nil {
		if err := json.Unmarshal(text, &all); err != nil {
			tb.Fatal(err)
		}
	}
	return all
}

// Compare checks that the page says what was measured now. With -update it
// writes it down; attacks that did not run keep what they had.
func Compare(t *testing.T, world string, measured map[string]string) {
	t.Helper()
	all := recorded(t)
	if *update {
		now := map[string]string{}
		for _, a := range Attacks() {
			if answer, ok := all[world][a.Name]; ok && a.Test == "" {
				now[a.Name] = answer
			}
		}
		maps.Copy(now, measured)
		all[world] = now
		text, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		write(t, measuredFile, string(text)+"\n")
		write(t, pageFile, Page(all))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(measured)) {
		if answer := all[world][name]; answer != measured[name] {
			t.Errorf("%s: the page says %q, and now it is %q; go test ./test/escape -update writes it", name, answer, measured[name])
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(Root(), file), []byte(text), 0o644); err != nil { //nolint:gosec // of the repository
		t.Fatal(err)
	}
}

// Page writes docs/security/attacks.md.
func Page(measured map[string]map[string]string) string {
	var worlds []string
	for _, w := range Worlds {
		if len(measured[w]) > 0 {
			worlds = append(worlds, w)
		}
	}
	var b strings.Builder
	own, others := 0, 0
	for _, a := range Attacks() {
		if a.Test == "" {
			own++
		} else {
			others++
		}
	}
	fmt.Fprintf(&b, `<!-- Written by go test ./test/escape -update. -->
# Attacks, and what came of them

What hostile code tries, from inside a real sandbox, and what it gets. `+"`make test-escape`"+` runs the %d attacks of the first tables and compares
the answers with this page; the %d others name the test that makes them. Errors are named as the kernel names them. "Measured" is what the
last run got; where it is empty that way of running sandboxes was not measured.
What the wall is made of, and what it does not hold, is in [the model](model.md).
`, own, others)
	for _, group := range Groups() {
		fmt.Fprintf(&b, "\n## %s\n", group)
		rows := group
		if slices.ContainsFunc(Attacks(), func(a Attack) bool { return a.Group == rows && a.Test == "" }) {
			fmt.Fprintf(&b, "\n| attack | what it does | expected | %s |\n|---|---|---|%s\n", strings.Join(prefixed("measured: ", worlds), " | "), strings.Repeat("---|", len(worlds)))
			for _, a := range Attacks() {
				if a.Group != group || a.Test != "" {
					continue
				}
				fmt.Fprintf(&b, "| %s | %s | %s |", a.Name, cell(a.Does), cell(expected(a)))
				for _, w := range worlds {
					answer, ok := measured[w][a.Name]
					if ok && answer == "" {
						answer = "the sandbox ended"
					}
					fmt.Fprintf(&b, " %s |", cell(answer))
				}
				b.WriteString("\n")
			}
		}
		if slices.ContainsFunc(Attacks(), func(a Attack) bool { return a.Group == rows && a.Test != "" }) {
			b.WriteString("\n| attack | what it does | expected | proven by |\n|---|---|---|---|\n")
			for _, a := range Attacks() {
				if a.Group != group || a.Test == "" {
					continue
				}
				var tests []string
				for ref := range strings.SplitSeq(a.Test, "; ") {
					dir, text, _ := strings.Cut(ref, ": ")
					tests = append(tests, "`"+dir+"` "+text)
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", a.Name, cell(a.Does), cell(expected(a)), cell(strings.Join(tests, "; ")))
			}
		}
	}
	return b.String()
}

func expected(a Attack) string {
	want := slices.Clone(a.Want)
	if i := slices.Index(want, ""); i >= 0 {
		want[i] = "the sandbox ended"
	}
	// Errors are many of one kind: the first says it.
	if len(want) > 3 {
		want = append(want[:2], "or the like")
	}
	for _, answer := range a.Node {
		want = append(want, "with the node's kernel also "+answer)
	}
	return strings.Join(want, "; ")
}

func prefixed(prefix string, list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = prefix + s
	}
	return out
}

// cell makes text fit into a table.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s) }
