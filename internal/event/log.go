package event

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// Record is one event as it is kept and passed on: the bytes of its JSON and
// the two facts that readers need without decoding it.
type Record struct {
	Seq  int64
	Type Type
	Line []byte // the event's JSON without a newline; shared by all readers, so nobody writes to it
}

// GapError says that a reader asked for records the log no longer holds.
type GapError struct {
	Oldest int64 // the oldest sequence number still held
}

func (e *GapError) Error() string {
	return fmt.Sprintf("event: older events were dropped, the oldest kept is %d", e.Oldest)
}

// Errors of a Log.
var (
	ErrClosed   = errors.New("event: log is closed")
	ErrSequence = errors.New("event: sequence number is not the next one")
)

// LogOptions bounds a Log. The zero value keeps 64 MiB and 100,000 records.
type LogOptions struct {
	MaxBytes   int64 // of lines; above it the oldest records go
	MaxRecords int   // above it the oldest records go
}

// A record costs its line and about this much beside it.
const recordOverhead = 64

// Log is a bounded list of records that any number of readers follow.
//
// Appending never waits for a reader, and readers need no goroutine of their
// own: each pulls what is there, all at once, and waits when there is nothing.
// A reader that is slower than the bound learns of it by a GapError. All
// methods may be called concurrently.
type Log struct {
	opts LogOptions

	mu      sync.Mutex
	records []Record // records[0] has number first; never changed in place, for readers hold parts of it
	first   int64
	visible int64 // readers see records up to this number
	bytes   int64
	closed  bool
	err     error         // what readers get after the last record
	wake    chan struct{} // closed when a waiting reader must look again; nil when none waits
}

// NewLog makes an empty log.
func NewLog(opts LogOptions) *Log {
	if opts.MaxBytes <= 0 {
		opts.MaxBytes = 64 << 20
	}
	if opts.MaxRecords <= 0 {
		opts.MaxRecords = 100_000
	}
	return &Log{opts: opts, first: 1}
}

// Append numbers, stamps and encodes an event and shows it to the readers.
// Data that is a json.RawMessage is taken as it is; the caller vouches that it
// is valid JSON.
func (l *Log) Append(typ Type, data any) (Event, error) { return l.append(typ, data, true) }

// AppendHeld is Append without showing the event yet: it becomes visible with
// the next Append, Publish or Close. So events that come close together reach
// a reader as one batch, and the network as one write.
func (l *Log) AppendHeld(typ Type, data any) (Event, error) { return l.append(typ, data, false) }

func (l *Log) append(typ Type, data any, show bool) (Event, error) {
	raw, err := encode(data)
	if err != nil {
		return Event{}, fmt.Errorf("event: encode %s: %w", typ, err)
	}
	now := time.Now().UTC().Truncate(time.Microsecond)

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Event{}, ErrClosed
	}
	e := Event{Seq: l.first + int64(len(l.records)), Time: now, Type: typ, Data: raw}
	l.addLocked(Record{Seq: e.Seq, Type: typ, Line: appendLine(make([]byte, 0, len(raw)+112), e)})
	if show {
		l.publishLocked()
	}
	return e, nil
}

// AppendRaw adds records made elsewhere and shows them as one batch. Their
// numbers must be the next ones; an empty log takes any number from 1, so that
// it can continue an older one.
func (l *Log) AppendRaw(records ...Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	defer l.publishLocked()
	for _, r := range records {
		if len(l.records) == 0 && l.visible == 0 && r.Seq >= 1 {
			l.first = r.Seq
		}
		if r.Seq != l.first+int64(len(l.records)) {
			return fmt.Errorf("%w: got %d, want %d", ErrSequence, r.Seq, l.first+int64(len(l.records)))
		}
		l.addLocked(r)
	}
	return nil
}

// Publish shows what AppendHeld added.
func (l *Log) Publish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.publishLocked()
}

// Close ends the log: readers get what is left, then err, or io.EOF if err is
// nil. Closing again changes nothing.
func (l *Log) Close(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if err == nil {
		err = io.EOF
	}
	l.closed, l.err = true, err
	l.visible = l.first + int64(len(l.records)) - 1
	l.wakeLocked()
}

// Last gives the number of the newest record, 0 if there was none.
func (l *Log) Last() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first + int64(len(l.records)) - 1
}

