package accounts

import (
	"context"
	"time"
)

// SetNow gives Options a clock.
func (o *Options) SetNow(now func() time.Time) { o.now = now }

// Occupy has the line for hashes full until it is left.
func (s *Service) Occupy() (leave func()) {
	var all []func()
	for {
		one, err := s.hasher.enter()
		if err != nil {
			return func() {
				for _, l := range all {
					l()
				}
			}
		}
		all = append(all, one)
	}
}

// Recheck looks at the requests under way now.
func (s *Service) Recheck() { s.recheck() }

// FlushSeen writes when keys and browsers were last used.
func (s *Service) FlushSeen(ctx context.Context) error { return s.flushSeen(ctx) }
