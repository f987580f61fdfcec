package chat

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/session"
)

// Send asks the model. While a turn runs, the message waits in the session's
// queue and is answered when it is its turn; an edit (Replaces) can't wait.
func (s *Service) Send(ctx context.Context, sessionID string, msg v1.SendMessage) (Sent, error) {
	if strings.TrimSpace(msg.Text) == "" && len(msg.Files) == 0 {
		return Sent{}, errdefs.New(errdefs.ErrInvalid, "message-empty", "The message is empty.").WithHint("Write something, or attach a file.")
	}
	sess, err := s.sessions.Get(ctx, sessionID)
	if err != nil {
		return Sent{}, err
	}
	defer s.lock(sessionID)()
	if msg.Model, err = s.checkModel(ctx, sess, msg.Model); err != nil {
		return Sent{}, err
	}
	waiting := len(sess.View().Queue) > 0
	if msg.Replaces == "" && (sess.Running() != nil || waiting) {
		if _, err := sess.Update(v1.UpdateSession{Model: &msg.Model}); err != nil {
			return Sent{}, err
		}
		q, err := sess.Enqueue(msg)
		if err != nil {
			return Sent{}, err
		}
		s.nextLocked(sess) // what waits since a restart goes first
		return Sent{Queued: &q}, nil
	}
	return s.begin(ctx, sess, session.TurnStart{Text: msg.Text, Files: msg.Files, Model: msg.Model, Replaces: msg.Replaces})
}

// Regenerate asks again for an answer: item is one of its items, or the
// message. The new answer becomes another branch.
func (s *Service) Regenerate(ctx context.Context, sessionID, item, model string) (Sent, error) {
	return s.again(ctx, sessionID, session.TurnStart{RegenerateOf: item, Model: model})
}

// Continue lets the model go on where it was cut, stopped or limited.
func (s *Service) Continue(ctx context.Context, sessionID string) (Sent, error) {
	return s.again(ctx, sessionID, session.TurnStart{Continue: true})
}

func (s *Service) again(ctx context.Context, sessionID string, start session.TurnStart) (Sent, error) {
	sess, err := s.sessions.Get(ctx, sessionID)
	if err != nil {
		return Sent{}, err
	}
	defer s.lock(sessionID)()
	if start.Model, err = s.checkModel(ctx, sess, start.Model); err != nil {
		return Sent{}, err
	}
	return s.begin(ctx, sess, start)
}

// Stop ends the turn that runs, at once, and reports whether there was one.
// Messages that wait are answered next; take them back first if they should
// not be.
func (s *Service) Stop(ctx context.Context, sessionID string) (bool, error) {
	sess, err := s.sessions.Get(ctx, sessionID)
	if err != nil {
		return false, err
	}
	return sess.StopTurn(), nil
}

// checkModel refuses a message that no model could answer, before anything of
// it is kept, and gives the name of the model that will.
func (s *Service) checkModel(ctx context.Context, sess *session.Session, name string) (string, error) {
	model, err := s.models.Get(ctx, cmp.Or(name, sess.View().Model))
	if err != nil {
		return "", err
	}
	if err := s.mayAsk(sess); err != nil {
		return "", err
	}
	return model.Info().Name, nil
}

// lock keeps the starts of turns in one session apart. Sessions share locks,
// as a start takes milliseconds.
func (s *Service) lock(sessionID string) (unlock func()) {
	m := &s.starts[maphash.String(s.seed, sessionID)%uint64(len(s.starts))]
	m.Lock()
	return m.Unlock
}

// begin starts a turn and its goroutine. The session's starts are locked.
func (s *Service) begin(ctx context.Context, sess *session.Session, start session.TurnStart) (Sent, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return Sent{}, errdefs.New(errdefs.ErrUnavailable, codeClosing, "The server is stopping.").WithHint("try again in a few seconds")
	}
	s.turns.Add(1)
	s.mu.Unlock()
	after := sess.View().LastSeq
	t, err := sess.BeginTurn(ctx, start)
	if err != nil {
		s.turns.Done()
		return Sent{}, err
	}
	s.mu.Lock()
	s.running[sess.ID()] = Running{t.ID(), after}
	s.mu.Unlock()
	go s.work(sess, t)
	return Sent{ItemID: t.MessageID(), TurnID: t.ID()}, nil
}

// work is the goroutine of a turn.
func (s *Service) work(sess *session.Session, t *session.Turn) {
	defer s.turns.Done()
	defer s.forget(sess.ID(), t.ID())
	log := s.log.With(slog.String("session_id", sess.ID()), slog.String("turn_id", t.ID()))
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	defer context.AfterFunc(s.ctx, func() { cancel(errClosing) })()
	l := &loop{s: s, t: t, sess: sess, log: log}
	o := l.start(ctx)
	if closing(ctx) {
		return
	}
	l.tell(o)
	t.Finish(o.status, o.code, o.message)
	log.Info("a turn ended", slog.String("status", o.status), slog.String("code", o.code))
	defer s.lock(sess.ID())()
	s.nextLocked(sess)
}

func (s *Service) forget(sessionID, turnID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[sessionID].TurnID == turnID {
		delete(s.running, sessionID)
	}
}

// Running gives the turn that runs in a session.
func (s *Service) Running(sess *session.Session) (Running, bool) {
	t := sess.Running()
	if t == nil {
		return Running{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.running[sess.ID()]
	return r, ok && r.TurnID == t.ID()
}

// nextLocked begins to answer the message that waits longest, unless the model
// is at work. The message leaves the queue once it is in the thread: a kill in
// between must not lose it.
func (s *Service) nextLocked(sess *session.Session) {
	for {
		queue := sess.View().Queue
		if len(queue) == 0 || sess.Running() != nil {
			return
		}
		q := queue[0]
		_, err := sess.Item(s.ctx, q.ID)
		if errors.Is(err, errdefs.ErrNotFound) {
			_, err = s.begin(s.ctx, sess, session.TurnStart{Text: q.Text, Files: q.Files, MessageID: q.ID})
		}
		if err != nil {
			s.log.Warn("a message that waited can't be answered", slog.String("session_id", sess.ID()), slog.Any("err", err))
			return
		}
		if err := sess.RemoveQueued(q.ID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return
		}
	}
}

// RemoveQueued takes a waiting message back.
func (s *Service) RemoveQueued(ctx context.Context, sessionID, id string) error {
	sess, err := s.sessions.Get(ctx, sessionID)
	if err != nil {
		return err
	}
	defer s.lock(sessionID)()
	return sess.RemoveQueued(id)
}
