package session

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/store"
)

// Files keeps the files of sessions beyond the life of a sandbox.
type Files interface {
	// Restore puts a session's files into a fresh sandbox.
	Restore(ctx context.Context, sessionID string, sb *fleet.Sandbox) error
	// Sync keeps what changed in the sandbox and says what did.
	Sync(ctx context.Context, sessionID string, sb *fleet.Sandbox) ([]v1.FileChange, error)
	// Copy gives a session the files of another.
	Copy(ctx context.Context, from, to string) error
	// Forget drops a session's files.
	Forget(ctx context.Context, sessionID string) error
}

// Options configures a Service. The zero value is fit for use.
type Options struct {
	Files        Files             // nil: files live as long as their sandbox
	DefaultModel func() string     // model of a session that names none; nil: none
	PurgeAfter   time.Duration     // a deleted session can be restored so long; default 24 h
	EvictAfter   time.Duration     // a session nobody reads leaves memory after; default 10 min
	MaxResting   int               // beyond so many that nobody reads, the longest unused leave after a tenth of that; default 64
	Replicas     *replica.Registry // of this installation; nil: there is one server and all sessions are its own
	EventBytes   int64             // events kept for readers that come back, in each session; default 16 MiB
	Logger       *slog.Logger      // default: discard
}

// Service has the sessions of an installation.
type Service struct {
	fleet *fleet.Fleet
	store *store.Store
	opts  Options
	log   *slog.Logger

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	work   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	live    map[string]*Session
	loading map[string]*loading
	purged  map[string]bool // never to be loaded again
	taken   func(*Session)  // see WhenTaken
	naming  sync.Mutex      // held while a client's session is found or made

	list notifier // the list of sessions changed
}

// loading is a session on its way into memory.
type loading struct {
	done chan struct{}
	s    *Session
	err  error
}

var errClosed = errdefs.New(errdefs.ErrUnavailable, "server-stopping", "The server is stopping.").
	WithHint("Try again in a few seconds; nothing is lost.")

// New takes over what an earlier process left: runs that go on in their
// sandbox are followed, everything else that was under way is marked as cut.
func New(ctx context.Context, fl *fleet.Fleet, st *store.Store, opts Options) (*Service, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.PurgeAfter == 0 {
		opts.PurgeAfter = 24 * time.Hour
	}
	if opts.EvictAfter == 0 {
		opts.EvictAfter = 10 * time.Minute
	}
	if opts.MaxResting <= 0 {
		opts.MaxResting = 64
	}
	if opts.EventBytes <= 0 {
		opts.EventBytes = keptBytes
	}
	svc := &Service{fleet: fl, store: st, opts: opts, log: opts.Logger, live: map[string]*Session{}, loading: map[string]*loading{}, purged: map[string]bool{}}
	svc.list.init(opts.Replicas != nil)
	svc.ctx, svc.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	if opts.Replicas == nil { // else as this one gets to own them: Take
		open, err := st.OpenSessions(ctx)
		if err != nil {
			return nil, err
		}
		for _, id := range open {
			if _, err := svc.Get(ctx, id); err != nil {
				svc.log.Error("a session can't be taken over", "session_id", id, "err", err)
			}
		}
	}
	fl.Farewell(svc.farewell)
	svc.background(svc.janitor)
	if opts.Replicas != nil {
		svc.shareList()
	}
	return svc, nil
}

// Close lets go of all sessions. Runs and sandboxes go on for the next process.
func (svc *Service) Close() error {
	svc.opts.Replicas.Retire()
	svc.mu.Lock()
	svc.closed = true
	svc.mu.Unlock()
	svc.fleet.Farewell(nil)
	for _, s := range svc.inMemory() {
		s.apply(func() {
			if s.turn != nil {
				s.turn.finishLocked("cut", "server-restarted", cutTurn)
			}
		})
	}
	svc.cancel(errClosed)
	svc.work.Wait()
	for _, s := range svc.inMemory() {
		_ = s.settled() // what can't be written was logged
		s.log.Close(errClosed)
	}
	return nil
}

func (svc *Service) inMemory() []*Session {
	svc.mu.Lock()
	defer svc.mu.Unlock()
	return slices.Collect(maps.Values(svc.live))
}

// background runs fn in a goroutine that Close waits for.
func (svc *Service) background(fn func()) bool {
	svc.mu.Lock()
	defer svc.mu.Unlock()
	if svc.closed {
		return false
	}
	svc.work.Go(fn)
	return true
}

