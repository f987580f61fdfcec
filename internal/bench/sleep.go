package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// What sleeps and is copied has the libraries imported that a template imports
// by default, and a variable that is checked afterwards.
const (
	prepare = "import numpy, pandas, matplotlib.pyplot\nframe = pandas.DataFrame({'n': range(1000)})\nx = 0"
	recall  = "print(x, frame.n.sum())"
)

func recalled(x int) string { return fmt.Sprintf("%d 499500\n", x) }

// prepared makes a sandbox with the libraries.
func prepared(ctx context.Context, subject Subject) (Session, error) {
	s, err := subject.Create(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.Run(ctx, prepare); err != nil {
		return nil, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

func (c *Caesarion) pause(ctx context.Context, id string) error {
	_, err := c.Client.Pause(ctx, id)
	return err
}

// pause measures how long it takes to put a sandbox to sleep.
func pause(ctx context.Context, r *run) error {
	paused, _, err := cycles(ctx, r)
	if err == nil && paused != nil {
		r.reportTimed("pause", []Subject{r.server}, []*series{paused}, nil)
	}
	return err
}

// resume measures from the request to run a cell in a sandbox that sleeps to
// the cell's first output, which must have the variables' values.
func resume(ctx context.Context, r *run) error {
	_, resumed, err := cycles(ctx, r)
	if err == nil && resumed != nil {
		r.reportTimed("resume", []Subject{r.server}, []*series{resumed}, nil)
	}
	return err
}

// cycles changes a variable, pauses, and wakes by reading the variable.
func cycles(ctx context.Context, r *run) (paused, resumed *series, err error) {
	s, err := prepared(ctx, r.server)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	id := s.(*caesarionSession).id //nolint:forcetypeassert // a server gives no other
	if err := r.server.Ready(ctx); err != nil {
		return nil, nil, err
	}
	paused, resumed = &series{}, &series{}
	for i := range r.Repeats {
		if _, err := s.Run(ctx, fmt.Sprintf("x = %d", i)); err != nil {
			return nil, nil, err
		}
		start := time.Now()
		err := r.server.pause(ctx, id)
		took := time.Since(start)
		if reason := unsupported(err); reason != "" {
			r.skip(r.scenario, r.server, reason)
			return nil, nil, nil
		}
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		if err != nil {
			paused.failures++
			resumed.failures++
			r.fail(r.server, err)
			continue
		}
		paused.add(took)
		sample, err := s.Run(ctx, recall)
		if err == nil && sample.Text != recalled(i) {
			err = fmt.Errorf("awake it has %q, not %q", sample.Text, recalled(i))
		}
		if err != nil {
			resumed.failures++
			r.fail(r.server, err)
			continue
		}
		resumed.add(sample.First)
	}
	return paused, resumed, nil
}

// fork measures from the request for one copy of a live sandbox to the copy's
// first output, which must have the original's variables.
func fork(ctx context.Context, r *run) (err error) {
	s, err := prepared(ctx, r.server)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	id := s.(*caesarionSession).id //nolint:forcetypeassert // a server gives no other
	if err := r.server.Ready(ctx); err != nil {
		return err
	}
	measured := &series{}
	for i := range r.Repeats {
		if _, err := s.Run(ctx, fmt.Sprintf("x = %d", i)); err != nil {
			return err
		}
		took, err := r.server.forkOnce(ctx, id, i)
		if reason := unsupported(err); reason != "" {
			r.skip(r.scenario, r.server, reason)
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			measured.failures++
			r.fail(r.server, err)
			continue
		}
		measured.add(took)
	}
	r.reportTimed("fork", []Subject{r.server}, []*series{measured}, nil)
	return nil
}

func (c *Caesarion) forkOnce(ctx context.Context, id string, x int) (time.Duration, error) {
	start := time.Now()
	copies, err := c.Client.Fork(ctx, id, v1.ForkSandbox{Count: 1})
	if err != nil {
		return 0, err
	}
	forked := time.Since(start)
	if len(copies) != 1 {
		return 0, fmt.Errorf("%d copies instead of 1", len(copies))
	}
	s := &caesarionSession{c.Client, copies[0].ID}
	sample, err := s.Run(ctx, recall)
	if err == nil && sample.Text != recalled(x) {
		err = fmt.Errorf("the copy has %q, not %q", sample.Text, recalled(x))
	}
	return forked + sample.First, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
}
