package session_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/session"
)

func begin(t *testing.T, s *session.Session, start session.TurnStart) *session.Turn {
	t.Helper()
	turn, err := s.BeginTurn(t.Context(), start)
	if err != nil {
		t.Fatal(err)
	}
	return turn
}

// say has the turn write one finished text.
func say(t *testing.T, turn *session.Turn, text string) string {
	t.Helper()
	id, err := turn.StartText()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range text {
		if err := turn.Append(id, "text", string(r)); err != nil {
			t.Fatal(err)
		}
	}
	if err := turn.FinishItem(id, "ok", ""); err != nil {
		t.Fatal(err)
	}
	return id
}

func kinds(d v1.SessionDetail) string {
	out := ""
	for _, it := range d.Items {
		out += it.Kind[:1]
		if it.Text != "" {
			out += "(" + it.Text + ")"
		}
	}
	return out
}

func TestATurnWritesRunsAndEnds(t *testing.T) {
	svc := newWorld(t, true).start(t)
	s := create(t, svc)
	turn := begin(t, s, session.TurnStart{Text: "What is 6 * 7?", Model: "m"})
	if _, err := s.BeginTurn(t.Context(), session.TurnStart{Text: "x"}); codeOf(err) != "turn-running" {
		t.Errorf("a second turn: %v", err)
	}
	say(t, turn, "I compute.")
	cell, err := turn.StartCell(v1.ToolCall{ID: "call_1", Name: "python_interpreter"})
	if err != nil {
		t.Fatal(err)
	}
	_ = turn.Append(cell, "code", "6 *")
	args := json.RawMessage(`{"code":"6 * 7"}`)
	if err := turn.SetCode(cell, "6 * 7", v1.ToolCall{ID: "call_1", Name: "python_interpreter", Arguments: args}); err != nil {
		t.Fatal(err)
	}
	it, err := turn.RunCell(t.Context(), cell, time.Minute)
	if err != nil || it.Status != "ok" || string(it.Outputs[0].Data["text/plain"]) != `"42"` {
		t.Fatalf("cell = %+v, %v", it, err)
	}
	tool, err := turn.StartTool(v1.ToolCall{ID: "call_2", Name: "list_files"})
	if err != nil {
		t.Fatal(err)
	}
	if err := turn.FinishTool(tool, json.RawMessage(`[]`), ""); err != nil {
		t.Fatal(err)
	}
	turn.Round(2, v1.TokenUsage{InputTokens: 100, OutputTokens: 10})
	say(t, turn, "42")
	if n := len(turn.History()); n != 5 {
		t.Errorf("history has %d items", n)
	}
	turn.Finish("ok", "", "")
	d := s.Detail()
	if got := kinds(d); got != "u(What is 6 * 7?)a(I compute.)cta(42)" {
		t.Errorf("thread = %s", got)
	}
	if d.Turn != nil || d.Usage.InputTokens != 100 || d.Title != "What is 6 * 7?" || d.Model != "m" {
		t.Errorf("session = %+v", d.Session)
	}
	if turn.Context().Err() == nil {
		t.Error("the turn's context did not end")
	}
	same(t, s)
}

func TestStopIsImmediateAndConsistent(t *testing.T) {
	svc := newWorld(t, true).start(t)
	s := create(t, svc)
	turn := begin(t, s, session.TurnStart{Text: "go on for ever"})
	cell, err := turn.StartCell(v1.ToolCall{ID: "c", Name: "python_interpreter"})
	if err != nil {
		t.Fatal(err)
	}
	if err := turn.SetCode(cell, "import time\nprint('on')\ntime.sleep(100)", v1.ToolCall{ID: "c", Name: "python_interpreter"}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := turn.RunCell(t.Context(), cell, 0)
		ended <- err
	}()
	await(t, s, "output", func(d v1.SessionDetail) bool { return text(item(d, cell)) != "" })
	writing, err := turn.StartText()
	if err != nil {
		t.Fatal(err)
	}
	_ = turn.Append(writing, "text", "half a sen")
	if !s.StopTurn() {
		t.Error("there was no turn to stop")
	}
	d := s.Detail()
	if d.Turn != nil || item(d, writing).Status != "stopped" || item(d, writing).Text != "half a sen" {
		t.Errorf("after the stop: %+v", d)
	}
	if !errors.Is(context.Cause(turn.Context()), session.ErrStopped) {
		t.Errorf("cause = %v", context.Cause(turn.Context()))
	}
	if err := turn.Append(writing, "text", "tence"); err == nil {
		t.Error("a stopped turn still writes")
	}
	turn.Finish("ok", "", "") // as a loop does that notices late
	if err := <-ended; !errors.Is(err, session.ErrStopped) {
		t.Errorf("RunCell: %v", err)
	}
	d = await(t, s, "the interrupt", status(cell, "interrupted"))
	if item(d, writing).Text != "half a sen" {
		t.Errorf("text = %q", item(d, writing).Text)
	}
	same(t, s)
}

