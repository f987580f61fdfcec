package replica

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// DefaultTTL is how long a replica that is not heard of keeps what it owns. It
// must outlive a slow database and a pause of the process; a death costs the
// users of that replica as much.
const DefaultTTL = 6 * time.Second

const (
	// foreignFor is how long an owner elsewhere is believed without asking. One
	// that is asked wrongly says so, so this bounds nothing but superfluous hops.
	foreignFor = 10 * time.Second
	// takeTimeout bounds the way of a key: some queries, and a few calls of the
	// agent of its sandbox.
	takeTimeout = 30 * time.Second
	// closeTimeout bounds the last query. Without it others wait for the TTL.
	closeTimeout = 5 * time.Second
)

// Options configures a Registry. Replicas of one installation have the same TTL.
type Options struct {
	ID      string        // of this process, see NewID
	Address string        // host:port at which other replicas reach it
	TTL     time.Duration // default DefaultTTL
	Logger  *slog.Logger  // default: discard

	sweepEvery, unusedFor time.Duration // for tests
}

// NewID makes the id of a process: its name, for people, and something that no
// other process has, not even the one that comes after it in the same place.
func NewID(name string) string { return name + "/" + sandbox.RandomSuffix()[:10] }

// Owner is the replica that has a key.
type Owner struct {
	ID      string
	Address string
	Mine    bool
}

// Holder has what this replica owns.
type Holder interface {
	// Take adopts what is there under keys that have just become this replica's:
	// sandboxes with their executions, sessions in which something runs. It calls
	// done once for each key, from any goroutine, and returns after the last.
	// Requests for a key wait for that; with an error it is tried again.
	Take(ctx context.Context, keys []string, done func(key string, err error))
	// Holds reports whether there is something under a key that needs an owner.
	Holds(key string) bool
	// Keys lists what needs an owner in the whole installation.
	Keys(ctx context.Context) ([]Record, error)
	// Maker gives the replica that makes what is under a key, or has made it, by
	// its own record; "" if there is none.
	Maker(ctx context.Context, key string) string
}

// Record is what something says of itself: the key that it is owned by, and the
// replica that makes it, or has made it or taken it over. From the first moment
// on it is that replica's as long as it lives, also while there is no row of
// owners for it yet.
type Record struct {
	Key   string
	Maker string // "": made before there were replicas
}

// Registry says which replica of the server owns what. A nil *Registry owns
// everything (one machine).
type Registry struct {
	db    *sql.DB
	opts  Options
	log   *slog.Logger
	epoch time.Time // what now counts from

	until  atomic.Int64  // now up to which this replica may serve
	held   sync.Map      // key → *entry: what is ours
	fenced chan struct{} // closed when another declared this replica dead

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	work   sync.WaitGroup
	batch  chan struct{} // bounds the batches that are taken over at once

	mu      sync.Mutex
	closed  bool
	retired bool
	holder  Holder        // nil until Start
	since   int64         // now since when it was fresh without a break
	grace   time.Duration // from then on, until it may declare others dead
	seen    time.Time     // when the database heard of it last, by its clock
	lapse   *time.Timer
	term    context.Context
	end     context.CancelCauseFunc // of term
	flights map[string]*flight
	foreign map[string]foreign
	peers   map[string]*peer
	again   map[string]bool // ours by the table, dropped from memory: to be taken again
	mourned bool            // somebody was declared dead since the last look at what has no owner
}

// entry is a key that is ours.
type entry struct {
	since int64        // now when it became ours
	used  atomic.Int64 // now of the last question
}

func (r *Registry) newEntry() *entry {
	e := &entry{since: r.now()}
	e.used.Store(e.since)
	return e
}

// flight is a key whose owner is being found, taken or released.
type flight struct {
	done  chan struct{}
	owner Owner
	err   error
	again bool // ask anew
}

// foreign is an owner elsewhere, believed for a moment.
type foreign struct {
	owner Owner
	until int64
}

// peer is another replica that lives.
type peer struct {
	life context.Context // ends with it
	end  context.CancelFunc
}

var (
	errStale = errdefs.New(errdefs.ErrUnavailable, "replica-stale", "This replica of the server has lost contact with the database.").
			WithHint("Try again in a few seconds: it comes back, or another takes over.")
	errFenced = errdefs.New(errdefs.ErrUnavailable, "replica-fenced", "This replica of the server was away for too long, and others have taken over.").
			WithHint("Try again: another replica answers.")
	errClosed = errdefs.New(errdefs.ErrUnavailable, "server-stopping", "The server is stopping.").
			WithHint("Try again in a few seconds; nothing is lost.")
	errElsewhere = errdefs.New(errdefs.ErrUnavailable, "session-elsewhere", "Another replica of the server has this.").
			WithHint("Try again.")
	errDead = errors.New("replica: declared dead")
)

