package agent

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/event"
)

const (
	// DefaultOutputLimit is how much output an execution shows unless told otherwise.
	DefaultOutputLimit = 10 << 20
	// maxOutputLimit keeps one execution's events within the agent's memory.
	maxOutputLimit = 64 << 20
	// maxTail is how much of the end is shown when the middle was left out.
	maxTail = 64 << 10
	// maxEvents bounds an execution's events: a record costs memory beside its text.
	maxEvents = 20_000
	// maxText is the largest text of one event.
	maxText = 64 << 10
	// maxRich is the largest figure or table of one event; agentapi.MaxLineBytes leaves room for it.
	maxRich = 15 << 20
	// gather is how long text may wait for more; a person does not see it.
	gather = 4 * time.Millisecond
	// hold is how long the first events of an execution wait for the next, so
	// that a short cell's whole story leaves in one write.
	hold = time.Millisecond
	// Late output, after the end, has bounds of its own.
	maxLateBytes  = 1 << 20
	maxLateEvents = 1000
)

// output turns what an execution writes into events, within a limit: the head
// as it comes, then output.truncated, then only the tail; everything from the
// first byte goes to a file once the head is full.
type output struct {
	log   *event.Log
	spill func() *spill // opens the file; called once
	limit int64
	start time.Time

	mu        sync.Mutex
	name      string // stream of buf
	buf       []byte // text not yet an event
	flushed   time.Time
	timer     *time.Timer // flushes buf; nil before its first use
	armed     bool
	written   int64 // bytes the code wrote
	shown     int64 // of these, in events
	cost      int64 // bytes of events' data
	events    int
	truncated bool
	file      *spill
	tail      []chunk
	tailBytes int
	finished  bool
	late      int // bytes after the end
	lateCount int
	sealed    bool // too much late output: the rest is dropped
	noticed   string
}

// chunk is some text of one stream.
type chunk struct {
	name string
	text []byte
}

func newOutput(log *event.Log, limit int64, open func() *spill) *output {
	if limit <= 0 {
		limit = DefaultOutputLimit
	}
	return &output{log: log, limit: min(limit, maxOutputLimit), spill: open, start: time.Now()}
}

func (o *output) tailMax() int64 { return min(maxTail, o.limit/4) }
func (o *output) headMax() int64 { return o.limit * 3 / 4 }

// text takes what was written to a stream.
func (o *output) text(name string, p []byte) {
	if len(p) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.name != name {
		o.flushLocked()
		o.name = name
	}
	o.written += int64(len(p))
	for len(o.buf)+len(p) >= maxText {
		n := cutRune(p, max(maxText-len(o.buf), utf8.UTFMax))
		o.buf = append(o.buf, p[:n]...)
		p = p[n:]
		o.flushLocked()
	}
	if len(p) == 0 {
		return
	}
	o.buf = append(o.buf, p...)
	now := time.Now()
	if now.Sub(o.flushed) >= gather {
		o.flushLocked()
		return
	}
	if !o.armed {
		o.armed = true
		if o.timer == nil {
			o.timer = time.AfterFunc(gather, o.timedFlush)
		} else {
			o.timer.Reset(gather)
		}
	}
}

// notice takes a line of the agent's own. One that is said again is not shown again.
func (o *output) notice(line string) {
	o.mu.Lock()
	again := o.noticed == line
	o.noticed = line
	o.mu.Unlock()
	if !again {
		o.text("stderr", []byte(line))
	}
}

func (o *output) timedFlush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.armed = false
	o.flushLocked()
}

// flushLocked makes an event of the gathered text, or passes it by the events
// when the head is full.
func (o *output) flushLocked() {
	if len(o.buf) == 0 {
		return
	}
	o.flushed = time.Now()
	text := o.buf
	o.buf = o.buf[:0]
	switch {
	case o.finished:
		o.lateTextLocked(text)
	case o.truncated:
		o.passLocked(text)
	default:
		room := o.headMax() - o.cost
		if int64(len(text)) > room || o.events >= maxEvents {
			n := 0
			if room > 0 && o.events < maxEvents {
				n = cutRune(text, int(room))
			}
			if n > 0 {
				o.showLocked(o.name, text[:n])
			}
			o.truncateLocked()
			o.passLocked(text[n:])
			return
		}
		o.showLocked(o.name, text)
	}
}

