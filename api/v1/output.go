package v1

import (
	"bytes"
	"encoding/json"
)

// MarshalJSON writes the fields that nbformat 4.5 requires of the output's
// type also when they are empty: the text of an exception without one, for
// instance.
func (o Output) MarshalJSON() ([]byte, error) {
	type plain Output // without this method
	var v any
	switch o.Type {
	case "stream":
		v = struct {
			Type string `json:"output_type"`
			Name string `json:"name"`
			Text string `json:"text"`
			plain
		}{o.Type, o.Name, o.Text, plain(o)}
	case "error":
		if o.Traceback == nil {
			o.Traceback = []string{}
		}
		v = struct {
			Type  string `json:"output_type"`
			Name  string `json:"ename"`
			Value string `json:"evalue"`
			plain
		}{o.Type, o.ErrorName, o.ErrorValue, plain(o)}
	case "display_data", "execute_result":
		if o.Data == nil {
			o.Data = map[string]json.RawMessage{}
		}
		if len(o.Metadata) == 0 {
			o.Metadata = json.RawMessage("{}")
		}
		v = plain(o)
	default:
		v = plain(o)
	}
	// Whoever encodes the whole decides about <, > and &.
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}
