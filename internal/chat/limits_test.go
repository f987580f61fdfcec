package chat

import (
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
)

// tokens is Limits with so many tokens for everybody together.
type tokens struct{ most, used atomic.Int64 }

func (b *tokens) MayAsk(identity.Owner) error {
	if b.used.Load() >= b.most.Load() {
		return errdefs.New(errdefs.ErrExhausted, "limit-model-tokens", "You have used them all.").WithHint("There is more tomorrow.")
	}
	return nil
}

func (b *tokens) Asked(_ identity.Owner, n int64) { b.used.Add(n) }

const tokenScript = `
scenarios:
  - match: hello
    steps: [{text: Hello., usage: {input: 100, output: 20}}]
  - match: slowly
    steps: [{text: "one two three four five six seven eight nine ten", drip: 1h, split: 4}]
  - match: compute
    steps:
      - {calls: [{name: python_interpreter, arguments: {code: "6 * 7"}}], usage: {input: 100, output: 20}}
      - {text: Never said.}
`

func TestTokensAreCounted(t *testing.T) {
	b := &tokens{}
	b.most.Store(120)
	w := newWorld(t, tokenScript, worldOptions{chat: Options{Limits: b}})
	s := w.session(t)
	if turn, _ := ask(t, w, s, "hello"); turn.Status != "ok" || b.used.Load() != 120 {
		t.Errorf("the turn ended %s, and %d tokens are counted, want 120", turn.Status, b.used.Load())
	}
	if _, err := w.chat.Send(t.Context(), s.ID(), v1.SendMessage{Text: "hello"}); errdefs.CodeOf(err) != "limit-model-tokens" {
		t.Errorf("error = %v", err)
	}
	if n := len(s.Detail().Items); n != 2 {
		t.Errorf("%d items, and the refused message must not be one", n)
	}
}

func TestATurnEndsWithoutTokens(t *testing.T) {
	b := &tokens{}
	b.most.Store(100)
	w := newWorld(t, tokenScript, worldOptions{kernel: true, chat: Options{Limits: b}})
	s := w.session(t)
	turn, d := ask(t, w, s, "compute")
	if turn.Status != "error" || turn.Code != "limit-model-tokens" {
		t.Errorf("the turn ended %s, %s", turn.Status, turn.Code)
	}
	last := d.Items[len(d.Items)-1]
	if last.Message != "You have used them all. There is more tomorrow." {
		t.Errorf("people are told %q", last.Message)
	}
}

// A model's server says nothing of an answer that was broken off: it is
// estimated, so that stopping each in time is not free.
func TestAnAnswerThatIsStoppedIsCounted(t *testing.T) {
	b := &tokens{}
	b.most.Store(1 << 20)
	w := newWorld(t, tokenScript, worldOptions{chat: Options{Limits: b}})
	s := w.session(t)
	sent := send(t, w, s, "slowly")
	await(t, s, "the answer's begin", begun)
	stop(t, w, s)
	ended(t, s, sent.TurnID)
	// The turn ends at once, the model's connection a moment later.
	for deadline := time.Now().Add(patience); b.used.Load() <= 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is counted")
		}
	}
}
