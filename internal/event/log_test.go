package event

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

func TestLogNumbersAndEncodes(t *testing.T) {
	l := NewLog(LogOptions{})
	if _, err := l.Append(OutputStream, Stream{Name: "stdout", Text: "<a>\n"}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Append(OutputDisplay, json.RawMessage("{\n\"data\": {\"a\":\"\xff\"}}")); err != nil {
		t.Fatal(err)
	}
	l.Close(nil)
	r := l.Subscribe(0)
	batch, err := r.Next(t.Context())
	if err != nil || len(batch) != 2 {
		t.Fatalf("Next = %d records, %v; want 2", len(batch), err)
	}
	for i, rec := range batch {
		var e Event
		if err := json.Unmarshal(rec.Line, &e); err != nil {
			t.Fatalf("line %q: %v", rec.Line, err)
		}
		if e.Seq != int64(i+1) || e.Seq != rec.Seq || e.Type != rec.Type || e.Time.IsZero() {
			t.Errorf("got %+v of record %+v", e, rec)
		}
	}
	if got, want := string(batch[1].Line), "\"data\":{\"data\":{\"a\":\"\uFFFD\"}}}"; !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want it to end in %q", got, want)
	}
	if _, err := r.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want EOF", err)
	}
	if _, err := l.Append(OutputStream, Stream{}); !errors.Is(err, ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
}

func TestHeldEventsArriveWithTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog(LogOptions{})
		got := make(chan []Record)
		go func() {
			batch, _ := l.Subscribe(0).Next(t.Context())
			got <- batch
		}()
		_, _ = l.AppendHeld(ExecutionStarted, Started{})
		synctest.Wait()
		select {
		case <-got:
			t.Fatal("a held event was delivered alone")
		default:
		}
		_, _ = l.Append(ExecutionFinished, Finished{})
		if batch := <-got; len(batch) != 2 {
			t.Errorf("got %d records, want both", len(batch))
		}
	})
}

func TestSlowReaderGetsAGap(t *testing.T) {
	for _, opts := range []LogOptions{{MaxRecords: 8}, {MaxBytes: 1000}} {
		l := NewLog(opts)
		r := l.Subscribe(0)
		for range 20 {
			_, _ = l.Append(OutputClear, json.RawMessage(`{"wait":true}`))
		}
		_, err := r.Next(t.Context())
		gap, ok := errors.AsType[*GapError](err)
		if !ok {
			t.Fatalf("got %v, want a GapError", err)
		}
		r.SkipTo(gap.Oldest - 1)
		batch, err := r.Next(t.Context())
		if err != nil || batch[0].Seq != gap.Oldest || batch[len(batch)-1].Seq != 20 {
			t.Errorf("after the gap: %v, %v", batch, err)
		}
	}
}

func TestAppendRawWantsTheNextNumber(t *testing.T) {
	l := NewLog(LogOptions{})
	if err := l.AppendRaw(Record{Seq: 5}); err != nil {
		t.Fatal(err)
	}
	if err := l.AppendRaw(Record{Seq: 7}); !errors.Is(err, ErrSequence) {
		t.Errorf("got %v, want ErrSequence", err)
	}
	if err := l.AppendRaw(Record{Seq: 6}); err != nil || l.Last() != 6 {
		t.Errorf("got %v, last %d", err, l.Last())
	}
}

func TestNextEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("reader left")
	cancel(why)
	if _, err := NewLog(LogOptions{}).Subscribe(0).Next(ctx); !errors.Is(err, why) {
		t.Errorf("got %v, want the cause", err)
	}
}

func TestManyReadersSeeEverythingInOrder(t *testing.T) {
	const n = 5000
	l := NewLog(LogOptions{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			r, want := l.Subscribe(0), int64(1)
			for {
				batch, err := r.Next(t.Context())
				if errors.Is(err, io.EOF) {
					break
				}
				for _, rec := range batch {
					if rec.Seq != want {
						t.Errorf("got %d, want %d", rec.Seq, want)
						return
					}
					want++
				}
			}
			if want != n+1 {
				t.Errorf("read up to %d", want)
			}
		})
	}
	for i := range n {
		_, _ = l.Append(OutputStream, Stream{Name: "stdout", Text: fmt.Sprint(i)})
	}
	l.Close(nil)
	wg.Wait()
}

func BenchmarkAppend(b *testing.B) {
	l := NewLog(LogOptions{MaxRecords: 1000})
	b.ReportAllocs()
	for b.Loop() {
		_, _ = l.Append(OutputStream, Stream{Name: "stdout", Text: "hello\n"})
	}
}
