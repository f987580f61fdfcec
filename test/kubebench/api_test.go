package kubebench

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/test/kubetest"
)

// writes counts the API server's writes by what was written and how, such as
// "PATCH pods" and "POST pods/binding", since it started, by everybody. Those
// that were refused count, too.
type writes map[string]int

var label = regexp.MustCompile(`([a-z_]+)="([^"]*)"`)

func writesNow(tb testing.TB) writes {
	tb.Helper()
	raw, err := kubetest.Client(tb).Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	all := writes{}
	for lines := bufio.NewScanner(bytes.NewReader(raw)); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), "apiserver_request_total{")
		if !ok {
			continue
		}
		labels, value, _ := strings.Cut(rest, "} ")
		of := map[string]string{}
		for _, m := range label.FindAllStringSubmatch(labels, -1) {
			of[m[1]] = m[2]
		}
		switch of["verb"] {
		case "POST", "PUT", "PATCH", "APPLY", "DELETE":
		default:
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			tb.Fatal(err)
		}
		name := of["verb"] + " " + of["resource"]
		if of["subresource"] != "" {
			name += "/" + of["subresource"]
		}
		all[name] += int(n)
	}
	return all
}

// since gives what came after before.
func (w writes) since(before writes) writes {
	out := writes{}
	for name, n := range w {
		if n -= before[name]; n > 0 {
			out[name] = n
		}
	}
	return out
}

// String lists the writes to pods and what belongs to them.
func (w writes) String() string { return w.per(1) }

// per lists them for each of n leases.
func (w writes) per(n int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(w)) {
		if strings.Contains(name, " pods") || strings.Contains(name, " events") {
			parts = append(parts, fmt.Sprintf("%s %.2f", name, float64(w[name])/float64(n)))
		}
	}
	return strings.Join(parts, ", ")
}
