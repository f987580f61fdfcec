package kubebench

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/caesarion/caesarion/test/kubetest"
)

const (
	creates = 30
	colds   = 10
)

// BenchmarkKubernetes prints the tables of docs/performance.md, section "On
// Kubernetes". Use -benchtime=1x.
func BenchmarkKubernetes(b *testing.B) {
	for range b.N {
		w := newWorld(b)
		here := serveHere(b, w.dir)
		for _, class := range []struct{ name, runtimeClass string }{{"runc", ""}, {"gvisor", kubetest.RuntimeClass}} {
			fmt.Printf("\n## Pods with %s\n\n", class.name)

			in := w.install(b, class.name+"-warm", chartLimits(class.runtimeClass, 2))
			one, two := in.serve(b), in.serve(b)
			one.full(b, 2)
			before := writesNow(b)
			w.bench(b, one, "--scenario", "create-hit", "--creates", fmt.Sprint(creates))
			one.full(b, 2)
			fmt.Printf("\nThe API server's writes for each lease, from a full pool to a full pool: %s\n\n", writesNow(b).since(before).per(creates))
			one.stop()
			two.stop()
			in.clear()

			in = w.install(b, class.name+"-cold", chartLimits(class.runtimeClass, 0))
			one = in.serve(b)
			w.bench(b, one, "--scenario", "create-cold", "--creates", fmt.Sprint(colds))
			one.stop()
			in.clear()

			in = w.install(b, class.name+"-live", hereLimits(class.runtimeClass, 0))
			one, two = in.serve(b), in.serve(b)
			w.bench(b, one, "--replica", two.URL(), "--compare", "one-machine="+here.URL(), "--parallel", "4",
				"--scenario", "live,live-rested,first-byte,forwarded")
			one.stop()
			two.stop()
			in.clear()
		}
	}
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
