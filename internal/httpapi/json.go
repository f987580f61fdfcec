package httpapi

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/danielgtaylor/huma/v2"
)

// maxJSONDepth bounds how deep JSON from callers is nested.
const maxJSONDepth = 100

// jsonFormat is JSON of which there is one reading only. A body is decoded
// twice, for its schema and into what the handler gets. Of a name that stands
// there twice the first sees the last value, and the second a mixture of both:
// what was checked would not be what is used.
var jsonFormat = huma.Format{
	Marshal: huma.DefaultJSONFormat.Marshal,
	Unmarshal: func(data []byte, v any) error {
		if err := json.Unmarshal(data, v); err != nil {
			return err
		}
		if _, first := v.(*any); first { // the second time it is known to be good
			return checkJSON(data)
		}
		return nil
	},
}

// errTwice and errDeep say what is wrong with a text of JSON. They do not say
// which name it is: it may be anything.
var (
	errTwice = errors.New("an object has the same name twice")
	errDeep  = fmt.Errorf("nested deeper than %d", maxJSONDepth)
)

// checkJSON looks for names that stand twice in an object of valid JSON, and
// for depth.
func checkJSON(data []byte) error {
	type level struct {
		names map[string]bool // nil: an array
		key   bool            // a name comes next
	}
	var open []level
	for i := 0; i < len(data); i++ {
		top := len(open) - 1
		switch data[i] {
		case '{', '[':
			if len(open) == maxJSONDepth {
				return errDeep
			}
			next := level{}
			if data[i] == '{' {
				next = level{map[string]bool{}, true}
			}
			open = append(open, next)
		case '}', ']':
			open = open[:top]
		case ',':
			open[top].key = open[top].names != nil
		case '"':
			end := i + 1
			for ; data[end] != '"'; end++ {
				if data[end] == '\\' {
					end++
				}
			}
			if top >= 0 && open[top].key {
				var name string
				if err := json.Unmarshal(data[i:end+1], &name); err != nil {
					return err
				}
				if open[top].names[name] {
					return errTwice
				}
				open[top].names[name], open[top].key = true, false
			}
			i = end
		}
	}
	return nil
}
