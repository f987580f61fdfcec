package session

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/store"
)

// Session is one session in memory.
type Session struct {
	svc    *Service
	id     string
	client string // name its client gave it
	owner  identity.Owner
	log    *event.Log
	start  int64 // the log has the events after this number; older ones are in the store only

	ctx    context.Context // ends when the session leaves memory or the service closes
	cancel context.CancelCauseFunc

	mu       sync.Mutex
	seq      int64 // last number given
	pending  *commit
	inflight *commit
	broken   error // nothing more can be done with it
	used     time.Time
	readers  int

	tree   tree
	shown  []string // the thread as the log has it
	view   v1.Session
	auto   bool // the title was made by the program
	pruned int64
	kept   []mark // sizes of the events in the store

	turn  *Turn
	runs  runs
	lease lease
	sync  syncState
}

// state is what the row keeps that people don't see.
type state struct {
	Selected string      `json:"selected,omitempty"`
	Auto     bool        `json:"auto,omitempty"`
	Queue    []queuedRun `json:"queue,omitempty"`
	Turns    []string    `json:"turns,omitempty"`
	// When people were last told that a sandbox woke without its variables.
	Restarted time.Time `json:"restarted,omitzero"`
}

// ID gives the session's identifier.
func (s *Session) ID() string { return s.id }

// Owner says whose it is.
func (s *Session) Owner() identity.Owner { return s.owner }

// View gives the session without its items.
func (s *Session) View() v1.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.viewLocked()
}

func (s *Session) viewLocked() v1.Session {
	v := s.view
	v.LastSeq = s.seq
	v.ItemCount = len(s.shown)
	v.Queue = slices.Clone(v.Queue)
	if v.Queue == nil {
		v.Queue = []v1.QueuedMessage{}
	}
	if v.Turn != nil {
		t := *v.Turn
		v.Turn = &t
	}
	return v
}

func (s *Session) sessionRowLocked() store.Session {
	v := s.viewLocked()
	st := state{Auto: s.auto, Queue: s.runs.rows(), Restarted: s.lease.restarted}
	if s.tree.root.selected != nil {
		st.Selected = s.tree.root.selected.item.ID
	}
	row := store.Session{
		ID: s.id, ClientID: s.client, OwnerUser: s.owner.User, OwnerOrg: s.owner.Org, Title: v.Title, Pinned: v.Pinned, CreatedAt: v.CreatedAt, UpdatedAt: v.UpdatedAt,
		LastSeq: s.seq, PrunedSeq: s.pruned, Open: s.openLocked(), View: encode(v), State: encode(st),
	}
	if v.DeletedAt != nil {
		row.DeletedAt = *v.DeletedAt
	}
	return row
}

// openLocked reports whether something runs or waits that a restart must look at.
func (s *Session) openLocked() bool {
	return s.view.Turn != nil || s.runs.busy() || len(s.view.Queue) > 0
}

// changedLocked tells readers and the store that the session itself changed.
func (s *Session) changedLocked() {
	v := s.viewLocked()
	v.LastSeq = s.seq + 1
	s.emitLocked(event.SessionChanged, "", "", v)
	s.saveSessionLocked()
}

// touchLocked notes that what the session holds has changed.
func (s *Session) touchLocked() {
	s.view.UpdatedAt = time.Now().UTC().Truncate(time.Microsecond)
	s.saveSessionLocked()
}

// load makes a session of its rows and folds what came after them.
func (svc *Service) load(ctx context.Context, row store.Session) (*Session, error) {
	items, err := svc.store.Items(ctx, row.ID)
	if err != nil {
		return nil, err
	}
	s := &Session{
		svc: svc, id: row.ID, client: row.ClientID, owner: identity.Owner{User: row.OwnerUser, Org: row.OwnerOrg}, start: row.LastSeq, seq: row.LastSeq, pruned: row.PrunedSeq,
		log:  event.NewLog(event.LogOptions{MaxBytes: min(liveBytes, svc.opts.EventBytes), MaxRecords: liveRecords}),
		tree: newTree(), used: time.Now(),
	}
	s.ctx, s.cancel = context.WithCancelCause(svc.ctx)
	if err := json.Unmarshal(row.View, &s.view); err != nil {
		return nil, errDamaged(row.ID, err)
	}
	var st state
	if err := json.Unmarshal(row.State, &st); err != nil {
		return nil, errDamaged(row.ID, err)
	}
	s.auto = st.Auto
	places := map[string]place{}
	oldest := row.LastSeq
	for _, it := range items {
		n, p, err := nodeOf(it)
		if err != nil {
			return nil, errDamaged(row.ID, err)
		}
		s.tree.nodes[it.ID], places[it.ID] = n, p
		if !finished(n.item.Status) {
			oldest = min(oldest, n.seq)
		}
	}
	s.tree.link(places, st.Selected)
	if row.Open {
		if err := s.replay(ctx, oldest); err != nil {
			return nil, err
		}
	}
	for _, n := range s.tree.path() {
		s.shown = append(s.shown, n.item.ID)
	}
	n, bytes, err := svc.store.EventsSize(ctx, s.id, row.PrunedSeq)
	if err != nil {
		return nil, err
	}
	s.kept = []mark{{s.seq, n, bytes}}
	s.lease.restarted = st.Restarted
	return s, nil
}

