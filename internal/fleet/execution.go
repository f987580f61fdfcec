package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// Statuses of an execution that has not ended.
const (
	StatusQueued  event.Status = "queued"
	StatusRunning event.Status = "running"
)

// The agent bounds what one execution writes to far less; this bounds what a
// broken agent can make the server keep. Beyond it the oldest events go.
const (
	maxLogBytes   = 24 << 20
	maxLogRecords = 200_000
)

// The agent interrupts, interrupts again and kills when an execution's time is
// over. Only if that long after it nothing has ended, the server acts itself:
// it has the kernel restarted, and deletes the sandbox if that does not help.
const (
	backstopGrace   = 45 * time.Second
	backstopRestart = 30 * time.Second
)

// Execution is one run of code. It belongs to its sandbox.
type Execution struct {
	ID       string
	KernelID string

	sandbox *Sandbox
	timeout time.Duration
	log     *event.Log
	hash    [32]byte // of the request, to notice a reused idempotency key

	accepted  chan struct{} // closed when the agent took it or refused
	acceptErr error         // why it was refused; read after accepted
	done      chan struct{} // closed after execution.finished is in the log
	release   func()        // ends the use of the sandbox

	mu        sync.Mutex
	state     ExecutionState
	isDone    bool
	byServer  bool // the end is the server's own event: what the agent still says is dropped
	following bool // somebody collects late output
	past      bool // the agent said that it had ended; never changed once it can be found
	backstop  *time.Timer
}

// ExecutionState is an execution at one moment.
type ExecutionState struct {
	Status     event.Status
	Ahead      int // when it was queued
	CreatedAt  time.Time
	StartedAt  time.Time      // zero: not yet
	FinishedAt time.Time      // zero: not yet
	Finished   event.Finished // zero until it has ended
	Input      *event.Input   // set while the code waits for input
	LastSeq    int64
}

// State gives the execution at this moment.
func (e *Execution) State() ExecutionState {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := e.state
	st.LastSeq = e.log.Last()
	return st
}

// Done is closed when the execution has ended.
func (e *Execution) Done() <-chan struct{} { return e.done }

// Sandbox gives the sandbox it belongs to.
func (e *Execution) Sandbox() *Sandbox { return e.sandbox }

// Reader follows the events after number after. With late it goes on after
// execution.finished with output of threads the code left behind, until the
// kernel runs something else.
func (e *Execution) Reader(after int64, late bool) *Reader {
	if late {
		e.followLate()
	}
	return &Reader{e: e, r: e.log.Subscribe(after), late: late}
}

// Reader follows the events of an execution. It belongs to one goroutine.
type Reader struct {
	e    *Execution
	r    *event.Reader
	late bool
	end  bool
}

// Next gives the records that are there, at least one, and waits for it if
// need be; io.EOF after the last one. See event.Reader.Next.
func (r *Reader) Next(ctx context.Context) ([]event.Record, error) {
	if r.end {
		return nil, io.EOF
	}
	if !r.late {
		select {
		case <-r.e.done:
			// Nothing more will come, so the log must not be waited for.
			r.end = true
			ended, cancel := context.WithCancelCause(context.Background())
			cancel(io.EOF)
			return r.r.Next(ended)
		default:
		}
	}
	batch, err := r.r.Next(ctx)
	if err == nil && !r.late {
		for _, rec := range batch {
			r.end = r.end || rec.Type == event.ExecutionFinished
		}
	}
	return batch, err
}

// Over reports whether Next has given the last record: it would give io.EOF.
func (r *Reader) Over() bool { return r.end }

// Skip goes on behind a gap that a *event.GapError told of.
func (r *Reader) Skip(oldest int64) { r.r.SkipTo(oldest - 1); r.end = false }

// Interrupt stops the execution; one that waits is aborted. Interrupting what
// has ended changes nothing.
func (e *Execution) Interrupt(ctx context.Context) error {
	if e.ended() {
		return nil
	}
	defer e.sandbox.Use()()
	return e.sandbox.client.InterruptExecution(ctx, e.ID)
}

// Input answers the question of input.requested.
func (e *Execution) Input(ctx context.Context, value string) error {
	// The question is taken before it is answered: code that asks again at once
	// has its next question here before the agent's answer to this call.
	e.mu.Lock()
	done, question := e.isDone, e.state.Input
	e.state.Input = nil
	e.mu.Unlock()
	if done || question == nil {
		return errdefs.New(errdefs.ErrConflict, "no-input-requested", "The execution does not wait for input.").
			WithHint("Wait for an input.requested event; each takes one answer.")
	}
	defer e.sandbox.Use()()
	err := e.sandbox.client.Input(ctx, e.ID, agentapi.Input{Value: value})
	if err != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		if !e.isDone && e.state.Input == nil {
			e.state.Input = question
		}
	}
	return err
}

func (e *Execution) ended() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.isDone
}

// pump moves events from the agent to the log until the execution has ended.
// A stream that breaks is resumed by number.
func (e *Execution) pump(stream *agentapi.Stream) {
	retries := 0
	for {
		err := e.drain(stream)
		_ = stream.Close()
		for {
			switch {
			case e.ended():
				return
			case e.sandbox.fleet.ctx.Err() != nil:
				e.log.Close(errClosed)
				return
			}
			if errors.Is(err, agentapi.ErrHeld) {
				// The sandbox is being saved: this waits until it goes on.
				if stream, err = e.sandbox.client.Events(e.sandbox.fleet.ctx, e.ID, e.log.Last()); err == nil {
					break
				}
				continue
			}
			retries++
			if retries > 8 || errors.Is(err, errdefs.ErrNotFound) || isBadAnswer(err) {
				e.giveUp(err)
				return
			}
			select {
			case <-time.After(time.Duration(retries) * 100 * time.Millisecond):
			case <-e.sandbox.ended: // end() closes the execution
				return
			case <-e.sandbox.fleet.ctx.Done():
				continue
			}
			if stream, err = e.sandbox.client.Events(e.sandbox.fleet.ctx, e.ID, e.log.Last()); err == nil {
				break
			}
		}
	}
}

