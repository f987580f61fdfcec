package session

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// ErrStopped is the cause that a turn's context ends with when a person stops it.
var ErrStopped = errors.New("session: stopped by a person")

// TurnStart says what a turn answers: a new message (Text, Files), one that
// takes the place of another (Replaces too), an old message again
// (RegenerateOf: any item of the answer, or the message itself), or what is
// there already (Continue).
type TurnStart struct {
	Text         string
	Files        []string
	Model        string // also becomes the session's model; empty: the session's
	Replaces     string
	RegenerateOf string
	Continue     bool
	MessageID    string // of the new message, if it was promised one; empty: a fresh one
}

// Turn is the model's work on one message. Its methods may be called
// concurrently. After it has ended they change nothing any more.
type Turn struct {
	s      *Session
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{}

	// Guarded by Session.mu.
	v       *v1.Turn // the session's view has the same
	message *node
	tail    *node   // the next item goes behind it
	items   []*node // made by this turn
	before  *node   // what was selected behind message, if nothing gets there
	branch  bool    // the first item is one more alternative
	ended   bool
}

func newTurnID() string { return "trn_" + sandbox.RandomSuffix() }

// BeginTurn starts a turn. ctx bounds the start only.
func (s *Session) BeginTurn(ctx context.Context, start TurnStart) (*Turn, error) {
	if err := checkText(start.Text); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var t *Turn
	err := s.do(func() error {
		switch {
		case s.turn != nil:
			return errdefs.New(errdefs.ErrConflict, "turn-running", "The model is at work on the message before.").
				WithHint("Stop it first, or wait; messages that are sent meanwhile wait in the queue.")
		case s.view.DeletedAt != nil:
			return errdefs.New(errdefs.ErrConflict, "session-deleted", "The session was deleted.").WithHint("Restore it first.")
		}
		if len(s.tree.nodes) >= maxItems {
			return errFull(len(s.tree.nodes))
		}
		t = &Turn{s: s, done: make(chan struct{})}
		if err := s.placeTurnLocked(t, start); err != nil {
			return err
		}
		if start.Model != "" && start.Model != s.view.Model {
			s.view.Model = start.Model
			s.changedLocked()
		}
		t.v = &v1.Turn{
			ID: newTurnID(), MessageID: t.message.item.ID, Model: s.view.Model, Status: "running",
			StartedAt: time.Now().UTC().Truncate(time.Microsecond),
		}
		t.ctx, t.cancel = context.WithCancelCause(s.ctx)
		s.turn, s.view.Turn, s.view.LastTurn = t, t.v, nil
		s.emitLocked(event.TurnStarted, "", "", *t.v)
		s.titleLocked(start.Text, false)
		s.touchLocked()
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.svc.list.notify(s.owner)
	return t, nil
}

// placeTurnLocked finds or makes the message and where the answer goes.
func (s *Session) placeTurnLocked(t *Turn, start TurnStart) error {
	switch {
	case start.RegenerateOf != "":
		n, err := s.tree.find(start.RegenerateOf)
		if err != nil {
			return err
		}
		path := s.tree.pathTo(n)
		i := slices.IndexFunc(path, func(x *node) bool { return n.item.TurnID != "" && x.item.TurnID == n.item.TurnID })
		switch {
		case n.item.Kind == "user":
			t.message = n
			t.tail = n
		case i >= 0:
			t.tail = path[i].parent
			for m := t.tail; m != &s.tree.root && t.message == nil; m = m.parent {
				if m.item.Kind == "user" {
					t.message = m
				}
			}
		}
		if t.message == nil {
			return errdefs.New(errdefs.ErrConflict, "nothing-to-regenerate", "This item is no answer of the model.").
				WithHint("Name an item of an answer, or the message that was answered.")
		}
		// The thread ends here until the new answer begins.
		s.tree.choose(t.tail)
		t.before, t.branch = t.tail.selected, true
		t.tail.selected = nil
		s.showLocked()
		return nil
	case start.Continue:
		t.tail = s.tree.last()
		for m := t.tail; m != &s.tree.root && t.message == nil; m = m.parent {
			if m.item.Kind == "user" {
				t.message = m
			}
		}
		if t.message == nil {
			return errdefs.New(errdefs.ErrConflict, "nothing-to-continue", "There is no message to go on from.").WithHint("Send one.")
		}
		return nil
	}
	item := newItem("user")
	if start.MessageID != "" && s.tree.nodes[start.MessageID] == nil {
		item.ID = start.MessageID
	}
	item.Text, item.Files = start.Text, start.Files
	put := func(n *node) { s.tree.insert(n, s.tree.last()) }
	if start.Replaces != "" {
		old, err := s.tree.find(start.Replaces)
		if err != nil {
			return err
		}
		if old.item.Kind != "user" {
			return errdefs.New(errdefs.ErrConflict, "not-a-message", "Only a message of a person can be replaced.").WithHint("To have an answer anew, regenerate it.")
		}
		parent := old.parent
		put = func(n *node) {
			if parent != &s.tree.root {
				s.tree.choose(parent)
			}
			s.tree.branch(n, parent)
		}
	}
	t.message = s.putLocked(item, put)
	t.tail = t.message
	return nil
}

// ID gives the turn's identifier.
func (t *Turn) ID() string { return t.v.ID }

// Model gives the name of the model that answers.
func (t *Turn) Model() string { return t.v.Model }

// MessageID gives the item that the turn answers.
func (t *Turn) MessageID() string { return t.v.MessageID }

// Context ends when the turn does; by ErrStopped when a person stops it.
func (t *Turn) Context() context.Context { return t.ctx }

var errTurnOver = errdefs.New(errdefs.ErrConflict, "turn-over", "The turn has ended.").WithHint("Send a message to begin another.")

// add puts an item of the turn behind the ones before.
func (t *Turn) add(item v1.Item) (string, error) {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.broken != nil:
		return "", s.broken
	case t.ended:
		return "", errTurnOver
	}
	item.TurnID, item.Model = t.v.ID, t.v.Model
	if !s.tree.inTree(t.tail) { // somebody deleted it meanwhile
		t.tail = s.tree.last()
	}
	n := s.putLocked(item, func(n *node) {
		if t.branch {
			s.tree.branch(n, t.tail)
			t.branch = false
			return
		}
		s.tree.insert(n, t.tail)
	})
	t.tail = n
	t.items = append(t.items, n)
	s.flushLocked()
	return n.item.ID, nil
}

// change changes an item of the turn, unless that has ended.
func (t *Turn) change(id string, fn func(*node)) error {
	s := t.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.broken != nil {
		return s.broken
	}
	n := s.tree.nodes[id]
	switch {
	case t.ended:
		return errTurnOver
	case n == nil || n.item.TurnID != t.v.ID:
		return errItem(id)
	}
	fn(n)
	s.flushLocked()
	return nil
}

// StartText begins a piece of the model's text.
func (t *Turn) StartText() (string, error) {
	item := newItem("assistant")
	item.Status = "writing"
	return t.add(item)
}

// StartCell begins a cell that the model writes.
func (t *Turn) StartCell(call v1.ToolCall) (string, error) {
	item := newItem("cell")
	item.Status, item.Tool = "writing", &call
	return t.add(item)
}

// StartTool begins another call of the model.
func (t *Turn) StartTool(call v1.ToolCall) (string, error) {
	item := newItem("tool")
	item.Status, item.Tool = "running", &call
	now := item.CreatedAt
	item.StartedAt = &now
	return t.add(item)
}

// Append adds to the "text", "code" or "reasoning" of an item.
func (t *Turn) Append(id, field, text string) error {
	if text == "" {
		return nil
	}
	return t.change(id, func(n *node) { t.s.deltaLocked(n, field, text) })
}

// SetCode gives a cell its final code, and the call with its arguments.
func (t *Turn) SetCode(id, code string, call v1.ToolCall) error {
	return t.change(id, func(n *node) {
		t.s.changeLocked(n, func(it *v1.Item) { it.Code, it.Tool = code, &call })
	})
}

// SetCall gives a tool item its call with arguments.
func (t *Turn) SetCall(id string, call v1.ToolCall) error {
	return t.change(id, func(n *node) {
		t.s.changeLocked(n, func(it *v1.Item) { it.Tool = &call })
	})
}

// FinishItem ends an item that the model wrote.
func (t *Turn) FinishItem(id, status, message string) error {
	return t.change(id, func(n *node) {
		t.s.changeLocked(n, func(it *v1.Item) { it.Status, it.Message = status, message })
		t.s.saveWholeLocked(n)
	})
}

// FinishTool gives a tool item its result, or the text of its failure.
func (t *Turn) FinishTool(id string, result json.RawMessage, failure string) error {
	return t.change(id, func(n *node) {
		now := time.Now().UTC().Truncate(time.Microsecond)
		t.s.changeLocked(n, func(it *v1.Item) {
			call := v1.ToolCall{}
			if it.Tool != nil {
				call = *it.Tool
			}
			call.Result, call.Error = result, failure
			it.Tool, it.Status, it.FinishedAt = &call, "ok", &now
			if it.StartedAt != nil {
				it.DurationMS = float64(now.Sub(*it.StartedAt).Microseconds()) / 1000
			}
			if failure != "" {
				it.Status = "error"
			}
		})
		t.s.saveWholeLocked(n)
	})
}

// RunCell runs a cell of the turn and gives it, as History does, when it has
// ended. If ctx or the turn ends first, the cell is interrupted.
func (t *Turn) RunCell(ctx context.Context, id string, timeout time.Duration) (v1.Item, error) {
	s := t.s
	var r *run
	err := t.change(id, func(n *node) {
		if n.item.Status == "writing" {
			n.item.Status = "idle"
		}
		r = s.queueLocked(n, &group{}, timeout)
	})
	if err != nil {
		return v1.Item{}, err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		_ = s.InterruptItem(id)
		err = context.Cause(ctx)
	case <-t.ctx.Done():
		_ = s.InterruptItem(id)
		err = context.Cause(t.ctx)
	}
	if err != nil {
		// Its end belongs to the history, if it comes soon.
		select {
		case <-r.done:
		case <-time.After(interruptTimeout):
		case <-s.ctx.Done():
		}
	}
	item, itemErr := s.told(context.WithoutCancel(ctx), id)
	if err == nil {
		err = itemErr
	}
	return item, err
}

// Round notes that the model is called for the n-th time, and the tokens it
// took since the last note.
func (t *Turn) Round(n int, usage v1.TokenUsage) {
	t.s.apply(func() {
		if t.ended {
			return
		}
		t.v.Round = n
		add(&t.v.Usage, usage)
		add(&t.s.view.Usage, usage)
		t.s.changedLocked()
	})
}

func add(to *v1.TokenUsage, more v1.TokenUsage) {
	to.InputTokens += more.InputTokens
	to.CachedInputTokens += more.CachedInputTokens
	to.OutputTokens += more.OutputTokens
}

// Finish ends the turn: ok, stopped, error, limit. What it still writes is
// ended with it. Finishing again changes nothing.
func (t *Turn) Finish(status, code, message string) {
	s := t.s
	_ = s.do(func() error {
		t.finishLocked(status, code, message)
		return nil
	})
	s.svc.list.notify(s.owner)
}

func (t *Turn) finishLocked(status, code, message string) {
	s := t.s
	if t.ended {
		return
	}
	t.ended = true
	for _, n := range t.items {
		switch {
		case n.item.Status == "writing", n.item.Kind == "tool" && n.item.Status == "running":
			end := "stopped"
			if status == "error" || status == "cut" {
				end = "cut"
			}
			s.cutLocked(n, end, "")
		}
	}
	if len(t.items) == 0 && t.before != nil && t.before.parent == t.tail && t.tail.selected == nil {
		t.tail.selected = t.before
		s.showLocked()
	}
	s.turn = nil
	s.endTurnLocked(t.v, status, code, message)
	close(t.done)
	cause := context.Canceled
	if status == "stopped" {
		cause = ErrStopped
	}
	t.cancel(cause)
}

// Running gives the turn that runs, nil if none does.
func (s *Session) Running() *Turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turn
}

// Done is closed when the turn has ended.
func (t *Turn) Done() <-chan struct{} { return t.done }

// StopTurn ends the turn that runs at once: what the model was writing stays
// as it is, its cells are interrupted. It reports whether there was one.
func (s *Session) StopTurn() bool {
	var cells []string
	stopped := false
	_ = s.do(func() error {
		t := s.turn
		if t == nil {
			return nil
		}
		for _, n := range t.items {
			if n.item.Kind == "cell" && (n.item.Status == "queued" || n.item.Status == "running") {
				cells = append(cells, n.item.ID)
			}
		}
		t.finishLocked("stopped", "", "")
		stopped = true
		return nil
	})
	for _, id := range cells {
		_ = s.InterruptItem(id) // it may have ended by itself
	}
	s.svc.list.notify(s.owner)
	return stopped
}