func nodeOf(it store.Item) (*node, place, error) {
	var item v1.Item
	var p place
	if err := json.Unmarshal(it.Body, &item); err != nil {
		return nil, p, err
	}
	if err := json.Unmarshal(it.Tree, &p); err != nil {
		return nil, p, err
	}
	outs := it.Outputs
	if it.Short != nil {
		outs = it.Short
	}
	n := &node{entry: newEntry(item), seq: it.Seq, short: it.Short != nil}
	n.out.raw = outs
	if !p.Removed {
		n.indexed = searchText(item)
	}
	return n, p, nil
}

func errDamaged(id string, err error) error {
	return errdefs.New(errdefs.ErrUnavailable, "session-damaged", "The session %s can't be read from the database.", id).
		WithHint("The server's log has the reason.").WithCause(err)
}

// replay folds the events that the rows do not have yet.
func (s *Session) replay(ctx context.Context, after int64) error {
	for {
		events, err := s.svc.store.Events(ctx, s.id, after, s.seq, replayBytes)
		if err != nil || len(events) == 0 {
			return err
		}
		for _, e := range events {
			after = e.Seq
			if !isContent(event.Type(e.Type)) {
				continue
			}
			var l Line
			if err := json.Unmarshal(e.Line, &l); err != nil {
				return errDamaged(s.id, err)
			}
			s.foldLocked(&l)
		}
	}
}

const replayBytes = 8 << 20

// foldLocked applies an event to the items it concerns.
func (s *Session) foldLocked(l *Line) {
	n := s.tree.nodes[l.ItemID]
	if l.Type == event.OutputUpdate {
		if n != nil && l.Seq > n.seq {
			n.item.Input = nil
		}
		var d event.Display
		if json.Unmarshal(l.Data, &d) != nil {
			return
		}
		if id := d.ID(); id != "" {
			for _, n := range s.tree.nodes {
				if l.Seq > n.seq && n.out.shows(id) {
					s.wholeLocked(n)
					n.out.update(id, d)
					s.dirtyLocked(n)
				}
			}
		}
		return
	}
	if n == nil || l.Seq <= n.seq {
		return
	}
	if n.short && isOutput(l.Type) {
		s.wholeLocked(n)
	}
	n.content(l)
	s.dirtyLocked(n)
}

func isOutput(typ event.Type) bool {
	switch typ {
	case event.OutputStream, event.OutputDisplay, event.OutputResult, event.OutputError, event.OutputClear:
		return true
	}
	return false
}

// dirtyLocked notes that a node's row is behind. One that is finished is
// written with the next commit: nothing else would.
func (s *Session) dirtyLocked(n *node) {
	n.dirty = true
	if finished(n.item.Status) {
		s.saveWholeLocked(n)
	}
}

// wholeLocked gets the outputs back that are in the store only.
func (s *Session) wholeLocked(n *node) {
	if !n.short {
		return
	}
	if n.full != nil {
		n.out.rest(n.full)
		n.short, n.full = false, nil
		return
	}
	pending := n.out.pending
	list, err := s.readOutputs(s.ctx, n.item.ID)
	if err != nil {
		s.svc.log.Error("outputs can't be read", "session_id", s.id, "err", err)
		return
	}
	n.out, n.short = newOutputs(list), false
	n.out.pending = pending
}

func (s *Session) readOutputs(ctx context.Context, item string) ([]v1.Output, error) {
	raw, err := s.svc.store.Outputs(ctx, s.id, item)
	if err != nil || raw == nil {
		return nil, err
	}
	var list []v1.Output
	return list, json.Unmarshal(raw, &list)
}

// Detail gives the session with its thread, as one state that is kept: the
// events after its LastSeq continue it. Long values of outputs are cut.
func (s *Session) Detail() v1.SessionDetail {
	s.mu.Lock()
	d := v1.SessionDetail{Session: s.viewLocked(), Items: make([]v1.Item, 0, len(s.shown))}
	for _, n := range s.tree.path() {
		d.Items = append(d.Items, n.brief())
	}
	c := s.latestLocked()
	s.flushLocked()
	s.mu.Unlock()
	if c != nil {
		<-c.done
	}
	return d
}

