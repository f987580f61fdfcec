package jsonsize

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestCount(t *testing.T) {
	for text, want := range map[string]Entries{
		`1`:                          {1},
		`{"a":1,"b":[1,2,3]}`:        {1, 2, 3},
		`[[],[],{}]`:                 {1, 3, 3},
		`["a,b\"],[{","\\",","]`:     {1, 3},
		`{"a":"\\\\\"","b":{"c":1}}`: {1, 2, 1},
		`["`:                         {1, 1},
		`]]]],`:                      {2},
	} {
		if got := Count([]byte(text)); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	deep := Count([]byte(strings.Repeat("[", 1000)))
	if deep.All() != 1001 || deep.UpTo(3) != 4 {
		t.Errorf("deep: %v", deep)
	}
}

// Nothing that can be decoded has more entries than were counted.
func FuzzCount(f *testing.F) {
	for _, s := range []string{`{"a":[1,2,{"b":"\""}]}`, `[[[]]]`, `"\\"`, ` [ 1 , 2 ] `} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var v any
		if json.Unmarshal([]byte(text), &v) != nil {
			return
		}
		if got, want := Count([]byte(text)).All(), entries(v); got < want {
			t.Errorf("%q has %d entries, counted %d", text, want, got)
		}
	})
}

func entries(v any) int {
	n := 1
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			n += entries(x)
		}
	case map[string]any:
		for _, x := range v {
			n += entries(x)
		}
	}
	return n
}
