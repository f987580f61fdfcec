package notebook

import (
	"bytes"
	"encoding/json"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// fileOutput is an output as it is read, of nbformat 4 and 3.
type fileOutput struct {
	Type           string                     `json:"output_type"`
	Name           string                     `json:"name"`
	Text           json.RawMessage            `json:"text"`
	Data           map[string]json.RawMessage `json:"data"`
	Metadata       json.RawMessage            `json:"metadata"`
	ExecutionCount json.RawMessage            `json:"execution_count"`
	ErrorName      string                     `json:"ename"`
	ErrorValue     json.RawMessage            `json:"evalue"`
	Traceback      json.RawMessage            `json:"traceback"`

	// nbformat 3
	Stream       string          `json:"stream"`
	PromptNumber json.RawMessage `json:"prompt_number"`
}

// output gives the output as the API has it; false: it is none.
func (o *fileOutput) output(raw json.RawMessage, format int) (v1.Output, bool) {
	switch o.Type {
	case "stream":
		text, ok := multiline(o.Text)
		name := o.Name
		if format == 3 {
			name = o.Stream
		}
		if name != "stderr" {
			name = "stdout"
		}
		return v1.Output{Type: "stream", Name: name, Text: text}, ok
	case "error", "pyerr":
		value, _ := multiline(o.ErrorValue)
		tb := []string{}
		if json.Unmarshal(o.Traceback, &tb) != nil || tb == nil {
			tb = []string{}
		}
		return v1.Output{Type: "error", ErrorName: o.ErrorName, ErrorValue: value, Traceback: tb}, true
	case "display_data", "execute_result", "pyout", "update_display_data":
		out := v1.Output{Type: "display_data", Data: map[string]json.RawMessage{}, Metadata: json.RawMessage("{}")}
		data := o.Data
		if format == 3 {
			data = dataOf3(raw)
		}
		for mime, value := range data {
			if v, ok := joined(mime, value); ok {
				out.Data[mime] = v
			}
		}
		if isObject(o.Metadata) {
			out.Metadata = compact(o.Metadata)
		}
		if o.Type == "execute_result" || o.Type == "pyout" {
			out.Type = "execute_result"
			number := o.ExecutionCount
			if format == 3 {
				number = o.PromptNumber
			}
			var n int
			if json.Unmarshal(number, &n) == nil && n > 0 {
				out.ExecutionCount = &n
			}
		}
		return out, true
	default:
		return v1.Output{}, false
	}
}

// joined gives a value of a notebook as kernels send it: text in one piece.
func joined(mime string, raw json.RawMessage) (json.RawMessage, bool) {
	if isJSONType(mime) {
		return compact(raw), true
	}
	text, ok := multiline(raw)
	if !ok {
		return nil, false
	}
	if strings.HasPrefix(mime, "image/") && mime != "image/svg+xml" {
		text = strings.Join(strings.Fields(text), "") // base64 in lines of 76
	}
	value, err := json.Marshal(text)
	return value, err == nil
}

// compact takes out the white space that files have for people.
func compact(raw json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return raw
	}
	return b.Bytes()
}

// short3 are the keys that nbformat 3 had for mime types.
var short3 = map[string]string{
	"text": "text/plain", "html": "text/html", "svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg",
	"latex": "text/latex", "javascript": "application/javascript", "json": "application/json", "pdf": "application/pdf",
}

func dataOf3(raw json.RawMessage) map[string]json.RawMessage {
	var fields map[string]json.RawMessage
	if json.Unmarshal(raw, &fields) != nil {
		return nil
	}
	data := map[string]json.RawMessage{}
	for key, value := range fields {
		mime, ok := short3[key]
		if !ok && strings.Contains(key, "/") {
			mime, ok = key, true
		}
		if !ok {
			continue
		}
		if mime == "application/json" { // there it was text
			if text, isText := multiline(value); isText && json.Valid([]byte(text)) {
				value = json.RawMessage(text)
			}
		}
		data[mime] = value
	}
	return data
}
