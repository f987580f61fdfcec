package accounts

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
)

// recheckEvery bounds how long a request outlives the end of a key, or a change
// that this server did not hear of.
const recheckEvery = 5 * time.Second

// held has the requests that are under way: a stream may last for hours, and
// must not outlive the rights that it was opened with.
type held struct {
	changed chan struct{} // has room for one: rights changed

	mu  sync.Mutex
	all map[*holding]struct{}
}

type holding struct {
	who    identity.Principal
	verify func(context.Context) (identity.Principal, error)
	cancel context.CancelCauseFunc
}

func (h *held) init() {
	h.changed, h.all = make(chan struct{}, 1), map[*holding]struct{}{}
}

func (h *held) poke() {
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// rechecking marks that nobody asks for anything: a stream that is open keeps
// no browser signed in.
type rechecking struct{}

func used(ctx context.Context) bool { return ctx.Value(rechecking{}) == nil }

var errRights = errdefs.New(errdefs.ErrUnauthenticated, "rights-changed", "Your rights changed.").WithHint("Ask again.")

// Hold gives a context for a request of somebody, which ends when verify no
// longer says the same of him. Call release when the request is over.
func (s *Service) Hold(ctx context.Context, who identity.Principal, verify func(context.Context) (identity.Principal, error)) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	entry := &holding{who, verify, cancel}
	s.held.mu.Lock()
	s.held.all[entry] = struct{}{}
	s.held.mu.Unlock()
	return ctx, func() {
		s.held.mu.Lock()
		delete(s.held.all, entry)
		s.held.mu.Unlock()
		cancel(nil)
	}
}

// recheck ends the requests of those whose rights are not what they were.
func (s *Service) recheck() {
	s.held.mu.Lock()
	list := make([]*holding, 0, len(s.held.all))
	for h := range s.held.all {
		list = append(list, h)
	}
	s.held.mu.Unlock()
	ctx := context.WithValue(s.ctx, rechecking{}, true)
	for _, h := range list {
		now, err := h.verify(ctx)
		switch {
		case errors.Is(err, errdefs.ErrUnauthenticated):
			h.cancel(err)
		case err != nil: // the database is away: the next time
		case now.Role != h.who.Role || now.Org != h.who.Org || now.Operator != h.who.Operator || !slices.Equal(now.Scopes, h.who.Scopes):
			h.cancel(errRights)
		}
	}
}

// Held tells how many requests by a key are under way.
func (s *Service) Held(key string) (n int) {
	s.held.mu.Lock()
	defer s.held.mu.Unlock()
	for h := range s.held.all {
		if h.who.Key == key {
			n++
		}
	}
	return n
}
