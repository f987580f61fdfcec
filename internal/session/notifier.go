package session

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"

	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/identity"
)

// notifier tells those who may see a session that the list in which it stands
// changed. The news says neither which session nor whose it is.
type notifier struct {
	mu        sync.Mutex
	listeners map[*listener]struct{}
	untold    map[identity.Owner]struct{} // what other replicas must hear of; nil: there are none
	told      chan struct{}               // has room for one: there is something untold
}

// listener is somebody who is told. Its fields are guarded by the notifier.
type listener struct {
	sees func(identity.Owner) bool
	news bool   // that was not taken yet
	wake func() // called at news; must not wait; nil: nobody waits
}

func (n *notifier) init(replicas bool) {
	n.listeners = map[*listener]struct{}{}
	if replicas {
		n.untold, n.told = map[identity.Owner]struct{}{}, make(chan struct{}, 1)
	}
}

// notify tells of a session of an owner.
func (n *notifier) notify(owner identity.Owner) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tellLocked(owner)
	if n.untold == nil {
		return
	}
	n.untold[owner] = struct{}{}
	select {
	case n.told <- struct{}{}:
	default: // it is about to be told
	}
}

func (n *notifier) tellLocked(owner identity.Owner) {
	for l := range n.listeners {
		if l.sees(owner) {
			l.tellLocked()
		}
	}
}

func (l *listener) tellLocked() {
	l.news = true
	if l.wake != nil {
		l.wake()
	}
}

// listen has l told until it leaves.
func (n *notifier) listen(l *listener) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.listeners[l] = struct{}{}
}

func (n *notifier) leave(l *listener) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.listeners, l)
}

// take reports whether there was news for l. If not, wake is called once there
// is; nil: no longer.
func (n *notifier) take(l *listener, wake func()) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l.news && wake != nil {
		l.news = false
		return true
	}
	l.wake = wake
	return false
}

// ownersAtOnce is how many owners one notice to other replicas names, some 70
// bytes each: it may have 8,000.
const ownersAtOnce = 64

// listNotice is what replicas tell each other.
type listNotice struct {
	From   string           `json:"from"`
	Owners []identity.Owner `json:"owners"`
}

// untoldNotices gives what is to be told to other replicas, and takes it as told.
func (n *notifier) untoldNotices(from string) (notices []string) {
	n.mu.Lock()
	owners := slices.Collect(maps.Keys(n.untold))
	clear(n.untold)
	n.mu.Unlock()
	for some := range slices.Chunk(owners, ownersAtOnce) {
		text, _ := json.Marshal(listNotice{from, some}) // plain values
		notices = append(notices, string(text))
	}
	return notices
}

// hear takes what another replica tells. What can't be read, or was missed, may
// concern everybody.
func (n *notifier) hear(me, notice string) {
	var told listNotice
	err := json.Unmarshal([]byte(notice), &told)
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case err != nil:
		for l := range n.listeners { // also those who see nothing: it tells them nothing
			l.tellLocked()
		}
	case told.From != me:
		for _, owner := range told.Owners {
			n.tellLocked(owner)
		}
	}
}

// listNote is the note without a number that the list of sessions changed.
var listNote = event.Record{Type: event.SessionsChanged, Line: []byte(`{"type":"sessions.changed","data":{}}`)}