// CodeStarting is of the error with which a Holder says that what is there under
// a key is still being made, by this replica: it can be asked for when that is
// done.
const CodeStarting = "sandbox-starting"

// Open makes this process a replica. ctx bounds the start only.
func Open(ctx context.Context, db *sql.DB, opts Options) (*Registry, error) {
	if opts.TTL <= 0 {
		opts.TTL = DefaultTTL
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.sweepEvery <= 0 {
		opts.sweepEvery, opts.unusedFor = time.Minute, 10*time.Minute
	}
	if opts.ID == "" || opts.Address == "" {
		return nil, errdefs.New(errdefs.ErrInvalid, "replica-nameless", "A replica needs an id and an address that others reach.")
	}
	r := &Registry{
		db: db, opts: opts, log: opts.Logger, epoch: time.Now(), fenced: make(chan struct{}), batch: make(chan struct{}, 4),
		flights: map[string]*flight{}, foreign: map[string]foreign{}, peers: map[string]*peer{}, again: map[string]bool{},
	}
	r.ctx, r.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	sent := r.now()
	if err := r.register(ctx); err != nil {
		return nil, err
	}
	r.lapse = time.AfterFunc(opts.TTL, r.lapsed)
	r.renewed(sent)
	r.work.Go(r.beat)
	return r, nil
}

// ID gives the id of this process; "" without replicas.
func (r *Registry) ID() string {
	if r == nil {
		return ""
	}
	return r.opts.ID
}

// now is the monotonic clock of this process. It is compared with itself only.
func (r *Registry) now() int64 { return int64(time.Since(r.epoch)) }

// Ready says why this replica can't serve, if it can't.
func (r *Registry) Ready() error {
	if r == nil || r.now() < r.until.Load() {
		return nil
	}
	select {
	case <-r.fenced:
		return errFenced
	default:
	}
	if r.ctx.Err() != nil {
		return errClosed
	}
	return errStale
}

// TakeOver is how long it takes at most until what a replica had that just died
// can be taken.
func (r *Registry) TakeOver() time.Duration { return r.opts.TTL * 3 / 2 }

// Fenced is closed when this replica was away for so long that another declared
// it dead. Nothing that it has is its own any more: the process should end.
func (r *Registry) Fenced() <-chan struct{} {
	if r == nil {
		return nil
	}
	return r.fenced
}

// Term gives a context that ends when others may have taken what this replica
// has: after TTL without contact to the database. A new one begins when it is
// back. Streams must not outlive it, as they may miss what happens elsewhere.
func (r *Registry) Term() context.Context {
	if r == nil {
		return context.Background()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.term
}

// Life gives a context that ends with another replica.
func (r *Registry) Life(id string) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peerLocked(id).life
}

func (r *Registry) peerLocked(id string) *peer {
	p := r.peers[id]
	if p == nil { // it came after the last look at the table
		p = &peer{}
		p.life, p.end = context.WithCancel(r.ctx)
		r.peers[id] = p
	}
	return p
}

// Owns reports whether a key is this replica's and may be acted on now. It
// looks into memory only.
func (r *Registry) Owns(key string) bool {
	if r == nil {
		return true
	}
	_, ok := r.held.Load(key)
	return ok && r.now() < r.until.Load()
}

// Own gives the owner of a key: this replica, if nobody alive has it. What is
// there under a key that this call makes ours is adopted before it returns.
func (r *Registry) Own(ctx context.Context, key string) (Owner, error) {
	if r == nil {
		return Owner{Mine: true}, nil
	}
	for {
		now := r.now()
		if now >= r.until.Load() {
			return Owner{}, r.Ready()
		}
		if e, ok := r.held.Load(key); ok {
			e.(*entry).used.Store(now) //nolint:forcetypeassert // nothing else is stored
			return r.me(), nil
		}
		f, owner := r.flight(key)
		if f == nil {
			if owner.ID == "" {
				continue // ours meanwhile
			}
			return owner, nil
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return Owner{}, context.Cause(ctx)
		}
		if !f.again {
			return f.owner, f.err
		}
	}
}

// Take makes a key this replica's, or fails.
func (r *Registry) Take(ctx context.Context, key string) error {
	o, err := r.Own(ctx, key)
	if err == nil && !o.Mine {
		return errElsewhere
	}
	return err
}

// Make makes the key of something new this replica's: there is nothing under it
// to adopt.
func (r *Registry) Make(ctx context.Context, key string) error {
	if r == nil {
		return nil
	}
	if err := r.Ready(); err != nil {
		return err
	}
	r.mu.Lock()
	retired := r.retired
	r.mu.Unlock()
	if retired {
		return errClosed
	}
	o, err := r.claim(ctx, key, r.opts.ID)
	if err == nil && !o.Mine {
		err = errElsewhere
	}
	if err != nil {
		return err
	}
	r.held.Store(key, r.newEntry())
	return r.Ready()
}

func (r *Registry) me() Owner { return Owner{ID: r.opts.ID, Address: r.opts.Address, Mine: true} }

// flight gives the way of a key to wait for, begun if need be; nil with what is
// remembered, or without it if the key is ours.
func (r *Registry) flight(key string) (*flight, Owner) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f := r.flights[key]; f != nil {
		return f, Owner{}
	}
	if _, ok := r.held.Load(key); ok {
		return nil, Owner{}
	}
	if o, ok := r.foreign[key]; ok && r.now() < o.until && r.peers[o.owner.ID] != nil {
		return nil, o.owner
	}
	f := r.beginLocked(key)
	if r.closed || r.retired {
		r.landLocked(key, f, Owner{}, errClosed)
		return f, Owner{}
	}
	r.work.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, takeTimeout)
		defer cancel()
		maker := ""
		if h := r.holding(); h != nil {
			maker = h.Maker(ctx, key)
		}
		owner, err := r.claim(ctx, key, maker)
		if err == nil && owner.Mine {
			r.adopt(ctx, map[string]*flight{key: f})
			return
		}
		r.land(key, f, owner, err)
	})
	return f, Owner{}
}

