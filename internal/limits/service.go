package limits

import (
	"cmp"
	"context"
	"log/slog"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/store"
)

// Person is what rules may name a user by.
type Person struct {
	Email string
	Roles map[string]identity.Role // by the ids of organisations
}

// Directory is who there is.
type Directory struct {
	People        map[string]Person // by id
	Organisations map[string]string // names by id
}

// Options configures a Service. The zero value counts and limits nothing.
type Options struct {
	Rules     Rules
	Replicas  bool                                     // other servers count in the same store
	Directory func(context.Context) (Directory, error) // nil: users have ids only
	Logger    *slog.Logger                             // default: discard

	now func() time.Time // for tests
}

// Service counts and limits what is used. Its methods may be called
// concurrently.
type Service struct {
	store *store.Store
	opts  Options
	log   *slog.Logger

	owners sync.Map // identity.Owner → *pair
	dir    atomic.Pointer[Directory]
	learn  chan struct{} // has room for one: somebody is not in the directory

	queue      queue
	soon, asap chan struct{} // have room for one: there is something to exchange
	exchanging sync.Mutex    // held during an exchange; guards cleared
	cleared    time.Time

	ctx  context.Context //nolint:containedctx // ends with Close
	stop context.CancelFunc
	work sync.WaitGroup
}

// queue is the counters that have something to exchange. Its lock is taken
// while a counter's is held, never the other way round.
type queue struct {
	mu   sync.Mutex
	list []*counter
	held map[*counter]struct{} // have set something aside
}

// subject is a user in an organisation, or an organisation.
type subject struct {
	key      string
	owner    identity.Owner
	scope    Scope
	rules    atomic.Pointer[resolved]
	counters []*counter // as counted
}

// resolved is what the rules say of a subject.
type resolved struct {
	Set
	counted []int64 // as counted
}

func (x *subject) most(name Name) int64 { return x.rules.Load().of(name) }

// pair is whom something is counted for.
type pair struct {
	user *subject
	org  *subject // nil: none
}

func (p *pair) subjects() []*subject {
	if p.org == nil {
		return []*subject{p.user}
	}
	return []*subject{p.user, p.org}
}

// New reads what was used in the windows that last.
func New(ctx context.Context, st *store.Store, opts Options) (*Service, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.now == nil {
		opts.now = time.Now
	}
	s := &Service{
		store: st, opts: opts, log: opts.Logger, learn: make(chan struct{}, 1), soon: make(chan struct{}, 1), asap: make(chan struct{}, 1),
		queue: queue{held: map[*counter]struct{}{}},
	}
	if err := s.readDirectory(ctx); err != nil {
		return nil, err
	}
	if err := s.load(ctx); err != nil {
		return nil, err
	}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	s.work.Go(s.run)
	s.work.Go(s.follow)
	return s, nil
}

// Close gives back what is set aside and writes what waits. The store is the
// caller's to close.
func (s *Service) Close() error {
	s.stop()
	s.work.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return s.exchange(ctx, true)
}

// of finds whom something of an owner is counted for.
func (s *Service) of(owner identity.Owner) *pair {
	if p, ok := s.owners.Load(owner); ok {
		return p.(*pair) //nolint:forcetypeassert // nothing else is in it
	}
	p := &pair{user: s.newSubject("user/"+owner.Org+"/"+owner.User, owner, User)}
	if owner.Org != "" {
		p.org = s.organisation(owner.Org)
	}
	kept, known := s.owners.LoadOrStore(owner, p)
	if dir := s.dir.Load(); !known && s.opts.Directory != nil && owner.User != "" {
		if _, there := dir.People[owner.User]; !there {
			poke(s.learn)
		}
	}
	return kept.(*pair) //nolint:forcetypeassert // see above
}

// organisation gives the one subject of an organisation, which all of its users
// share: it stands under an owner without a user.
func (s *Service) organisation(id string) *subject {
	key := identity.Owner{Org: id}
	p, ok := s.owners.Load(key)
	if !ok {
		p, _ = s.owners.LoadOrStore(key, &pair{user: s.newSubject("org/"+id, key, Organisation)})
	}
	return p.(*pair).user //nolint:forcetypeassert // see of
}

