package store_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/caesarion/caesarion/internal/store"
)

// load is sessions that are written to, and what of them was acknowledged.
type load struct {
	s     *store.Store
	acked []atomic.Int64 // the last number, by session
	stop  chan struct{}
	wg    sync.WaitGroup
}

// newLoad has n sessions written, each as fast as it is acknowledged.
func newLoad(tb testing.TB, s *store.Store, n int) *load {
	tb.Helper()
	l := &load{s: s, acked: make([]atomic.Int64, n), stop: make(chan struct{})}
	for i := range n {
		id := fmt.Sprintf("ses_%d", i)
		put(tb, s, store.Batch{SessionID: id, Session: session(id)})
		l.wg.Go(func() {
			for seq := int64(1); ; seq += 2 {
				select {
				case <-l.stop:
					return
				default:
				}
				err := s.Commit(context.Background(), store.Batch{SessionID: id, Events: []store.Event{
					{Seq: seq, Type: "a", Line: fmt.Appendf(nil, "%s %d", id, seq)},
					{Seq: seq + 1, Type: "a", Line: fmt.Appendf(nil, "%s %d", id, seq+1)},
				}})
				if err != nil {
					tb.Errorf("session %d, event %d: %v", i, seq, err)
					return
				}
				l.acked[i].Store(seq + 1)
			}
		})
	}
	return l
}

func (l *load) total() (n int64) {
	for i := range l.acked {
		n += l.acked[i].Load()
	}
	return n
}

// end stops the load and checks that all that was acknowledged is there once.
func (l *load) end(tb testing.TB) {
	tb.Helper()
	close(l.stop)
	l.wg.Wait()
	for i := range l.acked {
		id := fmt.Sprintf("ses_%d", i)
		want := l.acked[i].Load()
		next := int64(1)
		for next <= want {
			events, err := l.s.Events(tb.Context(), id, next-1, 1<<40, 1<<20)
			if err != nil || len(events) == 0 {
				tb.Fatalf("%s: events after %d of %d: %v", id, next-1, want, err)
			}
			for _, e := range events {
				if e.Seq != next || string(e.Line) != fmt.Sprintf("%s %d", id, next) {
					tb.Fatalf("%s: event %d is number %d, %q", id, next, e.Seq, e.Line)
				}
				next++
			}
		}
		if next != want+1 {
			tb.Errorf("%s has %d events, and %d were acknowledged", id, next-1, want)
		}
		if row, err := l.s.Session(tb.Context(), id); err != nil || row.LastSeq != want {
			tb.Errorf("%s: last number %d, want %d: %v", id, row.LastSeq, want, err)
		}
	}
}

func (l *load) more(tb testing.TB, n int64) {
	tb.Helper()
	start := l.total()
	eventually(tb, "more events", func() bool { return tb.Failed() || l.total() >= start+n })
}
