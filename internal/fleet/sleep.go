package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// States of a living sandbox beside those that a driver sees; doc.go has the
// drawing.
const (
	StatePausing  sandbox.State = "pausing"
	StateResuming sandbox.State = "resuming"
)

const (
	// holdTime bounds the wait for short calls under way before a sandbox is
	// saved. A transfer that lasts longer makes it busy.
	holdTime = 5 * time.Second
	// saveTime bounds the saving, which a slow disk decides.
	saveTime = 2 * time.Minute
	// wakeTime bounds a wake, which may be a cold start.
	wakeTime = 3 * time.Minute
	// settleTime is how long an execution may still run when sleep is asked for.
	settleTime = 500 * time.Millisecond
	// restFarewell bounds what is done for a sandbox before it sleeps: its files
	// are saved with it anyway.
	restFarewell = 15 * time.Second
)

var (
	errPauseUnsupported = errdefs.New(errdefs.ErrUnsupported, "pause-unsupported", "Sandboxes can't sleep on this host.").
				WithHint("Keep it with extend, or delete it.")
	errRuns = errdefs.New(errdefs.ErrConflict, "sandbox-busy", "Code runs in the sandbox, or waits for input.").
		WithHint("Wait until it has ended, or interrupt it, and try again.")
	errUsed = errors.New("fleet: it is used")
)

// sleep is what is known of a sandbox's sleep. Sandbox.mu guards it.
type sleep struct {
	state         sandbox.State // running, pausing, paused or resuming
	flight        *flight       // the way into sleep or out of it
	held          bool          // pausing, and every call under way has ended
	changed       chan struct{} // closed at the next change of state
	at            time.Time     // since when it sleeps; zero: it does not
	memory, files int64         // bytes on disk
	retry         time.Time     // no try to put it to sleep by itself before
	stranger      bool          // an earlier process put it to sleep: its agent was not asked yet
	slow          int           // wakes in a row that took too long
	asking        chan struct{} // closed when its agent was asked; nil: there was no need
}

// flight is one way into sleep or out of it, which any number wait for.
type flight struct {
	done chan struct{}
	err  error // read after done
}

func (l *sleep) init(info sandbox.Info) {
	l.state, l.changed = sandbox.StateRunning, make(chan struct{})
	if info.State == sandbox.StatePaused {
		l.rest(info)
		l.stranger = true
	}
}

// rest says that the sandbox sleeps.
func (l *sleep) rest(info sandbox.Info) {
	l.state, l.at, l.memory, l.files = sandbox.StatePaused, info.PausedAt, info.MemoryBytes, info.FilesBytes
	if l.at.IsZero() {
		l.at = time.Now().UTC()
	}
}

// Changed gives a channel that is closed at the next change of state: pausing,
// paused, resuming, running. See also Ended.
func (s *Sandbox) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sleep.changed
}

// changedLocked tells of a change of state.
func (s *Sandbox) changedLocked() {
	close(s.sleep.changed)
	s.sleep.changed = make(chan struct{})
	s.poke()
}

// poke has the watch look at the times again.
func (s *Sandbox) poke() {
	select {
	case s.moved <- struct{}{}:
	default:
	}
}

func (s *Sandbox) canSleepLocked() bool { return s.fleet.pauser != nil && s.rec.pause > 0 }

// take waits for the right to save the sandbox, or to wake it; give ends it.
func (s *Sandbox) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-s.ended:
		return s.goneError()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Sandbox) give() { <-s.turn }