func (o *output) showLocked(name string, text []byte) {
	o.shown += int64(len(text))
	o.appendLocked(event.OutputStream, event.Stream{Name: name, Text: string(text)})
}

func (o *output) appendLocked(typ event.Type, data any) {
	add := o.log.Append
	if time.Since(o.start) < hold {
		add = o.log.AppendHeld // somebody publishes when hold is over
	}
	e, err := add(typ, data)
	if err != nil {
		return // the log is closed: the execution was forgotten
	}
	o.cost += int64(len(e.Data))
	o.events++
}

// truncateLocked ends the head. The file begins with the text that was shown,
// which is taken from the log: keeping it twice would double the memory of
// every execution for the few that get here.
func (o *output) truncateLocked() {
	o.truncated = true
	o.file = o.spill()
	if o.file != nil {
		o.log.Publish()
		o.copyHeadLocked()
	}
	t := event.Truncated{LimitBytes: o.limit}
	if o.file != nil {
		t.File = o.file.path
	}
	o.appendLocked(event.OutputTruncated, t)
}

func (o *output) copyHeadLocked() {
	for rec := range o.log.Snapshot() {
		var e event.Event
		if json.Unmarshal(rec.Line, &e) != nil {
			continue
		}
		switch rec.Type {
		case event.OutputStream:
			var s event.Stream
			if json.Unmarshal(e.Data, &s) == nil {
				o.file.write([]byte(s.Text))
			}
		case event.OutputDisplay, event.OutputResult, event.OutputUpdate:
			o.file.write([]byte(richNote(e.Data)))
		}
	}
}

// passLocked is for text that is no event, at least not yet.
func (o *output) passLocked(text []byte) {
	if len(text) == 0 {
		return
	}
	if o.file != nil {
		o.file.write(text)
	}
	limit := int(o.tailMax())
	if n := len(o.tail); n > 0 && o.tail[n-1].name == o.name && len(o.tail[n-1].text) < maxText/4 {
		o.tail[n-1].text = append(o.tail[n-1].text, text...)
	} else {
		o.tail = append(o.tail, chunk{o.name, slices.Clone(text)})
	}
	o.tailBytes += len(text)
	for len(o.tail) > 1 && o.tailBytes-len(o.tail[0].text) >= limit {
		o.tailBytes -= len(o.tail[0].text)
		o.tail[0].text = nil
		o.tail = o.tail[1:]
	}
}

// rich takes a figure, a table, an error or another message that is an event
// by itself.
func (o *output) rich(typ event.Type, data json.RawMessage) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushLocked()
	size := int64(len(data))
	o.written += size
	switch {
	case o.finished:
		if !o.lateLocked(len(data)) {
			return
		}
	case typ == event.OutputError:
		// What went wrong is always shown; a huge traceback is cut by the caller.
	case size > maxRich || o.cost+size > o.limit-o.tailMax() || o.events >= maxEvents:
		o.omitLocked(typ, data)
		return
	case o.truncated && o.file != nil && typ != event.OutputClear:
		o.file.write([]byte(richNote(data)))
	}
	o.shown += size
	o.appendLocked(typ, data)
}

// omitLocked stands a line of text in for an output that is too large to show.
func (o *output) omitLocked(typ event.Type, data json.RawMessage) {
	if !o.truncated && o.events >= maxEvents {
		o.truncateLocked()
	}
	note := richNote(data)
	if o.truncated {
		if o.file != nil {
			o.file.write([]byte(note))
		}
		return
	}
	if typ == event.OutputDisplay || typ == event.OutputResult {
		d, _ := json.Marshal(map[string]string{"text/plain": strings.TrimSpace(note)})
		o.appendLocked(event.OutputDisplay, event.Display{Data: d, Metadata: json.RawMessage("{}")})
	}
}