func isBadAnswer(err error) bool {
	return errdefs.CodeOf(err) == "sandbox-bad-answer"
}

func (e *Execution) drain(stream *agentapi.Stream) error {
	for {
		rec, err := stream.Next()
		if err != nil {
			return err
		}
		if !e.take(rec) {
			return nil
		}
	}
}

// giveUp ends an execution that the agent can't be asked about any more.
func (e *Execution) giveUp(err error) {
	e.sandbox.fleet.log.Warn("execution lost", "sandbox_id", string(e.sandbox.id), "execution_id", e.ID, "err", err)
	msg := "The sandbox no longer answers for this execution."
	if errors.Is(err, errdefs.ErrNotFound) {
		msg = "The sandbox no longer knows this execution."
	}
	ctx, cancel := context.WithTimeout(e.sandbox.fleet.ctx, 5*time.Second)
	defer cancel()
	_ = e.sandbox.client.InterruptExecution(ctx, e.ID) // what may still run should not; nobody could see it
	e.kill(event.ReasonSandboxLost, msg)
}

// take keeps one record and what it says about the execution. It reports
// whether more is wanted.
func (e *Execution) take(rec event.Record) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.byServer {
		return false
	}
	if err := e.log.AppendRaw(rec); err != nil {
		return false // closed, or a number the client has already refused
	}
	switch rec.Type {
	case event.ExecutionQueued:
		var q event.Queued
		decode(rec, &q)
		e.state.Ahead = q.Ahead
	case event.ExecutionStarted:
		e.state.Status = StatusRunning
		e.state.StartedAt = decode(rec, nil)
		if e.timeout > 0 && e.backstop == nil {
			e.backstop = time.AfterFunc(e.timeout+backstopGrace, e.overdue)
		}
	case event.InputRequested:
		e.state.Input = new(event.Input)
		decode(rec, e.state.Input)
	case event.ExecutionFinished:
		if !e.isDone {
			e.state.FinishedAt = decode(rec, &e.state.Finished)
			e.finishLocked()
		}
	}
	return true
}

// decode gives an event's time and its data in data. The client has checked
// that data fits the type.
func decode(rec event.Record, data any) time.Time {
	var ev event.Event
	if json.Unmarshal(rec.Line, &ev) == nil && data != nil {
		_ = json.Unmarshal(ev.Data, data)
	}
	return ev.Time
}

func (e *Execution) finishLocked() {
	e.isDone = true
	e.state.Status = e.state.Finished.Status
	e.state.Input = nil
	if e.backstop != nil {
		e.backstop.Stop()
	}
	e.release()
	e.sandbox.execs.finished(e)
	close(e.done) // who waited for it finds the sandbox at rest
	e.sandbox.fleet.kept.add(e)
}

// kill ends the execution with an event of the server's own.
func (e *Execution) kill(reason event.Reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.byServer = true
	if e.isDone {
		return
	}
	e.state.Finished = event.Finished{Status: event.StatusKilled, Reason: reason, Message: message}
	if !e.state.StartedAt.IsZero() {
		e.state.Finished.DurationMS = float64(time.Since(e.state.StartedAt).Microseconds()) / 1000
	}
	if ev, err := e.log.Append(event.ExecutionFinished, e.state.Finished); err == nil {
		e.state.FinishedAt = ev.Time
	}
	e.finishLocked()
}

// overdue runs when an execution should have ended long ago.
func (e *Execution) overdue() {
	e.sandbox.fleet.background(func() {
		s := e.sandbox
		if !s.mine() {
			return
		}
		log := s.fleet.log.With("sandbox_id", string(s.id), "execution_id", e.ID)
		log.Warn("execution goes on beyond its time, kernel is restarted")
		ctx, cancel := context.WithTimeout(s.fleet.ctx, backstopRestart)
		defer cancel()
		if _, err := s.client.RestartKernel(ctx, e.KernelID); err == nil {
			select {
			case <-e.done:
				return
			case <-ctx.Done():
			}
		}
		if e.ended() || s.fleet.ctx.Err() != nil {
			return
		}
		log.Error("kernel can't be restarted, sandbox is deleted")
		_ = s.end(s.fleet.ctx, ReasonUnresponsive) // logged there
	})
}

// followLate collects what comes after the end, once for all readers.
func (e *Execution) followLate() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.following {
		return
	}
	e.following = true
	e.sandbox.fleet.background(func() {
		select {
		case <-e.done:
		case <-e.sandbox.fleet.ctx.Done():
			e.log.Close(errClosed)
			return
		}
		e.mu.Lock()
		byServer := e.byServer
		e.mu.Unlock()
		for !byServer && e.sandbox.awaitAwake() {
			stream, err := e.sandbox.client.Follow(e.sandbox.fleet.ctx, e.ID, e.log.Last())
			if err != nil {
				break
			}
			err = e.drain(stream) // it ends with the kernel's next execution, or with the connection
			_ = stream.Close()
			if !errors.Is(err, agentapi.ErrHeld) {
				break
			}
		}
		e.log.Close(nil)
		e.sandbox.fleet.kept.add(e)
	})
}
