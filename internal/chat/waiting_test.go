package chat

import (
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// Messages that waited when the process ended are answered by the next one,
// in their order and once.
func TestWaitingMessagesAreAnsweredAfterARestart(t *testing.T) {
	w := newWorld(t, dripScript, worldOptions{})
	s := w.session(t)
	send(t, w, s, "slowly")
	await(t, s, "text", begun)
	send(t, w, s, "echo 1")
	send(t, w, s, "echo 2")
	w.restart()
	w.chat.AnswerWaiting()
	s, err := w.sessions.Get(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	d := await(t, s, "both answers", func(d v1.SessionDetail) bool {
		return strings.Count(thread(d), "Heard.") == 2 && d.Turn == nil && len(d.Queue) == 0
	})
	if got := thread(d); !strings.HasSuffix(got, "user echo 1\nassistant Heard.\nuser echo 2\nassistant Heard.\n") {
		t.Errorf("got %s", got)
	}
}
