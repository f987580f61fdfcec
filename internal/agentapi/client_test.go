package agentapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// hostile gives a client of an agent that answers as it likes.
func hostile(t testing.TB, answer http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(answer)
	c := NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", srv.Listener.Addr().String())
	}, "token")
	t.Cleanup(func() { c.CloseIdle(); srv.Close() })
	return c
}

func codeOf(err error) string {
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestAnswersThatCannotBeRight(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"no JSON":            func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") },
		"another shape":      func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `[1]`) },
		"no UTF-8":           func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{\"version\":\"\xff\"}") },
		"too large":          func(w http.ResponseWriter, _ *http.Request) { _, _ = io.CopyN(w, zeros{}, maxSmallBody+1) },
		"a failure in prose": func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusBadGateway) },
		"a code that is none": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"code":"<script>"}`)
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		},
	} {
		if _, err := hostile(t, answer).Health(t.Context()); codeOf(err) != "sandbox-bad-answer" {
			t.Errorf("%s: %v, want sandbox-bad-answer", name, err)
		}
	}
	endless := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 2*maxHeaderBytes))
	})
	if _, err := endless.Health(t.Context()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("a header without end: %v, want ErrUnavailable", err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestProblemsKeepCodeAndKind(t *testing.T) {
	for status, kind := range map[int]error{
		400: errdefs.ErrInvalid, 403: errdefs.ErrForbidden, 404: errdefs.ErrNotFound, 409: errdefs.ErrConflict, 413: errdefs.ErrTooLarge,
		429: errdefs.ErrExhausted, 501: errdefs.ErrUnsupported, 503: errdefs.ErrUnavailable, 507: errdefs.ErrExhausted,
		401: errdefs.ErrUnavailable, // a wrong token is our mistake, not the caller's
	} {
		c := hostile(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(Problem{Status: status, Code: "the-code", Detail: strings.Repeat("d", 10_000), Hint: "h"})
		})
		_, err := c.Health(t.Context())
		e, ok := errors.AsType[*errdefs.Error](err)
		if !ok || e.Code != "the-code" || !errors.Is(err, kind) || e.Hint != "h" || len(e.Msg) > maxDetail+8 {
			t.Errorf("status %d: %v", status, err)
		}
	}
}

func TestTheCallersErrorsPassThrough(t *testing.T) {
	why := errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "gone")
	c := NewClient(func(context.Context) (net.Conn, error) { return nil, why }, "")
	if _, err := c.Health(t.Context()); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("dial fails: %v", err)
	}
	left := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	waits := hostile(t, func(_ http.ResponseWriter, r *http.Request) { cancel(left); <-r.Context().Done() })
	if _, err := waits.Health(ctx); !errors.Is(err, left) {
		t.Errorf("the caller leaves: %v", err)
	}
}

func stream(t testing.TB, body string) *Stream {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	return &Stream{body: io.NopCloser(strings.NewReader(body)), r: bufio.NewReader(strings.NewReader(body)), ctx: ctx, cancel: cancel, max: 1000}
}

const started = `{"seq":1,"time":"2026-01-01T00:00:00Z","type":"execution.started","data":{"kernel_id":"k"}}`

func TestStreamsThatCannotBeRight(t *testing.T) {
	line := func(seq int, typ event.Type, data string) string {
		return fmt.Sprintf("%s\n{\"seq\":%d,\"time\":\"2026-01-01T00:00:00Z\",\"type\":%q,\"data\":%s}\n", started, seq, typ, data)
	}
	for name, body := range map[string]string{
		"a gap":                 line(3, event.OutputClear, `{}`),
		"a repetition":          line(1, event.OutputClear, `{}`),
		"an unknown type":       line(2, "output.surprise", `{}`),
		"data that is none":     line(2, event.OutputStream, `"text"`),
		"an unknown stream":     line(2, event.OutputStream, `{"name":"stdlog","text":""}`),
		"text that is none":     line(2, event.OutputStream, `{"name":"stdout","text":1}`),
		"a bundle that is none": line(2, event.OutputDisplay, `{"data":[]}`),
		"an unknown status":     line(2, event.ExecutionFinished, `{"status":"fine"}`),
		"a line too long":       line(2, event.OutputStream, `{"name":"stdout","text":"`+strings.Repeat("x", 1000)+`"}`),
		"no JSON":               started + "\nhello\n",
		"no UTF-8":              line(2, event.OutputStream, "{\"name\":\"stdout\",\"text\":\"\xff\"}"),
		"an end in the middle":  started + "\n" + started[:20],
	} {
		s := stream(t, body)
		rec, err := s.Next()
		if err != nil || string(rec.Line) != started || rec.Type != event.ExecutionStarted {
			t.Fatalf("%s: first event %s, %v", name, rec.Line, err)
		}
		if rec, err := s.Next(); err == nil || errors.Is(err, io.EOF) || !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("%s: %s, %v; want an error", name, rec.Line, err)
		}
	}
	s := stream(t, started+"\n")
	_, _ = s.Next()
	if _, err := s.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("a whole stream ends with %v", err)
	}
}

func TestContentDropsWhatAnAgentSaysOfIt(t *testing.T) {
	c := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Content-Range", r.Header.Get("Range"))
		_, _ = io.WriteString(w, "body")
	})
	got, err := c.Download(t.Context(), "x", "bytes=0-3")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err != nil || string(body) != "body" || got.Size != 4 {
		t.Errorf("body %q, size %d, %v", body, got.Size, err)
	}
	if got.Header.Get("Content-Type") != "" || got.Header.Get("Set-Cookie") != "" || got.Header.Get("Content-Range") != "bytes=0-3" {
		t.Errorf("header %v", got.Header)
	}
}

func FuzzStream(f *testing.F) {
	f.Add(started + "\n")
	f.Add(started + "\n" + strings.Replace(started, "1", "2", 1) + "\n")
	f.Add("{}\n\n\x00")
	f.Fuzz(func(t *testing.T, body string) {
		s := stream(t, body)
		for want := int64(1); ; want++ {
			rec, err := s.Next()
			if err != nil {
				return
			}
			var e event.Event
			if err := json.Unmarshal(rec.Line, &e); err != nil || e.Seq != want || rec.Seq != want || strings.Contains(string(rec.Line), "\n") {
				t.Fatalf("accepted %q: %v", rec.Line, err)
			}
		}
	})
}