func (r *Registry) beginLocked(key string) *flight {
	f := &flight{done: make(chan struct{})}
	r.flights[key] = f
	return f
}

// land ends the way of a key and remembers what came of it.
func (r *Registry) land(key string, f *flight, owner Owner, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.landLocked(key, f, owner, err)
}

func (r *Registry) landLocked(key string, f *flight, owner Owner, err error) {
	delete(r.flights, key)
	delete(r.foreign, key)
	f.owner, f.err = owner, err
	switch {
	case err != nil && owner.Mine:
		f.owner = Owner{}
		r.again[key] = true
	case err != nil:
	case owner.Mine && r.now() >= r.until.Load():
		f.owner, f.again = Owner{}, true // the answer comes too late to be acted on
		fallthrough
	case owner.Mine:
		r.held.Store(key, r.newEntry())
	default:
		if len(r.foreign) >= maxForeign {
			clear(r.foreign)
		}
		r.peerLocked(owner.ID)
		r.foreign[key] = foreign{owner, r.now() + int64(foreignFor)}
	}
	close(f.done)
}

// maxForeign bounds what is remembered of others, some 100 bytes each.
const maxForeign = 50_000

// adopt has the holder take what is there under keys that are ours now, and
// lands each as it is done.
func (r *Registry) adopt(ctx context.Context, flights map[string]*flight) {
	h := r.holding()
	done := func(key string, err error) {
		if err != nil && errdefs.CodeOf(err) != CodeStarting {
			r.log.Warn("what is there under a key of this replica can't be taken over", "key", key, "err", err)
			err = errdefs.New(errdefs.ErrUnavailable, "takeover-failed", "This replica of the server could not take over what another had.").
				WithHint("Try again in a few seconds.").WithCause(err)
		}
		r.land(key, flights[key], r.me(), err)
	}
	if h != nil {
		h.Take(ctx, slices.Sorted(maps.Keys(flights)), done)
		return
	}
	for key := range flights {
		done(key, nil)
	}
}

func (r *Registry) holding() Holder {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.holder
}

// Forget drops what is remembered of a key. One that was ours is taken again,
// if the table still says so.
func (r *Registry) Forget(key string) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.foreign, key)
	if _, ours := r.held.LoadAndDelete(key); ours {
		r.again[key] = true
	}
}

// Start begins to look after what nobody has, and returns after the first round:
// keys of dead replicas, and what the holder knows without an owner.
func (r *Registry) Start(ctx context.Context, h Holder) {
	if r == nil {
		return
	}
	r.mu.Lock()
	r.holder = h
	r.mu.Unlock()
	r.round(ctx)
	r.strays(ctx)
	r.work.Go(r.look)
}

// Retire has this replica take nothing more: it is about to close. What it has
// it keeps until then.
func (r *Registry) Retire() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.retired = true
}

// Close gives up all keys: others take them over at once, with what runs there.
// What has them must be closed before.
func (r *Registry) Close() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	r.mu.Unlock()
	r.until.Store(0)
	r.cancel(errClosed)
	r.lapse.Stop()
	r.work.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_, err := r.db.ExecContext(ctx, `DELETE FROM replicas WHERE id=$1`, r.opts.ID)
	return err
}