func (s *Service) newSubject(key string, owner identity.Owner, scope Scope) *subject {
	x := &subject{key: key, owner: owner, scope: scope, counters: make([]*counter, len(counted))}
	for i := range counted {
		x.counters[i] = &counter{subject: x, kind: &counted[i]}
	}
	x.rules.Store(s.resolve(owner, scope))
	return x
}

// resolve applies the rules to a subject.
func (s *Service) resolve(owner identity.Owner, scope Scope) *resolved {
	rules, dir := s.opts.Rules, s.dir.Load()
	var set Set
	if scope == Organisation {
		set = rules.Organisations[Any]
		for _, name := range []string{dir.Organisations[owner.Org], owner.Org} {
			if own, ok := rules.Organisations[name]; ok && name != "" && name != Any {
				set = own
			}
		}
	} else {
		who := dir.People[owner.User]
		set = rules.Default.over(rules.Roles[string(who.Roles[owner.Org])])
		for _, name := range []string{who.Email, cmp.Or(owner.User, Local)} {
			if own, ok := rules.Users[name]; ok && name != "" {
				set = set.over(own)
			}
		}
	}
	r := &resolved{Set: set, counted: make([]int64, len(counted))}
	for i, k := range counted {
		r.counted[i] = set.of(k.name)
	}
	return r
}

func (s *Service) readDirectory(ctx context.Context) error {
	if s.dir.Load() == nil {
		s.dir.Store(&Directory{})
	}
	if s.opts.Directory == nil || !s.opts.Rules.named() {
		return nil
	}
	dir, err := s.opts.Directory(ctx)
	if err != nil {
		return err
	}
	s.dir.Store(&dir)
	s.owners.Range(func(_, value any) bool {
		for _, x := range value.(*pair).subjects() { //nolint:forcetypeassert // see of
			x.rules.Store(s.resolve(x.owner, x.scope))
		}
		return true
	})
	return nil
}

const (
	// directoryEvery is how long a change of a role or a name may be missed.
	directoryEvery = 30 * time.Second
	// directoryRest is the least time between two looks, however many are new.
	directoryRest = time.Second
)

// follow learns who there is.
func (s *Service) follow() {
	if s.opts.Directory == nil || !s.opts.Rules.named() {
		return
	}
	tick := time.NewTicker(directoryEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-tick.C:
		case <-s.learn:
		}
		if err := s.readDirectory(s.ctx); err != nil && s.ctx.Err() == nil {
			s.log.Warn("users can't be read: their limits stay as they are", "err", err)
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(directoryRest):
		}
	}
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// Holding is what somebody has at a moment.
type Holding struct {
	Sandboxes              int64 // awake
	MemoryBytes, DiskBytes int64 // that they may take
}

// Held is what a user has, and his whole organisation with him.
type Held struct{ User, Organisation Holding }

// Hold says whether somebody may have more beside what he has.
func (s *Service) Hold(owner identity.Owner, more Holding, held Held) error {
	for _, x := range s.of(owner).subjects() {
		has := held.User
		if x.scope == Organisation {
			has = held.Organisation
		}
		for i, v := range [...]struct{ more, has int64 }{{more.Sandboxes, has.Sandboxes}, {more.MemoryBytes, has.MemoryBytes}, {more.DiskBytes, has.DiskBytes}} {
			most := x.most(kinds[i].name) // Sandboxes, Memory, Disk
			if v.more > 0 && most != Unlimited && v.has+v.more > most {
				return refuse(kinds[i], x.scope, v.has, most, v.more, s.opts.now())
			}
		}
	}
	return nil
}

// Create counts n sandboxes that somebody asks for.
func (s *Service) Create(ctx context.Context, owner identity.Owner, n int) error {
	return s.take(ctx, owner, atCreates, int64(n))
}

// Execute counts an execution that somebody asks for. Where the limit leaves
// room it costs some hundred nanoseconds.
func (s *Service) Execute(ctx context.Context, owner identity.Owner) error {
	if err := s.spent(owner, atCPU); err != nil {
		return err
	}
	return s.take(ctx, owner, atExecutions, 1)
}

// MayExecute says whether an execution would be refused now. It counts none.
func (s *Service) MayExecute(owner identity.Owner) error {
	if err := s.spent(owner, atCPU); err != nil {
		return err
	}
	return s.spent(owner, atExecutions)
}

