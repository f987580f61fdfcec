package chat

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/llm/llmtest"
)

// The thinnest path through everything: a message, a cell, an answer.
func TestTurn(t *testing.T) {
	w := newWorld(t, `
scenarios:
  - steps:
      - text: I compute it.
        split: 1
        usage: {input: 100, output: 10}
        calls:
          - name: python_interpreter
            arguments: {code: "x = 20\nprint(x + 22)"}
      - expect: ^42$
        text: Done.
        usage: {input: 120, cached: 90, output: 3}
`, worldOptions{kernel: true})
	s := w.session(t)
	turn, d := ask(t, w, s, "What is the sum?")
	if turn.Status != "ok" || turn.Round != 2 || turn.Usage.InputTokens != 220 || turn.Usage.OutputTokens != 13 {
		t.Errorf("turn %+v", turn)
	}
	want := "user What is the sum?\nassistant I compute it.\ncell x = 20\nprint(x + 22) → ok 42\nassistant Done.\n"
	if diff := cmp.Diff(want, thread(d)); diff != "" {
		t.Error(diff)
	}
	if args := string(d.Items[2].Tool.Arguments); args != `{"code":"x = 20\nprint(x + 22)"}` {
		t.Errorf("arguments %s", args)
	}
	r := w.model.Requests()[0]
	if len(r.Tools) != 3 || r.Messages[0].Role != "system" || !strings.Contains(r.Messages[0].Text(), "/uploaded_files") {
		t.Errorf("%d tools, first message %+v", len(r.Tools), r.Messages[0])
	}
}

// weatherServer answers as open-meteo.
func weatherServer(t *testing.T, status int, body string) (url string, asked *string) {
	t.Helper()
	asked = new(string)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = r.URL.RequestURI()
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(srv.Close)
	return srv.URL, asked
}

// Cells of one answer run in the order of their calls; all calls get their
// own answer.
func TestCallsAtOnce(t *testing.T) {
	body := `{"current":{"temperature_2m": 7.5},"hourly":[]}`
	url, asked := weatherServer(t, 200, body)
	w := newWorld(t, `
scenarios:
  - steps:
      - calls:
          - {name: python_interpreter, arguments: {code: "a = 1"}}
          - {name: get_current_weather, arguments: {latitude: 52.52, longitude: 13.41}}
          - {name: python_interpreter, arguments: {code: "print(a + 1)"}}
          - {name: list_files, arguments: {}}
          - {name: send_mail, arguments: {to: you}}
      - text: Both.
`, worldOptions{kernel: true, chat: Options{WeatherURL: url + "/"}})
	s := w.session(t)
	turn, d := ask(t, w, s, "Do it all")
	want := "user Do it all\ncell a = 1 → ok\ntool get_current_weather → ok\ncell print(a + 1) → ok 2\ntool list_files → ok\ntool send_mail → error\nassistant Both.\n"
	if diff := cmp.Diff(want, thread(d)); diff != "" || turn.Status != "ok" {
		t.Errorf("%+v %s", turn, diff)
	}
	if got := string(d.Items[2].Tool.Result); got != body && got != strings.ReplaceAll(body, " ", "") {
		t.Errorf("the weather is %s", got)
	}
	if want := "/v1/forecast?latitude=52.52&longitude=13.41&current=temperature_2m&hourly=temperature_2m&daily=sunrise,sunset&timezone=auto"; *asked != want {
		t.Errorf("asked for %s", *asked)
	}
	results := toolResults(w.model.Requests()[1])
	if len(results) != 5 || results[0] != "[no output]" || results[2] != "2" || !strings.Contains(results[3], "/workspace/") || !strings.Contains(results[4], "There are: python_interpreter, get_current_weather, list_files.") {
		t.Errorf("the model got %q", results)
	}
}

func toolResults(r llmtest.Request) []string {
	var list []string
	for _, m := range r.Messages {
		if m.Role == "tool" {
			list = append(list, strings.TrimSpace(m.Text()))
		}
	}
	return list
}

