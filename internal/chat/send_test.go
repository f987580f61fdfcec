package chat

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/session"
)

const dripScript = `
scenarios:
  - match: echo
    steps: [{text: Heard.}]
  - match: slowly
    steps: [{text: "one two three four five six seven eight nine ten", drip: 1h, split: 4}]
  - match: sleep
    steps:
      - calls: [{name: python_interpreter, arguments: {code: "import time\nprint('on', flush=True)\ntime.sleep(3600)"}}, {name: python_interpreter, arguments: {code: "print(1)"}}]
  - match: hang
    steps: [{calls: [{name: python_interpreter, arguments: '{"code": "x = 1'}], hang: true}]
`

func begun(d v1.SessionDetail) bool {
	return len(d.Items) > 0 && d.Items[len(d.Items)-1].Text != "" && d.Items[len(d.Items)-1].Kind == "assistant"
}

func stop(t *testing.T, w *world, s *session.Session) {
	t.Helper()
	if was, err := w.chat.Stop(t.Context(), s.ID()); err != nil || !was {
		t.Fatalf("stopped %v, %v", was, err)
	}
}

// Wherever a turn is stopped, it ends at once, and the next one is answered:
// the scripted server refuses histories with calls that have no answer.
func TestStop(t *testing.T) {
	for name, tt := range map[string]struct {
		say   string
		ready func(v1.SessionDetail) bool
		want  string
	}{
		"in the text":     {"slowly", begun, "assistant one  → stopped\n"},
		"in the code":     {"hang", func(d v1.SessionDetail) bool { return len(d.Items) == 2 && d.Items[1].Code == "x = 1" }, "cell x = 1 → stopped\n"},
		"in a cell":       {"sleep", func(d v1.SessionDetail) bool { return len(d.Items) > 1 && len(d.Items[1].Outputs) == 1 }, "cell import time.*→ interrupted on.*KeyboardInterrupt\ncell print.1. → stopped\n"},
		"before anything": {"slowly", func(d v1.SessionDetail) bool { return d.Turn != nil }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, dripScript, worldOptions{kernel: true})
			s := w.session(t)
			sent := send(t, w, s, tt.say)
			await(t, s, "the right moment", tt.ready)
			stop(t, w, s)
			turn, _ := ended(t, s, sent.TurnID)
			if turn.Status != "stopped" {
				t.Errorf("turn %+v", turn)
			}
			if tt.want != "" {
				want := regexp.MustCompile("(?s)^user " + tt.say + "\n" + tt.want + "$")
				await(t, s, tt.want, func(d v1.SessionDetail) bool { return want.MatchString(thread(d)) })
			}
			if turn, d := ask(t, w, s, "echo"); turn.Status != "ok" || !strings.HasSuffix(thread(d), "user echo\nassistant Heard.\n") {
				t.Errorf("then %+v %s", turn, thread(d))
			}
			if was, err := w.chat.Stop(t.Context(), s.ID()); err != nil || was {
				t.Errorf("stopped nothing: %v, %v", was, err)
			}
		})
	}
}

// Messages wait for the turn before them, in order.
func TestQueue(t *testing.T) {
	w := newWorld(t, dripScript, worldOptions{})
	s := w.session(t)
	send(t, w, s, "slowly")
	await(t, s, "text", begun)
	var waiting []string
	for _, text := range []string{"echo 1", "echo 2", "echo 3"} {
		sent := send(t, w, s, text)
		if sent.Queued == nil || sent.ItemID != "" {
			t.Fatalf("%q was not queued: %+v", text, sent)
		}
		waiting = append(waiting, sent.Queued.ID)
	}
	if err := w.chat.RemoveQueued(t.Context(), s.ID(), waiting[1]); err != nil {
		t.Fatal(err)
	}
	if err := w.chat.RemoveQueued(t.Context(), s.ID(), waiting[1]); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("removing it again: %v", err)
	}
	if _, err := w.chat.Send(t.Context(), s.ID(), v1.SendMessage{Text: "edit", Replaces: s.Detail().Items[0].ID}); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("an edit while the model works: %v", err)
	}
	if _, err := w.chat.Continue(t.Context(), s.ID()); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("continue while the model works: %v", err)
	}
	stop(t, w, s)
	d := await(t, s, "both answers", func(d v1.SessionDetail) bool { return strings.Count(thread(d), "Heard.") == 2 && d.Turn == nil })
	want := "user slowly\nassistant one  → stopped\nuser echo 1\nassistant Heard.\nuser echo 3\nassistant Heard.\n"
	if diff := cmp.Diff(want, thread(d)); diff != "" || len(d.Queue) > 0 || d.Items[2].ID != waiting[0] {
		t.Errorf("%s, queue %v", diff, d.Queue)
	}
}

