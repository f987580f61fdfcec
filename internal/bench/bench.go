package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Subject is what is measured.
type Subject interface {
	Name() string
	// Create makes a sandbox (or a kernel) and returns when code can be sent.
	Create(ctx context.Context) (Session, error)
}

// Session is one sandbox of a subject, with one kernel.
type Session interface {
	// Run runs code to its end. It says how long it took to the first output
	// (zero: there was none) and to the last byte, and how many characters of
	// output came.
	Run(ctx context.Context, code string) (Sample, error)
	Close(ctx context.Context) error
}

// Sample is one measured run.
type Sample struct {
	First, Total time.Duration
	Characters   int
}

// Result is one scenario measured on one subject. Times are in milliseconds;
// a scenario that measures no time has its figure in Value, in Unit.
type Result struct {
	Scenario string  `json:"scenario"`
	Subject  string  `json:"subject"`
	N        int     `json:"n"`
	Failures int     `json:"failures"`
	P50      float64 `json:"p50_ms,omitzero"`
	P90      float64 `json:"p90_ms,omitzero"`
	P99      float64 `json:"p99_ms,omitzero"`
	Value    float64 `json:"value,omitzero"`
	Unit     string  `json:"unit,omitempty"`
	Note     string  `json:"note,omitempty"`
}

// timed sums up samples.
func timed(scenario, subject string, samples []time.Duration, failures int) Result {
	slices.Sort(samples)
	at := func(q float64) float64 {
		if len(samples) == 0 {
			return 0
		}
		// Nearest rank: the smallest sample that q of all do not exceed.
		i := max(int(q*float64(len(samples))+0.9999999)-1, 0)
		return float64(samples[min(i, len(samples)-1)].Nanoseconds()) / 1e6
	}
	return Result{Scenario: scenario, Subject: subject, N: len(samples), Failures: failures, P50: at(0.5), P90: at(0.9), P99: at(0.99)}
}

// Options says how much to measure. The zero value gives figures in about two
// minutes.
type Options struct {
	Creates    int // cold starts a subject; default 10
	Executions int // live executions a subject; default 500
	Lines      int // printed lines in one run of the output scenario; default 200,000
	Repeats    int // runs of first-byte and output; default 20 and 5
	FileBytes  int64
	Idle       int                              // sandboxes whose memory is measured; default 3
	Progress   func(format string, args ...any) // may be nil
}

