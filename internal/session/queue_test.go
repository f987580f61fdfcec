package session

import (
	"errors"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// Every change of a session tells of all messages that wait, so that they may
// not be many megabytes.
func TestTheQueueIsBounded(t *testing.T) {
	s := &Session{}
	s.view.Queue = []v1.QueuedMessage{{Text: strings.Repeat("x", maxQueueBytes-10)}}
	if _, err := s.Enqueue(v1.SendMessage{Text: strings.Repeat("y", 11)}); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("one that is too much: %v", err)
	}
	s.view.Queue = make([]v1.QueuedMessage, maxQueue)
	if _, err := s.Enqueue(v1.SendMessage{Text: "y"}); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("one more: %v", err)
	}
}
