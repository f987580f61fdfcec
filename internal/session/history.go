package session

import (
	"context"
	"slices"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// toldTypes are the values that a model may be told of as a whole. All others
// are cut as in the detail: of a long text it gets the ends anyway.
var toldTypes = []string{"image/png", "image/jpeg", "text/markdown", "application/vnd.caesarion.table+json"}

// What a history takes of long values. It lives as long as the turn, and no
// model gets more than a few pictures.
const (
	toldValue = 8 << 20  // of one value
	toldAll   = 32 << 20 // of all together; the latest go first
)

// History gives the thread up to the message, or for a turn that continues up
// to where it goes on, and what the turn itself has made. Outputs are cut as
// in the detail, but for values of toldTypes within the bounds above.
func (t *Turn) History() []v1.Item {
	s := t.s
	_ = s.settled() // what is not kept can't be read; then values are missing
	s.mu.Lock()
	path := s.tree.pathTo(t.tail)
	s.mu.Unlock()
	items := make([]v1.Item, len(path))
	room := int64(toldAll)
	for i, n := range slices.Backward(path) {
		items[i] = s.toldItem(t.ctx, n, &room)
	}
	return items
}

// told gives one item as History does.
func (s *Session) told(ctx context.Context, id string) (v1.Item, error) {
	if err := s.settled(); err != nil {
		return v1.Item{}, err
	}
	s.mu.Lock()
	n, err := s.tree.find(id)
	s.mu.Unlock()
	if err != nil {
		return v1.Item{}, err
	}
	room := int64(toldAll)
	return s.toldItem(ctx, n, &room), nil
}

// toldItem gives an item whose long values come out of room.
func (s *Session) toldItem(ctx context.Context, n *node, room *int64) v1.Item {
	s.mu.Lock()
	item, short := n.value(), n.short
	s.mu.Unlock()
	whole := item.Outputs
	item.Outputs, _ = shorten(whole)
	for i, out := range item.Outputs {
		for _, mime := range toldTypes {
			size := out.Refs[mime].Bytes
			if size == 0 || size > toldValue || size > *room {
				continue
			}
			if short {
				list, err := s.readOutputs(ctx, item.ID)
				if err != nil {
					s.svc.log.Warn("outputs can't be read", "session_id", s.id, "err", err)
					return item
				}
				whole, short = list, false
			}
			if i < len(whole) && whole[i].Data[mime] != nil {
				*room -= size
				// The map is shorten's, or was read for this item.
				item.Outputs[i].Data[mime] = whole[i].Data[mime]
			}
		}
	}
	cutErrors(item.Outputs)
	return item
}

// cutErrors cuts the texts of exceptions; the list is the caller's own if it
// changes anything.
func cutErrors(list []v1.Output) {
	for i := range list {
		out := &list[i]
		if len(out.ErrorValue) > longValue {
			out.ErrorValue = shortText(out.ErrorValue)
		}
		for j, line := range out.Traceback {
			if len(line) > longValue {
				out.Traceback = slices.Clone(out.Traceback)
				out.Traceback[j] = shortText(line)
			}
		}
	}
}
