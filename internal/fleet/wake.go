package fleet

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Restarted says that a sandbox lost its variables and kept its files: what was
// saved of its memory could not be used.
type Restarted struct {
	At      time.Time // UTC
	Reason  string    // sandbox.CodeIncompatible, …
	Why     string    // the reason in words, part of a sentence
	Message string    // all of it, for people
}

func newRestarted(at time.Time, reason string) *Restarted {
	why := map[string]string{
		sandbox.CodeIncompatible:  "what was saved of its memory was made by another version of the server, on another processor or from another image",
		sandbox.CodeDamaged:       "what was saved of its memory is damaged",
		sandbox.CodeNoMemory:      "its memory was no longer kept",
		sandbox.CodeRestoreFailed: "its memory could not be restored",
	}[reason]
	if why == "" {
		why = "its memory could not be used"
	}
	return &Restarted{At: at.UTC(), Reason: reason, Why: why, Message: "The sandbox was started anew with its files, without its variables: " + why + "."}
}

// filesLeft gives the code of an error that leaves the files to go on with.
func filesLeft(err error) (code string, ok bool) {
	switch code = errdefs.CodeOf(err); code {
	case sandbox.CodeIncompatible, sandbox.CodeDamaged, sandbox.CodeNoMemory, sandbox.CodeRestoreFailed:
		return code, true
	}
	return "", false
}

// Resume wakes the sandbox, unless it is awake.
func (s *Sandbox) Resume(ctx context.Context) error {
	defer s.Use()()
	return s.Explain(s.awaken(ctx))
}

// dial opens a connection to the agent, for which the sandbox must be awake.
func (s *Sandbox) dial(ctx context.Context) (net.Conn, error) {
	if err := s.leaveAsleep(ctx); err != nil {
		return nil, err
	}
	// Going to sleep waits for the calls under way: these must not wait for it.
	s.mu.Lock()
	awake := s.sleep.state == StatePausing && !s.sleep.held
	s.mu.Unlock()
	if !awake {
		if err := s.awaken(ctx); err != nil {
			return nil, err
		}
	}
	return s.fleet.driver.Dial(ctx, s.id)
}

