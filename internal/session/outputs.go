package session

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
)

// outputs folds the output events of an item into what a notebook keeps:
// nbformat 4.5 outputs with the text of one stream joined, display updates and
// clear_output applied. A slice it gave away is never changed.
type outputs struct {
	list    []output
	raw     json.RawMessage // instead of list while nothing changes: its JSON
	pending bool            // clear_output(wait=True): clear when the next output comes
}

type output struct {
	v    v1.Output
	text []byte // of a stream; v.Text is made when it is asked for
}

func newOutputs(list []v1.Output) outputs {
	var o outputs
	for _, v := range list {
		out := output{v: v}
		if v.Type == "stream" {
			out.text, out.v.Text = []byte(v.Text), ""
		}
		o.list = append(o.list, out)
	}
	return o
}

// rest keeps the outputs as their JSON until they change: most never do again,
// and are asked for as JSON.
func (o *outputs) rest(raw json.RawMessage) { o.list, o.raw = nil, raw }

// open makes a list of what rests.
func (o *outputs) open() {
	if o.raw == nil {
		return
	}
	var list []v1.Output
	_ = json.Unmarshal(o.raw, &list) // written by this program
	pending := o.pending
	*o = newOutputs(list)
	o.pending = pending
}

func (o *outputs) empty() bool { return len(o.list) == 0 && o.raw == nil }

// values gives the outputs so far, nil if there are none.
func (o *outputs) values() []v1.Output {
	if o.raw != nil {
		var list []v1.Output
		_ = json.Unmarshal(o.raw, &list) // see open
		return list
	}
	if len(o.list) == 0 {
		return nil
	}
	list := make([]v1.Output, len(o.list))
	for i := range o.list {
		list[i] = o.list[i].v
		if list[i].Type == "stream" {
			list[i].Text = string(o.list[i].text)
		}
	}
	return list
}

func (o *outputs) reset() { *o = outputs{} }

// add takes one event of the item's own execution; updates go to update.
func (o *outputs) add(typ event.Type, data json.RawMessage) {
	o.open()
	switch typ {
	case event.OutputStream:
		var d event.Stream
		if json.Unmarshal(data, &d) == nil {
			o.stream(d.Name, d.Text)
		}
	case event.OutputDisplay, event.OutputResult:
		var d event.Display
		if json.Unmarshal(data, &d) != nil {
			return
		}
		o.clearPending()
		out := output{v: v1.Output{Type: "display_data", DisplayID: d.ID()}}
		if typ == event.OutputResult {
			out.v.Type, out.v.ExecutionCount = "execute_result", d.ExecutionCount
		}
		fill(&out.v, d)
		o.list = append(o.list, out)
	case event.OutputError:
		var d event.Error
		if json.Unmarshal(data, &d) != nil {
			return
		}
		o.clearPending()
		if d.Traceback == nil {
			d.Traceback = []string{}
		}
		o.list = append(o.list, output{v: v1.Output{Type: "error", ErrorName: d.Name, ErrorValue: d.Value, Traceback: d.Traceback}})
	case event.OutputClear:
		var d struct {
			Wait bool `json:"wait"`
		}
		if json.Unmarshal(data, &d) == nil {
			if o.pending = d.Wait; !d.Wait {
				o.list = nil
			}
		}
	}
}

func (o *outputs) clearPending() {
	if o.pending {
		o.reset()
	}
}

func (o *outputs) stream(name, text string) {
	o.clearPending()
	n := len(o.list)
	if n == 0 || o.list[n-1].v.Type != "stream" || o.list[n-1].v.Name != name {
		o.list = append(o.list, output{v: v1.Output{Type: "stream", Name: name}})
		n++
	}
	o.list[n-1].text = append(o.list[n-1].text, text...)
}

// shows reports whether one of the outputs was shown under a display_id.
func (o *outputs) shows(id string) bool {
	if o.raw != nil && !bytes.Contains(o.raw, append([]byte(`"display_id":`), encode(id)...)) {
		return false
	}
	o.open()
	return slices.ContainsFunc(o.list, func(out output) bool { return out.v.DisplayID == id })
}

// update changes the displays that were shown under the id.
func (o *outputs) update(id string, d event.Display) {
	o.open()
	for i := range o.list {
		if o.list[i].v.DisplayID == id {
			fill(&o.list[i].v, d)
		}
	}
}

func fill(out *v1.Output, d event.Display) {
	out.Refs = nil
	out.Data, out.Metadata = d.Bundle()
}

// A value longer than this is not part of a session's detail. It is a page of
// text or a small picture; larger ones are fetched when they are looked at.
const longValue = 64 << 10

// Of a long text so much is shown from its beginning and its end.
const (
	headBytes = 32 << 10
	tailBytes = 16 << 10
)

// RefText is the name of a stream's text in Output.Refs.
const RefText = "text"

// shorten cuts the long values of outputs; false if there is none.
func shorten(list []v1.Output) ([]v1.Output, bool) {
	cut := false
	for i := range list {
		out := list[i]
		if len(out.Text) > longValue {
			out.Refs = map[string]v1.OutputRef{RefText: {Bytes: int64(len(out.Text))}}
			out.Text = shortText(out.Text)
		}
		for mime, value := range out.Data {
			if len(value) <= longValue {
				continue
			}
			if out.Refs == nil {
				out.Refs = map[string]v1.OutputRef{}
				out.Data = maps.Clone(out.Data)
			}
			var text string
			isText := json.Unmarshal(value, &text) == nil
			if !isText {
				out.Refs[mime] = v1.OutputRef{Bytes: int64(len(value))}
				delete(out.Data, mime)
				continue
			}
			out.Refs[mime] = v1.OutputRef{Bytes: int64(len(text))}
			if mime == "text/plain" {
				out.Data[mime], _ = json.Marshal(shortText(text)) // a string
			} else {
				delete(out.Data, mime)
			}
		}
		if out.Refs == nil {
			continue
		}
		if !cut {
			list, cut = slices.Clone(list), true
		}
		list[i] = out
	}
	return list, cut
}

func shortText(s string) string {
	head, tail := headBytes, len(s)-tailBytes
	for head > 0 && !utf8.RuneStart(s[head]) {
		head--
	}
	for tail < len(s) && !utf8.RuneStart(s[tail]) {
		tail++
	}
	return s[:head] + "\n… " + strconv.Itoa(tail-head) + " bytes are not shown here …\n" + s[tail:]
}