// What waited when the server restarted goes before what is said then.
func TestQueueAfterRestart(t *testing.T) {
	w := newWorld(t, dripScript, worldOptions{})
	s := w.session(t)
	send(t, w, s, "slowly")
	await(t, s, "text", begun)
	send(t, w, s, "echo 1")
	w.restart()
	s, err := w.sessions.Get(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	d := s.Detail()
	if d.Turn != nil || len(d.Queue) != 1 || d.Items[1].Status != "cut" {
		t.Fatalf("after the restart: %+v", d)
	}
	send(t, w, s, "echo 2")
	d = await(t, s, "both answers", func(d v1.SessionDetail) bool { return strings.Count(thread(d), "Heard.") == 2 && d.Turn == nil })
	if got := thread(d); !strings.HasSuffix(got, "user echo 1\nassistant Heard.\nuser echo 2\nassistant Heard.\n") {
		t.Errorf("got %s", got)
	}
}

// Edited and regenerated answers are branches; the model sees only its own.
func TestBranches(t *testing.T) {
	w := newWorld(t, `
scenarios:
  - match: red
    steps: [{text: Roses.}]
  - match: blue
    steps: [{text: Violets.}]
  - match: more
    steps: [{text: Enough.}]
`, worldOptions{})
	s := w.session(t)
	_, d := ask(t, w, s, "red")
	first := d.Items[0].ID
	ask(t, w, s, "more")
	sent, err := w.chat.Send(t.Context(), s.ID(), v1.SendMessage{Text: "blue", Replaces: first})
	if err != nil {
		t.Fatal(err)
	}
	_, d = ended(t, s, sent.TurnID)
	if got := thread(d); got != "user blue\nassistant Violets.\n" || len(d.Items[0].Siblings) != 2 {
		t.Errorf("edited: %s %v", got, d.Items[0].Siblings)
	}
	if r := w.model.Requests(); strings.Contains(string(r[len(r)-1].Raw), "Roses") {
		t.Error("the model sees the other branch")
	}
	sent, err = w.chat.Regenerate(t.Context(), s.ID(), d.Items[1].ID, "")
	if err != nil {
		t.Fatal(err)
	}
	_, d = ended(t, s, sent.TurnID)
	if got := thread(d); got != "user blue\nassistant Violets.\n" || len(d.Items[1].Siblings) != 2 {
		t.Errorf("regenerated: %s %v", got, d.Items[1].Siblings)
	}
	if r := w.model.Requests(); len(r[len(r)-1].Messages) != 2 {
		t.Errorf("the model sees %d messages", len(r[len(r)-1].Messages))
	}
	if err := s.Select(first); err != nil {
		t.Fatal(err)
	}
	if got := thread(s.Detail()); got != "user red\nassistant Roses.\nuser more\nassistant Enough.\n" {
		t.Errorf("the first branch is %s", got)
	}
	if _, err := w.chat.Regenerate(t.Context(), s.ID(), "itm_none", ""); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("regenerating nothing: %v", err)
	}
	if _, err := w.chat.Regenerate(t.Context(), s.ID(), first, "gpt-none"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("an unknown model: %v", err)
	}
}

func TestClosed(t *testing.T) {
	w := newWorld(t, dripScript, worldOptions{})
	s := w.session(t)
	w.chat.Close()
	if _, err := w.chat.Send(t.Context(), s.ID(), v1.SendMessage{Text: "echo"}); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}

func TestSystemPrompt(t *testing.T) {
	for text, want := range map[string]string{
		"{{.Nothing}}": "can't evaluate field Nothing",
		"{{if}}":       "missing value for if",
	} {
		_, err := New(nil, nil, Options{SystemPrompt: text})
		if e, ok := errors.AsType[*errdefs.Error](err); !ok || !strings.Contains(e.Msg, want) || e.Code != "system-prompt-invalid" {
			t.Errorf("%s: %v", text, err)
		}
	}
	w := newWorld(t, dripScript, worldOptions{chat: Options{SystemPrompt: "You are {{.Model}}.{{if .Weather}} Rain.{{end}}", WeatherURL: NoWeather}})
	ask(t, w, w.session(t), "echo")
	if r := w.model.Requests()[0]; r.Messages[0].Text() != "You are scripted." || len(r.Tools) != 2 {
		t.Errorf("%d tools, %q", len(r.Tools), r.Messages[0].Text())
	}
}
