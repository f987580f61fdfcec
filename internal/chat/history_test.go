package chat

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/llm"
)

// show writes messages as a test can read them.
func show(list []llm.Message) string {
	var b strings.Builder
	for _, m := range list {
		fmt.Fprintf(&b, "%s: %s", m.Role, m.Text)
		for _, c := range m.ToolCalls {
			fmt.Fprintf(&b, " <%s %s %s>", c.ID, c.Name, c.Arguments)
		}
		if m.ToolCallID != "" {
			fmt.Fprintf(&b, " (%s)", m.ToolCallID)
		}
		if len(m.Images) > 0 {
			fmt.Fprintf(&b, " +%d images", len(m.Images))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func entries(items ...v1.Item) []entry {
	list := make([]entry, len(items))
	for i, it := range items {
		list[i] = entry{Item: it}
	}
	return list
}

func modelCell(id, code, status string, at int, outs ...v1.Output) v1.Item {
	created := time.Unix(int64(at), 0)
	ended := time.Unix(int64(at)+5, 0)
	args, _ := json.Marshal(map[string]string{"code": code})
	return v1.Item{
		ID: "itm_" + id, Kind: "cell", TurnID: "trn_1", Code: code, Status: status, CreatedAt: created, FinishedAt: &ended, Outputs: outs,
		Tool: &v1.ToolCall{ID: id, Name: toolPython, Arguments: args},
	}
}

func stdout(s string) v1.Output { return v1.Output{Type: "stream", Name: "stdout", Text: s} }

func TestHistory(t *testing.T) {
	user := v1.Item{Kind: "user", Text: "Plot it", Files: []string{"/uploaded_files/a.csv"}}
	changed := modelCell("c1", "x = 1", "ok", 10, stdout("2\n"))
	changed.Code = "x = 2"
	edited := modelCell("c1", "x = 1", "ok", 10, stdout("1\n"))
	edited.Code, edited.Edited = "x = 3", true
	failed := modelCell("c1", "", "error", 10)
	failed.Tool.Error, failed.Tool.Arguments = "The code is empty.", nil
	for name, tt := range map[string]struct {
		in   []entry
		opts historyOptions
		want string
	}{
		"a message with a file": {entries(user), historyOptions{sizes: map[string]int64{"/uploaded_files/a.csv": 2_500_000}}, "user: [Files that came with this message: /uploaded_files/a.csv (2.5 MB)]\n\nPlot it\n"},
		"text, a call, its result, text": {
			entries(v1.Item{Kind: "user", Text: "q"}, v1.Item{Kind: "assistant", Text: "Let me see.", TurnID: "t"}, modelCell("c1", "1", "ok", 10, stdout("1\n")), v1.Item{Kind: "assistant", Text: "One.", TurnID: "t"}),
			historyOptions{},
			"user: q\nassistant: Let me see. <c1 python_interpreter {\"code\":\"1\"}>\ntool: 1 (c1)\nassistant: One.\n",
		},
		"two calls at once": {
			entries(v1.Item{Kind: "user", Text: "q"}, modelCell("c1", "1", "ok", 10), modelCell("c2", "2", "ok", 11)),
			historyOptions{},
			"user: q\nassistant:  <c1 python_interpreter {\"code\":\"1\"}> <c2 python_interpreter {\"code\":\"2\"}>\ntool: [no output] (c1)\ntool: [no output] (c2)\n",
		},
		"two calls after each other": {
			entries(v1.Item{Kind: "user", Text: "q"}, modelCell("c1", "1", "ok", 10), modelCell("c2", "2", "ok", 20)),
			historyOptions{},
			"user: q\nassistant:  <c1 python_interpreter {\"code\":\"1\"}>\ntool: [no output] (c1)\nassistant:  <c2 python_interpreter {\"code\":\"2\"}>\ntool: [no output] (c2)\n",
		},
		"a cell the person changed and ran": {entries(changed), historyOptions{}, "assistant:  <c1 python_interpreter {\"code\":\"x = 2\"}>\ntool: [The user changed this code to what stands here and ran it.]\n2 (c1)\n"},
		"a cell the person only changed":    {entries(edited), historyOptions{}, "assistant:  <c1 python_interpreter {\"code\":\"x = 1\"}>\ntool: 1 (c1)\n"},
		"arguments that were no code":       {entries(failed), historyOptions{}, "assistant:  <c1 python_interpreter {\"code\":\"\"}>\ntool: The code is empty. (c1)\n"},
		"a turn that was stopped": {
			entries(v1.Item{Kind: "user", Text: "q"}, v1.Item{Kind: "assistant", Text: "Well", Status: "stopped"}, modelCell("c1", "while True: pass", "interrupted", 10), modelCell("c2", "2", "stopped", 11), v1.Item{Kind: "user", Text: "again"}),
			historyOptions{},
			"user: q\nassistant: Well <c1 python_interpreter {\"code\":\"while True: pass\"}> <c2 python_interpreter {\"code\":\"2\"}>\ntool: [The user interrupted this cell.] (c1)\ntool: [Aborted by the user before it ran.] (c2)\nuser: again\n",
		},
		"a call that never came to anything": {
			entries(v1.Item{Kind: "tool", Status: "stopped", Tool: &v1.ToolCall{ID: "w", Name: toolWeather}}),
			historyOptions{},
			"assistant:  <w get_current_weather {}>\ntool: [Aborted by the user before it ran.] (w)\n",
		},
		"a result of another tool": {
			entries(v1.Item{Kind: "tool", Status: "ok", Tool: &v1.ToolCall{ID: "w", Name: toolWeather, Arguments: json.RawMessage(`{"latitude":1}`), Result: json.RawMessage(`{ "t": 3 }`)}}),
			historyOptions{},
			"assistant:  <w get_current_weather {\"latitude\":1}>\ntool: {\"t\":3} (w)\n",
		},
		"cells of the person between": {
			entries(v1.Item{Kind: "cell", Code: "y = 4", Status: "ok", Outputs: []v1.Output{stdout("done\n")}}, v1.Item{Kind: "cell", Code: "never ran", Status: "idle"}, v1.Item{Kind: "note", Text: "my note"}, v1.Item{Kind: "user", Text: "q"}),
			historyOptions{},
			"user: [The user ran this cell:\n```python\ny = 4\n```\nOutput:\ndone]\n\nq\n",
		},
		"a notice of the session": {
			entries(modelCell("c1", "x = 1", "ok", 10), v1.Item{Kind: "note", Reason: "snapshot-damaged", Text: "Variables are gone."}, v1.Item{Kind: "user", Text: "q"}),
			historyOptions{},
			"assistant:  <c1 python_interpreter {\"code\":\"x = 1\"}>\ntool: [no output] (c1)\nuser: [Variables are gone.]\n\nq\n",
		},
		"an image for one who sees": {
			entries(v1.Item{Kind: "user", Text: "q"}, modelCell("c1", "plt.show()", "ok", 10, v1.Output{Type: "display_data", Data: data(t, "image/png", png)})),
			historyOptions{vision: true},
			"user: q\nassistant:  <c1 python_interpreter {\"code\":\"plt.show()\"}>\ntool: [image 1, shown to the user and to you] (c1)\nuser: [Images that the cells above showed, in their order] +1 images\n",
		},
		"messages in a row are one": {entries(v1.Item{Kind: "user", Text: "a"}, v1.Item{Kind: "user", Text: "b"}), historyOptions{}, "user: a\n\nb\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := show(flatten("s", history(tt.in, tt.opts))[1:]); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// checkAnswered fails for a history that servers refuse: a call without its
// result, or a result without its call.
func checkAnswered(t interface{ Fatalf(string, ...any) }, list []llm.Message) {
	open := map[string]bool{}
	for _, m := range list {
		if m.Role == llm.Tool {
			if !open[m.ToolCallID] {
				t.Fatalf("a result without a call: %s", show(list))
			}
			delete(open, m.ToolCallID)
			continue
		}
		if len(open) > 0 {
			t.Fatalf("calls without a result: %s", show(list))
		}
		for _, c := range m.ToolCalls {
			open[c.ID] = true
			if !json.Valid([]byte(c.Arguments)) {
				t.Fatalf("arguments are no JSON: %s", show(list))
			}
		}
	}
	if len(open) > 0 {
		t.Fatalf("calls without a result at the end: %s", show(list))
	}
}

func TestFitLeavesOutTheOldestOutputsFirst(t *testing.T) {
	long := strings.Repeat("word ", 1500)
	list := []v1.Item{
		{Kind: "user", Text: "first question"},
		modelCell("c1", "1", "ok", 10, stdout("A "+long)),
		{Kind: "assistant", Text: "first answer"},
		{Kind: "user", Text: "second question"},
		modelCell("c2", "2", "ok", 20, stdout("B "+long)), modelCell("c3", "3", "ok", 30, stdout("C "+long)),
	}
	whole := blocksSize(history(entries(list...), historyOptions{}))
	get := func(budget int64) string {
		list := flatten("s", fit(history(entries(list...), historyOptions{}), budget))
		checkAnswered(t, list)
		return show(list)
	}
	if got := get(whole); strings.Contains(got, "left out") {
		t.Errorf("what fits is cut: %s", got)
	}
	got := get(whole - 10)
	if strings.Contains(got, "A "+long[:1000]) || !strings.Contains(got, "B "+long[:1000]) || !strings.Contains(got, "C "+long[:1000]) || !strings.Contains(got, "first answer") {
		t.Errorf("want only the oldest output left out: %.3000s", got)
	}
	got = get(whole - 2000)
	if strings.Contains(got, "B "+long[:1000]) || !strings.Contains(got, "C "+long[:1000]) || !strings.Contains(got, "first answer") {
		t.Errorf("want two outputs left out: %.3000s", got)
	}
	got = get(whole - 3660)
	if strings.Contains(got, "first question") || !strings.Contains(got, "Earlier parts") || !strings.Contains(got, "second question") || !strings.Contains(got, "C "+long[:1000]) {
		t.Errorf("want the first turn left out: %.3000s", got)
	}
	got = get(600)
	if !strings.Contains(got, "second question") || !strings.Contains(got, "<c3 ") {
		t.Errorf("want the last round shortened: %.3000s", got)
	}
}

// Whatever the conversation and the window: no call without its result, and
// not larger than the window if that can hold anything at all.
func TestFitKeepsCallsAndResultsTogether(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []v1.Item
		at := 0
		for i := range rapid.IntRange(1, 30).Draw(t, "items") {
			at += rapid.IntRange(0, 9).Draw(t, "pause")
			text := strings.Repeat(rapid.SampledFrom([]string{"word ", "слово ", "字", "\x1b[31m"}).Draw(t, "script"), rapid.IntRange(0, 3000).Draw(t, "length"))
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				list = append(list, v1.Item{Kind: "user", Text: "q" + text})
			case 1:
				list = append(list, v1.Item{Kind: "assistant", Text: text, TurnID: "t"})
			case 2:
				list = append(list, v1.Item{Kind: "cell", Code: "p", Status: "ok", Outputs: []v1.Output{stdout(text)}})
			default:
				status := rapid.SampledFrom([]string{"ok", "error", "stopped", "cut", "killed", "writing", "interrupted"}).Draw(t, "status")
				list = append(list, modelCell(fmt.Sprint("c", i), "1", status, at, stdout(text)))
			}
		}
		list = append(list, v1.Item{Kind: "user", Text: "last question"})
		budget := int64(rapid.IntRange(700, 40_000).Draw(t, "budget"))
		blocks := fit(history(entries(list...), historyOptions{vision: true}), budget)
		messages := flatten("system", blocks)
		checkAnswered(t, messages)
		if !strings.Contains(messages[len(messages)-1].Text, "last question") {
			t.Fatalf("the question is gone: %s", show(messages))
		}
		if size := blocksSize(blocks); size > budget {
			t.Fatalf("%d tokens, want at most %d: %s", size, budget, show(messages))
		}
	})
}

func TestPrompt(t *testing.T) {
	s := &Service{opts: Options{ToolTimeout: 300 * time.Second, PythonVersion: "3.13", now: func() time.Time { return time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC) }}}
	var err error
	if s.prompt, err = parsePrompt(""); err != nil {
		t.Fatal(err)
	}
	got, err := s.systemPrompt("m", false)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"no network", "/uploaded_files", "5 minutes", "23 November 2026", "and no images", "Python 3.13"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in the prompt", want)
		}
	}
	for network, want := range map[string]string{"packages": "Nothing else can be reached", "list": "that the operator allows", "open": "The network can be used"} {
		s.opts.Network = network
		if got, _ = s.systemPrompt("m", true); strings.Contains(got, "There is no network") || strings.Contains(got, "no images") || !strings.Contains(got, "%pip install") || !strings.Contains(got, want) {
			t.Errorf("with the network %s and eyes: %s", network, got)
		}
	}
	for _, bad := range []string{"{{.Nothing}}", "{{", "{{if .Vision}}{{.Model.X}}{{end}}"} {
		if _, err := parsePrompt(bad); err == nil || !strings.Contains(err.Error(), "system prompt") {
			t.Errorf("%q: %v, want an error that says what is wrong", bad, err)
		}
	}
}
