package pool_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// figures are what a benchmark measures each time, in order.
type figures []time.Duration

func (f figures) at(p float64) time.Duration {
	s := slices.Sorted(slices.Values(f))
	return s[min(len(s)-1, int(p*float64(len(s))))]
}

func (f figures) report(b *testing.B, what string) {
	b.Helper()
	for name, p := range map[string]float64{"p50": 0.5, "p99": 0.99} {
		b.ReportMetric(float64(f.at(p).Microseconds())/1000, what+"-"+name+"-ms")
	}
}

// machineCPU is the time all cores together have worked.
//
// Source: /proc/stat.
func machineCPU(b *testing.B) time.Duration {
	b.Helper()
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		b.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	var ticks int64
	for i, field := range strings.Fields(line)[1:] {
		if i == 3 || i == 4 || i > 7 { // idle, iowait, guests
			continue
		}
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

func benchPool(b *testing.B, size int) (*gvisor.Driver, *pool.Pool) {
	h := newHost(b)
	d := h.open(b)
	b.Cleanup(func() { gvisortest.Empty(b, d) })
	opts := options(b, size)
	opts.Logger = nil
	p := openPool(b, d, opts)
	b.Cleanup(func() { shut(b, p) })
	settled(b, p)
	return d, p
}

// cycle leases, runs a cell and deletes; it gives how long the lease took and
// how long it was to the first output.
func cycle(d *gvisor.Driver, p *pool.Pool) (leased, output time.Duration, start pool.Start, err error) {
	begin := time.Now()
	l, err := p.Lease(context.Background(), request())
	if err != nil {
		return 0, 0, "", err
	}
	leased = time.Since(begin)
	out, err := agenttest.Output(context.Background(), l.Client, kernelID, "print(1)")
	output = time.Since(begin)
	if err == nil && out != "1\n" {
		err = fmt.Errorf("got %q", out)
	}
	l.Client.CloseIdle()
	if err2 := d.Delete(context.Background(), l.Info.ID); err == nil {
		err = err2
	}
	return leased, output, l.Start, err
}

func benchLease(b *testing.B, size int, want pool.Start) {
	d, p := benchPool(b, size)
	var leases, outputs figures
	var other int
	b.ResetTimer()
	for range b.N {
		b.StopTimer()
		settled(b, p)
		b.StartTimer()
		leased, output, start, err := cycle(d, p)
		if err != nil {
			b.Fatal(err)
		}
		if start != want {
			other++
		}
		leases, outputs = append(leases, leased), append(outputs, output)
	}
	leases.report(b, "lease")
	outputs.report(b, "output")
	b.ReportMetric(float64(other), "other-starts")
}

func BenchmarkLeaseWarm(b *testing.B)    { benchLease(b, 2, pool.StartWarm) }
func BenchmarkLeaseRestore(b *testing.B) { benchLease(b, 0, pool.StartRestore) }

func BenchmarkBurst(b *testing.B) {
	for _, n := range []int{20, 100} {
		for _, size := range []int{0, 2, 10} {
			b.Run(fmt.Sprintf("%d-pool-%d", n, size), func(b *testing.B) {
				d, p := benchPool(b, size)
				var all figures
				for range b.N {
					settled(b, p)
					var mu sync.Mutex
					var wg sync.WaitGroup
					for range n {
						wg.Go(func() {
							_, output, _, err := cycle(d, p)
							if err != nil {
								b.Error(err)
							}
							mu.Lock()
							defer mu.Unlock()
							all = append(all, output)
						})
					}
					wg.Wait()
				}
				all.report(b, "output")
			})
		}
	}
}

func BenchmarkSustained(b *testing.B) {
	for _, clients := range []int{1, 2, 4} {
		for _, size := range []int{0, 2} {
			b.Run(fmt.Sprintf("%d-clients-pool-%d", clients, size), func(b *testing.B) {
				d, p := benchPool(b, size)
				var left atomic.Int64
				left.Store(int64(b.N))
				var mu sync.Mutex
				var all figures
				var wg sync.WaitGroup
				cpu, begin := machineCPU(b), time.Now()
				b.ResetTimer()
				for range clients {
					wg.Go(func() {
						for left.Add(-1) >= 0 {
							_, output, _, err := cycle(d, p)
							if err != nil {
								b.Error(err)
								return
							}
							mu.Lock()
							all = append(all, output)
							mu.Unlock()
						}
					})
				}
				wg.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "cycles/s")
				b.ReportMetric(float64((machineCPU(b)-cpu).Milliseconds())/float64(b.N), "machine-cpu-ms/cycle")
				all.report(b, "output")
				s := p.Stats()["python"]
				b.ReportMetric(float64(s.Hits)/float64(s.Hits+s.Misses), "hit-rate")
			})
		}
	}
}
