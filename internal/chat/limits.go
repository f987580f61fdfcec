package chat

import (
	"github.com/caesarion/caesarion/internal/session"
)

// mayAsk says whether the session's owner has tokens left.
func (s *Service) mayAsk(sess *session.Session) error {
	if s.opts.Limits == nil {
		return nil
	}
	return s.opts.Limits.MayAsk(sess.Owner())
}

// asked counts what an answer took: as the model's server says, or, where it
// does not, as it is estimated from the size of the request and of what came.
// A request that the server refused took nothing.
func (s *Service) asked(sess *session.Session, a *answer, request int64, err error) {
	if s.opts.Limits == nil {
		return
	}
	tokens := a.usage.InputTokens + a.usage.OutputTokens
	if tokens == 0 && (err == nil || a.began || len(a.calls) > 0) {
		tokens = request + textTokens(a.text)
		for _, c := range a.calls {
			tokens += textTokens(c.Arguments)
		}
	}
	s.opts.Limits.Asked(sess.Owner(), tokens)
}
