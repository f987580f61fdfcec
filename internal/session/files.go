package session

import (
	"context"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
)

// syncState has the keeping of files after runs: what is asked for while one
// is under way becomes one more.
type syncState struct {
	running bool
	again   bool
	node    *node // whose run made the changes
	run     string
	done    chan struct{} // closed when running ends
}

const syncTimeout = 5 * time.Minute

// afterRun has the files of a sandbox kept, in the background.
func (s *Session) afterRun(r *run) { s.startSync(r.n, r.id) }

// SyncFiles has the files of the sandbox kept soon, for instance after an
// upload; readers learn what changed.
func (s *Session) SyncFiles() { s.startSync(nil, "") }

func (s *Session) startSync(n *node, run string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.svc.opts.Files == nil || s.broken != nil {
		return
	}
	if n != nil || !s.sync.running {
		s.sync.node, s.sync.run = n, run
	}
	if s.sync.running {
		s.sync.again = true
		return
	}
	s.sync.done = make(chan struct{})
	s.sync.running = s.svc.background(s.syncLoop)
}

func (s *Session) syncLoop() {
	for {
		s.mu.Lock()
		n, run := s.sync.node, s.sync.run
		s.sync.again, s.sync.node = false, nil
		s.mu.Unlock()
		if sb, ok := s.AwakeSandbox(); ok { // one that sleeps changes nothing
			s.syncOnce(s.ctx, sb, n, run)
		}
		s.mu.Lock()
		if !s.sync.again || s.ctx.Err() != nil {
			s.sync.running = false
			close(s.sync.done)
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
	}
}

// syncFiles keeps the files and returns when that is done.
func (s *Session) syncFiles(ctx context.Context, sb *fleet.Sandbox) {
	s.mu.Lock()
	running, done := s.sync.running, s.sync.done
	s.mu.Unlock()
	if running {
		select {
		case <-done:
		case <-ctx.Done():
			return
		}
	}
	s.syncOnce(ctx, sb, nil, "")
}

func (s *Session) syncOnce(ctx context.Context, sb *fleet.Sandbox, n *node, run string) {
	if s.svc.opts.Files == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, syncTimeout)
	defer cancel()
	changes, err := s.svc.opts.Files.Sync(ctx, s.id, sb)
	if err != nil {
		if ctx.Err() == nil {
			s.svc.log.Warn("files of a session can't be kept", "session_id", s.id, "sandbox_id", string(sb.ID()), "err", err)
		}
		return
	}
	if len(changes) == 0 {
		return
	}
	s.apply(func() { s.filesChangedLocked(n, run, changes) })
}

// FilesChanged tells readers of changes that somebody made by hand.
func (s *Session) FilesChanged(changes []v1.FileChange) {
	if len(changes) > 0 {
		s.apply(func() { s.filesChangedLocked(nil, "", changes) })
	}
}

// An item names at most so many changed files; the event has them all.
const maxChanges = 200

func (s *Session) filesChangedLocked(n *node, run string, changes []v1.FileChange) {
	id := ""
	if n != nil {
		id = n.item.ID
		if n.item.ExecutionID == run {
			s.changeLocked(n, func(it *v1.Item) { it.Changes = changes[:min(len(changes), maxChanges)] })
		}
	}
	s.emitLocked(event.FilesChanged, id, "", map[string]any{"changes": changes})
}