// What the model does wrong, it is told, and can do better.
func TestCorrection(t *testing.T) {
	url, _ := weatherServer(t, 500, `{"reason":"out of clouds"}`)
	for name, tt := range map[string]struct{ steps, want string }{
		"an exception": {
			`
      - calls: [{name: python_interpreter, arguments: {code: "1 / 0"}}]
      - expect: (?s)1 / 0.*ZeroDivisionError
        calls: [{name: python_interpreter, arguments: {code: "print(7)"}}]
      - {expect: ^7$, text: Better.}`,
			"cell 1 / 0 → error ZeroDivisionError\ncell print(7) → ok 7\nassistant Better.\n",
		},
		"broken JSON that can be mended": {
			`
      - calls: [{name: python_interpreter, arguments: '{"code": "print(3)",'}]
      - {expect: ^3$, text: Fine.}`,
			"cell print(3) → ok 3\nassistant Fine.\n",
		},
		"raw Python": {
			`
      - {split: 1, calls: [{name: python_interpreter, arguments: 'print("raw")'}]}
      - {expect: ^raw$, text: Fine.}`,
			"cell print(\"raw\") → ok raw\nassistant Fine.\n",
		},
		"broken JSON": {
			`
      - calls: [{name: python_interpreter, arguments: '{"a" "b"}'}]
      - {expect: not valid JSON, text: Sorry.}`,
			"cell  → error\nassistant Sorry.\n",
		},
		"no code": {
			`
      - calls: [{name: python_interpreter, arguments: {code: ""}}]
      - {expect: code is empty, text: Sorry.}`,
			"cell  → error\nassistant Sorry.\n",
		},
		"arguments cut by the length": {
			`
      - {finish: length, calls: [{name: python_interpreter, arguments: '{"code": "import os; os.remove('}]}
      - {expect: cut off, text: Shorter.}`,
			"cell import os; os.remove( → error\nassistant Shorter.\n",
		},
		"no weather": {
			`
      - calls: [{name: get_current_weather, arguments: {latitude: "1", longitude: 2}}, {name: get_current_weather, arguments: {latitude: 91, longitude: 2}}]
      - {expect: "500. out of clouds|between -90 and 90", text: None.}`,
			"tool get_current_weather → error\ntool get_current_weather → error\nassistant None.\n",
		},
		"a folder that is not there": {
			`
      - calls: [{name: list_files, arguments: {path: nowhere}}]
      - {expect: nowhere, text: None.}`,
			"tool list_files → error\nassistant None.\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "scenarios:\n  - steps:"+tt.steps+"\n", worldOptions{kernel: true, chat: Options{WeatherURL: url}})
			turn, d := ask(t, w, w.session(t), "Go")
			if diff := cmp.Diff("user Go\n"+tt.want, thread(d)); diff != "" || turn.Status != "ok" {
				t.Errorf("%+v %s", turn, diff)
			}
		})
	}
}

// How turns end that don't end well.
func TestEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		steps, status, code, message, want string
	}{
		"refusal":         {`[{refusal: I will not.}]`, "ok", codeRefusal, "declined", "assistant I will not.\n"},
		"filter":          {`[{text: Well, finish: content_filter}]`, "error", llm.CodeRefused, "", "assistant Well → error\n"},
		"length":          {`[{text: And then, finish: length}]`, "limit", codeLength, "continue", "assistant And then → stopped\n"},
		"empty":           {`[{text: ""}]`, "error", codeEmpty, "another model", "assistant  → error\n"},
		"cut":             {`[{text: "I was about", cut: true}]`, "error", llm.CodeCut, "", "assistant I was about → error\n"},
		"cut in a call":   {`[{cut: true, calls: [{name: python_interpreter, arguments: {code: "x = 1"}}]}]`, "error", llm.CodeCut, "", "cell x = 1 → error\nassistant  → error\n"},
		"rate limit":      {`[{status: 429, retry_after: "0", times: 1, text: Now.}]`, "ok", "", "", "assistant Now.\n"},
		"auth":            {`[{status: 401}]`, "error", llm.CodeAuth, "", "assistant  → error\n"},
		"tools":           {`[{status: 400, error: {message: "scripted does not support tools"}}]`, "error", "model-without-tools", "can't call tools", "assistant  → error\n"},
		"context for all": {`[{status: 400, error: {message: "too long", code: context_length_exceeded}}]`, "error", llm.CodeContextLength, "", "assistant  → error\n"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "scenarios:\n  - steps: "+tt.steps+"\n", worldOptions{})
			turn, d := ask(t, w, w.session(t), "Go")
			if turn.Status != tt.status || turn.Code != tt.code || !strings.Contains(turn.Message, tt.message) {
				t.Errorf("turn %+v", turn)
			}
			if (tt.status == "ok" && tt.code == "") != (turn.Message == "") {
				t.Errorf("message %q", turn.Message)
			}
			if diff := cmp.Diff("user Go\n"+tt.want, thread(d)); diff != "" {
				t.Error(diff)
			}
			// The turn is not kept: after a reload its last item has the reason.
			if last := d.Items[len(d.Items)-1]; tt.status != "ok" && last.Message != turn.Message {
				t.Errorf("last item %+v, want the message %q", last, turn.Message)
			}
		})
	}
}

