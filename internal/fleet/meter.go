package fleet

import (
	"context"
	"time"

	"github.com/caesarion/caesarion/internal/sandbox"
)

// cpuMeter is a driver that reads from outside how much CPU time a sandbox
// used, since it was made or woken.
type cpuMeter interface {
	CPUTime(ctx context.Context, id sandbox.ID) (time.Duration, error)
}

const (
	// meterEvery is how often the CPU time of sandboxes is read, and how late a
	// limit of it is noticed.
	meterEvery = 5 * time.Second
	// meterTime bounds a reading that an agent gives.
	meterTime = 500 * time.Millisecond
)

// meter counts CPU time for the owners of sandboxes.
func (f *Fleet) meter() {
	tick := time.NewTicker(meterEvery)
	defer tick.Stop()
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-tick.C:
		}
		f.meterOnce()
	}
}

// busyShare is the part of a CPU that a sandbox must use to be put to sleep when
// its owner has no CPU time left. One that is only looked into is left awake.
const busyShare = 0.1

// meterOnce reads the CPU time of all sandboxes. What is left behind by code,
// and goes on when its owner has no CPU time left, is put to sleep; executions
// under way end by their own time-outs.
func (f *Fleet) meterOnce() {
	for _, s := range f.List() {
		used, err := s.readCPU(f.ctx)
		s.mu.Lock()
		can := s.canSleepLocked()
		s.mu.Unlock()
		if err == nil || !can || used < time.Duration(busyShare*float64(meterEvery)) || s.execs.running() {
			continue
		}
		f.background(func() {
			ctx, cancel := context.WithTimeout(f.ctx, farewellTime)
			defer cancel()
			if s.pause(ctx, func() bool { return !s.execs.running() }) == nil {
				f.log.Info("a sandbox at work was put to sleep: its owner has no CPU time left", "sandbox_id", string(s.id))
			}
		})
	}
}

// readCPU counts what the sandbox used since the last time. Where the driver
// can't say it, the agent is asked: its word is bounded by the time that passed,
// and hostile code can have it say less. The error says that the owner has no
// more.
func (s *Sandbox) readCPU(ctx context.Context) (more time.Duration, spent error) {
	if s.fleet.opts.Limits == nil || ctx.Err() != nil {
		return 0, nil
	}
	s.mu.Lock()
	awake := s.gone == "" && s.sleep.state == sandbox.StateRunning
	s.mu.Unlock()
	if !awake || !s.mine() {
		return 0, nil
	}
	s.cpu.Lock()
	defer s.cpu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithValue(ctx, doorKey{}, true), meterTime) // wakes nothing
	defer cancel()
	var used time.Duration
	var err error
	meter, outside := s.fleet.driver.(cpuMeter)
	if outside {
		used, err = meter.CPUTime(ctx, s.id)
	}
	if !outside || err != nil {
		outside = false
		if s.cpuRead.used == s.used.Load() && s.busy.Load() == 0 {
			return 0, nil // nobody used it: its agent is left alone
		}
		s.cpuRead.used = s.used.Load()
		u, e := s.client.Usage(ctx)
		used, err = time.Duration(u.CPUNanos), e
	}
	if err != nil {
		return 0, nil //nolint:nilerr // the next time
	}
	now := time.Now()
	more = used - s.cpuRead.total
	if more < 0 { // it woke, and counts anew
		more = used
	}
	if most := s.mostCPU(now.Sub(s.cpuRead.at)); !outside && more > most {
		more = most
	}
	first := s.cpuRead.at.IsZero()
	s.cpuRead.total, s.cpuRead.at = used, now
	if first {
		return 0, nil // adopted: an earlier process counted it
	}
	return more, s.fleet.opts.Limits.UsedCPU(s.owner, more)
}

// beginCPU notes what a new sandbox used before it had an owner, if that costs
// nothing to find out.
func (s *Sandbox) beginCPU(ctx context.Context) {
	if s.fleet.opts.Limits == nil {
		return
	}
	s.cpu.Lock()
	defer s.cpu.Unlock()
	s.cpuRead.at = time.Now()
	if meter, ok := s.fleet.driver.(cpuMeter); ok {
		s.cpuRead.total, _ = meter.CPUTime(ctx, s.id) // or nothing, and it counts a little more
	}
}

// mostCPU is what the sandbox can have used in a time.
func (s *Sandbox) mostCPU(d time.Duration) time.Duration {
	cpus := s.info.Limits.CPUs
	if cpus <= 0 {
		cpus = 64
	}
	return time.Duration(float64(min(d, time.Hour)) * cpus)
}

// cpuReading is the last one; Sandbox.cpu guards it.
type cpuReading struct {
	total time.Duration
	at    time.Time
	used  int64 // Sandbox.used at that time
}
