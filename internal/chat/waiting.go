package chat

import "github.com/caesarion/caesarion/internal/session"

// AnswerWaiting begins to answer the messages that waited for a turn which
// ended with an earlier process, as it would have when that turn ended.
func (s *Service) AnswerWaiting() {
	for _, sess := range s.sessions.Waiting() {
		s.answerWaiting(sess)
	}
}

func (s *Service) answerWaiting(sess *session.Session) {
	defer s.lock(sess.ID())()
	s.nextLocked(sess)
}
