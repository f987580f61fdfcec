package fleet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// Reasons why a sandbox is gone, beside those that the driver gives.
const (
	ReasonDeleted      = "deleted"
	ReasonExpired      = "expired"
	ReasonIdle         = "idle"
	ReasonUnresponsive = "unresponsive"
	ReasonDiskQuota    = "disk_quota"
	ReasonLost         = string(event.ReasonSandboxLost)
)

// Sandbox is one sandbox of the Fleet.
type Sandbox struct {
	fleet   *Fleet
	id      sandbox.ID
	seedID  string
	session string
	owner   identity.Owner
	info    sandbox.Info // as it was created
	client  *agentapi.Client

	used atomic.Int64 // UnixNano of the last use
	busy atomic.Int64 // unfinished executions and open calls; above 0 the sandbox is not idle

	ctx    context.Context //nolint:containedctx // the sandbox's own life: ends with it, and with the fleet
	cancel context.CancelCauseFunc
	turn   chan struct{} // holds a value while it is being saved, woken or its memory dropped

	mu     sync.Mutex
	rec    record // see labels.go
	sleep  sleep  // see sleep.go
	lost   <-chan struct{}
	kernel *kernelStart
	execs  executions
	gone   string // why it is gone; empty while it lives

	cpu     sync.Mutex // held while its CPU time is read
	cpuRead cpuReading

	saving sync.Mutex // held over a label write, so that they stay in order
	moved  chan struct{}
	ended  chan struct{} // closed when the sandbox is gone
}

// View is a sandbox at one moment.
type View struct {
	ID               sandbox.ID
	SeedID           string
	Session          string
	Owner            identity.Owner // zero: nobody's
	Template         string
	Image            string
	State            sandbox.State
	Limits           sandbox.Limits
	Labels           map[string]string // the caller's
	KernelID         string            // default kernel; empty: not started yet
	ExecutionTimeout time.Duration
	IdleTimeout      time.Duration
	CreatedAt        time.Time
	LastUsedAt       time.Time
	ExpiresAt        time.Time     // of one that sleeps: if it woke now
	PauseAfter       time.Duration // 0: never put to sleep
	PausedAt         time.Time     // zero: it does not sleep
	SavedBytes       int64         // on disk, while it sleeps
	Start            pool.Start    // empty: not known
	Restarted        *Restarted    // nil: never
}

func newSandbox(f *Fleet, info sandbox.Info, rec record, client *agentapi.Client) *Sandbox {
	s := &Sandbox{
		fleet:   f,
		id:      info.ID,
		seedID:  rec.seedID,
		session: rec.session,
		owner:   rec.owner,
		info:    info,
		rec:     rec.clone(),
		turn:    make(chan struct{}, 1),
		moved:   make(chan struct{}, 1),
		ended:   make(chan struct{}),
	}
	s.execs.init()
	s.used.Store(rec.used.UnixNano())
	s.ctx, s.cancel = context.WithCancelCause(f.ctx)
	s.sleep.init(info)
	if client == nil {
		client = agentapi.NewClient(s.dial, info.AgentToken)
	} else {
		client.SetDial(s.dial)
	}
	s.client = client
	return s
}

// ID gives the sandbox's identifier.
func (s *Sandbox) ID() sandbox.ID { return s.id }

// Owner says whose it is.
func (s *Sandbox) Owner() identity.Owner { return s.owner }

// View gives the sandbox at this moment.
func (s *Sandbox) View() View {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := View{
		ID:               s.id,
		SeedID:           s.seedID,
		Session:          s.session,
		Owner:            s.owner,
		Template:         s.info.Template,
		Image:            s.info.Image,
		State:            s.sleep.state,
		Limits:           s.info.Limits,
		Labels:           s.rec.clone().user,
		ExecutionTimeout: s.rec.execution,
		IdleTimeout:      s.rec.idle,
		CreatedAt:        s.info.CreatedAt,
		LastUsedAt:       s.lastUsed(),
		ExpiresAt:        s.rec.expires.UTC(),
		Start:            s.rec.start,
		Restarted:        s.rec.restarted,
	}
	if s.canSleepLocked() {
		v.PauseAfter = s.rec.pause
	}
	if at := s.sleep.at; !at.IsZero() {
		v.PausedAt, v.SavedBytes = at, s.sleep.memory+s.sleep.files
		v.ExpiresAt = time.Now().Add(s.rec.expires.Sub(at)).UTC()
	}
	if s.gone != "" {
		v.State = sandbox.StateStopped
	}
	if s.kernel.ready() {
		v.KernelID = s.rec.kernelID
	}
	return v
}

func (s *Sandbox) lastUsed() time.Time {
	if s.busy.Load() > 0 {
		return time.Now().UTC()
	}
	return time.Unix(0, s.used.Load()).UTC()
}

