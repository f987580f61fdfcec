package chat

import (
	"encoding/json"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// streamed gives what a person sees of arguments that come in such pieces.
func streamed(pieces ...string) string {
	var d codeStream
	var b strings.Builder
	for _, p := range pieces {
		b.WriteString(d.Write(p))
	}
	return b.String()
}

func TestCodeStream(t *testing.T) {
	for in, want := range map[string]string{
		`{"code":"print(1)"}`:                                       "print(1)",
		` { "code" : "a\nb\tc\"d\"\\n\/" , "x": 1}`:                 "a\nb\tc\"d\"\\n/",
		`{"code":"\ud83d\ude00\u00e4é字"}`:                           "😀äé字",
		`{"code":"\ud83dx\ude00"}`:                                  "\uFFFDx\uFFFD",
		`{"timeout":[1,{"code":"no"}],"n":"a\"b","code":"yes"}`:     "yes",
		`{"note":{"code":"no"},"ok":true,"code":"yes","code2":"x"}`: "yes",
		`{'code': 'single'}`:                                        "single",
		"import os\nprint(1)":                                       "import os\nprint(1)",
		"```python\nprint(1)\n```":                                  "",
		`"print(1)"`:                                                "print(1)",
		`{"code":"re.match('\d')"}`:                                 `re.match('\d')`,
		`{"code":"bad \uZZ"}`:                                       `bad \uZZ`,
		"{\"code\":\"a\nb\"}":                                       "a\nb",
		`{"code":"not over`:                                         "not over",
		`{}`:                                                        "",
	} {
		if got := streamed(in); got != want {
			t.Errorf("%s gives %q, want %q", in, got, want)
		}
		// Cut at every byte, the same.
		if got := streamed(strings.SplitAfter(in, "")...); got != want {
			t.Errorf("%s by characters gives %q, want %q", in, got, want)
		}
		for i := range in {
			if got := streamed(in[:i], in[i:]); got != want {
				t.Errorf("%s cut at %d gives %q, want %q", in, i, got, want)
			}
		}
		bytes := make([]string, len(in))
		for i := range len(in) {
			bytes[i] = in[i : i+1]
		}
		if got := streamed(bytes...); got != want {
			t.Errorf("%s by bytes gives %q, want %q", in, got, want)
		}
	}
}

// What is shown while it is written is what runs, however it is encoded and cut.
func TestCodeStreamAgreesWithJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		code := rapid.StringMatching(`[ -~\näß字😀\\"']{1,60}`).Draw(t, "code")
		raw, err := json.Marshal(map[string]any{"code": code, "a": rapid.String().Draw(t, "other")})
		if err != nil {
			t.Fatal(err)
		}
		var pieces []string
		for rest := string(raw); rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			pieces, rest = append(pieces, rest[:n]), rest[n:]
		}
		if got := streamed(pieces...); got != code {
			t.Fatalf("%s gives %q, want %q", raw, got, code)
		}
	})
}
