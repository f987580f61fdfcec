package session

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/store"
)

// commit is what is written to the store together.
type commit struct {
	records    []event.Record
	nodes      map[*node]bool // rows to write; true: outputs too
	session    bool           // the session's row
	executions map[string]store.Execution
	ended      []string
	pruneTo    int64
	done       chan struct{} // closed when it is written or has failed
	err        error         // read after done
}

// pendingLocked gives the commit that gathers.
func (s *Session) pendingLocked() *commit {
	if s.pending == nil {
		s.pending = &commit{nodes: map[*node]bool{}, executions: map[string]store.Execution{}, done: make(chan struct{})}
	}
	return s.pending
}

// emitLocked gives the next number to an event. Readers see it once it is
// committed. Data that is a json.RawMessage is taken as it is.
func (s *Session) emitLocked(typ event.Type, itemID, executionID string, data any) Line {
	return s.emitAtLocked(time.Now().UTC().Truncate(time.Microsecond), typ, itemID, executionID, data)
}

func (s *Session) emitAtLocked(at time.Time, typ event.Type, itemID, executionID string, data any) Line {
	raw, ok := data.(json.RawMessage)
	if !ok {
		raw = encode(data)
	}
	s.seq++
	l := Line{Seq: s.seq, Time: at, Type: typ, ItemID: itemID, ExecutionID: executionID, Data: raw}
	p := s.pendingLocked()
	p.records = append(p.records, event.Record{Seq: l.Seq, Type: typ, Line: appendLine(make([]byte, 0, len(raw)+180), &l)})
	return l
}

// encode gives our own types as JSON; they always can be.
func encode(v any) json.RawMessage {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return json.RawMessage("{}")
	}
	return json.RawMessage(strings.TrimSuffix(b.String(), "\n"))
}

func appendLine(b []byte, l *Line) []byte {
	b = append(b, `{"seq":`...)
	b = strconv.AppendInt(b, l.Seq, 10)
	b = append(b, `,"time":"`...)
	b = l.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","type":"`...)
	b = append(b, l.Type...) // ours or checked, needs no escapes; so are the ids
	if l.ItemID != "" {
		b = append(b, `","item_id":"`...)
		b = append(b, l.ItemID...)
	}
	if l.ExecutionID != "" {
		b = append(b, `","execution_id":"`...)
		b = append(b, l.ExecutionID...)
	}
	b = append(b, `","data":`...)
	b = append(b, l.Data...)
	return append(b, '}')
}

// saveLocked has the row of a node written.
func (s *Session) saveLocked(n *node) {
	p := s.pendingLocked()
	p.nodes[n] = p.nodes[n] || n.dirty
}

// saveWholeLocked has the row of a node written with its outputs.
func (s *Session) saveWholeLocked(n *node) { s.pendingLocked().nodes[n] = true }

// saveSessionLocked has the session's row written.
func (s *Session) saveSessionLocked() { s.pendingLocked().session = true }

// flushLocked sends the waiting commit on its way, unless one is under way:
// then it goes after that.
func (s *Session) flushLocked() {
	if s.pending == nil || s.inflight != nil || s.broken != nil {
		return
	}
	c := s.pending
	s.pending, s.inflight = nil, c
	s.pruneLocked(c)
	b := store.Batch{SessionID: s.id, Ended: c.ended, PruneTo: c.pruneTo}
	for _, r := range c.records {
		b.Events = append(b.Events, store.Event{Seq: r.Seq, Type: string(r.Type), Line: r.Line})
	}
	// New items keep the order in which they were made.
	for _, n := range sortedNodes(c.nodes) {
		b.Items = append(b.Items, s.rowLocked(n, c.nodes[n]))
	}
	for _, e := range c.executions {
		b.Executions = append(b.Executions, e)
	}
	if c.session {
		row := s.sessionRowLocked()
		b.Session = &row
	}
	s.svc.store.Submit(b, func(err error) { s.committed(c, err) })
}

