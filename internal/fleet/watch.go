package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// The last use of a sandbox is written to its labels at most this often, so
// that running code writes nothing to disk. After a restart of the server an
// idle sandbox may live this much longer.
const labelWriteEvery = time.Minute

// farewellTime bounds what is done for a sandbox whose time is over.
const farewellTime = 60 * time.Second

// deed is what a watch does when a time has come.
type deed int

const (
	look   deed = iota // nothing but writing the last use down
	expire             // its life is over
	leave              // unused for too long
	doze               // unused for long enough to sleep
	forget             // slept for so long that its memory goes
)

// next says what is to be done for the sandbox, and when.
func (s *Sandbox) next() (at time.Time, what deed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at = time.Now().Add(labelWriteEvery)
	if !s.sleep.at.IsZero() {
		at = time.Now().Add(24 * time.Hour) // nothing to write down
	}
	sooner := func(t time.Time, d deed) {
		if t.Before(at) {
			at, what = t, d
		}
	}
	used, can := s.lastUsed(), s.canSleepLocked()
	switch s.sleep.state {
	case sandbox.StateRunning:
		if can {
			sooner(later(used.Add(s.rec.pause), s.sleep.retry), doze)
		}
		if !can || s.rec.strict {
			sooner(used.Add(s.rec.idle), leave)
		}
		sooner(s.rec.expires, expire)
	case sandbox.StatePaused:
		if s.sleep.memory > 0 {
			sooner(later(s.sleep.at.Add(s.fleet.opts.KeepMemory), s.sleep.retry), forget)
		}
		sooner(s.sleep.at.Add(s.fleet.opts.KeepFiles), leave)
		if s.rec.strict {
			sooner(used.Add(s.rec.idle), leave)
		}
	}
	return at, what
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// watch does for a sandbox what its times ask for, ends it when the driver
// lost it, and writes its last use down now and then.
func (s *Sandbox) watch() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	<-timer.C
	written := s.used.Load()
	for {
		at, _ := s.next()
		timer.Reset(max(time.Until(at), 0))
		s.mu.Lock()
		lost := s.lost
		s.mu.Unlock()
		select {
		case <-s.ended:
			return
		case <-s.fleet.ctx.Done():
			return
		case <-s.moved:
			continue
		case <-lost:
			s.endLost()
			return
		case <-timer.C:
		}
		if !s.mine() {
			// Another may use it, and this one would not know.
			select {
			case <-s.ended:
				return
			case <-s.fleet.ctx.Done():
				return
			case <-time.After(time.Second):
				continue
			}
		}
		at, what := s.next()
		if what != look && time.Now().Before(at) {
			what = look
		}
		switch what {
		case expire:
			s.farewell(farewellTime)
			_ = s.end(s.fleet.ctx, ReasonExpired) // logged there
			return
		case leave:
			if !s.leave() {
				continue
			}
			return
		case doze:
			s.doze()
			continue
		case forget:
			s.mu.Lock()
			since := s.sleep.at
			s.mu.Unlock()
			if time.Since(since) < s.fleet.opts.KeepMemory {
				continue // it woke, and sleeps again
			}
			if _, err := s.asleep(s.ctx, since, func() error { return s.forgetMemory(s.ctx) }); err != nil {
				s.fleet.log.Warn("memory of a paused sandbox can't be dropped", "sandbox_id", string(s.id), "err", err)
				s.putOff(time.Hour)
			}
			continue
		}
		s.mu.Lock()
		asleep := !s.sleep.at.IsZero()
		s.mu.Unlock()
		if used := s.used.Load(); !asleep && (used != written || s.busy.Load() > 0) {
			ctx, cancel := context.WithTimeout(s.fleet.ctx, 10*time.Second)
			if err := s.saveLabels(ctx); err != nil {
				s.fleet.log.Warn("last use of a sandbox can't be written", "sandbox_id", string(s.id), "err", err)
			}
			cancel()
			written = used
		}
	}
}

// leave ends a sandbox that nobody used for too long, unless somebody comes.
func (s *Sandbox) leave() bool {
	s.mu.Lock()
	asleep := s.sleep.state == sandbox.StatePaused
	s.mu.Unlock()
	if !asleep { // else that was done before it slept
		// Somebody may come back while its files are saved, which is a use
		// itself; so running code is what counts.
		last := s.execs.newest()
		s.farewell(farewellTime)
		if s.busy.Load() > 0 || s.execs.newest() != last {
			return false
		}
	}
	_ = s.end(s.fleet.ctx, ReasonIdle) // logged there
	return true
}

// doze puts a sandbox to sleep that nobody used for long enough.
func (s *Sandbox) doze() {
	last := s.execs.newest()
	err := s.pause(s.ctx, func() bool { return s.unused() && s.execs.newest() == last })
	if err == nil {
		return
	}
	s.mu.Lock()
	wait := min(max(s.rec.pause, time.Second), 5*time.Minute)
	s.mu.Unlock()
	s.putOff(wait)
	if !errors.Is(err, errUsed) && !errors.Is(err, errdefs.ErrConflict) && s.ctx.Err() == nil {
		s.fleet.log.Warn("sandbox can't be put to sleep and stays awake", "sandbox_id", string(s.id), "err", err)
	}
}

// putOff has the watch try again what it could not do.
func (s *Sandbox) putOff(wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sleep.retry = time.Now().Add(wait)
}

// farewell lets its user take out of the sandbox what should stay.
func (s *Sandbox) farewell(most time.Duration) {
	s.fleet.mu.Lock()
	fn := s.fleet.farewell
	s.fleet.mu.Unlock()
	if fn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(s.fleet.ctx, most)
	defer cancel()
	fn(ctx, s)
}

func (s *Sandbox) endLost() {
	reason := ReasonLost
	if info, err := s.fleet.driver.Get(s.fleet.ctx, s.id); err == nil && info.Reason != "" {
		reason = info.Reason
	}
	_ = s.end(s.fleet.ctx, reason) // logged there
}
