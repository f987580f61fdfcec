package session

import (
	"context"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// answer is what a person typed for a question of the code.
type answer struct {
	question *v1.InputRequest
	shown    string // what a terminal would show of it
}

// Input answers what a cell asks by input() or getpass(). Of two who answer
// the same question, the first is heard.
func (s *Session) Input(ctx context.Context, id, value string) error {
	s.mu.Lock()
	n, err := s.tree.find(id)
	if err != nil {
		s.mu.Unlock()
		return err
	}
	r, question := s.runs.current, n.item.Input
	if question == nil || r == nil || r.n != n || r.exec == nil || r.answer != nil {
		s.mu.Unlock()
		return errdefs.New(errdefs.ErrConflict, "no-input-requested", "The cell does not wait for input.").
			WithHint("Somebody else may have answered already.")
	}
	shown := value
	if question.Password {
		shown = "········"
	}
	mine := &answer{question, question.Prompt + shown + "\n"}
	r.answer = mine
	s.mu.Unlock()
	err = r.exec.Input(ctx, value)
	return s.do(func() error {
		if err != nil {
			if r.answer == mine {
				r.answer = nil
			}
			return r.exec.Sandbox().Explain(err)
		}
		s.showAnswerLocked(r)
		return nil
	})
}

// showAnswerLocked makes a question and its answer part of the output, as a
// terminal does: before anything that the code did with the answer, which may
// be here sooner than the kernel's receipt.
func (s *Session) showAnswerLocked(r *run) {
	a := r.answer
	if a == nil {
		return
	}
	r.answer = nil
	if r.n.item.Input == a.question {
		l := s.emitLocked(event.OutputStream, r.n.item.ID, r.id, event.Stream{Name: "stdout", Text: a.shown})
		s.foldLocked(&l)
	}
}
