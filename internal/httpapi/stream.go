package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// A client that takes nothing for so long is dropped; it resumes by number.
// Sockets buffer megabytes, so this is no question of a slow line.
const writeTimeout = 60 * time.Second

// Records are put together up to this size before they are written.
const streamBuffer = 256 << 10

// A last write up to this size waits for the end of the answer.
const streamEnd = 2 << 10

// A stream that has nothing to say for so long says that it is there. Most have
// their first record sooner, and then it costs no write of its own.
const firstBeat = 20 * time.Millisecond

// Causes that end the waiting for records.
var (
	errHeartbeat = errors.New("httpapi: time for a heartbeat")
	errDraining  = errors.New("httpapi: the server is stopping")
	// errNothingYet says that waiting would be needed.
	errNothingYet = errors.New("httpapi: no record yet")
)

// records is what a stream is read from: fleet.Reader, event.Reader.
type records interface {
	Next(ctx context.Context) ([]event.Record, error)
}

// skipper is a reader that can go on behind a gap.
type skipper interface{ Skip(oldest int64) }

// ender is a reader that knows when it has given its last record. The answer's
// end then leaves in one packet with that.
type ender interface{ Over() bool }

// over is a context for what must not wait.
var over = func() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errNothingYet)
	return ctx
}()

// encoder writes one record in the form of a stream.
type encoder func(buf []byte, rec event.Record) []byte

func encodeNDJSON(buf []byte, rec event.Record) []byte {
	buf = append(buf, rec.Line...)
	return append(buf, '\n')
}

// encodeSSE relies on a line having no newline, which JSON guarantees.
func encodeSSE(buf []byte, rec event.Record) []byte {
	if rec.Seq > 0 { // a note has no number
		buf = append(buf, "id: "...)
		buf = strconv.AppendInt(buf, rec.Seq, 10)
		buf = append(buf, '\n')
	}
	buf = append(buf, "event: "...)
	buf = append(buf, rec.Type...)
	buf = append(buf, "\ndata: "...)
	buf = append(buf, rec.Line...)
	return append(buf, "\n\n"...)
}

// resumeAfter gives the number that a reader has seen last: by the header that
// an EventSource sends, else by the query.
func resumeAfter(lastEventID string, after int64) (int64, error) {
	if lastEventID == "" {
		return after, nil
	}
	n, err := strconv.ParseInt(lastEventID, 10, 64)
	if err != nil || n < 0 {
		return 0, errdefs.New(errdefs.ErrInvalid, "invalid-event-id", "Last-Event-ID must be the number of an event.").
			WithHint("Send the id of the last event that came, or leave it out for all of them.")
	}
	return n, nil
}

// streamRecords answers with all records of src as they come. Records that are
// there together are one write. last is the number src begins after.
func (a *API) streamRecords(w http.ResponseWriter, r *http.Request, src records, last int64, form string) {
	h := w.Header()
	h.Set("Content-Type", form)
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	w.WriteHeader(http.StatusOK)
	out := &streamWriter{w: w, rc: http.NewResponseController(w), sse: form == v1.MediaSSE, buf: make([]byte, 0, 4<<10)}

	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	// The story of a short cell is here already, and needs no timers. Other
	// readers may have to ask a store first, and are given the time.
	ending, _ := src.(ender)
	beat := heartbeat{ctx: over, stop: func() {}}
	defer func() { beat.stop() }()
	forget := func() bool { return false }
	defer func() { forget() }()
	wait := func() {
		forget = context.AfterFunc(a.draining, func() { cancel(errDraining) })
		beat.start(ctx, min(firstBeat, a.opts.Heartbeat))
	}
	greeted := false
	if ending == nil {
		wait()
	}
	encode := encoderFor(form)
	for {
		batch, err := src.Next(beat.ctx)
		var gap *event.GapError
		switch {
		case errors.Is(err, errNothingYet):
			wait()
			continue
		case err == nil:
			for _, rec := range batch {
				if out.buf = encode(out.buf, rec); len(out.buf) >= streamBuffer {
					if out.write() != nil {
						return
					}
				}
				last = max(last, rec.Seq)
			}
			if ending != nil && ending.Over() {
				out.end()
				return
			}
		case errors.Is(err, errHeartbeat):
			beat.stop()
			beat.start(ctx, a.opts.Heartbeat)
			if !greeted {
				// Nothing has come yet: without this a reader would not
				// even learn that it is connected.
				greeted = true
			} else if out.sse {
				out.buf = append(out.buf, ":\n\n"...)
			}
		case errors.As(err, &gap):
			s, ok := src.(skipper)
			if !ok {
				return
			}
			s.Skip(gap.Oldest)
			out.note("stream.gap", `{"oldest":`+strconv.FormatInt(gap.Oldest, 10)+`}`)
		case errors.Is(err, io.EOF):
			return
		default:
			if out.sse {
				out.buf = append(out.buf, "retry: 1000\n"...)
			}
			out.note("stream.interrupted", `{"after":`+strconv.FormatInt(last, 10)+`}`)
			_ = out.flush() // the client may be what ended it
			return
		}
		if out.flush() != nil {
			return // the client left; what runs goes on
		}
	}
}

