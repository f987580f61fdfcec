package session

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
)

// entry is an item with its outputs as they come.
type entry struct {
	item v1.Item // without Outputs
	out  outputs
}

func newEntry(item v1.Item) *entry {
	e := &entry{item: item, out: newOutputs(item.Outputs)}
	e.item.Outputs = nil
	return e
}

// value gives the item whole.
func (e *entry) value() v1.Item {
	item := e.item
	item.Outputs = e.out.values()
	return item
}

// Line is one event of a session's log.
type Line struct {
	Seq         int64           `json:"seq"`
	Time        time.Time       `json:"time"`
	Type        event.Type      `json:"type"`
	ItemID      string          `json:"item_id,omitempty"`
	ExecutionID string          `json:"execution_id,omitempty"`
	Data        json.RawMessage `json:"data"`
}

// delta is the data of item.delta.
type delta struct {
	Field  string `json:"field"`
	Append string `json:"append"`
}

// isContent reports whether an event of this type changes what is in an item
// and nothing else. Rows of items are written when such a change is over, not
// with each.
func isContent(typ event.Type) bool {
	switch typ {
	case event.ItemDelta, event.ExecutionQueued, event.ExecutionStarted, event.ExecutionFinished, event.InputRequested,
		event.OutputStream, event.OutputDisplay, event.OutputUpdate, event.OutputResult, event.OutputError, event.OutputClear,
		event.OutputTruncated, event.CommOpen, event.CommMessage, event.CommClose, event.KernelInterrupted, event.KernelRestarted:
		return true
	}
	return false
}

// content applies an event to its item.
func (e *entry) content(l *Line) {
	switch l.Type {
	case event.ItemDelta:
		var d delta
		if json.Unmarshal(l.Data, &d) != nil {
			return
		}
		switch d.Field {
		case "text":
			e.item.Text += d.Append
		case "code":
			e.item.Code += d.Append
		case "reasoning":
			e.item.Reasoning += d.Append
		}
		return
	case event.InputRequested:
		var d event.Input
		if json.Unmarshal(l.Data, &d) == nil {
			e.item.Input = &v1.InputRequest{Prompt: d.Prompt, Password: d.Password}
		}
		return
	}
	e.item.Input = nil // the question is over when anything else comes
	switch l.Type {
	case event.ExecutionQueued:
		e.item.Status = "queued"
	case event.ExecutionStarted:
		e.item.Status = "running"
		e.item.StartedAt = &l.Time
	case event.ExecutionFinished:
		var d event.Finished
		if json.Unmarshal(l.Data, &d) != nil {
			return
		}
		e.item.Status, e.item.Reason, e.item.Message = string(d.Status), string(d.Reason), d.Message
		e.item.ExecutionCount, e.item.DurationMS = d.ExecutionCount, d.DurationMS
		e.item.OutputBytes, e.item.DroppedBytes, e.item.OutputFile = d.OutputBytes, d.DroppedBytes, d.OutputFile
		e.item.FinishedAt = &l.Time
	default:
		e.out.add(l.Type, l.Data)
	}
}

// patch applies the data of item.changed: a JSON merge patch.
func (e *entry) patch(data json.RawMessage) error {
	var changes map[string]json.RawMessage
	if err := json.Unmarshal(data, &changes); err != nil {
		return err
	}
	if outs, ok := changes["outputs"]; ok {
		var list []v1.Output
		if err := json.Unmarshal(outs, &list); err != nil {
			return err
		}
		e.out = newOutputs(list)
		delete(changes, "outputs")
	}
	fields, err := fieldsOf(e.item)
	if err != nil {
		return err
	}
	for k, v := range changes {
		if string(v) == "null" {
			delete(fields, k)
		} else {
			fields[k] = v
		}
	}
	whole, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	var item v1.Item
	if err := json.Unmarshal(whole, &item); err != nil {
		return err
	}
	e.item = item
	return nil
}

// fieldsOf gives an item as the fields of its JSON.
func fieldsOf(item v1.Item) (map[string]json.RawMessage, error) {
	item.Outputs = nil
	raw, err := json.Marshal(item)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	return fields, json.Unmarshal(raw, &fields)
}

