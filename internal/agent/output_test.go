package agent

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caesarion/caesarion/internal/event"
)

// written feeds an output and gives what its events show.
func written(t *testing.T, limit int64, feed func(*output)) (shown string, fin event.Finished, truncated int) {
	t.Helper()
	log := event.NewLog(event.LogOptions{})
	o := newOutput(log, limit, func() *spill { return nil })
	feed(o)
	o.finish(&fin)
	log.Close(nil)
	var b strings.Builder
	for rec := range log.Snapshot() {
		var e event.Event
		var s event.Stream
		if err := json.Unmarshal(rec.Line, &e); err != nil {
			t.Fatal(err)
		}
		switch e.Type {
		case event.OutputStream:
			if err := json.Unmarshal(e.Data, &s); err != nil {
				t.Fatal(err)
			}
			if strings.ContainsRune(s.Text, utf8.RuneError) {
				t.Errorf("a character was split: %q", s.Text)
			}
			b.WriteString(s.Text)
		case event.OutputTruncated:
			truncated++
		}
	}
	return b.String(), fin, truncated
}

func TestOutputKeepsHeadAndTail(t *testing.T) {
	const total = 300_000
	text := strings.Repeat("äbc€", total/7+1)
	for _, step := range []int{7, 1001 * 7, len(text)} {
		shown, fin, truncated := written(t, 40_000, func(o *output) {
			for rest := text; rest != ""; {
				n := min(step, len(rest))
				o.text("stdout", []byte(rest[:n]))
				rest = rest[n:]
			}
		})
		if truncated != 1 || fin.OutputBytes != int64(len(text)) || fin.DroppedBytes != int64(len(text)-len(shown)) {
			t.Errorf("in steps of %d: %d truncations, %+v, %d shown of %d", step, truncated, fin, len(shown), len(text))
		}
		head := shown[:15_000/7*7]
		if !strings.HasPrefix(text, head) || !strings.HasSuffix(text, shown[len(shown)-8_000/7*7:]) || len(shown) > 40_000 {
			t.Errorf("in steps of %d: %d bytes that are not head and tail", step, len(shown))
		}
	}
}

func TestOutputBelowTheLimitIsWhole(t *testing.T) {
	shown, fin, truncated := written(t, 0, func(o *output) {
		for range 1000 {
			o.text("stdout", []byte("o\n"))
			o.text("stderr", []byte("e\n"))
		}
	})
	if shown != strings.Repeat("o\ne\n", 1000) || fin.DroppedBytes != 0 || truncated != 0 || fin.OutputBytes != 4000 {
		t.Errorf("%d bytes shown, %+v", len(shown), fin)
	}
}

func TestAPictureOverTheLimitIsReplacedByALine(t *testing.T) {
	log := event.NewLog(event.LogOptions{})
	o := newOutput(log, 10_000, func() *spill { return nil })
	big := json.RawMessage(`{"data":{"image/png":"` + strings.Repeat("A", 20_000) + `"},"metadata":{}}`)
	o.rich(event.OutputDisplay, big)
	o.rich(event.OutputDisplay, json.RawMessage(`{"data":{"text/plain":"small"},"metadata":{}}`))
	var fin event.Finished
	o.finish(&fin)
	log.Close(nil)
	var all strings.Builder
	for rec := range log.Snapshot() {
		all.Write(rec.Line)
	}
	if got := all.String(); !strings.Contains(got, "image/png of 20") || !strings.Contains(got, "small") || fin.DroppedBytes != int64(len(big)) {
		t.Errorf("events %s, %+v", got, fin)
	}
}
