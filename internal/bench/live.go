package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// onePlusOne is the least that can be executed.
const onePlusOne = "1+1"

// block is how many samples of one subject follow each other before the other's
// turn: few enough that both see the same machine, and enough that a subject is
// measured as it answers a program, not as it wakes up. Samples that are long
// themselves come in short blocks.
const (
	block      = 50
	shortBlock = 5
)

// warmUp is how long each subject runs before its samples count. In the first
// second or two of a gVisor sandbox reading the clock is a system call, until
// gVisor has measured the processor's counter.
const warmUp = 2500 * time.Millisecond

// rest is the pause before each execution of live-rested: long enough that
// every thread on the way sleeps deeply.
const rest = 50 * time.Millisecond

// onLive calls sample n times on one session of each subject, a block in turn,
// after executions that don't count.
func onLive(ctx context.Context, r *run, subjects []Subject, n, block int, sample func(Subject, Session) (float64, error)) (measured []*series, err error) {
	measured = newSeries(len(subjects))
	sessions := make([]Session, len(subjects))
	defer func() {
		for _, s := range sessions {
			if s != nil {
				err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
			}
		}
	}()
	for i, subject := range subjects {
		sessions[i], err = warm(ctx, subject)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil && i == 0 {
			return nil, err
		}
		if err != nil { // the others can be measured without this peer
			r.fail(subject, err)
			measured[i].failures++
		}
	}
	if err := r.server.Ready(ctx); err != nil { // the pool is not refilled meanwhile
		return nil, err
	}
	for done := 0; done < n; done += block {
		for i, s := range sessions {
			measured[i].round()
			if s == nil {
				continue
			}
			for range min(block, n-done) {
				value, err := sample(subjects[i], s)
				if ctx.Err() != nil {
					return nil, context.Cause(ctx)
				}
				if err != nil {
					r.fail(subjects[i], err)
					measured[i].failures++
					continue
				}
				measured[i].addValue(value)
			}
		}
	}
	return measured, nil
}

