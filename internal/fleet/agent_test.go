package fleet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// scripted is a driver whose one agent does what a test says: to break.
type scripted struct {
	sandbox.Driver // what these tests don't call
	addr           string
	lost           chan struct{}
	deleted        chan struct{}
}

// event makes one line.
func line(seq int, typ, data string) string {
	return fmt.Sprintf("{\"seq\":%d,\"time\":%q,\"type\":%q,\"data\":%s}\n", seq, time.Now().UTC().Format(time.RFC3339Nano), typ, data)
}

func newScripted(t *testing.T, execute, events http.HandlerFunc) *scripted {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /kernels", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(agentapi.Kernel{}) })
	mux.HandleFunc("POST /kernels/{id}/executions", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		execute(w, r)
	})
	mux.HandleFunc("GET /executions/{id}/events", events)
	mux.HandleFunc("POST /executions/{id}/interrupt", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(agentapi.Listener(l))
	}()
	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return &scripted{addr: l.Addr().String(), lost: make(chan struct{}), deleted: make(chan struct{}, 10)}
}

func (d *scripted) Create(_ context.Context, spec sandbox.Spec) (sandbox.Info, error) {
	return sandbox.Info{ID: spec.ID, State: sandbox.StateRunning, Labels: spec.Labels, CreatedAt: time.Now()}, nil
}

func (d *scripted) Dial(ctx context.Context, _ sandbox.ID) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", d.addr)
}

func (d *scripted) List(context.Context) ([]sandbox.Info, error) { return nil, nil }

func (d *scripted) Lost(sandbox.ID) (<-chan struct{}, error) { return d.lost, nil }

func (d *scripted) SetLabels(context.Context, sandbox.ID, map[string]string) error { return nil }

func (d *scripted) Get(_ context.Context, id sandbox.ID) (sandbox.Info, error) {
	return sandbox.Info{ID: id, State: sandbox.StateStopped}, nil
}

func (d *scripted) Delete(context.Context, sandbox.ID) error {
	d.deleted <- struct{}{}
	return nil
}

// cut sends text and breaks the connection.
func cut(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, text)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func whole(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

func problem(status int, code string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(agentapi.Problem{Status: status, Code: code, Detail: "no"})
	}
}

func TestExecutionsOfBreakingAgents(t *testing.T) {
	started := line(1, "execution.started", `{"kernel_id":"krn_x"}`)
	out := line(2, "output.stream", `{"name":"stdout","text":"a"}`)
	ok := line(3, "execution.finished", `{"status":"ok"}`)
	for name, tt := range map[string]struct {
		execute, events http.HandlerFunc
		status          event.Status
		last            int64
	}{
		"a stream that breaks is resumed": {cut(started + out), func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("after") == "2" {
				whole(ok)(w, r)
			} else {
				problem(400, "wrong-number")(w, r)
			}
		}, event.StatusOK, 3},
		"a stream that ends too early is resumed":      {whole(started), whole(out + ok), event.StatusOK, 3},
		"an agent that forgets it ends it":             {cut(started), problem(404, "execution-not-found"), event.StatusKilled, 2},
		"an agent that talks nonsense ends it":         {whole(started + "nonsense\n"), whole(""), event.StatusKilled, 2},
		"an agent that skips numbers ends it":          {whole(started + ok), whole(""), event.StatusKilled, 2},
		"an agent that always breaks ends it some day": {cut(started), cut(""), event.StatusKilled, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, newScripted(t, tt.execute, tt.events), fleet.Template{}, 0)
			e, isNew, err := create(t, f, fleet.CreateRequest{}).Execute(t.Context(), fleet.ExecuteRequest{Code: "1"})
			if err != nil || !isNew {
				t.Fatal(err)
			}
			select {
			case <-e.Done():
			case <-time.After(30 * time.Second):
				t.Fatalf("it never ends: %+v", e.State())
			}
			st := e.State()
			if st.Status != tt.status || st.LastSeq != tt.last {
				t.Errorf("state = %+v, want %s at %d", st, tt.status, tt.last)
			}
			if st.Status == event.StatusKilled && (st.Finished.Reason != event.ReasonSandboxLost || st.Finished.Message == "") {
				t.Errorf("end = %+v, want a reason and a sentence", st.Finished)
			}
		})
	}
}

func TestExecutionsEndWithTheirSandbox(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, line(1, "execution.started", `{"kernel_id":"krn_x"}`))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	d := newScripted(t, hang, hang)
	f := newFleet(t, d, fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{})
	e, _, err := s.Execute(t.Context(), fleet.ExecuteRequest{Code: "1"})
	if err != nil {
		t.Fatal(err)
	}
	close(d.lost)
	<-e.Done()
	<-d.deleted
	if st := e.State(); st.Status != event.StatusKilled || st.Finished.Reason != event.ReasonSandboxLost {
		t.Errorf("state = %+v", st)
	}
	if _, _, err := s.Execute(t.Context(), fleet.ExecuteRequest{Code: "1"}); err == nil || !strings.Contains(err.Error(), "stopped") {
		t.Errorf("execute after the end = %v", err)
	}
	old, err := f.Remembered(s.ID())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Execution(e.ID); err != nil {
		t.Errorf("the execution is forgotten: %v", err)
	}
}

// What finished executions hold is bounded over all of them.
func TestOldExecutionsAreForgotten(t *testing.T) {
	big := line(2, "output.stream", `{"name":"stdout","text":"`+strings.Repeat("x", 1<<20)+`"}`)
	all := whole(line(1, "execution.started", `{"kernel_id":"krn_x"}`) + big + line(3, "execution.finished", `{"status":"ok"}`))
	f, err := fleet.New(t.Context(), newScripted(t, all, all), nil, fleet.Options{EventBytes: 4 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	s := create(t, f, fleet.CreateRequest{})
	var ids []string
	for range 10 {
		e, _, err := s.Execute(t.Context(), fleet.ExecuteRequest{Code: "1"})
		if err != nil {
			t.Fatal(err)
		}
		<-e.Done()
		ids = append(ids, e.ID)
	}
	for end := time.Now().Add(5 * time.Second); len(s.Executions()) != 3 && time.Now().Before(end); {
		time.Sleep(time.Millisecond) // the last end is counted a moment after it is seen
	}
	if n := len(s.Executions()); n != 3 {
		t.Errorf("%d executions remembered, want the 3 that fit", n)
	}
	if _, err := s.Execution(ids[0]); err == nil {
		t.Error("the oldest is remembered")
	}
	if _, err := s.Execution(ids[9]); err != nil {
		t.Errorf("the newest is forgotten: %v", err)
	}
}
