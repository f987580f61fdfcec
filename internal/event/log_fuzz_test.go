package event

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"testing"
	"unicode/utf8"
)

// FuzzLog appends any data in any order, while a reader follows with gaps: the
// log keeps its bounds, its numbers and lines that are JSON.
func FuzzLog(f *testing.F) {
	f.Add([]byte("aAbBcC"), `{"name":"stdout","text":"x"}`)
	f.Add([]byte("rrrRRR"), "{\n\"a\": \"\xff\"}")
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 255}, `{}`)
	f.Add([]byte("zzzzzzzzzzzzzzzzzzzzzzzzzzzz"), `{"text":"`+string(make([]byte, 200))+`"}`)
	f.Fuzz(func(t *testing.T, steps []byte, data string) {
		if len(steps) > 1000 {
			return
		}
		const most = 8
		l := NewLog(LogOptions{MaxRecords: most, MaxBytes: 4096})
		r := l.Subscribe(0)
		var seen int64
		read := func() {
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // what is not there is not waited for
			batch, err := r.Next(ctx)
			if gap, ok := errors.AsType[*GapError](err); ok {
				if gap.Oldest <= seen+1 || gap.Oldest > l.Last() {
					t.Errorf("a gap up to %d after %d of %d", gap.Oldest, seen, l.Last())
				}
				r.SkipTo(gap.Oldest - 1)
				seen = gap.Oldest - 1
				return
			}
			for _, rec := range batch {
				if rec.Seq != seen+1 {
					t.Errorf("%d follows %d", rec.Seq, seen)
				}
				seen = rec.Seq
				if !utf8.Valid(rec.Line) {
					t.Errorf("%q is not UTF-8", rec.Line)
				}
			}
		}
		valid := json.Valid([]byte(data)) && len(data) > 0
		for _, step := range steps {
			switch step % 6 {
			case 0:
				_, _ = l.Append(OutputClear, map[string]bool{"wait": true})
			case 1:
				if valid {
					_, _ = l.AppendHeld(OutputDisplay, json.RawMessage(data))
				}
			case 2:
				read()
			case 3:
				if err := l.AppendRaw(Record{Seq: l.Last() + int64(step%3), Type: OutputClear, Line: []byte(`{}`)}); err != nil && !errors.Is(err, ErrSequence) {
					t.Error(err)
				}
			case 4:
				l.Publish()
			case 5:
				_, _ = l.Append(OutputStream, Stream{Name: "stdout", Text: data})
			}
			if n := l.Last() - l.Oldest() + 1; l.Oldest() > 0 && n > most+1 {
				t.Errorf("%d records, over %d", n, most)
			}
		}
		l.Close(nil)
		for range 4 {
			read()
		}
		for rec := range l.Snapshot() {
			if !json.Valid(rec.Line) {
				t.Errorf("%q is not JSON", rec.Line)
			}
		}
		if _, err := r.Next(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %v", err)
		}
	})
}