// View is a session as a reader of its log sees it: begin with a detail, apply
// every event after its last_seq.
type View struct {
	Session v1.Session
	items   map[string]*entry
	order   []string
}

// NewView makes the view of a detail; the zero detail is the beginning of a log.
func NewView(d v1.SessionDetail) *View {
	v := &View{Session: d.Session, items: map[string]*entry{}}
	for _, item := range d.Items {
		v.items[item.ID] = newEntry(item)
		v.order = append(v.order, item.ID)
	}
	return v
}

// Items gives the thread.
func (v *View) Items() []v1.Item {
	list := make([]v1.Item, 0, len(v.order))
	for _, id := range v.order {
		list = append(list, v.items[id].value())
	}
	return list
}

// Apply takes the next event.
func (v *View) Apply(line []byte) error {
	var l Line
	if err := json.Unmarshal(line, &l); err != nil {
		return fmt.Errorf("session: event: %w", err)
	}
	if l.Seq > 0 {
		v.Session.LastSeq = l.Seq
	}
	if l.Type == event.OutputUpdate {
		v.update(&l)
		return nil
	}
	if isContent(l.Type) {
		if e := v.items[l.ItemID]; e != nil {
			e.content(&l)
		}
		return nil
	}
	return v.structure(&l)
}

// update reaches every item that shows the display; for the item that sent it
// it is like other output.
func (v *View) update(l *Line) {
	var d event.Display
	if json.Unmarshal(l.Data, &d) != nil {
		return
	}
	if e := v.items[l.ItemID]; e != nil {
		e.item.Input = nil
	}
	if id := d.ID(); id != "" {
		for _, e := range v.items {
			e.out.update(id, d)
		}
	}
}

func (v *View) structure(l *Line) error {
	switch l.Type {
	case event.ItemAdded:
		var d added
		if err := json.Unmarshal(l.Data, &d); err != nil {
			return err
		}
		v.items[d.Item.ID] = newEntry(d.Item)
		v.order = insertAfter(v.order, d.Item.ID, d.After)
	case event.ItemChanged:
		if e := v.items[l.ItemID]; e != nil {
			return e.patch(l.Data)
		}
	case event.ItemRemoved:
		delete(v.items, l.ItemID)
		v.order = slices.DeleteFunc(v.order, func(id string) bool { return id == l.ItemID })
	case event.ThreadChanged:
		var d thread
		if err := json.Unmarshal(l.Data, &d); err != nil {
			return err
		}
		items := map[string]*entry{}
		for _, item := range d.Items {
			items[item.ID] = newEntry(item)
		}
		for _, id := range d.Order {
			if items[id] == nil {
				if items[id] = v.items[id]; items[id] == nil {
					return fmt.Errorf("session: thread.changed shows %s, which was never added", id)
				}
			}
		}
		v.items, v.order = items, d.Order
	case event.SessionChanged:
		return json.Unmarshal(l.Data, newer(&v.Session))
	case event.TurnStarted, event.TurnFinished:
		var t v1.Turn
		if err := json.Unmarshal(l.Data, &t); err != nil {
			return err
		}
		if v.Session.Turn, v.Session.LastTurn = &t, nil; l.Type == event.TurnFinished {
			v.Session.Turn, v.Session.LastTurn = nil, &t
		}
	case event.SandboxChanged:
		v.Session.Sandbox = v1.SessionSandbox{}
		return json.Unmarshal(l.Data, &v.Session.Sandbox)
	}
	return nil
}

// newer empties a session, so that what new data leaves out is gone.
func newer(s *v1.Session) *v1.Session {
	*s = v1.Session{}
	return s
}

// added is the data of item.added.
type added struct {
	Item  v1.Item `json:"item"`
	After string  `json:"after"`
}

// thread is the data of thread.changed.
type thread struct {
	Order []string  `json:"order"`
	Items []v1.Item `json:"items"`
}

// insertAfter puts id behind after, or first if that is empty or unknown.
func insertAfter(order []string, id, after string) []string {
	i := slices.Index(order, after) + 1
	return slices.Insert(slices.Clip(order), i, id)
}
