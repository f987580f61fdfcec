package session

import (
	"context"
	"errors"

	"github.com/caesarion/caesarion/internal/event"
)

// Reader follows the log of a session. It belongs to one goroutine and is
// closed when it is no longer needed.
type Reader struct {
	s      *Session
	next   int64
	live   *event.Reader // nil while older events are read from the store
	noted  int64
	closed bool
}

// Reader follows the events after number after.
func (s *Session) Reader(after int64) *Reader {
	version := s.svc.list.current()
	s.mu.Lock()
	s.readers++
	s.mu.Unlock()
	return &Reader{s: s, next: max(after, 0) + 1, noted: version}
}

// Close says that nobody reads here any more.
func (r *Reader) Close() {
	if r.closed {
		return
	}
	r.closed = true
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
	version, stop := r.s.svc.list.since(func() { cancel(errNote) })
	defer stop()
	if version != r.noted {
		r.noted = version
		return []event.Record{listNote}, nil
	}
	batch, err := r.live.Next(wait)
	var gap *event.GapError
	switch {
	case errors.Is(err, errNote):
		r.noted = r.s.svc.list.current()
		return []event.Record{listNote}, nil
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
