package session

import (
	"context"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// Bounds of what one session holds.
const (
	maxItems = 10_000
	maxText  = 4 << 20
)

func checkText(text string) error {
	if len(text) > maxText {
		return errdefs.New(errdefs.ErrTooLarge, "text-too-large", "The text is larger than %d MiB.", maxText>>20).
			WithHint("Upload large data as a file.")
	}
	return nil
}

func errFull(items int) error {
	return errdefs.New(errdefs.ErrExhausted, "too-many-items", "The session has %d items, and more are not kept.", items).
		WithHint("Go on in a new session.")
}

// AddItem adds a cell or a note.
func (s *Session) AddItem(req v1.CreateItem) (v1.Item, error) {
	var out v1.Item
	if err := checkText(req.Code + req.Text); err != nil {
		return out, err
	}
	err := s.do(func() error {
		if len(s.tree.nodes) >= maxItems {
			return errFull(len(s.tree.nodes))
		}
		after, err := s.placeLocked(req.After)
		if err != nil {
			return err
		}
		item := newItem(req.Kind)
		switch req.Kind {
		case "cell":
			item.Code = req.Code
		case "note":
			item.Text = req.Text
		default:
			return errdefs.New(errdefs.ErrInvalid, "kind-unknown", "An item that is added is a cell or a note, not %.40q.", req.Kind).WithHint("Messages are sent by POST …/messages.")
		}
		n := s.putLocked(item, func(n *node) { s.tree.insert(n, after) })
		out = n.brief()
		return nil
	})
	return out, err
}

// placeLocked finds the node that something goes behind; nil is the end.
func (s *Session) placeLocked(after *string) (*node, error) {
	if after == nil {
		return s.tree.last(), nil
	}
	n := s.tree.at(*after)
	if n == nil || n != &s.tree.root && !s.tree.visible(n) {
		return nil, errItem(*after)
	}
	return n, nil
}

// UpdateItem changes a cell or a note.
func (s *Session) UpdateItem(id string, req v1.UpdateItem) (v1.Item, error) {
	var out v1.Item
	for _, text := range []*string{req.Code, req.Text} {
		if text != nil {
			if err := checkText(*text); err != nil {
				return out, err
			}
		}
	}
	err := s.do(func() error {
		n, err := s.tree.find(id)
		if err != nil {
			return err
		}
		if err := s.editLocked(n, req); err != nil {
			return err
		}
		if req.After != nil {
			if err := s.moveLocked(n, *req.After); err != nil {
				return err
			}
		}
		out = n.brief()
		return nil
	})
	return out, err
}

func (s *Session) editLocked(n *node, req v1.UpdateItem) error {
	busy := !finished(n.item.Status)
	kind := n.item.Kind
	if req.Kind != nil {
		kind = *req.Kind
	}
	switch {
	case kind != n.item.Kind && (busy || n.item.Tool != nil || (kind != "cell" && kind != "note") || (n.item.Kind != "cell" && n.item.Kind != "note")):
		return errdefs.New(errdefs.ErrConflict, "kind-fixed", "This item can't become a %.40s now.", kind).
			WithHint("A cell that does not run and that no model made can become a note, and a note a cell.")
	case req.Code != nil && kind != "cell":
		return errdefs.New(errdefs.ErrInvalid, "no-code", "Only a cell has code.").WithHint("Change the text, or turn the note into a cell.")
	case req.Text != nil && kind != "note":
		return errdefs.New(errdefs.ErrInvalid, "no-text", "Only the text of a note can be changed.").
			WithHint("A message is edited by sending it again with \"replaces\".")
	case req.Code != nil && n.item.Status == "writing":
		return errdefs.New(errdefs.ErrConflict, "item-writing", "The model writes this cell.").WithHint("Stop it first, or wait.")
	}
	edit := func(it *v1.Item) {
		if kind != it.Kind {
			if it.Kind = kind; kind == "note" {
				it.Text, it.Code = it.Code, ""
			} else {
				it.Code, it.Text = it.Text, ""
			}
		}
		if req.Code != nil && *req.Code != it.Code {
			it.Code = *req.Code
			it.Edited = it.ExecutionID != ""
		}
		if req.Text != nil {
			it.Text = *req.Text
		}
		if req.CodeHidden != nil {
			it.CodeHidden = *req.CodeHidden
		}
		if req.OutputsHidden != nil {
			it.OutputsHidden = *req.OutputsHidden
		}
	}
	if kind != n.item.Kind {
		s.clearLocked(n, "", edit)
	} else {
		s.changeLocked(n, edit)
	}
	s.touchLocked()
	return nil
}

func (s *Session) moveLocked(n *node, after string) error {
	to, err := s.placeLocked(&after)
	if err != nil {
		return err
	}
	switch {
	case !s.tree.visible(n):
		return errItem(n.item.ID)
	case to == n || to == n.parent:
		return nil
	}
	s.tree.take(n)
	s.tree.insert(n, to)
	s.showLocked()
	return nil
}

// RemoveItem takes an item out of the thread; RestoreItem brings it back.
func (s *Session) RemoveItem(id string) error {
	return s.do(func() error {
		n, err := s.tree.find(id)
		if err != nil {
			return err
		}
		if !finished(n.item.Status) {
			return errdefs.New(errdefs.ErrConflict, "item-busy", "The item is at work.").WithHint("Stop it first.")
		}
		s.tree.remove(n)
		s.showLocked()
		s.saveLocked(n)
		return nil
	})
}

// RestoreItem undoes RemoveItem. Restoring what is there changes nothing.
func (s *Session) RestoreItem(id string) (v1.Item, error) {
	var out v1.Item
	err := s.do(func() error {
		n := s.tree.nodes[id]
		if n == nil {
			return errItem(id)
		}
		if n.removed != nil {
			s.tree.restore(n)
			s.showLocked()
			s.saveLocked(n)
		}
		out = n.brief()
		return nil
	})
	return out, err
}

// Select chooses an alternative; what follows it is shown.
func (s *Session) Select(id string) error {
	return s.do(func() error {
		n, err := s.tree.find(id)
		if err != nil {
			return err
		}
		if s.turn != nil {
			return errdefs.New(errdefs.ErrConflict, "turn-running", "The model is at work.").WithHint("Stop it first, or wait.")
		}
		s.tree.choose(n)
		s.showLocked()
		return nil
	})
}

// Clear empties the outputs of an item, or with "" of all that don't run.
func (s *Session) Clear(id string) error {
	return s.do(func() error {
		if id != "" {
			n, err := s.tree.find(id)
			if err != nil {
				return err
			}
			if !finished(n.item.Status) {
				return errdefs.New(errdefs.ErrConflict, "item-busy", "The item is at work.").WithHint("Stop it first.")
			}
			s.clearLocked(n, "", func(*v1.Item) {})
			s.touchLocked()
			return nil
		}
		for _, n := range s.tree.path() {
			if n.item.Kind == "cell" && finished(n.item.Status) {
				s.clearLocked(n, "", func(*v1.Item) {})
			}
		}
		s.touchLocked()
		return nil
	})
}

// Update changes title, pin or model.
func (s *Session) Update(req v1.UpdateSession) (v1.Session, error) {
	var out v1.Session
	err := s.do(func() error {
		before := s.viewLocked()
		if req.Title != nil {
			title, err := cleanTitle(*req.Title)
			if err != nil {
				return err
			}
			s.view.Title, s.auto = title, title == ""
		}
		if req.Pinned != nil {
			s.view.Pinned = *req.Pinned
		}
		if req.Model != nil {
			s.view.Model = *req.Model
		}
		if before.Title != s.view.Title || before.Pinned != s.view.Pinned || before.Model != s.view.Model {
			s.changedLocked()
		}
		out = s.viewLocked()
		return nil
	})
	s.svc.list.notify(s.owner)
	return out, err
}

// SuggestTitle gives the session a better title, unless a person gave one.
func (s *Session) SuggestTitle(title string) error {
	title, err := cleanTitle(title)
	if err != nil {
		return err
	}
	err = s.do(func() error {
		if s.auto && title != "" && title != s.view.Title {
			s.view.Title = title
			s.changedLocked()
		}
		return nil
	})
	s.svc.list.notify(s.owner)
	return err
}

// Delete marks the session as deleted, stops what runs and frees its sandbox.
// Undelete brings it back until the service forgets it.
func (s *Session) Delete(ctx context.Context) error {
	s.StopTurn()
	s.Interrupt()
	err := s.do(func() error {
		if s.view.DeletedAt == nil {
			now := time.Now().UTC().Truncate(time.Microsecond)
			s.view.DeletedAt = &now
			s.changedLocked()
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.svc.list.notify(s.owner)
	return s.FreeSandbox(ctx)
}

// Undelete undoes Delete.
func (s *Session) Undelete() error {
	err := s.do(func() error {
		if s.view.DeletedAt != nil {
			s.view.DeletedAt = nil
			s.changedLocked()
		}
		return nil
	})
	s.svc.list.notify(s.owner)
	return err
}

// Duplicate makes a session with the same thread and files.
func (s *Session) Duplicate(ctx context.Context) (*Session, error) {
	items, err := s.Items(ctx)
	if err != nil {
		return nil, err
	}
	if sb, ok := s.AwakeSandbox(); ok {
		s.syncFiles(ctx, sb)
	}
	view := s.View()
	title := view.Title
	if title != "" {
		if title += " (copy)"; len([]rune(title)) > maxTitle {
			title = string([]rune(title)[:maxTitle])
		}
	}
	to, err := s.svc.create(ctx, v1.CreateSession{Title: title, Model: &view.Model, Template: view.Template}, "", func(to *Session) { to.fillLocked(items) })
	if err == nil && s.svc.opts.Files != nil {
		err = s.svc.opts.Files.Copy(ctx, s.id, to.id)
	}
	return to, err
}

// Import makes a session of items, as a notebook has them.
func (svc *Service) Import(ctx context.Context, req v1.CreateSession, items []v1.Item) (*Session, error) {
	if len(items) > maxItems {
		return nil, errdefs.New(errdefs.ErrTooLarge, "too-many-items", "The notebook has %d cells, and at most %d are taken.", len(items), maxItems).WithHint("Split it, and import the parts.")
	}
	return svc.create(ctx, req, "", func(s *Session) { s.fillLocked(items) })
}

// fillLocked adds copies of items to an empty session.
func (s *Session) fillLocked(items []v1.Item) {
	turns := map[string]string{}
	for _, item := range items {
		fresh := newItem(item.Kind)
		item.ID, item.Siblings, item.ExecutionID, item.Input = fresh.ID, nil, "", nil
		item.CreatedAt, item.UpdatedAt = fresh.CreatedAt, fresh.UpdatedAt
		if item.TurnID != "" {
			if turns[item.TurnID] == "" {
				turns[item.TurnID] = newTurnID()
			}
			item.TurnID = turns[item.TurnID]
		}
		if item.Status == "" {
			item.Status = "idle"
		}
		if !finished(item.Status) {
			item.Status = "stopped"
		}
		n := &node{entry: newEntry(item)}
		s.tree.nodes[item.ID] = n
		s.tree.insert(n, s.tree.last())
		s.saveWholeLocked(n)
	}
	s.showLocked()
}

// deltaLocked adds text to an item that is being written.
func (s *Session) deltaLocked(n *node, field, text string) {
	l := Line{Type: event.ItemDelta, ItemID: n.item.ID, Data: encode(delta{field, text})}
	n.content(&l)
	n.dirty = true
	s.emitLocked(event.ItemDelta, n.item.ID, "", l.Data)
}
