package store_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestAKilledServerLosesNoEventAndKeepsNoneTwice(t *testing.T) {
	server := pgtest.Start(t)
	s := openPostgres(t, server.Database(t), store.Options{RetryFor: 60 * time.Second})
	l := newLoad(t, s, 4)
	for range 3 {
		l.more(t, 200)
		server.Kill()
		before := l.total()
		if err := server.Run(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "writes after the start", func() bool { return t.Failed() || l.total() > before })
	}
	l.end(t)
}

func TestADatabaseThatStaysAway(t *testing.T) {
	server := pgtest.Start(t)
	s := openPostgres(t, server.Database(t), store.Options{RetryFor: 300 * time.Millisecond})
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a")})
	server.Kill()
	event := store.Batch{SessionID: "ses_a", Events: []store.Event{{Seq: 1, Type: "a", Line: []byte("x")}}}
	start := time.Now()
	err := s.Commit(t.Context(), event)
	if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != "store-failed" || !strings.Contains(e.Hint, "Try again") || !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	if d := time.Since(start); d < 300*time.Millisecond || d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.Session(ctx, "ses_a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a reader that gives up gets %v", err)
	}
	if _, err := s.Session(t.Context(), "ses_a"); codeOf(err) != "store-failed" {
		t.Errorf("a patient reader gets %v", err)
	}
	if err := server.Run(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the database is back", func() bool { return s.Commit(t.Context(), event) == nil })
	if n, _, err := s.EventsSize(t.Context(), "ses_a", 0); err != nil || n != 1 {
		t.Errorf("%d events, %v", n, err)
	}
}

// Whoever stops a server whose database is away does not wait for long.
func TestClosingWhileTheDatabaseIsAway(t *testing.T) {
	server := pgtest.Start(t)
	s, err := store.OpenPostgres(t.Context(), server.Database(t), store.Options{RetryFor: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a")})
	server.Kill()
	done := make(chan error, 2)
	for seq := range int64(2) {
		s.Submit(store.Batch{SessionID: "ses_a", Events: []store.Event{{Seq: seq + 1, Type: "a", Line: []byte("x")}}}, func(err error) { done <- err })
	}
	start := time.Now()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d > 20*time.Second {
		t.Errorf("it took %v", d)
	}
	for range 2 {
		if err := <-done; codeOf(err) != "store-failed" {
			t.Errorf("got %v", err)
		}
	}
}
