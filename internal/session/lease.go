package session

import (
	"cmp"
	"context"
	"errors"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// States of a session's sandbox.
const (
	sandboxNone     = "none"
	sandboxStarting = "starting"
	sandboxReady    = "ready"
	sandboxBusy     = "busy"
	sandboxPausing  = "pausing"
	sandboxPaused   = "paused"
	sandboxResuming = "resuming"
	sandboxLost     = "lost"
)

// reasonRestart is why a sandbox is gone that nobody remembers.
const reasonRestart = "server_restarted"

// lease is the session's right to one sandbox.
type lease struct {
	sb        *fleet.Sandbox // nil: none
	starting  *starting      // nil: none is on its way
	had       bool           // there was one before, so variables are gone with it
	restarted time.Time      // the last time that one woke without its variables and people were told
}

// starting is a sandbox on its way; all who need it wait for the same.
type starting struct {
	done chan struct{}
	sb   *fleet.Sandbox
	err  error
}

// How long a sandbox may take to start and to get its files back.
const startTimeout = 3 * time.Minute

// Sandbox gives the session's sandbox once it is there: it is made, with the
// session's files, unless it is or somebody else does so already.
func (s *Session) Sandbox(ctx context.Context) (*fleet.Sandbox, error) {
	made, err := s.MakeSandbox(ctx)
	return made.Sandbox, err
}

// Made is a sandbox, and whether this call had it made.
type Made struct {
	Sandbox *fleet.Sandbox
	Made    bool
}

// MakeSandbox is Sandbox, and says whether it was this call that began to make
// it. It is made even if ctx ends.
func (s *Session) MakeSandbox(ctx context.Context) (Made, error) {
	sb, st, began, err := s.startSandbox()
	if err != nil || sb != nil {
		return Made{sb, false}, err
	}
	select {
	case <-st.done:
		return Made{st.sb, began}, st.err
	case <-ctx.Done():
		return Made{}, context.Cause(ctx)
	}
}

// EnsureSandbox has a sandbox made if there is none, or woken if it sleeps, and
// returns at once.
func (s *Session) EnsureSandbox() (v1.SessionSandbox, error) {
	sb, _, _, err := s.startSandbox()
	if err != nil {
		return v1.SessionSandbox{}, err
	}
	if sb != nil && !Awake(sb) {
		s.wake(sb)
	}
	return s.View().Sandbox, s.settled()
}

// LiveSandbox gives the sandbox if there is one, asleep or awake.
func (s *Session) LiveSandbox() (*fleet.Sandbox, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sb := s.lease.sb; sb != nil {
		select {
		case <-sb.Ended(): // the watch is about to say so
		default:
			return sb, true
		}
	}
	return nil, false
}

// startSandbox gives the sandbox, or the start of one to wait for, and whether
// that began with this call.
func (s *Session) startSandbox() (_ *fleet.Sandbox, _ *starting, began bool, _ error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.broken != nil:
		return nil, nil, false, s.broken
	case s.view.DeletedAt != nil:
		return nil, nil, false, errdefs.New(errdefs.ErrConflict, "session-deleted", "The session was deleted.").WithHint("Restore it first.")
	}
	if sb := s.lease.sb; sb != nil {
		select {
		case <-sb.Ended(): // the watch is about to say so
			s.lostLocked(sb)
		default:
			return sb, nil, false, nil
		}
	}
	if s.lease.starting != nil {
		return nil, s.lease.starting, false, nil
	}
	st := &starting{done: make(chan struct{})}
	if !s.svc.background(func() { s.makeSandbox(st) }) {
		return nil, nil, false, errClosed
	}
	s.lease.starting = st
	next := v1.SessionSandbox{State: sandboxStarting, Limits: s.view.Sandbox.Limits}
	if s.lease.had {
		next.Reason, next.Message = s.view.Sandbox.Reason, "A new sandbox starts. Files are put back; variables are gone, so run again the cells that define them."
	}
	s.setSandboxLocked(next)
	s.flushLocked()
	return nil, st, true, nil
}

