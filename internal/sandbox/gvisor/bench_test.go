package gvisor_test

import (
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
)

// percentiles times f b.N times and reports p50 and p99.
func percentiles(b *testing.B, f func() error) {
	b.Helper()
	var samples []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		samples = append(samples, time.Since(start))
	}
	slices.Sort(samples)
	b.ReportMetric(float64(samples[len(samples)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(samples[len(samples)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkRoundTrip is the way into a sandbox and back, without a kernel.
func BenchmarkRoundTrip(b *testing.B) {
	d := open(b, options(b, gvisortest.Image(b), gvisortest.StateDir(b)))
	info, err := d.Create(b.Context(), sandbox.Spec{})
	if err != nil {
		b.Fatal(err)
	}
	c := client(d, info)
	defer c.CloseIdle()
	percentiles(b, func() error {
		_, err := c.Health(b.Context())
		return err
	})
}

// BenchmarkExecute is 1+1 on a live kernel, driver to kernel and back.
func BenchmarkExecute(b *testing.B) {
	d := open(b, options(b, gvisortest.Image(b), gvisortest.StateDir(b)))
	info, err := d.Create(b.Context(), sandbox.Spec{})
	if err != nil {
		b.Fatal(err)
	}
	s := agenttest.New(b, client(d, info))
	defer s.CloseIdle()
	percentiles(b, func() error {
		stream, err := s.Execute(b.Context(), s.KernelID, agentapi.Execute{ID: agenttest.NewID("exe"), Code: "1+1", StoreHistory: true})
		if err != nil {
			return err
		}
		defer stream.Close()
		for {
			if _, err := stream.Next(); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
}
