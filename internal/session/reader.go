package session

import (
	"context"
	"errors"

	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/identity"
)

// Reader follows the log of a session. It belongs to one goroutine and is
// closed when it is no longer needed.
type Reader struct {
	s      *Session
	next   int64
	live   *event.Reader // nil while older events are read from the store
	list   listener
	closed bool
}

// Reader follows the events after number after.
func (s *Session) Reader(after int64) *Reader {
	return s.ReaderFor(after, func(identity.Owner) bool { return false })
}

// ReaderFor is a Reader that is also told when the list of sessions changes, as
// far as somebody sees it: the sessions of these owners.
func (s *Session) ReaderFor(after int64, sees func(identity.Owner) bool) *Reader {
	r := &Reader{s: s, next: max(after, 0) + 1, list: listener{sees: sees}}
	s.svc.list.listen(&r.list)
	s.mu.Lock()
	s.readers++
	s.mu.Unlock()
	return r
}

// Close says that nobody reads here any more.
func (r *Reader) Close() {
	if r.closed {
		return
	}
	r.closed = true
	r.s.svc.list.leave(&r.list)
	r.s.mu.Lock()
	r.s.readers--
	r.s.mu.Unlock()
	r.s.touch()
}

// Skip goes on behind a gap that a *event.GapError told of.
func (r *Reader) Skip(oldest int64) { r.next, r.live = oldest, nil }

var errNote = errors.New("session: news without a number")

// At most so many bytes are read from the store at a time.
const readBytes = 1 << 20

// Next gives the records that are there, at least one, and waits for it if need
// be; see event.Reader.Next. A record without number is a note.
func (r *Reader) Next(ctx context.Context) ([]event.Record, error) {
	if r.live == nil {
		batch, err := r.older(ctx)
		if len(batch) > 0 || err != nil {
			return batch, err
		}
	}
	wait, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if r.s.svc.list.take(&r.list, func() { cancel(errNote) }) {
		return []event.Record{listNote}, nil
	}
	defer r.s.svc.list.take(&r.list, nil)
	batch, err := r.live.Next(wait)
	var gap *event.GapError
	switch {
	case errors.Is(err, errNote):
		return r.Next(ctx) // which takes it
	case errors.As(err, &gap):
		r.live = nil // the log in memory is shorter than the store's
		return r.Next(ctx)
	case err == nil:
		r.next = batch[len(batch)-1].Seq + 1
	}
	return batch, err
}

// older reads what is in the store and not in memory; nothing when the log in
// memory goes on from here.
func (r *Reader) older(ctx context.Context) ([]event.Record, error) {
	s := r.s
	s.mu.Lock()
	pruned, start, last := s.pruned, s.start, s.log.Last()
	s.mu.Unlock()
	last = max(last, start) // an empty log has no number yet
	oldest := s.log.Oldest()
	if oldest == 0 {
		oldest = start + 1
	}
	switch {
	case r.next > last+1:
		return nil, &event.GapError{Oldest: last + 1} // a number this session never had
	case r.next >= oldest:
		r.live = s.log.Subscribe(r.next - 1)
		return nil, nil
	case r.next <= pruned:
		return nil, &event.GapError{Oldest: pruned + 1}
	}
	events, err := s.svc.store.Events(ctx, s.id, r.next-1, last, readBytes)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, cause // the caller's, who may only have had something else to do
	}
	if err != nil {
		return nil, err
	}
	if len(events) == 0 || events[0].Seq != r.next {
		return nil, &event.GapError{Oldest: last + 1} // it was pruned meanwhile
	}
	batch := make([]event.Record, len(events))
	for i, e := range events {
		batch[i] = event.Record{Seq: e.Seq, Type: event.Type(e.Type), Line: e.Line}
	}
	r.next = batch[len(batch)-1].Seq + 1
	return batch, nil
}
