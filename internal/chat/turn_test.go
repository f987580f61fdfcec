package chat

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sumScript = `
scenarios:
  - match: sum
    steps:
      - text: I compute it.
        split: 1
        usage: {input: 100, output: 10}
        calls:
          - name: python_interpreter
            arguments: {code: "x = 20\nprint(x + 22)"}
      - expect: ^42$
        text: Done.
        usage: {input: 120, cached: 90, output: 3}
`

// The thinnest path through everything: a message, a cell, an answer.
func TestTurn(t *testing.T) {
	w := newWorld(t, sumScript, worldOptions{kernel: true})
	s := w.session(t)
	turn, d := ask(t, w, s, "What is the sum?")
	if turn.Status != "ok" || turn.Round != 2 || turn.Usage.InputTokens != 220 || turn.Usage.OutputTokens != 13 {
		t.Errorf("turn %+v", turn)
	}
	want := "user What is the sum?\nassistant I compute it.\ncell x = 20\nprint(x + 22) → ok 42\nassistant Done.\n"
	if diff := cmp.Diff(want, thread(d)); diff != "" {
		t.Error(diff)
	}
}