// heartbeat is a context that ends when it is time for a sign of life. One
// serves for all waiting until then, so that events cost no timer each.
type heartbeat struct {
	ctx  context.Context //nolint:containedctx // see above
	stop context.CancelFunc
}

func (h *heartbeat) start(parent context.Context, every time.Duration) {
	h.ctx, h.stop = context.WithTimeoutCause(parent, every, errHeartbeat)
}

// streamWriter gathers bytes and writes them with a deadline.
type streamWriter struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	sse bool
	buf []byte
}

func (s *streamWriter) write() error {
	if len(s.buf) == 0 {
		return nil
	}
	_ = s.rc.SetWriteDeadline(time.Now().Add(writeTimeout)) // no connection in some tests
	_, err := s.w.Write(s.buf)
	s.buf = s.buf[:0]
	if cap(s.buf) > 2*streamBuffer {
		s.buf = make([]byte, 0, 4<<10) // one giant event must not stay for the stream's life
	}
	return err
}

func (s *streamWriter) flush() error {
	if err := s.write(); err != nil {
		return err
	}
	err := s.rc.Flush()
	_ = s.rc.SetWriteDeadline(time.Time{})
	return err
}

// end writes what is left. A little waits in the server's buffer for the end of
// the answer, which comes when the handler returns: one packet, and no deadline
// to set and to take back.
func (s *streamWriter) end() {
	if len(s.buf) > streamEnd {
		_ = s.flush() // the client may be gone
		return
	}
	_, _ = s.w.Write(s.buf)
}

// note adds an event that is the stream's and not the execution's: it has no
// number. The original's API has no such things.
func (s *streamWriter) note(typ, data string) {
	line := `{"type":"` + typ + `","data":` + data + `}`
	if s.sse {
		s.buf = append(s.buf, "event: "+typ+"\ndata: "+line+"\n\n"...)
		return
	}
	s.buf = append(s.buf, line+"\n"...)
}

// accepted chooses the form of an answer: v1.MediaSSE, v1.MediaNDJSON or
// v1.MediaJSON, which is also the answer to everything else.
func accepted(header string, otherwise string) string {
	switch header { // what nearly everybody sends
	case "", "*/*":
		return otherwise
	case v1.MediaSSE, v1.MediaNDJSON, v1.MediaJSON:
		return header
	}
	best, quality := otherwise, 0.0
	for part := range strings.SplitSeq(header, ",") {
		typ, params, _ := strings.Cut(part, ";")
		q := 1.0
		for p := range strings.SplitSeq(params, ";") {
			if v, ok := strings.CutPrefix(strings.TrimSpace(p), "q="); ok {
				q, _ = strconv.ParseFloat(v, 64)
			}
		}
		form := ""
		switch strings.ToLower(strings.TrimSpace(typ)) {
		case v1.MediaSSE:
			form = v1.MediaSSE
		case v1.MediaNDJSON, "application/ndjson", "application/jsonl", "application/x-jsonlines":
			form = v1.MediaNDJSON
		case v1.MediaJSON:
			form = v1.MediaJSON
		case "*/*", "application/*":
			form, q = otherwise, min(q, 0.001) // whatever is named goes first
		}
		if form != "" && q > quality {
			best, quality = form, q
		}
	}
	return best
}

func encoderFor(form string) encoder {
	if form == v1.MediaSSE {
		return encodeSSE
	}
	return encodeNDJSON
}