// Get finds a session, also a deleted one. It must be this replica's, or
// nobody's.
func (svc *Service) Get(ctx context.Context, id string) (*Session, error) {
	if svc.opts.Replicas != nil && sessionID.MatchString(id) {
		if err := svc.opts.Replicas.Take(ctx, id); err != nil {
			return nil, err
		}
	}
	return svc.get(ctx, id)
}

// get is Get of a session that is this replica's.
func (svc *Service) get(ctx context.Context, id string) (*Session, error) {
	svc.mu.Lock()
	if svc.closed {
		svc.mu.Unlock()
		return nil, errClosed
	}
	if svc.purged[id] {
		svc.mu.Unlock()
		return nil, errGone(id)
	}
	if s := svc.live[id]; s != nil {
		svc.mu.Unlock()
		s.touch()
		return s, nil
	}
	l := svc.loading[id]
	mine := l == nil
	if mine {
		l = &loading{done: make(chan struct{})}
		svc.loading[id] = l
	}
	svc.mu.Unlock()
	if !mine {
		select {
		case <-l.done:
			return l.s, l.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	l.s, l.err = svc.read(context.WithoutCancel(ctx), id)
	if l.err == nil {
		l.s.takeOver()
	}
	svc.mu.Lock()
	delete(svc.loading, id)
	switch {
	case l.err == nil && svc.purged[id]: // meanwhile
		l.s.cancel(errGone(id))
		l.s, l.err = nil, errGone(id)
	case l.err == nil:
		svc.live[id] = l.s
	}
	svc.mu.Unlock()
	close(l.done)
	return l.s, l.err
}

func (svc *Service) read(ctx context.Context, id string) (*Session, error) {
	row, err := svc.store.Session(ctx, id)
	if err != nil {
		return nil, err
	}
	return svc.load(ctx, row)
}

// drop takes a session out of memory.
func (svc *Service) drop(s *Session) {
	svc.mu.Lock()
	defer svc.mu.Unlock()
	if svc.live[s.id] == s {
		delete(svc.live, s.id)
	}
}

// Limits of what people name.
const (
	maxTitle    = 200
	maxClientID = 128
)

// Create makes a session, which is whose the context is.
func (svc *Service) Create(ctx context.Context, req v1.CreateSession) (*Session, error) {
	return svc.create(ctx, req, "", nil)
}

func (svc *Service) create(ctx context.Context, req v1.CreateSession, clientID string, fill func(*Session)) (*Session, error) {
	if err := svc.checkTemplate(req.Template); err != nil {
		return nil, err
	}
	title, err := cleanTitle(req.Title)
	if err != nil {
		return nil, err
	}
	templates, def := svc.fleet.Templates()
	if req.Template == "" {
		req.Template = def
	}
	now := time.Now().UTC().Truncate(time.Microsecond)
	view := v1.Session{
		ID: "ses_" + sandbox.RandomSuffix(), Title: title, Template: req.Template,
		Sandbox: v1.SessionSandbox{State: "none", Limits: v1.Limits(templates[req.Template].Limits)},
		Queue:   []v1.QueuedMessage{}, CreatedAt: now, UpdatedAt: now,
	}
	switch {
	case req.Model != nil:
		view.Model = *req.Model
	case svc.opts.DefaultModel != nil:
		view.Model = svc.opts.DefaultModel()
	}
	owner := identity.From(ctx).Owner()
	row := store.Session{ID: view.ID, ClientID: clientID, OwnerUser: owner.User, OwnerOrg: owner.Org, Title: title, CreatedAt: now, UpdatedAt: now, View: encode(view), State: encode(state{Auto: title == ""})}
	if err := svc.opts.Replicas.Make(ctx, row.ID); err != nil {
		return nil, err
	}
	s, err := svc.load(ctx, row)
	if err != nil {
		return nil, err
	}
	svc.mu.Lock()
	if svc.closed {
		svc.mu.Unlock()
		return nil, errClosed
	}
	svc.live[s.id] = s
	svc.mu.Unlock()
	if err := s.do(func() error {
		s.changedLocked()
		if fill != nil {
			fill(s)
		}
		return nil
	}); err != nil {
		svc.drop(s)
		return nil, err
	}
	svc.list.notify(s.owner)
	return s, nil
}

func (svc *Service) checkTemplate(name string) error {
	templates, _ := svc.fleet.Templates()
	if _, ok := templates[name]; ok || name == "" {
		return nil
	}
	return errdefs.New(errdefs.ErrInvalid, "template-unknown", "There is no template %q.", name).
		WithHint("GET /v1/info lists the templates.")
}

func cleanTitle(title string) (string, error) {
	title = strings.Join(strings.Fields(title), " ")
	if utf8.RuneCountInString(title) > maxTitle {
		return "", errdefs.New(errdefs.ErrInvalid, "title-too-long", "The title has more than %d characters.", maxTitle).WithHint("Choose a shorter one.")
	}
	return title, nil
}

// ByClientID finds the session that its client named so, and with create makes
// it if there is none. Everybody has names of his own.
func (svc *Service) ByClientID(ctx context.Context, name string, create bool) (*Session, error) {
	if !goodClientID(name) {
		return nil, errdefs.New(errdefs.ErrInvalid, "invalid-session", "A session id has 1 to %d printable characters.", maxClientID).WithHint("Use a random UUID, for instance.")
	}
	name = ownName(ctx, name)
	svc.naming.Lock()
	defer svc.naming.Unlock()
	row, err := svc.store.SessionByClientID(ctx, name)
	switch {
	case err == nil:
		s, err := svc.Get(ctx, row.ID)
		if err == nil && row.DeletedAt.IsZero() == false && create { //nolint:staticcheck // reads as it is meant
			err = s.Undelete()
		}
		return s, err
	case !errors.Is(err, errdefs.ErrNotFound) || !create:
		return nil, err
	}
	s, err := svc.create(ctx, v1.CreateSession{}, name, nil)
	if err != nil && svc.opts.Replicas != nil {
		// Another replica may have been asked at the same moment.
		if row, e := svc.store.SessionByClientID(ctx, name); e == nil {
			return svc.Get(ctx, row.ID)
		}
	}
	return s, err
}

// ownName gives a client's name of a session as it is kept: with whose it is.
func ownName(ctx context.Context, name string) string {
	if o := identity.From(ctx).Owner(); o != (identity.Owner{}) {
		return o.Org + "/" + o.User + "/" + name
	}
	return name
}

func goodClientID(name string) bool {
	return name != "" && len(name) <= maxClientID && utf8.ValidString(name) && !strings.ContainsFunc(name, func(c rune) bool { return c < 0x20 || c == 0x7f })
}

// ListRequest asks for a page of sessions.
type ListRequest struct {
	Query   string
	Limit   int
	Cursor  string
	Deleted bool
	Filter  *identity.Filter // nil: everybody's
}

const maxPage = 200

// List gives a page of sessions: pinned ones first, then the latest.
func (svc *Service) List(ctx context.Context, req ListRequest) (v1.SessionList, error) {
	if req.Limit <= 0 || req.Limit > maxPage {
		req.Limit = 50
	}
	q := store.List{Query: req.Query, Deleted: req.Deleted, Limit: req.Limit + 1}
	if f := req.Filter; f != nil && !f.All {
		q.Owners = &store.Owners{Org: f.Org, User: f.User, Unowned: f.Unowned}
	}
	if req.Cursor != "" {
		raw, err := base64.RawURLEncoding.DecodeString(req.Cursor)
		if err != nil || json.Unmarshal(raw, &q.After) != nil || q.After.ID == "" {
			return v1.SessionList{}, errdefs.New(errdefs.ErrInvalid, "invalid-cursor", "The cursor is none that this server gave.").
				WithHint("Take it from \"next\" of the page before, or leave it out for the first page.")
		}
	}
	rows, err := svc.store.Sessions(ctx, q)
	if err != nil {
		return v1.SessionList{}, err
	}
	list := v1.SessionList{Sessions: make([]v1.Session, 0, len(rows))}
	if len(rows) > req.Limit {
		rows = rows[:req.Limit]
		last := rows[len(rows)-1]
		list.Next = base64.RawURLEncoding.EncodeToString(encode(store.Place{Pinned: last.Pinned, UpdatedAt: last.UpdatedAt, ID: last.ID}))
	}
	var elsewhere map[string]bool // have a sandbox, maybe of another replica
	if svc.opts.Replicas != nil {
		if elsewhere, err = svc.fleet.WithSandbox(ctx); err != nil {
			return v1.SessionList{}, err
		}
	}
	for _, row := range rows {
		list.Sessions = append(list.Sessions, svc.viewOf(row, elsewhere[row.ID]))
	}
	return list, nil
}

// viewOf gives a session of a list; what its sandbox does now is in memory. Of
// one that another replica may have it is what the row says.
func (svc *Service) viewOf(row store.Session, elsewhere bool) v1.Session {
	svc.mu.Lock()
	s := svc.live[row.ID]
	svc.mu.Unlock()
	if s != nil {
		return s.View()
	}
	var v v1.Session
	_ = json.Unmarshal(row.View, &v) // written by this program
	v.ID, v.LastSeq = row.ID, row.LastSeq
	if v.Sandbox.State != "none" && v.Sandbox.State != "lost" {
		if sb, ok := svc.fleet.BySession(row.ID); ok {
			v.Sandbox = asleep(v.Sandbox, sb)
		} else if !elsewhere || svc.opts.Replicas.Owns(row.ID) {
			v.Sandbox = v1.SessionSandbox{State: "none", Limits: v.Sandbox.Limits}
		}
	}
	return v
}

// janitor evicts sessions that rest and forgets those that were deleted long ago.
func (svc *Service) janitor() {
	every := min(20*time.Second, svc.opts.EvictAfter/2+time.Millisecond, svc.opts.PurgeAfter/2+time.Millisecond)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-svc.ctx.Done():
			return
		case <-tick.C:
		}
		svc.evict(time.Now())
		if err := svc.purge(svc.ctx, time.Now().Add(-svc.opts.PurgeAfter)); err != nil && svc.ctx.Err() == nil {
			svc.log.Warn("deleted sessions can't be forgotten", "err", err)
		}
	}
}