// UsedCPU counts CPU time that sandboxes of somebody used, and says whether
// there is more.
func (s *Service) UsedCPU(owner identity.Owner, d time.Duration) error {
	s.add(owner, atCPU, d.Milliseconds())
	return s.spent(owner, atCPU)
}

// MayAsk says whether somebody has tokens of language models left.
func (s *Service) MayAsk(owner identity.Owner) error { return s.spent(owner, atTokens) }

// Asked counts tokens that an answer took.
func (s *Service) Asked(owner identity.Owner, tokens int64) { s.add(owner, atTokens, tokens) }

// Traffic counts bytes that passed, and says whether more may.
func (s *Service) Traffic(owner identity.Owner, n int64) error {
	s.add(owner, atEgress, n)
	return s.spent(owner, atEgress)
}

// UploadMost gives the size of the largest file that somebody may upload, or
// Unlimited.
func (s *Service) UploadMost(owner identity.Owner) int64 { return s.of(owner).user.most(UploadSize) }

// Upload says whether somebody may upload a file with this name and size; a
// size below 0 is not known yet.
func (s *Service) Upload(owner identity.Owner, name string, size int64) error {
	x := s.of(owner).user
	types := x.rules.Load().UploadTypes
	base := strings.ToLower(path.Base(name))
	if len(types) > 0 && !slices.ContainsFunc(types, func(t string) bool { return strings.HasSuffix(base, t) && base != t }) {
		return &Error{Limit: "upload_types", Scope: User, Err: errdefs.New(errdefs.ErrInvalid, "limit-upload-type", "You may not upload %.80q: its type is not among those that are allowed.", path.Base(name)).
			WithHint("Allowed are %s.", strings.Join(types, ", "))}
	}
	if most := x.most(UploadSize); most != Unlimited && size > most {
		return TooLarge(size, most)
	}
	return nil
}

// TooLarge is the refusal of a file that is larger than most; size 0: nobody
// knows how large it is.
func TooLarge(size, most int64) error {
	what := "It is larger."
	if size > 0 {
		what = "This one has " + bytes(size) + "."
	}
	return &Error{
		Limit: UploadSize, Scope: User, Used: size, Most: most,
		Err: errdefs.New(errdefs.ErrTooLarge, "limit-upload-size", "You may upload files of up to %s. %s", bytes(most), what).
			WithHint("Send it in a smaller form, such as compressed, or ask whoever runs this server for a higher limit."),
	}
}

// takeTries is how often a block is asked for before somebody is refused: each
// time others were faster.
const takeTries = 10

// take admits n for the user and his organisation, or for neither.
func (s *Service) take(ctx context.Context, owner identity.Owner, at int, n int64) error {
	p := s.of(owner)
	if err := s.takeOf(ctx, p.user, at, n); err != nil {
		return err
	}
	if p.org == nil {
		return nil
	}
	err := s.takeOf(ctx, p.org, at, n)
	if err != nil {
		p.user.counters[at].giveBack(s, n)
	}
	return err
}

func (s *Service) takeOf(ctx context.Context, x *subject, at int, n int64) error {
	c, most := x.counters[at], x.rules.Load().counted[at]
	for try := 1; ; try++ {
		wait, used, ok := c.take(s, n, most)
		switch {
		case ok:
			return nil
		case wait == nil || try > takeTries:
			return refuse(*c.kind, x.scope, min(used, most), most, n, s.opts.now())
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ctx.Done():
			return errdefs.New(errdefs.ErrUnavailable, "server-stopping", "The server is stopping.").WithHint("Try again in a few seconds.")
		}
	}
}

func (s *Service) add(owner identity.Owner, at int, n int64) {
	if n <= 0 {
		return
	}
	for _, x := range s.of(owner).subjects() {
		x.counters[at].add(s, n)
	}
}

func (s *Service) spent(owner identity.Owner, at int) error {
	p := s.of(owner)
	for _, x := range [...]*subject{p.user, p.org} {
		if x == nil {
			break
		}
		most := x.rules.Load().counted[at]
		if used, over := x.counters[at].over(s, most); over {
			return refuse(*x.counters[at].kind, x.scope, used, most, 1, s.opts.now())
		}
	}
	return nil
}
