package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
)

// logReader is an event.Reader that can go on behind a gap, as fleet.Reader.
type logReader struct{ *event.Reader }

func (r logReader) Skip(oldest int64) { r.SkipTo(oldest - 1) }

// blocking is a client that takes nothing until it is told to.
type blocking struct {
	*httptest.ResponseRecorder
	open   chan struct{}
	writes int
}

func (b *blocking) Write(p []byte) (int, error) {
	<-b.open
	b.writes++
	return b.ResponseRecorder.Write(p)
}

func newStreamAPI(t *testing.T) *API {
	a := &API{opts: Options{Heartbeat: 15 * time.Second}}
	a.draining, a.drain = context.WithCancel(context.Background())
	t.Cleanup(a.drain)
	return a
}

func TestSlowReaderIsToldOfTheGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newStreamAPI(t)
		log := event.NewLog(event.LogOptions{MaxRecords: 100})
		w := &blocking{ResponseRecorder: httptest.NewRecorder(), open: make(chan struct{})}
		done := make(chan struct{})
		add := func() { _, _ = log.Append(event.OutputStream, event.Stream{Name: "stdout", Text: "x"}) }
		add()
		go func() {
			defer close(done)
			a.streamRecords(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), logReader{log.Subscribe(0)}, 0, v1.MediaNDJSON)
		}()
		synctest.Wait() // the client holds the first write
		for range 1000 {
			add()
		}
		log.Close(nil)
		close(w.open)
		<-done
		lines := strings.Split(strings.TrimSpace(w.Body.String()), "\n")
		if !strings.HasPrefix(lines[1], `{"type":"stream.gap","data":{"oldest":`) || !strings.HasPrefix(lines[len(lines)-1], `{"seq":1001,`) {
			t.Errorf("lines = %.200q … %q", lines[:3], lines[len(lines)-1])
		}
		var oldest int
		_, _ = fmt.Sscanf(lines[1], `{"type":"stream.gap","data":{"oldest":%d}}`, &oldest)
		if want := fmt.Sprintf(`{"seq":%d,`, oldest); !strings.HasPrefix(lines[2], want) {
			t.Errorf("after the gap comes %q, want %s", lines[2], want)
		}
	})
}

func TestRecordsThatAreThereAreOneWrite(t *testing.T) {
	a := newStreamAPI(t)
	log := event.NewLog(event.LogOptions{})
	for range 500 {
		_, _ = log.Append(event.OutputStream, event.Stream{Name: "stdout", Text: "x"})
	}
	log.Close(nil)
	w := &blocking{ResponseRecorder: httptest.NewRecorder(), open: make(chan struct{})}
	close(w.open)
	a.streamRecords(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), logReader{log.Subscribe(0)}, 0, v1.MediaSSE)
	if n := strings.Count(w.Body.String(), "\n\n"); n != 500 || w.writes != 1 {
		t.Errorf("%d events in %d writes, want 500 in 1", n, w.writes)
	}
}

// flushCounter counts, where others may look, how often it was flushed.
type flushCounter struct {
	*httptest.ResponseRecorder
	flushes atomic.Int32
}

func (f *flushCounter) Flush() {
	f.flushes.Add(1)
	f.ResponseRecorder.Flush()
}

func TestSilentStreamsGiveSignsOfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newStreamAPI(t)
		log := event.NewLog(event.LogOptions{})
		w := &flushCounter{ResponseRecorder: httptest.NewRecorder()}
		done := make(chan struct{})
		go func() {
			defer close(done)
			a.streamRecords(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil), logReader{log.Subscribe(0)}, 7, v1.MediaSSE)
		}()
		time.Sleep(time.Second)
		if n := w.flushes.Load(); n != 1 {
			t.Errorf("flushed %d times after a second, want once: the head of the answer", n)
		}
		time.Sleep(49 * time.Second)
		a.drain()
		<-done
		if got := w.Body.String(); strings.Count(got, ":\n\n") != 3 || !strings.HasSuffix(got, "retry: 1000\nevent: stream.interrupted\ndata: {\"type\":\"stream.interrupted\",\"data\":{\"after\":7}}\n\n") {
			t.Errorf("body = %q", got)
		}
	})
}
