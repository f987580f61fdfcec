package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Subject is what is measured.
type Subject interface {
	Name() string
	// Create makes a sandbox (or a kernel) and returns when code can be sent.
	Create(ctx context.Context) (Session, error)
}

// Readier is a subject that can have sessions ready before they are asked for.
// Ready returns when the next Create gets one of them; it is not measured.
type Readier interface {
	Ready(ctx context.Context) error
}

// Session is one sandbox of a subject, with one kernel.
type Session interface {
	// Run runs code to its end.
	Run(ctx context.Context, code string) (Sample, error)
	Close(ctx context.Context) error
}

// Interrupter is a session that can interrupt what it runs. Interrupt starts
// code that never ends, waits until it runs, and measures from the request to
// interrupt it to the end of the next cell.
type Interrupter interface {
	Interrupt(ctx context.Context) (time.Duration, error)
}

// Sample is one measured run.
type Sample struct {
	First, Total time.Duration // to the first output (zero: there was none) and to the last byte
	Characters   int           // of printed output
	Lines        int           // of printed output
	Text         string        // the first characters that were printed
	Result       string        // text of the last expression's value, if there is one
}

// textKept bounds Sample.Text.
const textKept = 256

// printed adds text that came.
func (s *Sample) printed(text string) {
	s.Characters += len(text)
	s.Lines += strings.Count(text, "\n")
	if room := textKept - len(s.Text); room > 0 {
		s.Text += text[:min(room, len(text))]
	}
}

// Options says how much to measure. The zero value is what documents show.
type Options struct {
	Creates    int           // starts of each subject in the create scenarios; default 100 hits, 50 misses, 20 cold
	Executions int           // live executions of each subject; default 500
	Lines      int           // printed lines in one run of output; default 200,000
	Repeats    int           // samples of first-byte, interrupt, pause, resume and fork; default 50
	Duration   time.Duration // of sustained, and of the parallel part of live; default 60s
	Workers    int           // that create at the same time in sustained; default 3
	Parallel   int           // sandboxes of the parallel part of live; default 20
	FileBytes  int64         // default 1 GiB
	Idle       int           // sandboxes whose memory is measured; default 3
	Sessions   int           // that are listed; default 1,000
	Sleeping   int           // of these with a sandbox that sleeps; default 10

	Progress func(format string, args ...any) // may be nil
}

func (o *Options) defaults() {
	for value, def := range map[*int]int{
		&o.Executions: 500, &o.Lines: 200_000, &o.Repeats: 50, &o.Workers: 3, &o.Parallel: 20, &o.Idle: 3,
		&o.Sessions: 1000, &o.Sleeping: 10,
	} {
		if *value == 0 {
			*value = def
		}
	}
	if o.FileBytes == 0 {
		o.FileBytes = 1 << 30
	}
	if o.Duration == 0 {
		o.Duration = time.Minute
	}
	if o.Progress == nil {
		o.Progress = func(string, ...any) {}
	}
}

// creates gives the number of starts: the one asked for, or the scenario's.
func (o *Options) creates(def int) int {
	if o.Creates > 0 {
		return o.Creates
	}
	return def
}

// Setting is how the server under test must run.
type Setting string

// The settings.
const (
	Default     Setting = "as configured"
	NoPool      Setting = "with the pool switched off"
	NoSnapshots Setting = "with snapshots and the pool switched off"
)

// ErrNoTarget says that there is no server with a setting; its text says why.
type ErrNoTarget struct{ Reason string }

func (e *ErrNoTarget) Error() string { return e.Reason }

// Plan is a run.
type Plan struct {
	// Target gives the server under test with a setting, or *ErrNoTarget. The
	// server given before may end with the call.
	Target    func(context.Context, Setting) (*Caesarion, error)
	Peers     []Subject
	Scenarios []string // default: all
	Options   Options
}

// scenario is one thing that can be measured.
type scenario struct {
	name    string
	setting Setting
	measure func(context.Context, *run) error
}

var scenarios = []scenario{
	{"create-hit", Default, createHit},
	{"create-miss", NoPool, createMiss},
	{"create-cold", NoSnapshots, createCold},
	{"live", Default, live},
	{"live-rested", Default, liveRested},
	{"first-byte", Default, firstByte},
	{"forwarded", Default, forwarded},
	{"interrupt", Default, interrupt},
	{"output", Default, output},
	{"burst", Default, burst},
	{"sustained", Default, sustained},
	{"pause", Default, pause},
	{"resume", Default, resume},
	{"fork", Default, fork},
	{"files", Default, files},
	{"list", Default, list},
	{"memory", Default, memory},
}

// Scenarios lists the names that a Plan takes, in their order.
func Scenarios() []string {
	names := make([]string, len(scenarios))
	for i, s := range scenarios {
		names[i] = s.name
	}
	return names
}

// run is one scenario under way.
type run struct {
	Options
	scenario string
	server   *Caesarion
	subjects []Subject // the server first
	report   func(Result)
}

// named gives report the drivers of subjects that are servers of this product.
func (r *run) named(ctx context.Context, report func(Result)) (func(Result), error) {
	drivers := map[string]string{}
	for _, s := range r.subjects {
		if c, ok := capable[*Caesarion](s); ok {
			if err := c.ask(ctx); err != nil {
				return nil, err
			}
			drivers[s.Name()] = c.Driver
		}
	}
	return func(res Result) {
		res.Driver, res.Under = drivers[res.Subject], r.server.Driver
		report(res)
	}, nil
}

// once leaves out the subjects that are another one with another client: where
// what is measured is the work of the server, once is enough.
func (r *run) once() []Subject {
	return slices.DeleteFunc(slices.Clone(r.subjects), func(s Subject) bool {
		j, ok := capable[*Jupyter](s)
		return ok && j.quick
	})
}

// fail says what went wrong with one sample.
func (r *run) fail(subject Subject, err error) {
	r.Progress("%s: %s: %v", r.scenario, subject.Name(), err)
}

// skip reports that something can't be measured here, and why.
func (r *run) skip(name string, subject Subject, reason string) {
	r.report(Result{Scenario: name, Subject: subject.Name(), Skipped: reason})
}

// Run measures the scenarios and calls report for each result as it comes. A
// scenario that fails as a whole is reported as one failure, and the others go on.
func (p *Plan) Run(ctx context.Context, report func(Result)) error {
	opts := p.Options
	opts.defaults()
	chosen := scenarios
	if len(p.Scenarios) > 0 {
		chosen = nil
		for _, name := range p.Scenarios {
			i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name })
			if i < 0 {
				return fmt.Errorf("unknown scenario %q: choose from %s", name, strings.Join(Scenarios(), ", "))
			}
			chosen = append(chosen, scenarios[i])
		}
	}
	for _, s := range chosen {
		start := time.Now()
		opts.Progress("%s", s.name)
		server, err := p.Target(ctx, s.setting)
		if none, ok := errors.AsType[*ErrNoTarget](err); ok {
			report(Result{Scenario: s.name, Subject: caesarionName, Skipped: none.Reason})
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		r := &run{Options: opts, scenario: s.name, server: server, subjects: append([]Subject{server}, p.Peers...)}
		if r.report, err = r.named(ctx, report); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		err = s.measure(ctx, r)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			r.fail(server, err)
			r.report(Result{Scenario: s.name, Subject: caesarionName, N: 1, Failures: 1, Note: err.Error()})
		}
		opts.Progress("%s: %s", s.name, time.Since(start).Round(time.Second))
	}
	return nil
}