// started waits for the default kernel if it is being started, which is a call
// under way for seconds, and until what an earlier process left was asked for:
// its executions would seem to run.
func (s *Sandbox) started(ctx context.Context) error {
	s.mu.Lock()
	k, asking := s.kernel, s.sleep.asking
	s.mu.Unlock()
	var kernel <-chan struct{}
	if k != nil {
		kernel = k.done
	}
	for _, done := range []<-chan struct{}{asking, kernel} {
		if done == nil {
			continue
		}
		select {
		case <-done:
		case <-s.ended:
			return s.goneError()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Pause puts the sandbox to sleep: its memory and files are on disk when it
// returns, and nothing of it is in the host's memory. The next call that needs
// it wakes it. It goes on when ctx ends. A sandbox that runs code is busy; one
// that sleeps already stays so.
func (s *Sandbox) Pause(ctx context.Context) error {
	if s.fleet.pauser == nil {
		return errPauseUnsupported
	}
	done := make(chan error, 1)
	if !s.fleet.background(func() { done <- s.pause(s.ctx, func() bool { return true }) }) {
		return errClosed
	}
	select {
	case err := <-done:
		return s.Explain(err)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// settled waits a moment for what is about to end: who has read the last event
// of an execution may ask for sleep before this side has put it away, and after
// a restart of the server old executions are still being read.
func (s *Sandbox) settled(ctx context.Context) bool {
	begin := time.Now()
	for _, e := range s.execs.unfinished() {
		most := settleTime
		if e.past {
			most = holdTime
		}
		enough := time.NewTimer(time.Until(begin.Add(most)))
		defer enough.Stop()
		select {
		case <-e.done:
		case <-enough.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// pause puts the sandbox to sleep, as long as nobody minds.
func (s *Sandbox) pause(ctx context.Context, may func() bool) error {
	if err := s.started(ctx); err != nil {
		return err
	}
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.give()
	s.mu.Lock()
	awake := s.sleep.state == sandbox.StateRunning
	s.mu.Unlock()
	switch {
	case !awake: // the turn is ours, so it is not on the way
		return nil
	case !s.settled(ctx):
		return errRuns
	}
	s.farewell(restFarewell)
	_, _ = s.readCPU(ctx) // it counts anew when it wakes

	fl := &flight{done: make(chan struct{})}
	defer close(fl.done)
	s.mu.Lock()
	s.sleep.flight, s.sleep.state = fl, StatePausing
	s.changedLocked()
	s.mu.Unlock()
	start := time.Now()
	info, release, err := s.fallAsleep(ctx, may)
	// Only now may calls go on, those that came meanwhile too: they wake it.
	defer release()
	if err == nil {
		s.fleet.setAsleep(s, true)
	}
	s.mu.Lock()
	s.sleep.flight, s.sleep.held = nil, false
	if err == nil {
		s.sleep.rest(info)
	} else {
		s.sleep.state = sandbox.StateRunning
	}
	s.changedLocked()
	s.mu.Unlock()
	if err == nil {
		s.fleet.log.Info("sandbox paused", "sandbox_id", string(s.id), "duration", time.Since(start),
			"memory_bytes", info.MemoryBytes, "files_bytes", info.FilesBytes)
		s.fleet.background(s.fleet.keepQuota)
	}
	return err
}

// fallAsleep saves the sandbox while nobody speaks to its agent. release,
// which is never nil, lets calls to the agent go on.
func (s *Sandbox) fallAsleep(ctx context.Context, may func() bool) (_ sandbox.Info, release func(), err error) {
	release, err = s.hold(ctx)
	if err != nil {
		return sandbox.Info{}, func() {}, err
	}
	s.mu.Lock()
	s.sleep.held = true
	s.mu.Unlock()
	switch {
	case s.execs.running(): // one that came a moment ago
		return sandbox.Info{}, release, errRuns
	case !may():
		return sandbox.Info{}, release, errUsed
	}
	// What is begun is ended, also when the server stops meanwhile.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	// The labels as they are now are what a later process finds.
	written := make(chan struct{})
	go func() {
		defer close(written)
		if err := s.saveLabels(ctx); err != nil {
			s.fleet.log.Warn("labels of a sandbox that goes to sleep can't be written", "sandbox_id", string(s.id), "err", err)
		}
	}()
	err = s.fleet.pauser.Pause(ctx, s.id)
	<-written
	info, gerr := s.fleet.driver.Get(ctx, s.id)
	switch {
	case gerr == nil && info.State == sandbox.StatePaused:
		if err != nil { // the driver decides what it is
			s.fleet.log.Warn("sandbox sleeps, but not all of it was freed", "sandbox_id", string(s.id), "err", err)
		}
		return info, release, nil
	case err == nil:
		err = gerr
	}
	return sandbox.Info{}, release, err
}

// hold keeps everybody from the agent, within bounded time.
func (s *Sandbox) hold(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, holdTime)
	defer cancel()
	return s.client.Hold(ctx)
}

// setAsleep counts the sandbox among those that sleep, or no longer.
func (f *Fleet) setAsleep(s *Sandbox, asleep bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if asleep && f.alive[s.id] == s {
		f.asleep[s.id] = s
	} else {
		delete(f.asleep, s.id)
	}
}

// adoptAsleep takes over a sandbox that an earlier process put to sleep.
func (f *Fleet) adoptAsleep(info sandbox.Info, rec record) {
	if _, err := f.attach(info, rec, nil); err != nil {
		f.log.Warn("paused sandbox of an earlier process can't be adopted", "sandbox_id", string(info.ID), "err", err)
		return
	}
	f.log.Info("paused sandbox adopted", "sandbox_id", string(info.ID), "template", info.Template)
}
