package session

import "time"

// Forget takes a session out of memory, as if nobody had used it for long.
func Forget(s *Session) {
	_ = s.settled()
	s.evictIfIdle(time.Now().Add(time.Hour))
}

// InMemory reports whether a session is in memory.
func (svc *Service) InMemory(id string) bool {
	svc.mu.Lock()
	defer svc.mu.Unlock()
	return svc.live[id] != nil
}
