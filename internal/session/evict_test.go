package session_test

import (
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/session"
)

func TestManySessionsLeaveMemorySoonerThanFew(t *testing.T) {
	w := newWorld(t, false)
	w.opts = session.Options{MaxResting: 2}
	svc := w.start(t)
	read := create(t, svc)
	reader := read.Reader(0)
	defer reader.Close()
	first := create(t, svc)
	addCell(t, first, "kept = 1")
	for range 5 {
		create(t, svc)
	}
	svc.Evict(time.Now())
	if n := svc.Held(); n != 7 {
		t.Errorf("%d in memory right after their use", n)
	}
	svc.Evict(time.Now().Add(2 * time.Minute))
	if n := svc.Held(); n != 3 {
		t.Errorf("%d in memory, want 2 that rest and the one that is read", n)
	}
	// What left is whole when somebody asks for it.
	again, err := svc.Get(t.Context(), first.ID())
	if err != nil || again == first {
		t.Fatalf("got the same session, %v", err)
	}
	if d := again.Detail(); len(d.Items) != 1 || d.Items[0].Code != "kept = 1" {
		t.Errorf("items = %+v", d.Items)
	}
	svc.Evict(time.Now().Add(20 * time.Minute))
	if n := svc.Held(); n != 1 {
		t.Errorf("%d in memory, want the one that is read", n)
	}
}
