package kube

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// memoryLeases keeps one Lease as an API server does: a write must be of the
// version that is there.
type memoryLeases struct {
	mu    sync.Mutex
	lease *coordinationv1.Lease
	n     int
}

var leaseResource = schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}

func (m *memoryLeases) getLease(_ context.Context, name string) (*coordinationv1.Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lease == nil {
		return nil, apierrors.NewNotFound(leaseResource, name)
	}
	return m.lease.DeepCopy(), nil
}

func (m *memoryLeases) createLease(_ context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lease != nil {
		return nil, apierrors.NewAlreadyExists(leaseResource, lease.Name)
	}
	return m.putLocked(lease), nil
}

func (m *memoryLeases) updateLease(_ context.Context, lease *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lease == nil {
		return nil, apierrors.NewNotFound(leaseResource, lease.Name)
	}
	if m.lease.ResourceVersion != lease.ResourceVersion {
		return nil, apierrors.NewConflict(leaseResource, lease.Name, errors.New("changed"))
	}
	return m.putLocked(lease), nil
}

func (m *memoryLeases) putLocked(lease *coordinationv1.Lease) *coordinationv1.Lease {
	m.n++
	m.lease = lease.DeepCopy()
	m.lease.UID = types.UID("lease")
	m.lease.ResourceVersion = strconv.Itoa(m.n)
	return m.lease.DeepCopy()
}

// wire is one process's way to the leases, which can be cut: at once (calls
// fail), or so that the answer is lost or never comes.
type wire struct {
	leases
	cut, hang, deaf atomic.Bool
}

var errCut = errors.New("connection refused")

func (w *wire) before(ctx context.Context) error {
	if w.hang.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if w.cut.Load() {
		return errCut
	}
	return nil
}

func (w *wire) getLease(ctx context.Context, name string) (*coordinationv1.Lease, error) {
	if err := w.before(ctx); err != nil {
		return nil, err
	}
	return w.leases.getLease(ctx, name)
}

func (w *wire) createLease(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	if err := w.before(ctx); err != nil {
		return nil, err
	}
	return w.leases.createLease(ctx, l)
}

func (w *wire) updateLease(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	if err := w.before(ctx); err != nil {
		return nil, err
	}
	got, err := w.leases.updateLease(ctx, l)
	if w.deaf.Load() {
		return nil, errCut
	}
	return got, err
}

// candidates counts who leads. More than one at a time is what must not be.
type candidates struct {
	t       *testing.T
	leading atomic.Int32
}

type candidate struct {
	*wire
	leads atomic.Bool
	times atomic.Int32
	stop  context.CancelFunc
	done  chan struct{}
}

func (c *candidates) start(store leases, name string) *candidate {
	ctx, cancel := context.WithCancel(c.t.Context())
	p := &candidate{wire: &wire{leases: store}, stop: cancel, done: make(chan struct{})}
	e := newElection(p.wire, "installation-leader", name, slog.New(slog.DiscardHandler))
	go func() {
		defer close(p.done)
		e.run(ctx, func(ctx context.Context) {
			if n := c.leading.Add(1); n != 1 {
				c.t.Errorf("%d lead at a time", n)
			}
			p.leads.Store(true)
			p.times.Add(1)
			<-ctx.Done()
			p.leads.Store(false)
			c.leading.Add(-1)
		})
	}()
	return p
}

func (p *candidate) end() {
	p.stop()
	<-p.done
}

// until waits for a condition and gives how long that took.
func until(t *testing.T, most time.Duration, what string, is func() bool) time.Duration {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		synctest.Wait()
		if is() {
			return time.Since(begin)
		}
		if time.Since(begin) > most {
			t.Fatalf("after %v still not: %s", most, what)
		}
	}
}

func TestOneLeadsAndHandsOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, c := &memoryLeases{}, &candidates{t: t}
		a := c.start(store, "a")
		until(t, time.Second, "a leads", a.leads.Load)
		b := c.start(store, "b")
		time.Sleep(10 * time.Minute)
		if !a.leads.Load() || a.times.Load() != 1 || b.times.Load() != 0 {
			t.Fatalf("a leads %v for the %d. time, b has led %d times", a.leads.Load(), a.times.Load(), b.times.Load())
		}
		a.end()
		if took := until(t, leaseTime, "b leads", b.leads.Load); took > 2*renewEvery {
			t.Errorf("it took %v to take over from one that let go", took)
		}
		if n := store.lease.Spec.LeaseTransitions; *n != 1 && *n != 2 {
			t.Errorf("%d transitions are written down", *n)
		}
		b.end()
		if got := holderOf(store.lease); got != "" {
			t.Errorf("nobody is left, and %q holds the lease", got)
		}
	})
}

func TestOneThatCantRenewStepsDownBeforeAnotherLeads(t *testing.T) {
	for _, how := range []string{"refused", "hangs", "answers are lost"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				store, c := &memoryLeases{}, &candidates{t: t}
				a := c.start(store, "a")
				until(t, time.Second, "a leads", a.leads.Load)
				b := c.start(store, "b")
				time.Sleep(time.Minute)
				switch how {
				case "refused":
					a.cut.Store(true)
				case "hangs":
					a.hang.Store(true)
				default:
					// Its writes arrive, so it may go on; it must not lose itself in it.
					a.deaf.Store(true)
					time.Sleep(time.Minute)
					if c.leading.Load() > 1 {
						t.Fatal("both lead")
					}
					a.deaf.Store(false)
					until(t, 2*leaseTime, "somebody leads", func() bool { return c.leading.Load() == 1 })
					a.end()
					b.end()
					return
				}
				down := until(t, leadTime, "a steps down", func() bool { return !a.leads.Load() })
				up := until(t, leaseTime, "b leads", b.leads.Load)
				// b looks twice: when it sees the last write, and when that is old enough.
				if look := renewEvery * 5 / 4; down+up > leaseTime+2*look+100*time.Millisecond {
					t.Errorf("nobody led for long: a stepped down after %v, b led %v later", down, up)
				}
				a.cut.Store(false)
				a.hang.Store(false)
				time.Sleep(time.Minute)
				if a.leads.Load() || !b.leads.Load() {
					t.Error("the old leader is back and leads")
				}
				a.end()
				b.end()
			})
		})
	}
}

func TestOneThatWasKilledIsFollowedAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, c := &memoryLeases{}, &candidates{t: t}
		a := c.start(store, "a")
		until(t, time.Second, "a leads", a.leads.Load)
		b := c.start(store, "b")
		time.Sleep(time.Minute)
		a.cut.Store(true) // it can't let go
		a.end()
		if took := until(t, 2*leaseTime, "b leads", b.leads.Load); took < leaseTime-renewEvery-renewEvery/2 {
			t.Errorf("b did not wait for the lease's time: %v", took)
		}
		b.end()
	})
}

func TestManyCandidatesOneLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, c := &memoryLeases{}, &candidates{t: t}
		var all []*candidate
		for i := range 7 {
			all = append(all, c.start(store, "r"+strconv.Itoa(i)))
		}
		for range 20 {
			until(t, 2*leaseTime, "somebody leads", func() bool { return c.leading.Load() == 1 })
			for i, p := range all {
				if !p.leads.Load() {
					continue
				}
				if i%2 == 0 {
					p.hang.Store(true)
					until(t, leadTime, "it steps down", func() bool { return !p.leads.Load() })
					p.hang.Store(false)
				} else {
					p.end()
					all[i] = c.start(store, "again"+strconv.Itoa(i))
				}
			}
		}
		// The lease is deleted behind everybody's back.
		store.mu.Lock()
		store.lease = nil
		store.mu.Unlock()
		time.Sleep(time.Minute)
		if n := c.leading.Load(); n != 1 {
			t.Errorf("%d lead after the lease was deleted", n)
		}
		for _, p := range all {
			p.end()
		}
	})
}