func sortedNodes(set map[*node]bool) []*node {
	list := make([]*node, 0, len(set))
	for n := range set {
		list = append(list, n)
	}
	slices.SortFunc(list, func(a, b *node) int {
		if c := a.item.CreatedAt.Compare(b.item.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.item.ID, b.item.ID)
	})
	return list
}

// rowLocked makes the row of a node, which then is clean.
func (s *Session) rowLocked(n *node, whole bool) store.Item {
	n.seq, n.dirty = s.seq, false
	row := store.Item{ID: n.item.ID, Seq: n.seq, Tree: encode(n.place()), Body: encode(n.item), Keep: !whole || n.short}
	if !row.Keep {
		s.outputsLocked(n, &row)
	}
	if text := searchText(n.item); n.removed == nil && text != n.indexed || n.removed != nil && n.indexed != "" {
		if n.removed != nil {
			text = ""
		}
		// Text that is being written is put into the index when it is done.
		if n.item.Status != "writing" {
			n.indexed = text
			row.Search = &text
		}
	}
	return row
}

// outputsLocked puts the outputs of a node into its row. Those of an item that
// is finished then rest as JSON, without their long values.
func (s *Session) outputsLocked(n *node, row *store.Item) {
	if n.out.raw != nil { // as they were read or written before
		row.Outputs = n.out.raw
		return
	}
	list := n.out.values()
	if list == nil {
		return
	}
	row.Outputs = encode(list)
	rest := row.Outputs
	if short, cut := shorten(list); cut {
		row.Short = encode(short)
		rest = row.Short
	}
	if finished(n.item.Status) {
		if row.Short != nil {
			n.short, n.full = true, row.Outputs
		}
		n.out.rest(rest)
	}
}

func searchText(item v1.Item) string {
	switch {
	case item.Code != "" && item.Text != "":
		return item.Text + "\n" + item.Code
	case item.Code != "":
		return item.Code
	}
	return item.Text
}

// finished reports whether nothing more is expected of an item.
func finished(status string) bool {
	switch status {
	case "writing", "queued", "running":
		return false
	}
	return true
}

// committed is called by the store's writer.
func (s *Session) committed(c *commit, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inflight = nil
	if err == nil && s.broken == nil {
		if e := s.log.AppendRaw(c.records...); e != nil && e != event.ErrClosed { //nolint:errorlint // its own value
			err = e
		}
	}
	for n := range c.nodes {
		if s.pending == nil || !s.pending.nodes[n] {
			n.full = nil // the store has them
		}
	}
	c.err = err
	close(c.done)
	if err != nil {
		s.breakLocked(err)
		s.lostHold()
		return
	}
	s.flushLocked()
}

// breakLocked gives up a session whose memory is ahead of the store: it leaves
// memory, and whoever asks for it next gets what the store has.
func (s *Session) breakLocked(err error) {
	if s.broken != nil {
		return
	}
	s.broken = err
	if p := s.pending; p != nil {
		p.err = err
		close(p.done)
		s.pending = nil
	}
	s.log.Close(errBroken)
	s.cancel(errBroken)
	s.svc.drop(s)
}

var errBroken = errdefs.New(errdefs.ErrUnavailable, "store-failed", "The server could not keep what happened last.").
	WithHint("Get the session again; what it has now was kept.")

// latestLocked gives the commit after which all that was done until now is
// kept; nil if it already is.
func (s *Session) latestLocked() *commit {
	if s.pending != nil {
		return s.pending
	}
	return s.inflight
}

// do makes a change and returns once it is kept.
func (s *Session) do(change func() error) error {
	s.mu.Lock()
	if s.broken != nil {
		s.mu.Unlock()
		return s.broken
	}
	err := change()
	c := s.latestLocked()
	s.flushLocked()
	s.mu.Unlock()
	if c != nil {
		<-c.done
		if err == nil {
			err = c.err
		}
	}
	return err
}

// apply makes a change that nobody waits for.
func (s *Session) apply(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return
	}
	change()
	s.flushLocked()
}

// settled waits until all that was done is kept.
func (s *Session) settled() error { return s.do(func() error { return nil }) }