// richNote says in a line what a rich output was.
func richNote(data json.RawMessage) string {
	var d struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	_ = json.Unmarshal(data, &d)
	types := make([]string, 0, len(d.Data))
	for name := range d.Data {
		types = append(types, name)
	}
	slices.Sort(types)
	if len(types) > 8 {
		types = types[:8]
	}
	return fmt.Sprintf("[output %.200s of %d bytes]\n", strings.Join(types, ", "), len(data))
}

// event adds an event that is no output, in order with the output.
func (o *output) event(typ event.Type, data any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushLocked()
	_, _ = o.log.Append(typ, data)
}

// finish ends the output: what comes later is late. It fills in the figures of fin.
func (o *output) finish(fin *event.Finished) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flushLocked()
	o.finished = true
	if o.truncated {
		o.showTailLocked()
		if o.file != nil {
			o.file.close()
			if o.file.err == nil {
				fin.OutputFile = o.file.path
			} else if fin.Message == "" {
				fin.Message = "Part of the output is lost: the file that should hold all of it could not be written (" + o.file.err.Error() + ")."
			}
		}
	}
	fin.OutputBytes, fin.DroppedBytes = o.written, o.written-o.shown
	o.buf = nil
}

func (o *output) showTailLocked() {
	// The tail holds a little more than its size: whole chunks.
	if extra := o.tailBytes - int(o.tailMax()); extra > 0 {
		first := o.tail[0].text
		for extra < len(first) && !utf8.RuneStart(first[extra]) {
			extra++
		}
		o.tail[0].text = first[min(extra, len(first)):]
	}
	for _, c := range o.tail {
		for len(c.text) > 0 {
			n := cutRune(c.text, maxText)
			o.showLocked(c.name, c.text[:n])
			c.text = c.text[n:]
		}
	}
	o.tail = nil
}

func (o *output) lateTextLocked(text []byte) {
	if o.lateLocked(len(text)) {
		_, _ = o.log.Append(event.OutputStream, event.Stream{Name: o.name, Text: string(text)})
	}
}

// lateLocked reports whether this much more may be added after the end.
func (o *output) lateLocked(n int) bool {
	if o.sealed {
		return false
	}
	o.late += n
	o.lateCount++
	if o.late > maxLateBytes || o.lateCount > maxLateEvents {
		o.sealed = true
		_, _ = o.log.Append(event.OutputTruncated, event.Truncated{LimitBytes: maxLateBytes})
		return false
	}
	return true
}

// cutRune gives the largest n up to limit that does not split a character of p.
func cutRune[T []byte | string](p T, limit int) int {
	if len(p) <= limit {
		return len(p)
	}
	n := limit
	for n > 0 && n > limit-utf8.UTFMax && !utf8.RuneStart(p[n]) {
		n--
	}
	return n
}

// cutError shortens a traceback that is larger than an event should be, from the middle.
func cutError(data json.RawMessage) json.RawMessage {
	if len(data) <= maxText*4 {
		return data
	}
	var e event.Error
	if json.Unmarshal(data, &e) != nil {
		return data
	}
	e.Name = e.Name[:cutRune(e.Name, 1000)]
	if n := cutRune(e.Value, maxText); n < len(e.Value) {
		e.Value = e.Value[:n] + "…"
	}
	if n := len(e.Traceback); n > 100 {
		e.Traceback = slices.Concat(e.Traceback[:50], []string{fmt.Sprintf("… %d more …", n-100)}, e.Traceback[n-50:])
	}
	for i, line := range e.Traceback {
		if n := cutRune(line, 4096); n < len(line) {
			e.Traceback[i] = line[:n] + "…"
		}
	}
	cut, err := json.Marshal(e)
	if err != nil {
		return data
	}
	return cut
}

const _ = uint(agentapi.MaxLineBytes - maxRich - 1<<16) // maxRich and its envelope fit in a line