func (o *Options) defaults() {
	for value, def := range map[*int]int{&o.Creates: 10, &o.Executions: 500, &o.Lines: 200_000, &o.Repeats: 20, &o.Idle: 3} {
		if *value == 0 {
			*value = def
		}
	}
	if o.FileBytes == 0 {
		o.FileBytes = 1 << 30
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
}

// Scenarios lists the names that Run takes, in their order.
var Scenarios = []string{"create-cold", "live", "live-rested", "first-byte", "output", "files", "memory"}

// Run measures the scenarios (all when empty) and calls report for each
// result as it comes.
func Run(ctx context.Context, subjects []Subject, scenarios []string, opts Options, report func(Result)) error {
	opts.defaults()
	if len(scenarios) == 0 {
		scenarios = Scenarios
	}
	byName := map[string]func(context.Context, []Subject, Options, func(Result)) error{
		"create-cold": createCold, "live": live, "live-rested": liveRested, "first-byte": firstByte, "output": output, "files": files, "memory": memory,
	}
	for _, name := range scenarios {
		measure := byName[name]
		if measure == nil {
			return fmt.Errorf("unknown scenario %q: choose from %v", name, Scenarios)
		}
		opts.Progress("%s", name)
		if err := measure(ctx, subjects, opts, report); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// createCold measures from the request for a sandbox to the end of its first
// print.
func createCold(ctx context.Context, subjects []Subject, opts Options, report func(Result)) error {
	samples := make([][]time.Duration, len(subjects))
	failures := make([]int, len(subjects))
	for range opts.Creates {
		for i, subject := range subjects {
			start := time.Now()
			s, err := subject.Create(ctx)
			if err == nil {
				_, err = s.Run(ctx, "print(1)")
				took := time.Since(start)
				if err == nil {
					samples[i] = append(samples[i], took)
				}
				err = errors.Join(err, s.Close(ctx))
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err != nil {
				opts.Progress("create-cold: %s: %v", subject.Name(), err)
				failures[i]++
			}
		}
	}
	for i, subject := range subjects {
		report(timed("create-cold", subject.Name(), samples[i], failures[i]))
	}
	return nil
}

// block is how many samples of one subject follow each other before the other's
// turn: few enough that both see the same machine, and enough that a subject is
// measured as it answers a program, not as it wakes up.
const block = 100

// warmUp is how long each subject runs before its samples count. In the first
// second or two of a gVisor sandbox reading the clock is a system call, until
// gVisor has measured the processor's counter.
const warmUp = 2500 * time.Millisecond

// rest is the pause before each execution of live-rested: long enough that
// every thread on the way sleeps deeply.
const rest = 50 * time.Millisecond

// onLive runs code n times on one session of each subject, a block in turn,
// after a few that don't count, and gives the samples.
func onLive(ctx context.Context, subjects []Subject, opts Options, n int, pause time.Duration, code string) (samples [][]Sample, failures []int, err error) {
	samples, failures = make([][]Sample, len(subjects)), make([]int, len(subjects))
	sessions := make([]Session, len(subjects))
	defer func() {
		for _, s := range sessions {
			if s != nil {
				err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
			}
		}
	}()
	for i, subject := range subjects {
		if sessions[i], err = subject.Create(ctx); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", subject.Name(), err)
		}
		for start := time.Now(); time.Since(start) < warmUp; {
			if _, err := sessions[i].Run(ctx, "1+1"); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", subject.Name(), err)
			}
		}
	}
	for done := 0; done < n; done += block {
		for i, s := range sessions {
			for range min(block, n-done) {
				time.Sleep(pause)
				sample, err := s.Run(ctx, code)
				if ctx.Err() != nil {
					return nil, nil, context.Cause(ctx)
				}
				if err != nil {
					opts.Progress("%s: %v", subjects[i].Name(), err)
					failures[i]++
					continue
				}
				samples[i] = append(samples[i], sample)
			}
		}
	}
	return samples, failures, nil
}

// live measures 1+1, one execution after the other.
func live(ctx context.Context, subjects []Subject, opts Options, report func(Result)) error {
	return onePlusOne(ctx, "live", subjects, opts, opts.Executions, 0, report)
}

// liveRested measures 1+1 after a pause, as a person meets it: processors and
// threads have to wake up first.
func liveRested(ctx context.Context, subjects []Subject, opts Options, report func(Result)) error {
	return onePlusOne(ctx, "live-rested", subjects, opts, opts.Executions/5, rest, report)
}

func onePlusOne(ctx context.Context, name string, subjects []Subject, opts Options, n int, pause time.Duration, report func(Result)) error {
	samples, failures, err := onLive(ctx, subjects, opts, n, pause, "1+1")
	if err != nil {
		return err
	}
	for i, subject := range subjects {
		report(timed(name, subject.Name(), totals(samples[i]), failures[i]))
	}
	return nil
}

// firstByte measures how soon the first output of a cell that goes on arrives.
func firstByte(ctx context.Context, subjects []Subject, opts Options, report func(Result)) error {
	samples, failures, err := onLive(ctx, subjects, opts, opts.Repeats, 0,
		"import time\nprint('x', flush=True)\ntime.sleep(0.3)")
	if err != nil {
		return err
	}
	for i, subject := range subjects {
		var firsts []time.Duration
		for _, s := range samples[i] {
			firsts = append(firsts, s.First)
		}
		report(timed("first-byte", subject.Name(), firsts, failures[i]))
	}
	return nil
}

// output measures printed lines per second, and counts what arrived: a line
// that is lost is a failure.
func output(ctx context.Context, subjects []Subject, opts Options, report func(Result)) error {
	code := fmt.Sprintf("for i in range(%d): print('%%06d' %% i)", opts.Lines)
	samples, failures, err := onLive(ctx, subjects, opts, max(opts.Repeats/4, 1), 0, code)
	if err != nil {
		return err
	}
	for i, subject := range subjects {
		var rates []float64
		for _, s := range samples[i] {
			if s.Characters != opts.Lines*7 {
				opts.Progress("output: %s: %d of %d characters arrived", subject.Name(), s.Characters, opts.Lines*7)
				failures[i]++
				continue
			}
			rates = append(rates, float64(opts.Lines)/s.Total.Seconds())
		}
		slices.Sort(rates)
		r := Result{Scenario: "output", Subject: subject.Name(), N: len(rates), Failures: failures[i], Unit: "lines/s"}
		if len(rates) > 0 {
			r.Value = rates[len(rates)/2]
		}
		report(r)
	}
	return nil
}

func totals(samples []Sample) []time.Duration {
	out := make([]time.Duration, len(samples))
	for i, s := range samples {
		out[i] = s.Total
	}
	return out
}