func (s *Session) makeSandbox(st *starting) {
	ctx, cancel := context.WithTimeout(s.ctx, startTimeout)
	defer cancel()
	s.mu.Lock()
	template, had := s.view.Template, s.lease.had
	s.mu.Unlock()
	sb, err := s.createSandbox(ctx, template)
	if s.ctx.Err() != nil {
		// The next who needs it finds it by its label.
		st.err = cmp.Or(err, error(errClosed))
		close(st.done)
		return
	}
	s.apply(func() {
		s.lease.starting = nil
		if err != nil {
			s.setSandboxLocked(v1.SessionSandbox{State: sandboxNone, Reason: codeOf(err), Message: sentenceOf(err), Limits: s.view.Sandbox.Limits})
			return
		}
		s.lease.sb, s.lease.had = sb, true
		s.sandboxLocked(sandboxStarting, s.view.Sandbox.Message)
		s.watchLocked(sb)
	})
	st.sb, st.err = sb, err
	close(st.done)
	if err != nil {
		return
	}
	// It has files by now, but is ready for people once its kernel answers.
	_, err = sb.DefaultKernel(ctx)
	s.apply(func() {
		switch {
		case s.lease.sb != sb:
		case err != nil && s.ctx.Err() == nil:
			s.svc.log.Warn("the kernel of a session does not start", "session_id", s.id, "sandbox_id", string(sb.ID()), "err", err)
			s.sandboxLocked(sandboxReady, "Python does not start in this sandbox. Try a new one.")
		case err == nil && had:
			s.sandboxReadyLocked("This is a new sandbox: files are back, variables are gone. Run again the cells that define them.")
		case err == nil:
			s.sandboxReadyLocked("")
		}
	})
}

func (s *Session) createSandbox(ctx context.Context, template string) (*fleet.Sandbox, error) {
	sb, err := s.svc.fleet.Create(ctx, fleet.CreateRequest{Template: template, Session: s.id, Owner: s.owner})
	if err != nil {
		return nil, err
	}
	if files := s.svc.opts.Files; files != nil {
		done := sb.Use()
		err := files.Restore(ctx, s.id, sb)
		done()
		if err != nil {
			// A sandbox without its files would look as if they were lost.
			return nil, errors.Join(err, sb.Delete(context.WithoutCancel(ctx)))
		}
	}
	return sb, nil
}

func (s *Session) sandboxReadyLocked(message string) {
	state := sandboxReady
	if s.runs.current != nil {
		state = sandboxBusy
	}
	s.sandboxLocked(state, message)
}

// sandboxLocked tells of the sandbox there is. One that sleeps by now does,
// whatever it was before.
func (s *Session) sandboxLocked(state, message string) {
	v := s.lease.sb.View()
	state = cmp.Or(stateOf(v.State), state)
	next := v1.SessionSandbox{
		State: state, ID: string(v.ID), KernelID: v.KernelID, Limits: v1.Limits(v.Limits),
		StartedAt: &v.CreatedAt, ExpiresAt: &v.ExpiresAt, Message: message,
	}
	if r := v.Restarted; r != nil {
		next.Reason = r.Reason
	}
	s.setSandboxLocked(next)
}

func (s *Session) setSandboxLocked(next v1.SessionSandbox) {
	if string(encode(next)) == string(encode(s.view.Sandbox)) {
		return
	}
	if next.State != s.view.Sandbox.State {
		s.svc.list.notify(s.owner) // the list shows who is at work
	}
	s.view.Sandbox = next
	s.emitLocked(event.SandboxChanged, "", "", next)
	s.saveSessionLocked()
}

// busyLocked says whether the kernel runs code.
func (s *Session) busyLocked(busy bool) {
	next := s.view.Sandbox
	switch {
	case busy && next.State == sandboxReady:
		next.State = sandboxBusy
	case !busy && next.State == sandboxBusy:
		next.State = sandboxReady
	}
	s.setSandboxLocked(next)
}

func (s *Session) lostLocked(sb *fleet.Sandbox) {
	if s.lease.sb != sb {
		return
	}
	s.lease.sb = nil
	s.setSandboxLocked(s.goneLocked(s.svc.goneReason(sb.ID(), fleet.ReasonLost)))
}

// goneReason says why a sandbox is gone, or otherwise when that is forgotten.
func (svc *Service) goneReason(id sandbox.ID, otherwise string) string {
	_, err := svc.fleet.Get(id)
	if gone, ok := errors.AsType[*fleet.GoneError](err); ok {
		return gone.Reason
	}
	return otherwise
}