// warm makes a session that has run for a while.
func warm(ctx context.Context, subject Subject) (Session, error) {
	s, err := subject.Create(ctx)
	if err != nil {
		return nil, err
	}
	for start := time.Now(); time.Since(start) < warmUp; {
		if _, err := s.Run(ctx, onePlusOne); err != nil {
			return nil, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
	}
	return s, nil
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

// oneAndOne runs 1+1 and checks the value.
func oneAndOne(ctx context.Context, s Session) (time.Duration, error) {
	sample, err := s.Run(ctx, onePlusOne)
	if err == nil && sample.Result != "2" {
		err = fmt.Errorf("1+1 gave %q", sample.Result)
	}
	return sample.Total, err
}

// live measures 1+1, one execution after the other, and then how many a second
// many sandboxes answer together.
func live(ctx context.Context, r *run) error {
	measured, err := onLive(ctx, r, r.subjects, r.Executions, block, func(_ Subject, s Session) (float64, error) {
		took, err := oneAndOne(ctx, s)
		return ms(took), err
	})
	if err != nil {
		return err
	}
	r.reportTimed("live", r.subjects, measured, nil)
	return liveParallel(ctx, r)
}

// liveRested measures 1+1 after a pause, as a person meets it: processors and
// threads have to wake up first.
func liveRested(ctx context.Context, r *run) error {
	measured, err := onLive(ctx, r, r.subjects, max(r.Executions/5, 1), block, func(_ Subject, s Session) (float64, error) {
		time.Sleep(rest)
		took, err := oneAndOne(ctx, s)
		return ms(took), err
	})
	if err != nil {
		return err
	}
	r.reportTimed("live-rested", r.subjects, measured, nil)
	return nil
}

// parallelFor bounds the parallel part for subjects that are slow.
const parallelFor = 15 * time.Second

// liveParallel measures 1+1 on many sandboxes at once, each one after the
// other, as many in all as live runs on one, four times over.
func liveParallel(ctx context.Context, r *run) error {
	subjects := r.once()
	measured := newSeries(len(subjects))
	wall := make([]time.Duration, len(subjects))
	for i, subject := range subjects {
		err := func() (err error) {
			sessions := make([]Session, 0, r.Parallel)
			defer func() {
				for _, s := range sessions {
					err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
				}
			}()
			for range r.Parallel {
				s, err := subject.Create(ctx)
				if err != nil {
					return err
				}
				sessions = append(sessions, s)
			}
			if err := r.server.Ready(ctx); err != nil {
				return err
			}
			var mu sync.Mutex
			each := func(n int, count bool) {
				var wg sync.WaitGroup
				begin := time.Now()
				for _, s := range sessions {
					wg.Go(func() {
						for range n {
							if ctx.Err() != nil || time.Since(begin) > parallelFor {
								return
							}
							took, err := oneAndOne(ctx, s)
							mu.Lock()
							switch {
							case err != nil:
								measured[i].failures++
								r.fail(subject, err)
							case count:
								measured[i].add(took)
							}
							mu.Unlock()
						}
					})
				}
				wg.Wait()
			}
			each(5, false)
			start := time.Now()
			each(max(4*r.Executions/r.Parallel, 1), true)
			wall[i] = time.Since(start)
			return nil
		}()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil && i == 0 {
			return err
		}
		if err != nil {
			r.fail(subject, err)
			measured[i].failures++
		}
	}
	r.reportTimed("live-parallel", subjects, measured, func(i int, res *Result) {
		if res.Unit = "executions/s"; wall[i] > 0 {
			res.Value = float64(res.N-res.Failures) / wall[i].Seconds()
		}
		res.Note = fmt.Sprintf("%d sandboxes", r.Parallel)
	})
	return nil
}

// firstByte measures how soon the first output of a cell that goes on arrives,
// from the request on: the execution's own way in is part of it.
func firstByte(ctx context.Context, r *run) error {
	measured, err := onLive(ctx, r, r.subjects, r.Repeats, shortBlock, func(_ Subject, s Session) (float64, error) {
		sample, err := s.Run(ctx, "import time\nprint('x', flush=True)\ntime.sleep(0.2)")
		if err == nil && sample.Text != "x\n" {
			err = fmt.Errorf("printed %q", sample.Text)
		}
		return ms(sample.First), err
	})
	if err != nil {
		return err
	}
	r.reportTimed("first-byte", r.subjects, measured, nil)
	return nil
}

// interrupt measures from the request to interrupt a busy loop to the end of
// the next cell.
func interrupt(ctx context.Context, r *run) error {
	var subjects []Subject
	for _, subject := range r.subjects {
		if _, ok := capable[interface{ interrupts() }](subject); ok {
			subjects = append(subjects, subject)
		}
	}
	measured, err := onLive(ctx, r, subjects, r.Repeats, shortBlock, func(_ Subject, s Session) (float64, error) {
		took, err := s.(Interrupter).Interrupt(ctx) //nolint:forcetypeassert // chosen above
		return ms(took), err
	})
	if err != nil {
		return err
	}
	r.reportTimed("interrupt", subjects, measured, nil)
	return nil
}

// output measures printed lines per second, and counts what arrived: a run in
// which one is lost is a failure.
func output(ctx context.Context, r *run) error {
	code := fmt.Sprintf("for i in range(%d): print('%%06d' %% i)", r.Lines)
	measured, err := onLive(ctx, r, r.subjects, max(r.Repeats/5, 1), 1, func(_ Subject, s Session) (float64, error) {
		sample, err := s.Run(ctx, code)
		if err == nil && (sample.Characters != r.Lines*7 || sample.Lines != r.Lines) {
			err = fmt.Errorf("%d of %d lines arrived, %d of %d characters", sample.Lines, r.Lines, sample.Characters, r.Lines*7)
		}
		return ms(sample.Total), err
	})
	if err != nil {
		return err
	}
	r.reportTimed("output", r.subjects, measured, func(_ int, res *Result) {
		if res.Unit = "lines/s"; res.P50 > 0 {
			res.Value = float64(r.Lines) / res.P50 * 1000
		}
		res.Note = thousands(int64(r.Lines)) + " lines"
	})
	return nil
}
