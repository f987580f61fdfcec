package session_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/session"
)

// same checks that the log of a session gives what its detail shows.
func same(t *testing.T, s *session.Session) {
	t.Helper()
	d := s.Detail()
	view := session.NewView(v1.SessionDetail{})
	for _, line := range everything(t, s, d.LastSeq) {
		if err := view.Apply(line); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	whole, err := s.Items(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(asJSON(t, whole), asJSON(t, view.Items())); diff != "" {
		t.Errorf("the log gives another thread than the detail (-detail +log):\n%s", diff)
	}
	if diff := cmp.Diff(asJSON(t, d.Session.Sandbox), asJSON(t, view.Session.Sandbox)); diff != "" {
		t.Errorf("the log gives another sandbox than the detail:\n%s", diff)
	}
}

func asJSON(t *testing.T, v any) any {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func text(it v1.Item) string {
	var b strings.Builder
	for _, o := range it.Outputs {
		b.WriteString(o.Text)
	}
	return b.String()
}

func TestACellRunsAndTheLogHasItAll(t *testing.T) {
	w := newWorld(t, true)
	svc := w.start(t)
	s := create(t, svc)
	id := addCell(t, s, "# first words\nprint('hello')\n1 + 1")
	run(t, s, id)
	d := await(t, s, "the end of the cell", status(id, "ok"))
	it := item(d, id)
	if text(it) != "hello\n" || len(it.Outputs) != 2 || string(it.Outputs[1].Data["text/plain"]) != `"2"` {
		t.Errorf("outputs = %+v", it.Outputs)
	}
	if d.Title != "first words" {
		t.Errorf("title = %q", d.Title)
	}
	await(t, s, "a ready sandbox", func(d v1.SessionDetail) bool { return d.Sandbox.State == "ready" && d.Sandbox.KernelID != "" })
	same(t, s)
}
