package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// hello is the first cell of a sandbox.
const hello = "print(1)"

// firstOutput measures from the request for a sandbox to the first output of
// its first cell, and gives the sandbox.
func firstOutput(ctx context.Context, subject Subject) (Session, time.Duration, error) {
	start := time.Now()
	s, err := subject.Create(ctx)
	if err != nil {
		return nil, 0, err
	}
	created := time.Since(start)
	sample, err := s.Run(ctx, hello)
	if err == nil && (sample.Text != "1\n" || sample.First == 0) {
		err = fmt.Errorf("print(1) printed %q", sample.Text)
	}
	if err != nil {
		return nil, 0, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
	}
	return s, created + sample.First, nil
}

func createHit(ctx context.Context, r *run) error {
	pool, err := r.server.pool(ctx)
	if err != nil {
		return err
	}
	if pool == nil || pool.Size == 0 {
		r.skip("create-hit", r.server, "this server keeps no sandboxes ready: its pool has size 0")
		return nil
	}
	// Only peers that have something ready are a like.
	subjects := []Subject{r.server.wanting("warm")}
	for _, s := range r.subjects[1:] {
		if _, ok := s.(Readier); ok {
			subjects = append(subjects, s)
		}
	}
	return creates(ctx, r, subjects, r.creates(100), fmt.Sprintf("pool of %d", pool.Size))
}

func createMiss(ctx context.Context, r *run) error {
	return creates(ctx, r, []Subject{r.server.wanting("restore")}, r.creates(50), "restored from the template's snapshot")
}

func createCold(ctx context.Context, r *run) error {
	subjects := []Subject{r.server.wanting("cold")}
	for _, s := range r.subjects[1:] {
		if c, ok := s.(coldOnly); ok {
			s = c.cold()
		}
		subjects = append(subjects, s)
	}
	return creates(ctx, r, subjects, r.creates(20), "")
}

// coldOnly is a subject that has another side without ready sessions.
type coldOnly interface{ cold() Subject }

// creates measures starts, one of each subject in turn.
func creates(ctx context.Context, r *run, subjects []Subject, n int, note string) error {
	measured := newSeries(len(subjects))
	for range n {
		for i, subject := range subjects {
			measured[i].round()
			if ready, ok := subject.(Readier); ok {
				if err := ready.Ready(ctx); err != nil {
					return err
				}
			}
			s, took, err := firstOutput(ctx, subject)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err == nil {
				measured[i].add(took)
				err = s.Close(ctx)
			} else {
				measured[i].failures++
			}
			if err != nil {
				r.fail(subject, err)
			}
		}
	}
	r.reportTimed(r.scenario, subjects, measured, func(i int, res *Result) {
		if i == 0 {
			res.Note = note
		}
	})
	return nil
}

// burst measures many creates at once, each to its first output. All sandboxes
// live until the last has answered.
func burst(ctx context.Context, r *run) error {
	for _, size := range []int{20, 100} {
		name := "burst"
		if size != 100 {
			name = fmt.Sprintf("burst-%d", size)
		}
		subjects := r.once()
		measured := newSeries(len(subjects))
		wall := make([]time.Duration, len(subjects))
		for i, subject := range subjects {
			if ready, ok := subject.(Readier); ok {
				if err := ready.Ready(ctx); err != nil {
					return err
				}
			}
			start := time.Now()
			var mu sync.Mutex
			var sessions []Session
			var wg sync.WaitGroup
			for range size {
				wg.Go(func() {
					s, took, err := firstOutput(ctx, subject)
					mu.Lock()
					defer mu.Unlock()
					if err != nil {
						measured[i].failures++
						r.fail(subject, err)
						return
					}
					measured[i].add(took)
					sessions = append(sessions, s)
				})
			}
			wg.Wait()
			wall[i] = time.Since(start)
			for _, s := range sessions {
				if err := s.Close(context.WithoutCancel(ctx)); err != nil {
					r.fail(subject, err)
				}
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		r.reportTimed(name, subjects, measured, func(i int, res *Result) {
			res.Value, res.Unit = float64(res.N-res.Failures)/wall[i].Seconds(), "creates/s"
			res.Note = fmt.Sprintf("%d at once", size)
		})
	}
	return nil
}

// sustainedRounds are the parts of sustained, in which subjects take turns.
const sustainedRounds = 3

// sustained measures create, execute and delete for a minute, by a few workers.
func sustained(ctx context.Context, r *run) error {
	subjects := r.once()
	measured := newSeries(len(subjects))
	busyFor := make([]time.Duration, len(subjects))
	for range sustainedRounds {
		for i, subject := range subjects {
			if ready, ok := subject.(Readier); ok {
				if err := ready.Ready(ctx); err != nil {
					return err
				}
			}
			measured[i].round()
			start := time.Now()
			var mu sync.Mutex
			var wg sync.WaitGroup
			for range r.Workers {
				wg.Go(func() {
					for time.Since(start) < r.Duration/sustainedRounds && ctx.Err() == nil {
						begin := time.Now()
						s, _, err := firstOutput(ctx, subject)
						if err == nil {
							err = s.Close(ctx)
						}
						took := time.Since(begin)
						mu.Lock()
						if err != nil && ctx.Err() == nil {
							measured[i].failures++
							r.fail(subject, err)
						} else if err == nil {
							measured[i].add(took)
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			busyFor[i] += time.Since(start)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	r.reportTimed("sustained", subjects, measured, func(i int, res *Result) {
		res.Value, res.Unit = float64(res.N-res.Failures)/busyFor[i].Seconds(), "cycles/s"
		res.Note = fmt.Sprintf("%d workers for %s", r.Workers, r.Duration)
	})
	return nil
}
