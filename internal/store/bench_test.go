package store_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

// onEach runs a benchmark on SQLite, on Postgres as people run it, and on
// Postgres that does not wait for the disk, which SQLite doesn't either.
func onEach(b *testing.B, bench func(*testing.B, *store.Store)) {
	b.Helper()
	b.Run("SQLite", func(b *testing.B) {
		bench(b, database{"SQLite", filepath.Join(b.TempDir(), "a.db")}.open(b, store.Options{}))
	})
	b.Run("Postgres", func(b *testing.B) {
		bench(b, openPostgres(b, pgtest.Start(b, "fsync=on").Database(b), store.Options{}))
	})
	b.Run("PostgresWithoutFsync", func(b *testing.B) {
		bench(b, openPostgres(b, pgtest.Start(b).Database(b), store.Options{}))
	})
}

var benchLine = []byte(`{"seq":1,"time":"2026-11-23T00:00:00Z","type":"output.stream","item_id":"itm_1","data":{"name":"stdout","text":"` + strings.Repeat("x", 100) + `"}}`)

// How many events of 64 sessions that print at the same time are committed in
// a second.
func BenchmarkBurst(b *testing.B) {
	onEach(b, func(b *testing.B, s *store.Store) {
		const sessions, events = 64, 10
		for i := range sessions {
			id := fmt.Sprintf("ses_%d", i)
			put(b, s, store.Batch{SessionID: id, Session: session(id)})
		}
		seq := int64(0)
		for b.Loop() {
			var wg sync.WaitGroup
			for i := range sessions {
				batch := store.Batch{SessionID: fmt.Sprintf("ses_%d", i)}
				for n := range int64(events) {
					batch.Events = append(batch.Events, store.Event{Seq: seq + n + 1, Type: "output.stream", Line: benchLine})
				}
				wg.Add(1)
				s.Submit(batch, func(err error) {
					if err != nil {
						b.Error(err)
					}
					wg.Done()
				})
			}
			wg.Wait()
			seq += events
		}
		b.ReportMetric(float64(seq*sessions)/b.Elapsed().Seconds(), "events/s")
	})
}

// How long one event takes from Submit to its callback.
func BenchmarkOneEvent(b *testing.B) {
	onEach(b, func(b *testing.B, s *store.Store) {
		put(b, s, store.Batch{SessionID: "ses_a", Session: session("ses_a")})
		var took []time.Duration
		seq := int64(0)
		for b.Loop() {
			seq++
			start := time.Now()
			put(b, s, store.Batch{SessionID: "ses_a", Events: []store.Event{{Seq: seq, Type: "output.stream", Line: benchLine}}})
			took = append(took, time.Since(start))
		}
		slices.Sort(took)
		for _, p := range []int{50, 99} {
			b.ReportMetric(float64(took[len(took)*p/100].Microseconds()), fmt.Sprintf("p%d-µs", p))
		}
	})
}