// awaken returns when the sandbox is awake. However many ask, it is woken once,
// and that goes on when they leave.
func (s *Sandbox) awaken(ctx context.Context) error {
	for {
		s.mu.Lock()
		switch {
		case s.gone != "":
			s.mu.Unlock()
			return s.goneError()
		case s.sleep.state == sandbox.StateRunning:
			s.mu.Unlock()
			return nil
		case s.sleep.state == sandbox.StatePaused:
			fl := &flight{done: make(chan struct{})}
			if !s.fleet.background(func() {
				defer close(fl.done)
				fl.err = s.wake()
			}) {
				s.mu.Unlock()
				return errClosed
			}
			s.sleep.flight, s.sleep.state = fl, StateResuming
			s.changedLocked()
		}
		fl, pausing := s.sleep.flight, s.sleep.state == StatePausing
		s.mu.Unlock()
		select {
		case <-fl.done:
			if !pausing {
				return fl.err
			}
		case <-s.ended:
			return s.goneError()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// awaitAwake waits, without waking it, until the sandbox is awake; false if
// that will not be.
func (s *Sandbox) awaitAwake() bool {
	for {
		s.mu.Lock()
		state, changed := s.sleep.state, s.sleep.changed
		s.mu.Unlock()
		if s.ctx.Err() != nil || state == sandbox.StateRunning {
			return s.ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-s.ctx.Done():
		}
	}
}

// wake brings the sandbox back. Its state is resuming.
func (s *Sandbox) wake() error {
	err := s.take(s.ctx)
	if err == nil {
		defer s.give()
		err = s.rise()
	}
	if err != nil {
		s.mu.Lock()
		s.sleep.flight, s.sleep.state = nil, sandbox.StatePaused
		s.changedLocked()
		s.mu.Unlock()
		if s.ctx.Err() == nil {
			s.fleet.log.Error("sandbox can't be woken", "sandbox_id", string(s.id), "err", err)
		}
	}
	return err
}

func (s *Sandbox) rise() error {
	leave, err := s.fleet.starts.Enter(s.ctx, s.owner)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeoutCause(s.ctx, wakeTime, errWakeTime)
	defer cancel()
	s.mu.Lock()
	memory := s.sleep.memory
	s.mu.Unlock()
	admitted, err := s.admitWaking(ctx)
	if err != nil {
		return err
	}
	defer admitted.end()
	if err := s.fleet.reserveToWake(ctx, s.owner, memory); err != nil {
		return err
	}
	defer s.fleet.release(s.owner)
	start := time.Now()
	s.mu.Lock()
	slept := start.Sub(s.sleep.at)
	s.rec.expires = s.rec.expires.Add(slept)
	s.sleep.at = time.Time{} // what is written down from here on is of one that is awake
	stranger := s.sleep.stranger
	s.mu.Unlock()
	// If the server is killed after the wake, its end must not lie in the past.
	written := make(chan struct{})
	go func() {
		defer close(written)
		if err := s.saveLabels(ctx); err != nil {
			s.fleet.log.Warn("labels of a sandbox that wakes can't be written", "sandbox_id", string(s.id), "err", err)
		}
	}()
	restarted, err := s.resume(ctx)
	<-written
	var lost <-chan struct{}
	if err == nil {
		lost, err = s.fleet.driver.Lost(s.id)
	}
	if err != nil {
		s.mu.Lock()
		s.rec.expires = s.rec.expires.Add(-slept)
		s.sleep.at = start.Add(-slept)
		s.mu.Unlock()
		_ = s.saveLabels(context.WithoutCancel(ctx)) // what stands there instead only lets it live longer
		return err
	}
	s.fleet.setAsleep(s, false)
	s.used.Store(time.Now().UnixNano())
	s.fleet.admitting.Lock() // nobody counts it twice, or not at all
	s.mu.Lock()
	s.lost = lost
	s.sleep.flight, s.sleep.state = nil, sandbox.StateRunning
	s.sleep.slow = 0
	s.sleep.memory, s.sleep.files, s.sleep.retry, s.sleep.stranger = 0, 0, time.Time{}, false
	kernel := s.rec.kernelID
	var asking chan struct{}
	if stranger && restarted == nil {
		asking = make(chan struct{})
		s.sleep.asking = asking
	}
	if restarted != nil {
		s.rec.restarted, s.kernel = restarted, nil
	}
	s.changedLocked()
	s.mu.Unlock()
	if admitted != nil {
		admitted.more = Holding{}
	}
	s.fleet.admitting.Unlock()
	s.fleet.log.Info("sandbox resumed", "sandbox_id", string(s.id), "duration", time.Since(start), "with_memory", restarted == nil)
	switch {
	case restarted != nil:
		s.fleet.background(func() { _ = s.saveLabels(s.fleet.ctx) }) // the watch tries again
		if kernel != "" {
			// Who waits for the sandbox may want its kernel, which is there again
			// under its name.
			select {
			case <-s.startDefaultKernel().done:
			case <-ctx.Done():
			}
		}
	case asking != nil:
		if !s.fleet.background(func() {
			defer close(asking)
			if err := s.adoptExecutions(s.ctx); err != nil {
				s.fleet.log.Warn("a sandbox that woke can't be asked for its executions", "sandbox_id", string(s.id), "err", err)
			}
		}) {
			close(asking)
		}
	}
	return nil
}

var errWakeTime = errdefs.New(errdefs.ErrUnavailable, "resume-timeout", "The sandbox did not wake in time.").
	WithHint("Try again: it still sleeps.")

const (
	// codeSlow is what a driver says of a start that took too long. A machine
	// may be busy for minutes, and a sandbox that is frozen for good looks the
	// same: after slowWakes of them in a row its files must do.
	codeSlow  = "sandbox-start-timeout"
	slowWakes = 3
)

// resume has the driver wake the sandbox, with its files alone if its memory
// can't be used.
func (s *Sandbox) resume(ctx context.Context) (*Restarted, error) {
	info, err := s.fleet.pauser.Resume(ctx, s.id, false)
	var restarted *Restarted
	if code, _ := filesLeft(err); code == sandbox.CodeRestoreFailed {
		// The machine may have been short of something for a moment, and what
		// comes next gives up the variables.
		s.fleet.log.Warn("a paused sandbox could not be restored, it is tried again", "sandbox_id", string(s.id), "err", err)
		info, err = s.fleet.pauser.Resume(ctx, s.id, false)
	}
	if errdefs.CodeOf(err) == codeSlow {
		s.mu.Lock()
		s.sleep.slow++
		if s.sleep.slow >= slowWakes {
			err = errdefs.New(errdefs.ErrUnavailable, sandbox.CodeRestoreFailed, "it did not wake in time, %d times", s.sleep.slow).WithCause(err)
		}
		s.mu.Unlock()
	}
	if code, ok := filesLeft(err); ok {
		s.fleet.log.Warn("memory of a paused sandbox can't be used, it is started anew with its files", "sandbox_id", string(s.id), "err", err)
		restarted = newRestarted(time.Now(), code)
		info, err = s.fleet.pauser.Resume(ctx, s.id, true)
	}
	if err != nil {
		return nil, err
	}
	if info.AgentToken != "" {
		s.client.SetToken(info.AgentToken)
	}
	return restarted, nil
}

// reserveToWake takes a place among those that are awake for one with so much
// memory. If there is none, one that nobody uses makes room.
func (f *Fleet) reserveToWake(ctx context.Context, owner identity.Owner, memory int64) error {
	err := f.roomInMemory(memory)
	if err == nil {
		err = f.reserve(owner)
	}
	if !errors.Is(err, errdefs.ErrExhausted) || f.pauser == nil {
		return err
	}
	f.pauseIdle(ctx, func(*Sandbox) bool { return true })
	if err := f.roomInMemory(memory); err != nil {
		return err
	}
	return f.reserve(owner)
}

// unused reports whether nobody uses the sandbox right now.
func (s *Sandbox) unused() bool { return s.busy.Load() == 0 && !s.execs.running() }
