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

// Evict is what the janitor does now and then.
func (svc *Service) Evict(now time.Time) { svc.evict(now) }

// Held counts the sessions that are held.
func (svc *Service) Held() int { return len(svc.inMemory()) }

// Ready is what the one who started the sandbox says at last, be it late.
func Ready(s *Session) { s.apply(func() { s.sandboxReadyLocked("") }) }
