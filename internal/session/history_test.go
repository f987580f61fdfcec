package session

import (
	"encoding/json"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// What a model is told of is bounded, whatever the cells printed.
func TestHistoryIsBounded(t *testing.T) {
	quoted := func(n int) json.RawMessage { return json.RawMessage(`"` + strings.Repeat("x", n) + `"`) }
	n := &node{entry: newEntry(v1.Item{})}
	n.out = newOutputs([]v1.Output{
		{Type: "stream", Name: "stdout", Text: strings.Repeat("y", 10<<20)},
		{Type: "display_data", Data: map[string]json.RawMessage{"image/png": quoted(1 << 20), "text/html": quoted(1 << 20), "text/plain": quoted(1 << 20)}, Metadata: json.RawMessage("{}")},
		{Type: "display_data", Data: map[string]json.RawMessage{"image/png": quoted(1 << 20)}, Metadata: json.RawMessage("{}")},
		{Type: "error", ErrorName: "E", ErrorValue: strings.Repeat("z", 10<<20), Traceback: []string{strings.Repeat("z", 10<<20)}},
	})
	room := int64(3 << 19) // one and a half
	item := (&Session{}).toldItem(t.Context(), n, &room)
	if got := len(encode(item)); got > 2<<20 {
		t.Errorf("%d bytes", got)
	}
	out := item.Outputs
	if len(out[1].Data["image/png"]) != 1<<20+2 || out[1].Data["text/html"] != nil || len(out[1].Data["text/plain"]) > longValue {
		t.Errorf("the first picture is to be whole, and nothing else: %d %d", len(out[1].Data["image/png"]), len(out[1].Data["text/plain"]))
	}
	if out[2].Data["image/png"] != nil || out[2].Refs["image/png"].Bytes != 1<<20 || room != 1<<19 {
		t.Errorf("the second has no room, and is named: %+v, room %d", out[2].Refs, room)
	}
	if n.out.list[1].v.Data["text/html"] == nil || len(n.out.list[3].v.Traceback[0]) != 10<<20 {
		t.Error("the session's own outputs were changed")
	}
}
