// Package nbformat turns the events of an execution into what a notebook
// keeps: nbformat 4.5 outputs with the text of one stream joined, display
// updates and clear_output applied.
//
// Source: nbformat 4.5 schema; Jupyter messaging 5.4 for update_display_data
// and clear_output(wait).
package nbformat

import (
	"encoding/json"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
)

// Folder takes events in order and gives the outputs. The zero value is ready.
// It belongs to one goroutine.
type Folder struct {
	items   []*item
	pending bool // clear_output(wait=True): clear when the next output comes
}

// item is one output on its way; text of streams is gathered without copying
// all of it for each piece.
type item struct {
	out     v1.Output
	text    strings.Builder
	display string // display_id, empty if none
}

// Add takes one event. What is no output changes nothing.
func (f *Folder) Add(rec event.Record) {
	switch rec.Type {
	case event.OutputStream:
		var d event.Stream
		if decode(rec, &d) {
			f.stream(d)
		}
	case event.OutputDisplay, event.OutputResult:
		var d event.Display
		if decode(rec, &d) {
			f.display(rec.Type, d)
		}
	case event.OutputUpdate:
		var d event.Display
		if decode(rec, &d) {
			f.update(d)
		}
	case event.OutputError:
		var d event.Error
		if decode(rec, &d) {
			f.clearPending()
			tb := d.Traceback
			if tb == nil {
				tb = []string{}
			}
			f.items = append(f.items, &item{out: v1.Output{Type: "error", ErrorName: d.Name, ErrorValue: d.Value, Traceback: tb}})
		}
	case event.OutputClear:
		var d struct {
			Wait bool `json:"wait"`
		}
		if decode(rec, &d) {
			if f.pending = d.Wait; !d.Wait {
				f.items = nil
			}
		}
	}
}

// Outputs gives the outputs so far; it is never nil.
func (f *Folder) Outputs() []v1.Output {
	outs := make([]v1.Output, len(f.items))
	for i := range f.items {
		outs[i] = f.items[i].out
		if outs[i].Type == "stream" {
			outs[i].Text = f.items[i].text.String()
		}
	}
	return outs
}

func (f *Folder) clearPending() {
	if f.pending {
		f.pending, f.items = false, nil
	}
}

func (f *Folder) stream(d event.Stream) {
	f.clearPending()
	n := len(f.items)
	if n == 0 || f.items[n-1].out.Type != "stream" || f.items[n-1].out.Name != d.Name {
		f.items = append(f.items, &item{out: v1.Output{Type: "stream", Name: d.Name}})
		n++
	}
	f.items[n-1].text.WriteString(d.Text)
}

func (f *Folder) display(typ event.Type, d event.Display) {
	f.clearPending()
	it := &item{out: v1.Output{Type: "display_data"}, display: d.ID()}
	if typ == event.OutputResult {
		it.out.Type, it.out.ExecutionCount = "execute_result", d.ExecutionCount
	}
	it.out.Data, it.out.Metadata = d.Bundle()
	f.items = append(f.items, it)
}

// update changes the displays that were shown under the id, all of them.
func (f *Folder) update(d event.Display) {
	id := d.ID()
	for i := range f.items {
		if id != "" && f.items[i].display == id {
			f.items[i].out.Data, f.items[i].out.Metadata = d.Bundle()
		}
	}
}

func decode(rec event.Record, data any) bool {
	var ev event.Event
	return json.Unmarshal(rec.Line, &ev) == nil && json.Unmarshal(ev.Data, data) == nil
}