// DetailJSON is Detail as it is sent. It costs little even when there is much
// output, since that rests as JSON.
func (s *Session) DetailJSON() []byte {
	s.mu.Lock()
	size := 4 << 10
	for n := s.tree.root.selected; n != nil; n = n.selected {
		size += len(n.out.raw) + 2*len(n.item.Code) + 2*len(n.item.Text) + 1<<10
	}
	b := bytes.NewBuffer(make([]byte, 0, size))
	b.Write(bytes.TrimSuffix(encode(s.viewLocked()), []byte("}")))
	b.WriteString(`,"items":[`)
	for i, n := range s.tree.path() {
		if i > 0 {
			b.WriteByte(',')
		}
		outs := n.out.raw
		if outs == nil {
			if list, _ := shorten(n.out.values()); list != nil {
				outs = encode(list)
			}
		}
		body := encode(n.item)
		if outs == nil {
			b.Write(body)
			continue
		}
		b.Write(bytes.TrimSuffix(body, []byte("}")))
		b.WriteString(`,"outputs":`)
		b.Write(outs)
		b.WriteByte('}')
	}
	b.WriteString("]}\n")
	c := s.latestLocked()
	s.flushLocked()
	s.mu.Unlock()
	if c != nil {
		<-c.done
	}
	return b.Bytes()
}

// brief gives the item with long values cut.
func (n *node) brief() v1.Item {
	item := n.value()
	item.Outputs, _ = shorten(item.Outputs)
	return item
}

// Items gives the thread with all outputs whole.
func (s *Session) Items(ctx context.Context) ([]v1.Item, error) {
	s.mu.Lock()
	path := s.tree.path()
	s.mu.Unlock()
	return s.wholeItems(ctx, path)
}

// Item gives one item with its outputs whole.
func (s *Session) Item(ctx context.Context, id string) (v1.Item, error) {
	s.mu.Lock()
	n, err := s.tree.find(id)
	s.mu.Unlock()
	if err != nil {
		return v1.Item{}, err
	}
	list, err := s.wholeItems(ctx, []*node{n})
	if err != nil {
		return v1.Item{}, err
	}
	return list[0], nil
}

func (s *Session) wholeItems(ctx context.Context, nodes []*node) ([]v1.Item, error) {
	if err := s.settled(); err != nil {
		return nil, err
	}
	list := make([]v1.Item, 0, len(nodes))
	for _, n := range nodes {
		s.mu.Lock()
		item, short := n.value(), n.short
		s.mu.Unlock()
		if short {
			var err error
			if item.Outputs, err = s.readOutputs(ctx, item.ID); err != nil {
				return nil, err
			}
		}
		list = append(list, item)
	}
	return list, nil
}

// mark tells how many events, and bytes of them, the store has up to a number.
type mark struct{ seq, events, bytes int64 }

// What the log of a session in memory and its events in the store may take.
// Readers that come back after longer get a gap and read the detail.
const (
	liveBytes   = 4 << 20
	liveRecords = 20_000
	keptBytes   = 16 << 20 // default of Options.EventBytes
	keptEvents  = 20_000
	markEvery   = 256 << 10
)

// pruneLocked drops old events from the store whose results stand in the rows.
func (s *Session) pruneLocked(c *commit) {
	last := &s.kept[len(s.kept)-1]
	if last.bytes > min(markEvery, s.svc.opts.EventBytes/8) {
		s.kept = append(s.kept, mark{})
		last = &s.kept[len(s.kept)-1]
	}
	for _, r := range c.records {
		last.seq = r.Seq
		last.events++
		last.bytes += int64(len(r.Line)) + 64
	}
	var events, bytes int64
	for _, m := range s.kept {
		events, bytes = events+m.events, bytes+m.bytes
	}
	most := s.svc.opts.EventBytes
	if events <= keptEvents && bytes <= most {
		return
	}
	limit := s.seq
	for _, n := range s.tree.nodes {
		if n.dirty || !finished(n.item.Status) {
			limit = min(limit, n.seq)
		}
	}
	to := s.pruned
	for len(s.kept) > 1 && (events > keptEvents/2 || bytes > most/2) && s.kept[0].seq <= limit {
		events, bytes, to = events-s.kept[0].events, bytes-s.kept[0].bytes, s.kept[0].seq
		s.kept = s.kept[1:]
	}
	if to > s.pruned {
		s.pruned = to
		c.pruneTo, c.session = to, true
	}
}
