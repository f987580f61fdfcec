package session

import (
	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// Extend adds copies of items at the end of the thread, such as a conversation
// that a client had elsewhere.
func (s *Session) Extend(items []v1.Item) error {
	return s.do(func() error {
		switch {
		case s.turn != nil:
			return errdefs.New(errdefs.ErrConflict, "turn-running", "The model is at work.").WithHint("Stop it first, or wait.")
		case len(s.tree.nodes)+len(items) > maxItems:
			return errdefs.New(errdefs.ErrTooLarge, "too-many-items", "The conversation has %d items, and at most %d are taken.", len(items), maxItems).WithHint("Go on in a new session.")
		}
		s.fillLocked(items)
		return nil
	})
}
