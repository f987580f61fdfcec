package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server of the given routes and a client for it.
func serve(t *testing.T, routes map[string]http.HandlerFunc) *client.Client {
	t.Helper()
	mux := http.NewServeMux()
	for pattern, h := range routes {
		mux.HandleFunc(pattern, h)
	}
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	c, err := client.New(srv.URL+"/?token=secret", client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func line(seq int64, typ event.Type, data string) string {
	text, err := json.Marshal(event.Event{Seq: seq, Type: typ, Data: json.RawMessage(data)})
	if err != nil {
		panic(err)
	}
	return string(text) + "\n"
}

func all(t *testing.T, s *client.Stream) (got []string, err error) {
	t.Helper()
	defer s.Close()
	for {
		ev, err := s.Next()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got = append(got, fmt.Sprintf("%d %s", ev.Seq, ev.Type))
	}
}

func TestAddresses(t *testing.T) {
	tests := []struct{ address, want string }{
		{"http://127.0.0.1:8000", "http://127.0.0.1:8000"},
		{"http://127.0.0.1:8000/?token=abc", "http://127.0.0.1:8000"},
		{"127.0.0.1:8000", "http://127.0.0.1:8000"},
		{"https://box.example.org/caesarion/", "https://box.example.org/caesarion"},
		{"ftp://example.org", ""},
		{"http://", ""},
		{"", ""},
		{"http://a b", ""},
	}
	for _, tt := range tests {
		t.Run(tt.address, func(t *testing.T) {
			c, err := client.New(tt.address, client.Options{})
			if tt.want == "" {
				if !errors.Is(err, errdefs.ErrInvalid) {
					t.Errorf("got %v, want ErrInvalid", err)
				}
				return
			}
			if err != nil || c.URL() != tt.want {
				t.Errorf("got %v, %v; want %s", c, err, tt.want)
			}
		})
	}
}

func TestAnExecutionThatIsCutIsResumedWithoutLossOrRepetition(t *testing.T) {
	var resumes atomic.Int32
	c := serve(t, map[string]http.HandlerFunc{
		"POST /v1/sandboxes/sbx_a/executions": func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header.Get("Authorization"); got != "Bearer secret" {
				t.Errorf("authorization %q", got)
			}
			if r.Header.Get(v1.HeaderIdempotencyKey) == "" {
				t.Error("no idempotency key")
			}
			w.Header().Set(v1.HeaderExecutionID, "exe_1")
			fmt.Fprint(w, line(1, event.ExecutionStarted, `{"kernel_id":"krn_1"}`), "\n", line(2, event.OutputStream, `{"name":"stdout","text":"a"}`))
			fmt.Fprint(w, `{"seq":3,"type":"output.st`) // half an event
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		},
		"GET /v1/sandboxes/sbx_a/executions/exe_1/events": func(w http.ResponseWriter, r *http.Request) {
			switch resumes.Add(1) {
			case 1:
				if got := r.Header.Get(v1.HeaderLastEventID); got != "2" {
					t.Errorf("resumed after %q, want 2", got)
				}
				// A server that stops says so.
				fmt.Fprint(w, line(3, event.OutputStream, `{"name":"stdout","text":"b"}`), `{"type":"stream.interrupted","data":{"after":3}}`+"\n")
			default:
				if got := r.Header.Get(v1.HeaderLastEventID); got != "3" {
					t.Errorf("resumed after %q, want 3", got)
				}
				fmt.Fprint(w, line(3, event.OutputStream, `{"name":"stdout","text":"b"}`), line(4, event.ExecutionFinished, `{"status":"ok"}`))
			}
		},
	})
	s, err := c.Execute(t.Context(), "sbx_a", v1.Execute{Code: "x"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := all(t, s)
	if err != nil {
		t.Fatal(err)
	}
	want := "[1 execution.started 2 output.stream 3 output.stream 4 execution.finished]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestAnExecutionThatTheServerForgotEndsWithItsProblem(t *testing.T) {
	c := serve(t, map[string]http.HandlerFunc{
		"POST /v1/sandboxes/sbx_a/executions": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(v1.HeaderExecutionID, "exe_1")
			fmt.Fprint(w, line(1, event.ExecutionStarted, `{}`))
		},
		"GET /v1/sandboxes/sbx_a/executions/exe_1/events": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", v1.MediaProblem)
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"status":404,"code":"execution-not-found","detail":"gone","hint":"run it again"}`)
		},
	})
	s, err := c.Execute(t.Context(), "sbx_a", v1.Execute{Code: "x"})
	if err != nil {
		t.Fatal(err)
	}
	_, err = all(t, s)
	if p, ok := errors.AsType[*v1.Problem](err); !ok || p.Code != "execution-not-found" {
		t.Errorf("got %v, want the problem", err)
	}
}

func TestAProcessStreamThatIsCutIsAnError(t *testing.T) {
	c := serve(t, map[string]http.HandlerFunc{
		"POST /v1/sandboxes/sbx_a/processes": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(v1.HeaderProcessID, "prc_1")
			fmt.Fprint(w, line(1, event.ProcessStarted, `{"pid":7}`))
		},
	})
	s, err := c.Run(t.Context(), "sbx_a", v1.RunProcess{Command: "true"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := all(t, s)
	if s.ID != "prc_1" || len(got) != 1 || !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("got %s, %v, %v", s.ID, got, err)
	}
}

func TestTheEndOfTheContextEndsAStream(t *testing.T) {
	hang := make(chan struct{})
	c := serve(t, map[string]http.HandlerFunc{
		"POST /v1/sandboxes/sbx_a/executions": func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			<-hang
		},
	})
	t.Cleanup(func() { close(hang) }) // before the server's own clean-up, which waits
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	s, err := c.Execute(ctx, "sbx_a", v1.Execute{Code: "x"})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	if _, err := all(t, s); !errors.Is(err, cause) {
		t.Errorf("got %v, want the cause", err)
	}
}

func TestFailuresSayWhatToDo(t *testing.T) {
	c := serve(t, map[string]http.HandlerFunc{
		"GET /v1/info": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>proxy</html>", http.StatusBadGateway)
		},
		"GET /v1/sandboxes/sbx_a": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", v1.MediaProblem+"; charset=utf-8")
			w.Header().Set(v1.HeaderRequestID, "req_1")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"code":"token-missing","detail":"no token"}`)
		},
	})
	_, err := c.Info(t.Context())
	if p, ok := errors.AsType[*v1.Problem](err); !ok || p.Status != http.StatusBadGateway || p.Hint == "" {
		t.Errorf("from a proxy: %v", err)
	}
	_, err = c.Sandbox(t.Context(), "sbx_a")
	if p, ok := errors.AsType[*v1.Problem](err); !ok || p.Code != "token-missing" || p.Status != 401 || p.RequestID != "req_1" {
		t.Errorf("a problem: %v", err)
	}
	dead, err := client.New("http://127.0.0.1:1/?token=hunter2", client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer dead.Close()
	err = dead.Health(t.Context())
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "caesarion serve") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestFilesGoThroughWholeAndUnderAnyName(t *testing.T) {
	const name = "/workspace/a b/ü?&#%.csv"
	stored := ""
	c := serve(t, map[string]http.HandlerFunc{
		"PUT /v1/sandboxes/sbx_a/files/content": func(w http.ResponseWriter, r *http.Request) {
			if got := r.URL.Query().Get("path"); got != name {
				t.Errorf("path %q", got)
			}
			content, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			stored = string(content)
			fmt.Fprintf(w, `{"path":%q,"size_bytes":%d}`, name, len(content))
		},
		"GET /v1/sandboxes/sbx_a/files/content": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, stored) },
	})
	for _, want := range []string{"", "a,b\n1,2\n", strings.Repeat("x", 1<<20)} {
		f, err := c.Upload(t.Context(), "sbx_a", name, strings.NewReader(want), int64(len(want)))
		if err != nil || f.SizeBytes != int64(len(want)) {
			t.Fatalf("upload: %+v, %v", f, err)
		}
		body, _, err := c.Download(t.Context(), "sbx_a", name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		_ = body.Close()
		if err != nil || string(got) != want {
			t.Errorf("%d bytes came back as %d, %v", len(want), len(got), err)
		}
	}
}
