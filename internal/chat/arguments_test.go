package chat

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseCode(t *testing.T) {
	for name, tt := range map[string]struct{ in, want string }{
		"as it should be":              {`{"code":"print(1)"}`, "print(1)"},
		"commas too many":              {`{"code":"print(1)",}`, "print(1)"},
		"newlines not escaped":         {"{\"code\": \"a = 1\nprint(a)\"}", "a = 1\nprint(a)"},
		"single quotes":                {`{'code': 'print("x")'}`, `print("x")`},
		"key without quotes":           {`{code: "print(1)"}`, "print(1)"},
		"quotes not escaped":           {`{"code": "print("a", "b")"}`, `print("a", "b")`},
		"quotes and newlines":          {"{\"code\": \"print(\"a\")\nprint(\"b\")\"}", "print(\"a\")\nprint(\"b\")"},
		"no end":                       {`{"code": "print(1)`, "print(1)"},
		"no brace":                     {`{"code": "print(1)"`, "print(1)"},
		"a brace too many":             {`{"code": "print(1)"}}`, "print(1)"},
		"raw Python":                   {"import os\nprint(os.getcwd())", "import os\nprint(os.getcwd())"},
		"raw Python in a fence":        {"```python\nprint(1)\n```", "print(1)"},
		"a fence in the argument":      {`{"code":"` + "```py\\nprint(1)\\n```" + `"}`, "print(1)"},
		"a fence of something else":    {`{"code":"` + "```sh\\nls\\n```" + `"}`, "```sh\nls\n```"},
		"a JSON string":                {`"print(1)"`, "print(1)"},
		"encoded twice":                {`"{\"code\":\"print(1)\"}"`, "print(1)"},
		"another name":                 {`{"source":"print(1)"}`, "print(1)"},
		"another name, and more":       {`{"script":"print(1)","timeout":3}`, "print(1)"},
		"lines":                        {`{"code":["a = 1\n","print(a)"]}`, "a = 1\nprint(a)"},
		"a number":                     {`42`, "42"},
		"a list":                       {`[1, 2]`, "[1, 2]"},
		"no valid escape":              {`{"code":"re.match('\d+', s)"}`, `re.match('\d+', s)`},
		"other keys, and a loose end":  {"{\"timeout\": 5, \"code\": \"a\nb\", }", "a\nb"},
		"Python's constants beside it": {`{"code": "x", "restart": True, "y": None}`, "x"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseCode(tt.in, false)
			if err != nil || got != tt.want {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
	for name, tt := range map[string]struct {
		in, want string
		cut      bool
	}{
		"nothing":             {"", "empty", false},
		"no code":             {`{"code":" \n"}`, "empty", false},
		"an empty object":     {`{}`, "missing", false},
		"two texts":           {`{"a":"x","b":"y"}`, "there is: a, b", false},
		"an object as code":   {`{"code":{"x":1}}`, "missing", false},
		"a list of no lines":  {`{"code":[1]}`, "one string", false},
		"NUL":                 {`{"code":"a\u0000"}`, "NUL", false},
		"no JSON":             {`{"a" "b"}`, "not valid JSON", false},
		"cut by the length":   {`{"code":"import os; os.remove('x`, "cut off", true},
		"raw, cut by length":  {`import os`, "cut off", true},
		"deeply nested":       {strings.Repeat(`{"a":`, 100_000), "not valid JSON", false},
		"deeply nested lists": {`{"a":` + strings.Repeat("[", 100_000), "not valid JSON", false},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			got, err := parseCode(tt.in, tt.cut)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.100q, %v, want an error with %q", got, err, tt.want)
			}
			if d := time.Since(begin); d > time.Second {
				t.Errorf("took %s", d)
			}
		})
	}
}

func TestParseObject(t *testing.T) {
	for in, want := range map[string]map[string]any{
		``:                                       {},
		`null`:                                   {},
		`{"latitude":52.5,"longitude":13.4}`:     {"latitude": 52.5, "longitude": 13.4},
		`{latitude: 52.5, 'longitude': '13.4',}`: {"latitude": 52.5, "longitude": "13.4"},
		`"{\"latitude\":1}"`:                     {"latitude": 1.0},
		`{"a":[1,2,],"b":{"c":True},"d":None,"e":+1`: {"a": []any{1.0, 2.0}, "b": map[string]any{"c": true}, "d": nil, "e": 1.0},
	} {
		got, err := parseObject(in, false)
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: %v, %s", in, err, cmp.Diff(want, got))
		}
	}
	for _, in := range []string{`latitude=1`, `[1]`, `{"a"}`, `{"a":}`, `}`} {
		if got, err := parseObject(in, false); err == nil {
			t.Errorf("%s gives %v, want an error", in, got)
		}
	}
	if _, err := parseObject(`{"latitude":5`, true); err == nil {
		t.Error("arguments that were cut are taken")
	}
}

func FuzzParseCode(f *testing.F) {
	for _, s := range []string{`{"code":"x"}`, `{'code':`, `"`, `{"code":"a"b"}`, "```\n```", `{"code":"\ud83d`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if code, err := parseCode(s, false); err == nil && strings.TrimSpace(code) == "" {
			t.Errorf("%q gives empty code", s)
		}
		var d codeStream
		d.Write(s)
	})
}
