package gvisor_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
)

// cpu is what this process and all that it waited for have used, in ms.
func cpu(b *testing.B) float64 {
	b.Helper()
	var sum time.Duration
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		if err := syscall.Getrusage(who, &u); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return float64(sum.Microseconds()) / 1000
}

// BenchmarkRestore is a sandbox from a snapshot of a kernel with the data
// libraries, its first output, and its end.
func BenchmarkRestore(b *testing.B) {
	d := open(b, options(b, gvisortest.Image(b), gvisortest.StateDir(b)))
	info, err := d.Create(b.Context(), sandbox.Spec{Limits: smallLimits, Prestart: true, Preload: []string{"numpy", "pandas", "matplotlib.pyplot"}})
	if err != nil {
		b.Fatal(err)
	}
	c := client(d, info)
	_ = c.Check(b.Context(), "")
	if err := c.Trim(b.Context()); err != nil {
		b.Fatal(err)
	}
	c.CloseIdle()
	s := snapshot(b, d, info.ID, sandbox.SnapshotOptions{})
	if err := d.Delete(b.Context(), info.ID); err != nil {
		b.Fatal(err)
	}
	before := cpu(b)
	n := 0
	var restore, hand, run, remove time.Duration
	percentiles(b, func() error {
		n++
		t0 := time.Now()
		info, err := d.Restore(b.Context(), s.ID, sandbox.Spec{Limits: smallLimits}, false)
		if err != nil {
			return err
		}
		t1 := time.Now()
		p := &python{b, d, client(d, info), info.ID}
		if _, err := p.c.Configure(b.Context(), agentapi.Configure{Token: info.AgentToken, SandboxID: string(info.ID), KernelID: kernelID, MemoryBytes: smallLimits.MemoryBytes, UnixTimeNanos: time.Now().UnixNano()}); err != nil {
			return err
		}
		t2 := time.Now()
		if got := p.run("print(1)"); strings.TrimSpace(got) != "1" {
			b.Errorf("got %q", got)
		}
		t3 := time.Now()
		err = d.Delete(b.Context(), info.ID)
		restore, hand, run, remove = restore+t1.Sub(t0), hand+t2.Sub(t1), run+t3.Sub(t2), remove+time.Since(t3)
		return err
	})
	b.ReportMetric((cpu(b)-before)/float64(n), "cpu-ms/op")
	for name, sum := range map[string]time.Duration{"restore-ms": restore, "configure-ms": hand, "run-ms": run, "delete-ms": remove} {
		b.ReportMetric(float64(sum.Microseconds())/1000/float64(n), name)
	}
}