func TestEndlessLoop(t *testing.T) {
	w := newWorld(t, `
scenarios:
  - loop: true
    steps: [{calls: [{name: list_files, arguments: {}}]}]
`, worldOptions{kernel: true, chat: Options{MaxRounds: 4}})
	turn, _ := ask(t, w, w.session(t), "Loop")
	if turn.Status != "limit" || turn.Code != codeRounds || turn.Round != 4 || !strings.Contains(turn.Message, "4 rounds") {
		t.Errorf("turn %+v", turn)
	}
}

// A turn that failed goes on where it was: the model sees what it did.
func TestContinue(t *testing.T) {
	w := newWorld(t, `
scenarios:
  - steps:
      - calls: [{name: python_interpreter, arguments: {code: "print(6 * 7)"}}]
      - {expect: ^42$, text: "It is", cut: true}
  - match: never
    steps: [{text: ""}]
`, worldOptions{kernel: true})
	s := w.session(t)
	turn, _ := ask(t, w, s, "Multiply")
	if turn.Status != "error" || turn.Code != llm.CodeCut {
		t.Fatalf("turn %+v", turn)
	}
	sent, err := w.chat.Continue(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	turn, d := ended(t, s, sent.TurnID)
	if turn.MessageID != d.Items[0].ID {
		t.Errorf("turn %+v", turn)
	}
	r := w.model.Requests()
	last := r[len(r)-1].Messages
	if got := last[len(last)-1]; got.Role != "user" && got.Role != "assistant" || len(toolResults(r[len(r)-1])) != 1 {
		t.Errorf("the model got %+v", last)
	}
}

// What a server that restarts in good order leaves: a turn that says so and
// can go on, and a cell that still runs.
func TestRestart(t *testing.T) {
	w := newWorld(t, `
scenarios:
  - steps:
      - calls: [{name: python_interpreter, arguments: {code: "import time\nwhile not ready():\n    time.sleep(0.01)\nprint('survived')"}}]
      - {expect: survived, text: It did.}
`, worldOptions{kernel: true})
	s := w.session(t)
	cell, err := s.AddItem(v1.CreateItem{Kind: "cell", Code: "import os\ndef ready(): return os.path.exists('/workspace/go') or os.path.exists('go')"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(v1.RunItems{Items: []string{cell.ID}}); err != nil {
		t.Fatal(err)
	}
	send(t, w, s, "Wait for it")
	await(t, s, "a running cell", func(d v1.SessionDetail) bool { return len(d.Items) == 3 && d.Items[2].Status == "running" })
	id := s.ID()
	w.restart()
	s, err = w.sessions.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	d := s.Detail()
	if d.Turn != nil || d.Items[2].Status != "running" {
		t.Fatalf("turn %+v, cell %+v", d.Turn, d.Items[2])
	}
	sb, ok := s.LiveSandbox()
	if !ok {
		t.Fatal("no sandbox")
	}
	// The model waits for the cell, as it would have.
	sent, err := w.chat.Continue(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(w.model.Requests()); n != 1 {
		t.Errorf("the model was asked %d times", n)
	}
	if _, err := sb.Agent().Upload(t.Context(), "/workspace/go", strings.NewReader("!"), 1); err != nil {
		t.Fatal(err)
	}
	if turn, d := ended(t, s, sent.TurnID); turn.Status != "ok" || !strings.HasSuffix(thread(d), "assistant It did.\n") {
		t.Errorf("turn %+v, %s", turn, thread(d))
	}
}

func TestNoModel(t *testing.T) {
	w := newWorld(t, "scenarios: [{steps: [{text: x}]}]", worldOptions{})
	w.chat.models = llm.NewRegistry(nil, llm.RegistryOptions{})
	s := w.session(t)
	_, err := w.chat.Send(t.Context(), s.ID(), v1.SendMessage{Text: "Hello"})
	if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != llm.CodeNone || e.Hint == "" {
		t.Errorf("got %v", err)
	}
	if _, err := w.chat.Send(t.Context(), s.ID(), v1.SendMessage{Text: " \n"}); err == nil {
		t.Error("an empty message is taken")
	}
	if d := s.Detail(); len(d.Items) != 0 || d.Turn != nil {
		t.Errorf("something stayed: %+v", d)
	}
}

// A model that sees gets what cells draw, one that does not is told of it.
func TestImages(t *testing.T) {
	const png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
	script := `
scenarios:
  - steps:
      - calls: [{name: python_interpreter, arguments: {code: "from IPython.display import Image, display\nimport base64\ndisplay(Image(base64.b64decode('` + png + `')))"}}]
      - text: A dot.
`
	for _, vision := range []bool{false, true} {
		w := newWorld(t, script, worldOptions{kernel: true, info: llm.Info{Name: "scripted", Vision: vision}})
		turn, d := ask(t, w, w.session(t), "Draw")
		if turn.Status != "ok" {
			t.Fatalf("%+v %s", turn, thread(d))
		}
		r := w.model.Requests()[1]
		last := r.Messages[len(r.Messages)-1]
		if vision {
			if last.Role != "user" || last.Images() != 1 || !strings.Contains(string(last.Content), "data:image/png;base64,"+png) {
				t.Errorf("a model that sees got %+v", last)
			}
		} else if last.Role != "tool" || last.Text() != noteImage || strings.Contains(string(r.Raw), png[:40]+"\"") {
			t.Errorf("a model that does not see got %+v", last)
		}
	}
}

// A conversation longer than the window goes on.
func TestWindow(t *testing.T) {
	w := newWorld(t, `
scenarios:
  - match: first|second|third
    steps:
      - calls: [{name: python_interpreter, arguments: {code: "print('word ' * 1500)"}}]
      - text: Long.
  - match: last
    steps: [{text: Still here.}]
`, worldOptions{kernel: true, info: llm.Info{Name: "scripted", ContextTokens: 6000}})
	s := w.session(t)
	for _, text := range []string{"first", "second", "third", "last"} {
		if turn, d := ask(t, w, s, text); turn.Status != "ok" {
			t.Fatalf("%+v %s", turn, thread(d))
		}
	}
	r := w.model.Requests()
	if got := string(r[len(r)-1].Raw); len(got) > 6000*4 || !strings.Contains(got, "left out") {
		t.Errorf("%d characters of request: %.2000s", len(got), got)
	}
}

// A window that is smaller than it is said to be costs one more request.
func TestWindowUnknown(t *testing.T) {
	w := newWorld(t, `
scenarios:
  - match: last
    steps: [{status: 400, times: 1, error: {message: "maximum context length is 100 tokens", code: context_length_exceeded}, text: Here.}]
  - steps: [{text: Yes.}]
`, worldOptions{})
	s := w.session(t)
	ask(t, w, s, strings.Repeat("word ", 8_000))
	turn, _ := ask(t, w, s, "last")
	r := w.model.Requests()
	if a, b := len(r[len(r)-2].Raw), len(r[len(r)-1].Raw); turn.Status != "ok" || b >= a {
		t.Errorf("turn %+v after requests of %d and %d", turn, a, b)
	}
}

// What the person does between the model's turns is told.
func TestPersonsCells(t *testing.T) {
	w := newWorld(t, `
scenarios:
  - match: What is x
    steps: [{text: Seven.}]
  - steps:
      - calls: [{name: python_interpreter, arguments: {code: "x = 5"}}]
      - text: Set.
`, worldOptions{kernel: true})
	s := w.session(t)
	_, d := ask(t, w, s, "Set x")
	model := d.Items[1].ID
	cell, err := s.AddItem(v1.CreateItem{Kind: "cell", Code: "x = 7; print('now', x)"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(v1.RunItems{Items: []string{model, cell.ID}, Code: map[string]string{model: "x = 6"}}); err != nil {
		t.Fatal(err)
	}
	await(t, s, "the end of the cell", func(d v1.SessionDetail) bool { return d.Items[3].Status == "ok" })
	ask(t, w, s, "What is x?")
	r := w.model.Requests()
	var got strings.Builder
	for _, m := range r[len(r)-1].Messages[1:] {
		got.WriteString(m.Role + ": " + m.Text() + "\n")
	}
	for _, want := range []string{"The user changed this code", "The user ran this cell:", "now 7", "What is x?"} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("the model is not told %q: %s", want, got.String())
		}
	}
	var calls []string
	for _, m := range r[len(r)-1].Messages {
		for _, c := range m.ToolCalls {
			calls = append(calls, c.Function.Arguments)
		}
	}
	if want, _ := json.Marshal(map[string]string{"code": "x = 6"}); len(calls) != 1 || calls[0] != string(want) {
		t.Errorf("calls %q", calls)
	}
}