// Oldest gives the number of the oldest record still held, 0 if there is none.
func (l *Log) Oldest() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.records) == 0 {
		return 0
	}
	return l.first
}

// Bytes gives the memory that the records hold, roughly.
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes + int64(len(l.records))*recordOverhead
}

func (l *Log) addLocked(r Record) {
	l.records = append(l.records, r)
	l.bytes += int64(len(r.Line))
	if l.bytes > l.opts.MaxBytes || len(l.records) > l.opts.MaxRecords {
		l.dropLocked()
	}
}

// dropLocked removes the oldest records down to three quarters of the bounds,
// so that the copy is paid once per many appends. The newest record stays.
func (l *Log) dropLocked() {
	n := 0
	for n < len(l.records)-1 && (l.bytes > l.opts.MaxBytes*3/4 || len(l.records)-n > l.opts.MaxRecords*3/4) {
		l.bytes -= int64(len(l.records[n].Line))
		n++
	}
	// A new slice, not a shifted one: readers may hold the old one, and the
	// dropped lines must become garbage once they let go.
	l.records = append(make([]Record, 0, len(l.records)-n+64), l.records[n:]...)
	l.first += int64(n)
}

func (l *Log) publishLocked() {
	if last := l.first + int64(len(l.records)) - 1; last > l.visible {
		l.visible = last
		l.wakeLocked()
	}
}

func (l *Log) wakeLocked() {
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

// Snapshot gives the records that readers can see now.
func (l *Log) Snapshot() iter.Seq[Record] {
	l.mu.Lock()
	records := l.records[:l.visible-l.first+1]
	l.mu.Unlock()
	return slices.Values(records)
}

// Subscribe gives a reader of all records after number after; 0 is the
// beginning. It holds nothing that must be closed.
func (l *Log) Subscribe(after int64) *Reader {
	return &Reader{log: l, next: max(after, 0) + 1}
}

// Reader follows a Log. It belongs to one goroutine.
type Reader struct {
	log  *Log
	next int64
}

// Next gives all records that are there and not yet read, at least one, and
// waits for it if need be. The batch is shared and must not be changed. After
// the last record of a closed log comes the error of Close; a *GapError says
// that records this reader wanted are gone; if ctx ends, its cause.
func (r *Reader) Next(ctx context.Context) ([]Record, error) {
	l := r.log
	for {
		l.mu.Lock()
		if r.next <= l.visible {
			if r.next < l.first {
				oldest := l.first
				l.mu.Unlock()
				return nil, &GapError{Oldest: oldest}
			}
			from, to := r.next-l.first, l.visible-l.first+1
			batch := l.records[from:to:to]
			r.next = l.visible + 1
			l.mu.Unlock()
			return batch, nil
		}
		if l.closed {
			err := l.err
			l.mu.Unlock()
			return nil, err
		}
		if l.wake == nil {
			l.wake = make(chan struct{})
		}
		wake := l.wake
		l.mu.Unlock()
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// SkipTo makes the reader go on after number after, for instance behind a gap.
func (r *Reader) SkipTo(after int64) { r.next = max(after, 0) + 1 }

// encode gives data as one line of valid JSON in valid UTF-8.
func encode(data any) (json.RawMessage, error) {
	raw, ok := data.(json.RawMessage)
	if !ok {
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false) // readers are programs; < and > as six bytes only cost
		if err := enc.Encode(data); err != nil {
			return nil, err
		}
		return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
	}
	if len(raw) == 0 {
		return json.RawMessage("{}"), nil
	}
	// In valid JSON a raw newline can only be white space between tokens.
	if bytes.IndexByte(raw, '\n') >= 0 {
		var buf bytes.Buffer
		if err := json.Compact(&buf, raw); err != nil {
			return nil, err
		}
		raw = buf.Bytes()
	}
	if !utf8.Valid(raw) {
		raw = bytes.ToValidUTF8(raw, []byte("\uFFFD"))
	}
	return raw, nil
}

// appendLine writes what json.Marshal would write for e, by hand: this runs
// once for every event.
func appendLine(b []byte, e Event) []byte {
	b = append(b, `{"seq":`...)
	b = strconv.AppendInt(b, e.Seq, 10)
	b = append(b, `,"time":"`...)
	b = e.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","type":"`...)
	b = append(b, e.Type...) // ours, needs no escapes
	b = append(b, `","data":`...)
	b = append(b, e.Data...)
	return append(b, '}')
}
