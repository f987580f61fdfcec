package session

import (
	"context"
	"fmt"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// A sandbox that sleeps is the session's as one that is awake: what needs it
// wakes it by calling its agent. Only what looks, and can do without, asks
// AwakeSandbox.

// AwakeSandbox gives the sandbox if there is one that does not sleep: for those
// who would look into it, but have no need to wake it.
func (s *Session) AwakeSandbox() (*fleet.Sandbox, bool) {
	sb, ok := s.LiveSandbox()
	if !ok || !Awake(sb) {
		return nil, false
	}
	return sb, true
}

// stateOf gives the session's word for a sandbox on the way to sleep, asleep or
// on the way back; "" when it is awake.
func stateOf(state sandbox.State) string {
	switch state {
	case fleet.StatePausing:
		return sandboxPausing
	case sandbox.StatePaused:
		return sandboxPaused
	case fleet.StateResuming:
		return sandboxResuming
	}
	return ""
}

// How long a sandbox may take to wake when nobody waits for it.
const wakeTimeout = time.Minute

// wake has a sandbox woken, in the background. What comes of it is told by its
// state; a failure leaves it asleep, and the next who needs it hears why.
func (s *Session) wake(sb *fleet.Sandbox) {
	s.svc.background(func() {
		ctx, cancel := context.WithTimeout(s.ctx, wakeTimeout)
		defer cancel()
		if err := sb.Resume(ctx); err != nil && s.ctx.Err() == nil {
			s.svc.log.Warn("the sandbox of a session does not wake", "session_id", s.id, "sandbox_id", string(sb.ID()), "err", err)
			s.apply(func() {
				if s.lease.sb == sb {
					next := s.view.Sandbox
					next.Message = "The sandbox does not wake. " + sentenceOf(sb.Explain(err))
					s.setSandboxLocked(next)
				}
			})
		}
	})
}

// watchLocked follows a sandbox until its end.
func (s *Session) watchLocked(sb *fleet.Sandbox) {
	s.svc.background(func() {
		for {
			changed := sb.Changed()
			s.mu.Lock()
			mine, behind := s.lease.sb == sb, s.behindLocked(sb)
			s.mu.Unlock()
			if !mine {
				return
			}
			if behind {
				s.apply(func() { s.sleepLocked(sb) })
			}
			select {
			case <-changed:
			case <-sb.Ended():
				s.apply(func() { s.lostLocked(sb) })
				return
			case <-s.ctx.Done():
				return
			}
		}
	})
}

// behindLocked says whether a sandbox slept, woke or lost its variables since
// the session told of it.
func (s *Session) behindLocked(sb *fleet.Sandbox) bool {
	v := sb.View()
	if r := v.Restarted; r != nil && r.At.After(s.lease.restarted) {
		return true
	}
	now, was := stateOf(v.State), s.view.Sandbox.State
	switch was {
	case sandboxPausing, sandboxPaused, sandboxResuming:
		return now != was
	}
	return now != ""
}

// sleepLocked tells of a sandbox that sleeps or woke.
func (s *Session) sleepLocked(sb *fleet.Sandbox) {
	if s.lease.sb != sb {
		return
	}
	message := s.view.Sandbox.Message
	if r := sb.View().Restarted; r != nil && r.At.After(s.lease.restarted) {
		s.lease.restarted = r.At
		message = s.restartedLocked(r)
	}
	s.sandboxReadyLocked(message)
}

// restartedLocked tells people and the model that variables are gone, by an
// item of the thread, and gives the sentence.
func (s *Session) restartedLocked(r *fleet.Restarted) string {
	text := fmt.Sprintf("The sandbox slept and its memory could not be brought back: %s. Files are there; run again the cells that define variables.", r.Why)
	if len(s.tree.nodes) < maxItems {
		it := newItem("note")
		it.Text, it.Reason = text, r.Reason
		after := s.beforeWorkLocked()
		s.putLocked(it, func(n *node) { s.tree.insert(n, after) })
	}
	return text
}

// beforeWorkLocked gives the node before the first cell that runs, waits or is
// being written, so that what is told behind it stands before what it concerns;
// else the end of the thread.
func (s *Session) beforeWorkLocked() *node {
	for _, n := range s.tree.path() {
		if n.item.Kind == "cell" && !finished(n.item.Status) {
			return n.parent
		}
	}
	return s.tree.last()
}

// asleep gives what a list shows of a sandbox that nobody has in memory.
func asleep(was v1.SessionSandbox, sb *fleet.Sandbox) v1.SessionSandbox {
	if state := stateOf(sb.View().State); state != "" {
		was.State = state
	} else if stateOf(sandbox.State(was.State)) != "" {
		was.State = sandboxReady
	}
	return was
}

// Awake reports whether a sandbox is there without being woken first.
func Awake(sb *fleet.Sandbox) bool { return stateOf(sb.View().State) == "" }
