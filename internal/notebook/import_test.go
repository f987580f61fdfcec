package notebook_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/notebook"
)

type jsonRaw = json.RawMessage

// kept gives items as plain values, without what a notebook does not keep: what
// belongs to a place in a session. Empty and absent are the same.
func kept(items []v1.Item) any {
	items = slices.Clone(items)
	for i := range items {
		items[i].ID, items[i].TurnID = "", ""
	}
	var v any
	if err := json.Unmarshal(raw(items), &v); err != nil {
		panic(err)
	}
	return pruned(v)
}

func pruned(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			if v[key] = pruned(value); v[key] == nil {
				delete(v, key)
			}
		}
		if len(v) == 0 {
			return nil
		}
		return v
	case []any:
		for i := range v {
			v[i] = pruned(v[i])
		}
		if len(v) == 0 {
			return nil
		}
		return v
	default:
		return v
	}
}

func roundTrip(t interface {
	Helper()
	Fatalf(format string, args ...any)
}, s v1.Session, items []v1.Item,
) (string, []v1.Item) {
	t.Helper()
	body, _, _, err := notebook.Export("ipynb", s, items)
	if err != nil {
		t.Fatalf("%v", err)
	}
	title, got, err := notebook.Import(strings.NewReader(string(body)))
	if err != nil {
		t.Fatalf("%v", err)
	}
	return title, got
}

