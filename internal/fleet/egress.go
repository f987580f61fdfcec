package fleet

import (
	"context"
	"errors"
	"maps"
	"net"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Egress lets programs of sandboxes out, as far as their policies allow.
type Egress interface {
	// Network names the network that sandboxes of a template have; empty: none,
	// and no door is opened for them.
	Network(template string) string
	// CACerts gives the certificates that programs are to trust besides those of
	// their image, as PEM.
	CACerts() []byte
	// Serve answers what comes out of a sandbox by conn, until that or ctx ends.
	Serve(ctx context.Context, conn net.Conn, from Outbound) error
	// Forget drops what is known of a sandbox that is gone for good.
	Forget(id sandbox.ID)
}

// Outbound is who asks to get out.
type Outbound struct {
	Sandbox  sandbox.ID
	Session  string // empty: none
	Template string
	Owner    identity.Owner
	Used     func() // called now and then while bytes flow
}

const (
	// doorDelay leaves a new sandbox's first execution alone: a program that
	// wants out so early waits for the door. Where there are certificates to be
	// trusted nothing is waited for: a program may read them before it connects.
	doorDelay = 60 * time.Millisecond
	// doorRetry is the first wait after a door that could not be opened, or
	// ended at once; it doubles up to doorRetryMost.
	doorRetry     = 50 * time.Millisecond
	doorRetryMost = 5 * time.Second
	// doorSteady is how long a door stays open that was no failure.
	doorSteady = 2 * time.Second
)

// Network gives the network of a sandbox's template; empty: none.
func (f *Fleet) Network(template string) string {
	if f.opts.Egress == nil {
		return ""
	}
	return f.opts.Egress.Network(template)
}

// withNetwork adds to an environment what a template's sandboxes have of a
// network; the caller's own word counts more.
func (f *Fleet) withNetwork(env map[string]string, template string) map[string]string {
	name := f.Network(template)
	if name == "" {
		return env
	}
	env = maps.Clone(env)
	if env == nil {
		env = map[string]string{}
	}
	if _, set := env[agentapi.NetworkEnv]; !set {
		env[agentapi.NetworkEnv] = name
	}
	return env
}

// holdDoor opens the way out of a sandbox that has one, and opens it again
// whenever it ends while the sandbox is awake. agentapi.Client.Hold closes it,
// and lets no other be opened until it is over.
func (s *Sandbox) holdDoor() {
	if s.fleet.Network(s.info.Template) == "" {
		return
	}
	s.fleet.background(func() {
		wait := doorDelay
		if len(s.fleet.opts.Egress.CACerts()) > 0 {
			wait = 0
		}
		retry := doorRetry
		for s.pass(wait) && s.awaitAwake() {
			began := time.Now()
			err := s.serveDoor()
			switch {
			case errors.Is(err, errAsleep): // awaitAwake waits
				wait = 0
				continue
			case err == nil || time.Since(began) > doorSteady:
				wait, retry = 0, doorRetry
			default:
				wait = retry
				retry = min(2*retry, doorRetryMost)
				s.fleet.log.Debug("a sandbox's way out can't be opened", "sandbox_id", string(s.id), "err", err)
			}
			wait = max(wait, time.Millisecond)
		}
		s.mu.Lock()
		gone := s.gone != ""
		s.mu.Unlock()
		if gone { // and not left to the next server
			s.fleet.opts.Egress.Forget(s.id)
		}
	})
}

// pass waits; false if the sandbox ends meanwhile.
func (s *Sandbox) pass(wait time.Duration) bool {
	if wait > 0 {
		select {
		case <-time.After(wait):
		case <-s.ctx.Done():
		}
	}
	return s.ctx.Err() == nil
}

// serveDoor opens one door and returns when it ends. An error means that it was
// not opened.
func (s *Sandbox) serveDoor() error {
	if !s.mine() {
		return errNotMine
	}
	out := s.fleet.opts.Egress
	conn, err := s.client.Egress(context.WithValue(s.ctx, doorKey{}, true), agentapi.Egress{CACerts: string(out.CACerts())})
	if err != nil {
		return err
	}
	defer conn.Close()
	begun := time.Now()
	err = out.Serve(s.ctx, conn, Outbound{
		Sandbox: s.id, Session: s.session, Template: s.info.Template, Owner: s.owner,
		Used: func() { s.used.Store(time.Now().UnixNano()) },
	})
	if err != nil && time.Since(begun) < doorSteady {
		return err
	}
	return nil
}

// doorKey marks the context of a dial that must not wake a sandbox.
type doorKey struct{}

var errAsleep = errdefs.New(errdefs.ErrConflict, "sandbox-paused", "the sandbox sleeps")

// leaveAsleep refuses a dial for a door while the sandbox is not awake.
func (s *Sandbox) leaveAsleep(ctx context.Context) error {
	if ctx.Value(doorKey{}) == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sleep.state == sandbox.StateRunning || s.sleep.state == StatePausing && !s.sleep.held {
		return nil
	}
	return errAsleep
}
