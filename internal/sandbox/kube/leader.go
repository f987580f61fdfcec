package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/caesarion/caesarion/internal/sandbox"
)

// The times of an election. What a leader has done last and what the others
// may do first are leaseTime - leadTime apart: enough for a process that was
// slow to notice that its time is over.
const (
	renewEvery     = 2 * time.Second  // the leader writes, the others look
	leadTime       = 8 * time.Second  // a leader that could not write for so long steps down
	leaseTime      = 10 * time.Second // a lease that did not change for so long may be taken
	releaseTimeout = 2 * time.Second
)

var (
	errNotLeader = errors.New("another replica leads now")
	errCantRenew = errors.New("the lease could not be renewed in time")
)

// leases is the part of the client that an election uses.
type leases interface {
	getLease(ctx context.Context, name string) (*coordinationv1.Lease, error)
	createLease(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error)
	updateLease(ctx context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error)
}

// election makes one of several processes the leader: who holds the Lease
// object. Every write is conditional on the object as it was read.
//
// The clocks of the processes are not compared. One that is no leader takes the
// lease when it has seen no change of it for leaseTime of its own clock, or at
// once when its holder let it go.
type election struct {
	leases leases
	name   string // of the Lease
	id     string // of this process, unlike all others
	log    *slog.Logger

	lease *coordinationv1.Lease // as last read or written
	seen  time.Time             // when it was first seen to be so
}

func newElection(l leases, name, replica string, log *slog.Logger) *election {
	return &election{leases: l, name: name, id: replica + "-" + sandbox.RandomSuffix()[:8], log: log}
}

// run takes part until ctx ends. As long as this process leads, lead runs, with
// a context that ends with the leadership; lead has to return then. When ctx
// ends the lease is let go, so that another process has it without waiting.
func (e *election) run(ctx context.Context, lead func(context.Context)) {
	for failing := false; ctx.Err() == nil; {
		begin := time.Now()
		leads, err := e.try(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			e.log.Warn("could not take part in the election of a leader", "lease", e.name, "err", err)
		}
		failing = err != nil
		if leads {
			e.log.Info("this replica leads", "lease", e.name)
			err := e.hold(ctx, begin, lead)
			e.log.Info("this replica leads no longer", "lease", e.name, "reason", err)
			continue
		}
		pause(ctx, jitter(renewEvery))
	}
	e.release(ctx)
}

// try takes the lease if nobody has it, and reports whether it did.
func (e *election) try(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, leadTime)
	defer cancel()
	lease, err := e.leases.getLease(ctx, e.name)
	if apierrors.IsNotFound(err) {
		lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: e.name}}
		e.sign(lease)
		lease, err = e.leases.createLease(ctx, lease)
		return e.wrote(lease, err)
	}
	if err != nil {
		return false, err
	}
	if e.lease == nil || e.lease.UID != lease.UID || e.lease.ResourceVersion != lease.ResourceVersion {
		e.lease, e.seen = lease, time.Now()
	}
	// One that says it is this process's was written by a call whose answer was
	// lost, of this process as leader: it has stepped down since.
	if holder := holderOf(lease); holder != "" && holder != e.id && time.Since(e.seen) < leaseTime {
		return false, nil
	}
	mine := lease.DeepCopy()
	e.sign(mine)
	mine, err = e.leases.updateLease(ctx, mine)
	return e.wrote(mine, err)
}

// wrote follows a write by try: that somebody else was first is no error.
func (e *election) wrote(lease *coordinationv1.Lease, err error) (bool, error) {
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	e.lease, e.seen = lease, time.Now()
	return true, nil
}

// hold renews the lease as long as it can and has lead run meanwhile. renewed
// is when the write that took the lease began. It says why it ended.
func (e *election) hold(ctx context.Context, renewed time.Time, lead func(context.Context)) error {
	leading, stop := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		lead(leading)
	}()
	defer func() { <-done }()
	// A timer of its own: renewing may hang.
	deadline := time.AfterFunc(time.Until(renewed.Add(leadTime)), func() { stop(errCantRenew) })
	defer deadline.Stop()
	for pause(leading, renewEvery) {
		begin := time.Now()
		switch err := e.renew(leading); {
		case leading.Err() != nil:
		case errors.Is(err, errNotLeader):
			stop(err)
		case err != nil:
			e.log.Warn("the lease could not be renewed", "lease", e.name, "err", err)
		case !deadline.Stop(): // too late: it ran
		default:
			deadline.Reset(time.Until(begin.Add(leadTime)))
		}
	}
	return context.Cause(leading)
}

// renew writes the lease once more.
func (e *election) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, leadTime/2) // for a second try on another connection
	defer cancel()
	mine := e.lease.DeepCopy()
	e.sign(mine)
	lease, err := e.leases.updateLease(ctx, mine)
	if !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		if err == nil {
			e.lease, e.seen = lease, time.Now()
		}
		return err
	}
	// Another's write, or one of this process whose answer was lost.
	if lease, err = e.leases.getLease(ctx, e.name); err != nil {
		if apierrors.IsNotFound(err) {
			return errNotLeader // deleted: somebody may have made it anew meanwhile
		}
		return err
	}
	e.lease, e.seen = lease, time.Now()
	if holderOf(lease) != e.id {
		return errNotLeader
	}
	mine = lease.DeepCopy()
	e.sign(mine)
	if lease, err = e.leases.updateLease(ctx, mine); err != nil {
		return fmt.Errorf("again: %w", err)
	}
	e.lease = lease
	return nil
}

// release lets the lease go if this process has it.
func (e *election) release(ctx context.Context) {
	if e.lease == nil || holderOf(e.lease) != e.id {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	free := e.lease.DeepCopy()
	free.Spec.HolderIdentity = new("")
	if _, err := e.leases.updateLease(ctx, free); err != nil && !apierrors.IsConflict(err) {
		e.log.Warn("the lease could not be let go: another replica leads when its time is over", "lease", e.name, "err", err)
	}
}

// sign makes lease this process's. The times are for people who look at it.
func (e *election) sign(lease *coordinationv1.Lease) {
	now := metav1.NewMicroTime(time.Now())
	if holderOf(lease) != e.id {
		lease.Spec.AcquireTime = &now
		n := int32(0)
		if lease.Spec.LeaseTransitions != nil {
			n = *lease.Spec.LeaseTransitions + 1
		}
		lease.Spec.LeaseTransitions = &n
	}
	lease.Spec.HolderIdentity = &e.id
	lease.Spec.RenewTime = &now
	lease.Spec.LeaseDurationSeconds = new(int32(leaseTime / time.Second))
}

func holderOf(lease *coordinationv1.Lease) string {
	if lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

// jitter gives d, up to a quarter more or less: replicas that started together
// do not ask together for ever.
func jitter(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2) //nolint:gosec // no secret
}

// pause waits for d and reports whether ctx goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
