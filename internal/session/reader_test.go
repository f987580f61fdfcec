package session_test

import (
	"context"
	"errors"
	"testing"
)

// Who reads has other things to do meanwhile, a heartbeat for one: that must not
// look like the end of what there is to read.
func TestAReaderThatIsCalledAwayGoesOn(t *testing.T) {
	w := newWorld(t, false)
	svc := w.start(t)
	s := create(t, svc)
	addCell(t, s, "kept = 1")
	svc.stop()

	svc = w.start(t) // its log is in the store only
	s, err := svc.Get(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	r := s.Reader(0)
	defer r.Close()
	away := errors.New("called away")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(away)
	if _, err := r.Next(ctx); !errors.Is(err, away) {
		t.Errorf("called away: got %v, want the cause", err)
	}
	batch, err := r.Next(t.Context())
	if err != nil || len(batch) == 0 || batch[0].Seq != 1 {
		t.Errorf("after that: got %+v, %v, want event 1", batch, err)
	}
}
