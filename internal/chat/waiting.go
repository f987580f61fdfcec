package chat

// AnswerWaiting begins to answer the messages that waited for a turn which
// ended with an earlier process, as it would have when that turn ended.
func (s *Service) AnswerWaiting() {
	for _, sess := range s.sessions.Waiting() {
		unlock := s.lock(sess.ID())
		s.nextLocked(sess)
		unlock()
	}
}
