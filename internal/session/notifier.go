package session

import (
	"sync"

	"github.com/caesarion/caesarion/internal/event"
)

// notifier tells all who wait that there is news; the news has no content.
type notifier struct {
	mu      sync.Mutex
	version int64
	waiting map[*func()]bool
	told    chan struct{} // has room for one: other replicas must hear of it; nil: there are none
}

func (n *notifier) init() { n.waiting = map[*func()]bool{} }

func (n *notifier) notify() {
	n.hear()
	select {
	case n.told <- struct{}{}:
	default: // nobody to tell, or it is about to be told
	}
}

// hear is notify of news that all replicas get.
func (n *notifier) hear() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.version++
	for fn := range n.waiting {
		(*fn)()
	}
	clear(n.waiting)
}

// since gives the version of the news, and has fn called once at newer ones
// unless stop is called before; fn must not wait.
func (n *notifier) since(fn func()) (version int64, stop func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	key := &fn
	n.waiting[key] = true
	return n.version, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.waiting, key)
	}
}

func (n *notifier) current() int64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.version
}

// listNote is the note without a number that the list of sessions changed.
var listNote = event.Record{Type: event.SessionsChanged, Line: []byte(`{"type":"sessions.changed","data":{}}`)}