func TestWhatIsExportedReadsBack(t *testing.T) {
	s, items := rich()
	title, got := roundTrip(t, s, items)
	if title != s.Title {
		t.Errorf("title %q", title)
	}
	if diff := cmp.Diff(kept(items), kept(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRoundTripProperty(t *testing.T) {
	text := rapid.StringMatching(`([ -~äß日🎉\t]{0,12}(\n|\r\n)?){0,4}`)
	jsonText := rapid.Map(text, func(s string) json.RawMessage { return raw(s) })
	output := rapid.Custom(func(t *rapid.T) v1.Output {
		switch rapid.IntRange(0, 2).Draw(t, "output") {
		case 0:
			return v1.Output{Type: "stream", Name: rapid.SampledFrom([]string{"stdout", "stderr"}).Draw(t, "name"), Text: text.Draw(t, "text")}
		case 1:
			return v1.Output{Type: "error", ErrorName: "E", ErrorValue: text.Draw(t, "value"), Traceback: rapid.SliceOfN(text, 0, 3).Draw(t, "traceback")}
		default:
			return v1.Output{Type: "display_data", Metadata: raw(map[string]any{}), Data: rapid.MapOfN(
				rapid.SampledFrom([]string{"text/plain", "text/html", "application/json", "image/svg+xml", "application/vnd.x+json"}), jsonText, 0, 3).Draw(t, "data")}
		}
	})
	item := rapid.Custom(func(t *rapid.T) v1.Item {
		status := rapid.SampledFrom([]string{"ok", "error", "stopped", "cut"}).Draw(t, "status")
		switch rapid.SampledFrom([]string{"user", "assistant", "cell", "note", "tool"}).Draw(t, "kind") {
		case "user":
			return v1.Item{Kind: "user", Status: "idle", Text: text.Draw(t, "text"), Files: rapid.SliceOfN(rapid.StringMatching(`/[a-z.]{1,9}`), 0, 2).Draw(t, "files")}
		case "assistant":
			return v1.Item{Kind: "assistant", Status: status, Text: text.Draw(t, "text"), Reasoning: text.Draw(t, "reasoning"), Model: "m"}
		case "cell":
			return v1.Item{
				Kind: "cell", Status: status, Code: text.Draw(t, "code"), ExecutionCount: rapid.IntRange(0, 9).Draw(t, "count"),
				Outputs: rapid.SliceOfN(output, 0, 3).Draw(t, "outputs"), CodeHidden: rapid.Bool().Draw(t, "hidden"),
			}
		case "tool":
			return v1.Item{Kind: "tool", Status: status, Tool: &v1.ToolCall{ID: "a", Name: "f", Arguments: raw(map[string]string{"x": text.Draw(t, "x")}), Result: jsonText.Draw(t, "result")}}
		default:
			return v1.Item{Kind: "note", Status: "idle", Text: text.Draw(t, "text")}
		}
	})
	dir, n := t.TempDir(), 0
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOfN(item, 0, 6).Draw(t, "items")
		title := rapid.StringMatching(`[a-zA-Z0-9]{0,9}`).Draw(t, "title")
		gotTitle, got := roundTrip(t, v1.Session{Title: title}, items)
		if diff := cmp.Diff(kept(items), kept(got)); diff != "" || gotTitle != title {
			t.Fatalf("title %q, want %q; -want +got:\n%s", gotTitle, title, diff)
		}
		if n++; n <= 40 {
			body, _, _, err := notebook.Export("ipynb", v1.Session{Title: title}, items)
			if err != nil || os.WriteFile(fmt.Sprintf("%s/%d.ipynb", dir, n), body, 0o600) != nil {
				t.Fatalf("%v", err)
			}
		}
	})
	checkFiles(t, dir)
}

func TestNotebooksOfOthers(t *testing.T) {
	tests := []struct {
		name, text, title string
		want              []v1.Item
	}{
		{
			"format 4 with everything",
			`{"nbformat":4,"nbformat_minor":2,"metadata":{"kernelspec":{"language":"python","name":"python3"}},"cells":[
				{"cell_type":"markdown","metadata":{},"source":["# My *work*\n","text"]},
				{"cell_type":"code","execution_count":2,"metadata":{"collapsed":true},"source":"1+1","outputs":[{"output_type":"execute_result","execution_count":2,"metadata":{},"data":{"text/plain":["2"]}}]},
				{"cell_type":"raw","metadata":{},"source":"\\section{x}"},
				{"cell_type":"markdown","metadata":{},"source":"![a](attachment:a.png) ![b](attachment:b.png)","attachments":{"a.png":{"image/png":"aGk=\n"},"b.png":{"text/html":"<b>"}}},
				{"cell_type":"code","execution_count":null,"metadata":{},"source":[],"outputs":[]}
			]}`,
			"My *work*",
			[]v1.Item{
				{Kind: "note", Status: "idle", Text: "# My *work*\ntext"},
				{Kind: "cell", Status: "ok", Code: "1+1", ExecutionCount: 2, OutputsHidden: true, Outputs: []v1.Output{{Type: "execute_result", ExecutionCount: new(2), Metadata: raw(map[string]any{}), Data: map[string]jsonRaw{"text/plain": raw("2")}}}},
				{Kind: "note", Status: "idle", Text: "```\n\\section{x}\n```"},
				{Kind: "note", Status: "idle", Text: "![a](data:image/png;base64,aGk=) ![b](attachment:b.png)"},
				{Kind: "cell", Status: "idle"},
			},
		},
		{
			"format 3",
			`{"nbformat":3,"nbformat_minor":0,"metadata":{"name":"Old one"},"worksheets":[{"cells":[
				{"cell_type":"heading","level":2,"metadata":{},"source":["Head"]},
				{"cell_type":"code","language":"python","prompt_number":1,"collapsed":false,"input":["print 1\n","2"],"metadata":{},"outputs":[
					{"output_type":"stream","stream":"stderr","text":["a\n","b"]},
					{"output_type":"pyout","prompt_number":1,"text":["2"],"png":"aGk=\n","metadata":{}},
					{"output_type":"display_data","json":["{\"a\":1}"],"metadata":{}},
					{"output_type":"pyerr","ename":"E","evalue":"v","traceback":["t"]}]}
			]}]}`,
			"Old one",
			[]v1.Item{
				{Kind: "note", Status: "idle", Text: "## Head"},
				{Kind: "cell", Status: "error", Code: "print 1\n2", ExecutionCount: 1, Outputs: []v1.Output{
					{Type: "stream", Name: "stderr", Text: "a\nb"},
					{Type: "execute_result", ExecutionCount: new(1), Metadata: raw(map[string]any{}), Data: map[string]jsonRaw{"text/plain": raw("2"), "image/png": raw("aGk=")}},
					{Type: "display_data", Metadata: raw(map[string]any{}), Data: map[string]jsonRaw{"application/json": raw(map[string]any{"a": 1})}},
					{Type: "error", ErrorName: "E", ErrorValue: "v", Traceback: []string{"t"}},
				}},
			},
		},
		{
			"bad outputs are left out", `{"nbformat":4,"metadata":{},"cells":[{"cell_type":"code","metadata":{},"source":"x","outputs":[1,{"output_type":"odd"},{"output_type":"stream","text":5},{"output_type":"display_data","data":{"text/plain":5,"application/json":5}}]}]}`, "",
			[]v1.Item{{Kind: "cell", Status: "ok", Code: "x", Outputs: []v1.Output{{Type: "display_data", Metadata: raw(map[string]any{}), Data: map[string]jsonRaw{"application/json": raw(5)}}}}},
		},
		{
			"our own fields, forged", `{"nbformat":4,"metadata":{},"cells":[
				{"cell_type":"code","metadata":{"caesarion":{"status":"running","tool":{"id":"","name":"x"},"duration_ms":-5}},"source":"x","outputs":[]},
				{"cell_type":"markdown","metadata":{"caesarion":{"kind":"tool"}},"source":"no call"},
				{"cell_type":"markdown","metadata":{"caesarion":{"kind":"cell"}},"source":"no cell"},
				{"cell_type":"markdown","metadata":{"caesarion":{"kind":"user","status":"boss"}},"source":"> edited\nin Jupyter"},
				{"cell_type":"markdown","metadata":{"caesarion":[]},"source":"odd"}]}`, "",
			[]v1.Item{
				{Kind: "cell", Status: "cut", Code: "x"},
				{Kind: "note", Status: "idle", Text: "no call"},
				{Kind: "note", Status: "idle", Text: "no cell"},
				{Kind: "user", Status: "idle", Text: "edited\nin Jupyter"},
				{Kind: "note", Status: "idle", Text: "odd"},
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			title, got, err := notebook.Import(strings.NewReader(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(kept(tt.want), kept(got)); diff != "" || title != tt.title {
				t.Errorf("title %q, want %q; -want +got:\n%s", title, tt.title, diff)
			}
		})
	}
}

func TestWhatIsNoNotebook(t *testing.T) {
	manyCells := `{"nbformat":4,"cells":[` + strings.Repeat(`{"cell_type":"raw","source":""},`, 5000) + `{"cell_type":"raw","source":""}]}`
	manyOutputs := `{"nbformat":4,"cells":[{"cell_type":"code","source":"","outputs":[` + strings.Repeat(`{},`, 1000) + `{}]}]}`
	tests := []struct{ name, text, code, says string }{
		{"nothing", "", notebook.CodeInvalid, ".ipynb"},
		{"a picture", "\x89PNG\r\n", notebook.CodeInvalid, ".ipynb"},
		{"other JSON", `{"a":1}`, notebook.CodeInvalid, "nbformat"},
		{"a list", `[]`, notebook.CodeInvalid, ""},
		{"no cells", `{"nbformat":4}`, notebook.CodeInvalid, "cells"},
		{"cells that are none", `{"nbformat":4,"cells":{"a":1}}`, notebook.CodeInvalid, "cells"},
		{"a source that is none", `{"nbformat":4,"cells":[{"cell_type":"code","source":{"a":1}}]}`, notebook.CodeInvalid, "source"},
		{"format 2", `{"nbformat":2,"cells":[]}`, notebook.CodeVersion, "Jupyter"},
		{"format 9", `{"nbformat":9,"cells":[]}`, notebook.CodeVersion, "format 9"},
		{"R", `{"nbformat":4,"metadata":{"kernelspec":{"language":"R"}},"cells":[]}`, notebook.CodeLanguage, "Python"},
		{"many cells", manyCells, notebook.CodeTooLarge, "5000"},
		{"many outputs", manyOutputs, notebook.CodeTooLarge, "1000"},
		{"a long cell", `{"nbformat":4,"cells":[{"cell_type":"code","source":"` + strings.Repeat("x", 5<<20) + `"}]}`, notebook.CodeTooLarge, "4 MiB"},
		{"a long file", strings.Repeat(" ", notebook.MaxBytes+1), notebook.CodeTooLarge, "64 MiB"},
		{"deep", `{"nbformat":4,"cells":` + strings.Repeat("[", 100_000), notebook.CodeInvalid, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := notebook.Import(strings.NewReader(tt.text))
			e, ok := errors.AsType[*errdefs.Error](err)
			if !ok || e.Code != tt.code || e.Hint == "" || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %s that says %q", err, tt.code, tt.says)
			}
		})
	}
}

// Whatever is imported is refused, or can be exported in every format.
func FuzzImport(f *testing.F) {
	s, items := rich()
	body, _, _, err := notebook.Export("ipynb", s, items)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{"nbformat":3,"worksheets":[{"cells":[{"cell_type":"code","input":"x","outputs":[{"output_type":"pyout","png":"a"}]}]}]}`))
	f.Add([]byte(`{"nbformat":4,"cells":[{"cell_type":"markdown","source":"attachment:a","attachments":{"a":{"image/png":"aGk="}}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		title, items, err := notebook.Import(strings.NewReader(string(text)))
		if err != nil {
			if _, ok := errors.AsType[*errdefs.Error](err); !ok {
				t.Errorf("%v", err)
			}
			return
		}
		for _, format := range []string{"ipynb", "py", "md"} {
			if _, _, _, err := notebook.Export(format, v1.Session{Title: title}, items); err != nil {
				t.Errorf("%s: %v", format, err)
			}
		}
		if _, again := roundTrip(t, v1.Session{Title: title}, items); len(again) != len(items) {
			t.Errorf("%d items, then %d", len(items), len(again))
		}
	})
}
