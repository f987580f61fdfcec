package session

import (
	"slices"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// Messages that wait are few: each is a person's. All together are bounded too,
// as every change of the session tells of them.
const (
	maxQueue      = 50
	maxQueueBytes = 1 << 20 // a longer one waits only where no other does
)

// Enqueue keeps a message until the turn before it has ended.
func (s *Session) Enqueue(msg v1.SendMessage) (v1.QueuedMessage, error) {
	q := v1.QueuedMessage{ID: newItem("user").ID, Text: msg.Text, Files: msg.Files, CreatedAt: time.Now().UTC().Truncate(time.Microsecond)}
	if err := checkText(msg.Text); err != nil {
		return q, err
	}
	return q, s.do(func() error {
		size := len(q.Text)
		for _, m := range s.view.Queue {
			size += len(m.Text)
		}
		if n := len(s.view.Queue); n >= maxQueue || n > 0 && size > maxQueueBytes {
			return errdefs.New(errdefs.ErrExhausted, "queue-full", "%d messages wait already.", len(s.view.Queue)).WithHint("Wait, or take some back.")
		}
		s.view.Queue = append(s.view.Queue, q)
		s.changedLocked()
		return nil
	})
}

// NextQueued takes the message that waits longest; false if none does.
func (s *Session) NextQueued() (v1.QueuedMessage, bool) {
	var q v1.QueuedMessage
	ok := false
	_ = s.do(func() error {
		if len(s.view.Queue) > 0 {
			q, ok = s.view.Queue[0], true
			s.view.Queue = slices.Clone(s.view.Queue[1:])
			s.changedLocked()
		}
		return nil
	})
	return q, ok
}

// RemoveQueued takes a waiting message back.
func (s *Session) RemoveQueued(id string) error {
	return s.do(func() error {
		i := slices.IndexFunc(s.view.Queue, func(q v1.QueuedMessage) bool { return q.ID == id })
		if i < 0 {
			return errdefs.New(errdefs.ErrNotFound, "message-not-found", "No message %.80q waits.", id).
				WithHint("The model may have begun to answer it.")
		}
		s.view.Queue = slices.Delete(slices.Clone(s.view.Queue), i, i+1)
		s.changedLocked()
		return nil
	})
}

// Waiting gives the sessions in which messages wait although no turn runs: an
// earlier process ended before they were answered.
func (svc *Service) Waiting() []*Session {
	return slices.DeleteFunc(svc.inMemory(), func(s *Session) bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.view.Queue) == 0 || s.turn != nil || s.view.DeletedAt != nil
	})
}