func TestBranches(t *testing.T) {
	svc := newWorld(t, false).start(t)
	s := create(t, svc)
	turn := begin(t, s, session.TurnStart{Text: "one"})
	first := say(t, turn, "answer")
	turn.Finish("ok", "", "")
	user := turn.MessageID()

	turn = begin(t, s, session.TurnStart{RegenerateOf: first})
	if got := kinds(s.Detail()); got != "u(one)" {
		t.Errorf("while it begins: %s", got)
	}
	second := say(t, turn, "better")
	say(t, turn, "more")
	turn.Finish("ok", "", "")
	d := s.Detail()
	if got := kinds(d); got != "u(one)a(better)a(more)" {
		t.Errorf("regenerated: %s", got)
	}
	if sib := item(d, second).Siblings; len(sib) != 2 || sib[0] != first || sib[1] != second {
		t.Errorf("siblings = %v", sib)
	}

	turn = begin(t, s, session.TurnStart{RegenerateOf: second})
	turn.Finish("error", "model-failed", "no")
	if got := kinds(s.Detail()); got != "u(one)a(better)a(more)" {
		t.Errorf("a regenerate that gave nothing: %s", got)
	}

	turn = begin(t, s, session.TurnStart{Text: "two", Replaces: user})
	say(t, turn, "other")
	turn.Finish("ok", "", "")
	if got := kinds(s.Detail()); got != "u(two)a(other)" {
		t.Errorf("edited: %s", got)
	}
	note, err := s.AddItem(v1.CreateItem{Kind: "note", Text: "n", After: &user})
	if codeOf(err) != "item-not-found" {
		t.Errorf("behind a hidden item: %+v, %v", note, err)
	}
	if err := s.Select(user); err != nil {
		t.Fatal(err)
	}
	if err := s.Select(first); err != nil {
		t.Fatal(err)
	}
	if got := kinds(s.Detail()); got != "u(one)a(answer)" {
		t.Errorf("selected: %s", got)
	}
	if _, err := s.AddItem(v1.CreateItem{Kind: "note", Text: "n", After: &user}); err != nil {
		t.Fatal(err)
	}
	d = s.Detail()
	if got := kinds(d); got != "u(one)n(n)a(answer)" || len(d.Items[1].Siblings) != 0 || len(d.Items[2].Siblings) != 2 {
		t.Errorf("a note between: %s, %+v", got, d.Items)
	}
	turn = begin(t, s, session.TurnStart{Continue: true})
	say(t, turn, "and on")
	turn.Finish("ok", "", "")
	if got := kinds(s.Detail()); got != "u(one)n(n)a(answer)a(and on)" {
		t.Errorf("continued: %s", got)
	}
	same(t, s)
}

func TestMessagesWait(t *testing.T) {
	svc := newWorld(t, false).start(t)
	s := create(t, svc)
	a, err := s.Enqueue(v1.SendMessage{Text: "a"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Enqueue(v1.SendMessage{Text: "b"})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveQueued(a.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.RemoveQueued(a.ID); codeOf(err) != "message-not-found" {
		t.Errorf("taken back twice: %v", err)
	}
	if q, ok := s.NextQueued(); !ok || q.ID != b.ID {
		t.Errorf("next = %+v, %v", q, ok)
	}
	if _, ok := s.NextQueued(); ok {
		t.Error("the queue should be empty")
	}
}

func TestATurnThatRanWhenTheServerStoppedIsCut(t *testing.T) {
	w := newWorld(t, false)
	svc := w.start(t)
	s := create(t, svc)
	turn := begin(t, s, session.TurnStart{Text: "hello"})
	id, err := turn.StartText()
	if err != nil {
		t.Fatal(err)
	}
	_ = turn.Append(id, "text", "half")
	svc.stop()
	svc = w.start(t)
	s, err = svc.Get(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	d := s.Detail()
	if it := item(d, id); it.Status != "cut" || it.Text != "half" || d.Turn != nil {
		t.Errorf("item = %+v, turn = %+v", it, d.Turn)
	}
	same(t, s)
}