// evict has sessions leave memory that rest, and sooner when they are many: a
// thousand that were each looked at once must not stay for as long as a few.
func (svc *Service) evict(now time.Time) {
	type resting struct {
		s    *Session
		used time.Time
	}
	var rest []resting
	for _, s := range svc.inMemory() {
		if used, idle := s.idle(); idle {
			rest = append(rest, resting{s, used})
		}
	}
	slices.SortFunc(rest, func(a, b resting) int { return a.used.Compare(b.used) })
	for i, r := range rest {
		after := svc.opts.EvictAfter
		if len(rest)-i > svc.opts.MaxResting {
			after /= 10
		}
		r.s.evictIfIdle(now.Add(-after))
	}
}

// purge forgets sessions that were deleted before a time.
func (svc *Service) purge(ctx context.Context, before time.Time) error {
	ids, err := svc.store.DeletedBefore(ctx, before)
	errs := []error{err}
	for _, id := range ids {
		if svc.bury(ctx, id) {
			errs = append(errs, svc.forget(ctx, id))
		}
	}
	return errors.Join(errs...)
}

// bury takes a deleted session out of memory for good, unless it was restored
// meanwhile.
func (svc *Service) bury(ctx context.Context, id string) bool {
	s, err := svc.Get(ctx, id)
	if err != nil {
		svc.mu.Lock()
		defer svc.mu.Unlock()
		return svc.purged[id] // what an earlier try left
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.view.DeletedAt == nil {
		return false
	}
	svc.mu.Lock()
	svc.purged[id] = true
	svc.mu.Unlock()
	s.breakLocked(errGone(id))
	return true
}

func (svc *Service) forget(ctx context.Context, id string) error {
	if svc.opts.Files != nil {
		if err := svc.opts.Files.Forget(ctx, id); err != nil {
			return err
		}
	}
	return svc.store.Purge(ctx, id)
}

func errGone(id string) error { return NotFound(id) }

// NotFound is what is said of a session that is not there, or not there for who
// asks.
func NotFound(id string) error {
	return errdefs.New(errdefs.ErrNotFound, "session-not-found", "There is no session %.80q.", id).WithHint("GET /v1/sessions lists them; a deleted one is forgotten after a day.")
}

func (s *Session) touch() {
	s.mu.Lock()
	s.used = time.Now()
	s.mu.Unlock()
}

// errEvicted is what an old pointer to a session gives.
var errEvicted = errdefs.New(errdefs.ErrConflict, "session-reloaded", "The session was put aside, as nobody used it.").
	WithHint("Try again.")

// idle says whether nobody reads the session and nothing happens in it, and
// when it was used last.
func (s *Session) idle() (used time.Time, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used, s.idleLocked()
}

func (s *Session) idleLocked() bool {
	return s.readers == 0 && !s.openLocked() && s.turn == nil && s.lease.starting == nil && !s.sync.running && s.pending == nil && s.inflight == nil
}

func (s *Session) evictIfIdle(before time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used.After(before) || !s.idleLocked() {
		return
	}
	if s.broken == nil {
		s.broken = errEvicted
		s.log.Close(errEvicted)
		s.cancel(errEvicted)
	}
	s.svc.drop(s)
}