// goneLocked describes a sandbox that is no more.
func (s *Session) goneLocked(reason string) v1.SessionSandbox {
	out := v1.SessionSandbox{State: sandboxLost, Reason: reason, Limits: s.view.Sandbox.Limits}
	kept := "The next run starts a new one with the files that were kept; variables are gone."
	switch reason {
	case fleet.ReasonDeleted:
		out.State, out.Message = sandboxNone, "The sandbox was ended. "+kept
	case fleet.ReasonIdle:
		out.State, out.Message = sandboxNone, "The sandbox was not used for a while and was freed. "+kept
	case fleet.ReasonExpired:
		out.State, out.Message = sandboxNone, "The sandbox reached the end of its life and was freed. "+kept
	case string(event.ReasonOutOfMemory):
		out.Message = "The sandbox used more memory than it may and was stopped. " + kept + " Work on less data at a time."
	case reasonRestart:
		out.State, out.Message = sandboxNone, "The sandbox ended with the server that had it. "+kept
	case fleet.ReasonUnresponsive:
		out.Message = "The sandbox no longer answered and was ended. " + kept
	default:
		out.Message = fleet.GoneSentence(reason) + " " + kept
	}
	return out
}

// FreeSandbox ends the sandbox, after its files were kept.
func (s *Session) FreeSandbox(ctx context.Context) error {
	s.mu.Lock()
	st := s.lease.starting
	s.mu.Unlock()
	if st != nil {
		select {
		case <-st.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	sb, ok := s.LiveSandbox()
	if !ok {
		return nil
	}
	s.Interrupt()
	if Awake(sb) { // else they were kept before it slept
		s.syncFiles(ctx, sb)
	}
	if err := sb.Delete(ctx); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		return err
	}
	return s.do(func() error { s.lostLocked(sb); return nil })
}

// ResetSandbox gives the session a new sandbox with its files.
func (s *Session) ResetSandbox(ctx context.Context) (v1.SessionSandbox, error) {
	if err := s.FreeSandbox(ctx); err != nil {
		return v1.SessionSandbox{}, err
	}
	return s.EnsureSandbox()
}

// RestartKernel gives the session a fresh kernel; variables are gone.
func (s *Session) RestartKernel(ctx context.Context) error {
	s.dropQueue("", "The kernel was restarted before it ran.")
	sb, err := s.Sandbox(ctx)
	if err != nil {
		return err
	}
	defer sb.Use()()
	id, err := sb.DefaultKernel(ctx)
	if err == nil {
		_, err = sb.Agent().RestartKernel(ctx, id)
	}
	if err != nil {
		return sb.Explain(err)
	}
	return s.do(func() error {
		if s.lease.sb == sb {
			next := s.view.Sandbox
			next.Reason, next.Message = "", "The kernel was restarted: variables are gone, files are still there."
			s.setSandboxLocked(next)
		}
		return nil
	})
}

// extend moves the end of a sandbox's life when half of it is over: one that is
// worked in should not go.
func (s *Session) extend(ctx context.Context, sb *fleet.Sandbox) {
	templates, _ := s.svc.fleet.Templates()
	v := sb.View()
	if time.Until(v.ExpiresAt) > templates[v.Template].Lifetime/2 {
		return
	}
	if err := sb.Extend(ctx, 0); err != nil {
		return // it runs until its end
	}
	s.apply(func() {
		if s.lease.sb == sb {
			next := s.view.Sandbox
			until := sb.View().ExpiresAt
			next.ExpiresAt = &until
			s.setSandboxLocked(next)
		}
	})
}

// farewell keeps the files of a sandbox whose time is over, or that goes to
// sleep: its memory may be lost meanwhile, its files not.
func (svc *Service) farewell(ctx context.Context, sb *fleet.Sandbox) {
	id := sb.View().Session
	if id == "" || svc.opts.Files == nil {
		return
	}
	svc.mu.Lock()
	held := svc.live[id] != nil || svc.loading[id] != nil
	svc.mu.Unlock()
	if !held {
		// Nobody looks at it, so nobody has to be told, and it need not be read
		// as a whole for this.
		if _, err := svc.store.Session(ctx, id); err != nil {
			return // a sandbox of something else
		}
		if _, err := svc.opts.Files.Sync(ctx, id, sb); err != nil && ctx.Err() == nil {
			svc.log.Warn("files of a session can't be kept", "session_id", id, "sandbox_id", string(sb.ID()), "err", err)
		}
		return
	}
	s, err := svc.Get(ctx, id)
	if err != nil {
		return // it was forgotten meanwhile
	}
	s.syncFiles(ctx, sb)
}

func codeOf(err error) string {
	return cmp.Or(errdefs.CodeOf(err), "sandbox-failed")
}

// sentenceOf gives what people may know of an error.
func sentenceOf(err error) string {
	if gone, ok := errors.AsType[*fleet.GoneError](err); ok {
		return gone.Error()
	}
	e, ok := errors.AsType[*errdefs.Error](err)
	switch {
	case !ok:
		return "The sandbox could not be started; the server's log has the reason."
	case e.Hint != "":
		return e.Msg + " " + e.Hint
	}
	return e.Msg
}