// Ended is closed when the sandbox is gone; Fleet.Get then says why.
func (s *Sandbox) Ended() <-chan struct{} { return s.ended }

// Use says that somebody uses the sandbox until the returned function is
// called: it does not count as idle meanwhile. It costs two atomic writes.
func (s *Sandbox) Use() (done func()) {
	s.busy.Add(1)
	return s.unuse
}

func (s *Sandbox) unuse() {
	s.used.Store(time.Now().UnixNano())
	s.busy.Add(-1)
}

// Extend lets the sandbox live for d from now, at most its template's life;
// zero means that. One that sleeps goes on sleeping.
func (s *Sandbox) Extend(ctx context.Context, d time.Duration) error {
	defer s.Use()()
	s.mu.Lock()
	if d < 0 || d > s.rec.life {
		most := s.rec.life
		s.mu.Unlock()
		return errdefs.New(errdefs.ErrInvalid, "limit-too-high",
			"lifetime_ms is %d, and this sandbox can be extended to at most %d from now.", d.Milliseconds(), most.Milliseconds())
	}
	if d == 0 {
		d = s.rec.life
	}
	s.rec.expires = time.Now().Add(d)
	if at := s.sleep.at; !at.IsZero() {
		s.rec.expires = at.Add(d) // its life stands still
	}
	s.mu.Unlock()
	s.poke()
	return s.saveLabels(ctx)
}

// saveLabels writes the record to the driver.
func (s *Sandbox) saveLabels(ctx context.Context) error {
	s.saving.Lock()
	defer s.saving.Unlock()
	s.mu.Lock()
	if s.gone != "" {
		s.mu.Unlock()
		return nil
	}
	s.rec.used = s.lastUsed()
	labels := s.rec.labels()
	s.mu.Unlock()
	if !s.mine() {
		return errNotMine // another may have written newer ones
	}
	if err := s.fleet.driver.SetLabels(ctx, s.id, labels); err != nil {
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil // it is going away right now
		}
		return fmt.Errorf("fleet: keep labels of %s: %w", s.id, err)
	}
	return nil
}

// Delete stops the sandbox and frees all it holds. Running executions end as
// killed.
func (s *Sandbox) Delete(ctx context.Context) error { return s.end(ctx, ReasonDeleted) }

// end takes the sandbox out of the fleet, tells the readers of its executions
// and removes it from the driver.
func (s *Sandbox) end(ctx context.Context, reason string) error {
	_, _ = s.readCPU(ctx) // the last time
	// The reason is there before anybody can find the sandbox among the gone.
	s.mu.Lock()
	if s.gone != "" {
		s.mu.Unlock()
		return s.goneError()
	}
	s.gone = reason
	s.mu.Unlock()
	mine := s.mine()
	s.fleet.detach(s)
	close(s.ended)
	s.cancel(s.goneError())
	for _, e := range s.execs.unfinished() {
		e.kill(reasonOf(reason), GoneSentence(reason))
	}
	noted := make(chan struct{})
	go func() { // awaited below
		defer close(noted)
		if mine { // else its owner knows better
			s.fleet.bury(ctx, s.id, replica.Gone{Key: keyOf(s.id, s.session), Reason: reason, Owner: s.owner}, false)
		}
	}()
	err := s.fleet.remove(ctx, s.id)
	<-noted
	s.client.CloseIdle()
	s.fleet.log.Info("sandbox gone", "sandbox_id", string(s.id), "reason", reason)
	return err
}

// goneError is the answer to whoever still asks for the sandbox.
func (s *Sandbox) goneError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &GoneError{ID: s.id, Reason: s.gone, Owner: s.owner}
}

// GoneError says that a sandbox was here and why it is not any more.
type GoneError struct {
	ID     sandbox.ID
	Reason string
	Owner  identity.Owner // whose it was; nobody else may learn of it
}

// Error gives a sentence that is safe to show the caller.
func (e *GoneError) Error() string { return GoneSentence(e.Reason) }

// Is makes a GoneError an ErrNotFound.
func (e *GoneError) Is(target error) bool { return target == errdefs.ErrNotFound }

// reasonOf gives an execution's reason for the end of its sandbox.
func reasonOf(gone string) event.Reason {
	switch event.Reason(gone) {
	case event.ReasonOutOfMemory, event.ReasonDiskFull, event.ReasonProcessLimit:
		return event.Reason(gone)
	}
	return event.ReasonSandboxLost
}

// How long a failed call waits for the news that its sandbox is gone. The
// connection breaks a moment before the driver says so.
const newsTime = 100 * time.Millisecond

// Explain gives the error of a call to the agent, or, if the sandbox went away
// meanwhile, why it did: that is what the caller wants to know.
func (s *Sandbox) Explain(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, errdefs.ErrUnavailable) {
		select {
		case <-s.ended:
		case <-time.After(newsTime):
		}
	}
	if closed(s.ended) {
		return s.goneError()
	}
	return err
}
