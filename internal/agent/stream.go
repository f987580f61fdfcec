package agent

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// lines holds a batch of events while it is written.
var lines = sync.Pool{New: func() any { b := make([]byte, 0, 8<<10); return &b }}

const (
	// writeAt is how much is gathered before a write.
	writeAt = 256 << 10
	// keepLines is the largest buffer worth keeping for the next stream.
	keepLines = 512 << 10
)

// silence is how long the header of an answer waits for a first event to go with.
const silence = 50 * time.Millisecond

var errQuiet = errors.New("agent: no event yet")

// next is reader's Next, which gives up after a while the first time.
func next(ctx context.Context, reader *event.Reader, first bool) ([]event.Record, error) {
	if !first {
		return reader.Next(ctx)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, silence, errQuiet)
	defer cancel()
	return reader.Next(ctx)
}

// streamLog writes a log's events as NDJSON until one of type last was
// written, or the log or the reader ends. If over reports that last is in the
// log, everything that is there is written before the stream ends.
//
// What is there together leaves in one write, and the end of a stream leaves
// with its last event, so that a short execution is one packet.
func streamLog(w http.ResponseWriter, r *http.Request, log *event.Log, after int64, last event.Type, over func() bool) error {
	reader := log.Subscribe(after)
	if over != nil && over() && after >= log.Last() {
		w.Header().Set("Content-Type", "application/x-ndjson")
		return nil
	}
	flusher := http.NewResponseController(w)
	begun, whole := false, true
	buf := lines.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer func() {
		if cap(*buf) <= keepLines {
			*buf = (*buf)[:0]
			lines.Put(buf)
		}
	}()
	for {
		batch, err := next(r.Context(), reader, !begun)
		if errors.Is(err, errQuiet) {
			// Nothing for now: the reader should know that it was understood.
			begun, whole = true, false
			w.Header().Set("Content-Type", "application/x-ndjson")
			if err := flusher.Flush(); err != nil {
				return nil //nolint:nilerr // the reader has gone
			}
			continue
		}
		if err != nil {
			if gap, ok := errors.AsType[*event.GapError](err); ok && !begun {
				return errdefs.New(errdefs.ErrNotFound, "events-gone", "events before %d are no longer kept", gap.Oldest)
			}
			return nil // the end, or the reader has gone
		}
		if !begun {
			begun = true
			w.Header().Set("Content-Type", "application/x-ndjson")
		}
		*buf = (*buf)[:0]
		ended := false
		for _, rec := range batch {
			*buf = append(append(*buf, rec.Line...), '\n')
			if rec.Type == last && over == nil {
				ended = true
				break
			}
			if len(*buf) >= writeAt {
				if _, err := w.Write(*buf); err != nil {
					return nil //nolint:nilerr // the reader has gone
				}
				*buf, whole = (*buf)[:0], false
			}
		}
		if whole && ended {
			// With its length the answer needs no frame of its own, and the
			// reader knows when it has all.
			w.Header().Set("Content-Length", strconv.Itoa(len(*buf)))
		}
		whole = false
		if _, err := w.Write(*buf); err != nil {
			return nil //nolint:nilerr // the reader has gone
		}
		if ended || over != nil && over() && batch[len(batch)-1].Seq >= log.Last() {
			return nil
		}
		if err := flusher.Flush(); err != nil {
			return nil //nolint:nilerr // the reader has gone
		}
	}
}
