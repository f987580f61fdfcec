package session

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/sandbox"
)

func newItem(kind string) v1.Item {
	now := time.Now().UTC().Truncate(time.Microsecond)
	return v1.Item{ID: "itm_" + sandbox.RandomSuffix(), Kind: kind, Status: "idle", CreatedAt: now, UpdatedAt: now}
}

// putLocked adds an item to the tree, at a place that put chooses, and shows it.
func (s *Session) putLocked(item v1.Item, put func(*node)) *node {
	n := &node{entry: newEntry(item)}
	s.tree.nodes[item.ID] = n
	put(n)
	s.saveWholeLocked(n)
	s.showLocked()
	return n
}

// showLocked tells readers how the thread differs from what they have, and has
// the rows of all moved nodes written.
func (s *Session) showLocked() {
	s.saveMovedLocked()
	path := s.tree.path()
	order := make([]string, len(path))
	for i, n := range path {
		order[i] = n.item.ID
	}
	s.siblingsLocked(path)
	before := s.shown
	if slices.Equal(before, order) {
		return
	}
	s.shown = order
	switch {
	case len(order) == len(before)+1:
		if i := firstDifference(before, order); slices.Equal(before[i:], order[i+1:]) {
			after := ""
			if i > 0 {
				after = order[i-1]
			}
			s.emitLocked(event.ItemAdded, order[i], "", added{path[i].brief(), after})
			s.touchLocked()
			return
		}
	case len(order) == len(before)-1:
		if i := firstDifference(before, order); slices.Equal(before[i+1:], order[i:]) {
			s.emitLocked(event.ItemRemoved, before[i], "", json.RawMessage("{}"))
			s.touchLocked()
			return
		}
	}
	was := map[string]bool{}
	for _, id := range before {
		was[id] = true
	}
	t := thread{Order: order, Items: []v1.Item{}}
	for _, n := range path {
		if !was[n.item.ID] {
			t.Items = append(t.Items, n.brief())
		}
	}
	s.emitLocked(event.ThreadChanged, "", "", t)
	s.touchLocked()
}

func firstDifference(a, b []string) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return i
}

// siblingsLocked keeps the items' lists of alternatives right; those that were
// visible before learn of it by an event.
func (s *Session) siblingsLocked(path []*node) {
	for _, n := range s.tree.nodes {
		siblings := n.siblings()
		if slices.Equal(n.item.Siblings, siblings) {
			continue
		}
		n.item.Siblings = siblings
		s.saveLocked(n)
		if slices.Contains(s.shown, n.item.ID) && slices.Contains(path, n) {
			if siblings == nil {
				s.emitLocked(event.ItemChanged, n.item.ID, "", json.RawMessage(`{"siblings":null}`))
			} else {
				s.emitLocked(event.ItemChanged, n.item.ID, "", map[string]any{"siblings": siblings})
			}
		}
	}
}

// saveMovedLocked writes the rows whose place in the tree has changed.
func (s *Session) saveMovedLocked() {
	for _, n := range s.tree.nodes {
		if at := encode(n.place()); !bytes.Equal(at, n.at) {
			n.at = at
			s.saveLocked(n)
		}
	}
	s.saveSessionLocked() // it has what the root selects
}

// changeLocked changes the fields of an item and tells readers which.
func (s *Session) changeLocked(n *node, change func(*v1.Item)) { s.changeAsLocked(n, "", change) }

func (s *Session) changeAsLocked(n *node, executionID string, change func(*v1.Item)) {
	before, _ := fieldsOf(n.item) // plain values
	change(&n.item)
	after, _ := fieldsOf(n.item)
	patch := difference(before, after)
	if len(patch) == 0 {
		return
	}
	n.item.UpdatedAt = time.Now().UTC().Truncate(time.Microsecond)
	patch["updated_at"] = encode(n.item.UpdatedAt)
	s.emitPatchLocked(n, executionID, patch)
}

// clearLocked empties the outputs of an item with what else belongs to its
// last run, and changes more fields with it.
func (s *Session) clearLocked(n *node, executionID string, change func(*v1.Item)) {
	before, _ := fieldsOf(n.item) // plain values
	had := !n.out.empty()
	n.out.reset()
	n.short, n.full = false, nil
	it := &n.item
	it.Reason, it.Message, it.ExecutionID, it.ExecutionCount = "", "", "", 0
	it.StartedAt, it.FinishedAt, it.DurationMS, it.OutputBytes, it.DroppedBytes, it.OutputFile = nil, nil, 0, 0, 0, ""
	it.Input, it.Changes, it.Status = nil, nil, "idle"
	change(it)
	after, _ := fieldsOf(n.item)
	patch := difference(before, after)
	if had || n.item.Status == "queued" {
		patch["outputs"] = json.RawMessage("[]")
	}
	if len(patch) == 0 {
		return
	}
	n.item.UpdatedAt = time.Now().UTC().Truncate(time.Microsecond)
	patch["updated_at"] = encode(n.item.UpdatedAt)
	n.dirty = true
	s.emitPatchLocked(n, executionID, patch)
}

func (s *Session) emitPatchLocked(n *node, executionID string, patch map[string]json.RawMessage) {
	if s.tree.visible(n) {
		s.emitLocked(event.ItemChanged, n.item.ID, executionID, patch)
	}
	s.saveLocked(n)
}

// difference gives the merge patch from one set of fields to another.
func difference(before, after map[string]json.RawMessage) map[string]json.RawMessage {
	patch := map[string]json.RawMessage{}
	for k, v := range after {
		if old, ok := before[k]; !ok || !bytes.Equal(old, v) {
			patch[k] = v
		}
	}
	for k := range before {
		if _, ok := after[k]; !ok {
			patch[k] = json.RawMessage("null")
		}
	}
	return patch
}

// titleFrom makes a title of a message or of code: its first comment, or its
// first line.
func titleFrom(text string, code bool) string {
	var first string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if first == "" {
			first = line
		}
		if !code {
			break
		}
		if comment := strings.TrimSpace(strings.TrimLeft(line, "#")); strings.HasPrefix(line, "#") && comment != "" && !strings.HasPrefix(line, "#!") {
			first = comment
			break
		}
	}
	first = strings.Join(strings.Fields(strings.TrimLeft(first, "#>*- ")), " ")
	runes := []rune(first)
	if len(runes) <= titleRunes {
		return first
	}
	cut := string(runes[:titleRunes])
	if i := strings.LastIndexByte(cut, ' '); i > titleRunes/2 {
		cut = cut[:i]
	}
	return cut + "…"
}

// A made title fits a line of the list.
const titleRunes = 60

// titleLocked gives a session without a title one.
func (s *Session) titleLocked(text string, code bool) {
	if s.view.Title != "" || !s.auto {
		return
	}
	if title := titleFrom(text, code); title != "" {
		s.view.Title = title
		s.changedLocked()
		s.svc.list.notify(s.owner)
	}
}
