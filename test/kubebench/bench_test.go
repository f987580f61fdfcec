package kubebench

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/test/kubetest"
)

const (
	creates = 30
	colds   = 10
)

// The parts of BenchmarkKubernetes print the tables of docs/performance.md, section
// "On Kubernetes", for each runtime. Use -benchtime=1x.
func BenchmarkKubernetes(b *testing.B) {
	for _, part := range []struct {
		name    string
		measure func(b *testing.B, w *world, name, class string)
	}{{"warm", measureWarm}, {"cold", measureCold}, {"live", measureLive}} {
		for _, runtime := range []struct{ name, class string }{{"runc", ""}, {"gvisor", kubetest.RuntimeClass}} {
			b.Run(part.name+"/"+runtime.name, func(b *testing.B) {
				for range b.N {
					fmt.Printf("\n## %s: %s\n\n", part.name, runtime.name)
					part.measure(b, newWorld(b), part.name+"-"+runtime.name, runtime.class)
				}
			})
		}
	}
}

// measureWarm measures leases, with the chart's limits.
func measureWarm(b *testing.B, w *world, name, class string) {
	b.Helper()
	in := w.install(b, name, chartLimits(class, 2))
	one, _ := in.serve(b), in.serve(b)
	one.full(b, 2)
	before := writesNow(b)
	w.bench(b, one, "--scenario", "create-hit", "--creates", strconv.Itoa(creates))
	one.full(b, 2)
	fmt.Printf("\nThe API server's writes for each lease, from a full pool to a full pool: %s\n", writesNow(b).since(before).per(creates))
	fmt.Printf("Means of the stages of a lease: claim %.1f ms, configure %.1f ms\n", one.stage(b, "claim"), one.stage(b, "configure"))
}

// measureCold measures starts without a pool, with the chart's limits.
func measureCold(b *testing.B, w *world, name, class string) {
	b.Helper()
	w.bench(b, w.install(b, name, chartLimits(class, 0)).serve(b), "--scenario", "create-cold", "--creates", strconv.Itoa(colds))
}

// measureLive measures sandboxes that are there, beside those of a server with
// the one-machine driver and the same limits.
func measureLive(b *testing.B, w *world, name, class string) {
	b.Helper()
	here := serveHere(b, w.dir)
	in := w.install(b, name, hereLimits(class, 0))
	one, two := in.serve(b), in.serve(b)
	w.bench(b, one, "--replica", two.URL(), "--compare", "one-machine="+here.URL(), "--parallel", "4",
		"--scenario", "live,live-rested,first-byte,forwarded")
}

// stage gives the mean of what the server says of a stage of its leases, in milliseconds.
func (s *server) stage(b *testing.B, name string) float64 {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, s.URL()+"/metrics", nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var sum, count float64
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		for field, to := range map[string]*float64{"sum": &sum, "count": &count} {
			if rest, ok := strings.CutPrefix(lines.Text(), fmt.Sprintf("caesarion_pool_stage_seconds_%s{stage=%q,", field, name)); ok {
				_, value, _ := strings.Cut(rest, "} ")
				if *to, err = strconv.ParseFloat(value, 64); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	return 1000 * sum / max(count, 1)
}

// bench runs the product's own command against a server.
func (w *world) bench(b *testing.B, s *server, flags ...string) {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), "caesarion", append([]string{"bench", "--server", s.URL(), "--markdown"}, flags...)...)
	cmd.Env = append(os.Environ(), "CAESARION_TOKEN="+token, "CAESARION_COMPARE_TOKEN="+token)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
}
