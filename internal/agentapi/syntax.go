package agentapi

import (
	"bytes"
	"encoding/json"
)

// maxSyntax is how many values an answer may have that is decoded into structs.
// Its bytes do not bound the memory: 64 MiB of "{}," become gigabytes of files.
// The largest honest answers are trees, of some 400,000 values.
const maxSyntax = 1 << 19

// tooMany reports whether JSON has more values than an honest answer. What is
// passed on as it came costs no more than its bytes.
func tooMany(data []byte, out any) bool {
	switch out.(type) {
	case *json.RawMessage, *Reply:
		return false
	}
	if len(data) <= maxSyntax {
		return false
	}
	n := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				next := bytes.IndexAny(data[i:], `"\`)
				if next < 0 {
					return false // no JSON; the decoder says so before it keeps anything more
				}
				if i += next; data[i] == '"' {
					break
				}
				i++ // what is escaped
			}
		case '{', '[', ',':
			if n++; n > maxSyntax {
				return true
			}
		}
	}
	return false
}
