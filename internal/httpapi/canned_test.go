package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// canned is a driver whose one agent answers every execution at once with the
// same four events. What is left of an execution's time is the server's.
type canned struct {
	sandbox.Driver // whatever the benchmark does not call
	addr           string
}

func newCanned(b *testing.B) *canned {
	b.Helper()
	mux := http.NewServeMux()
	answer := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_ = json.NewEncoder(w).Encode(v)
		}
	}
	mux.HandleFunc("POST /kernels", answer(agentapi.Kernel{}))
	mux.HandleFunc("POST /kernels/{id}/executions", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		now := time.Now().UTC().Format(time.RFC3339Nano)
		for i, e := range []string{
			`"type":"execution.started","data":{"kernel_id":"krn_x"}`,
			`"type":"output.execute_result","data":{"data":{"text/plain":"2"},"metadata":{},"execution_count":1}`,
			`"type":"execution.finished","data":{"status":"ok","execution_count":1,"duration_ms":0.5}`,
		} {
			fmt.Fprintf(w, "{\"seq\":%d,\"time\":%q,%s}\n", i+1, now, e)
		}
	})
	l, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(agentapi.Listener(l))
	}()
	b.Cleanup(func() {
		_ = srv.Close()
		<-done
	})
	return &canned{addr: l.Addr().String()}
}

func (c *canned) Create(_ context.Context, spec sandbox.Spec) (sandbox.Info, error) {
	return sandbox.Info{ID: spec.ID, State: sandbox.StateRunning, Labels: spec.Labels, CreatedAt: time.Now()}, nil
}

func (c *canned) Dial(ctx context.Context, _ sandbox.ID) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", c.addr)
}
func (c *canned) List(context.Context) ([]sandbox.Info, error)                   { return nil, nil }
func (c *canned) Lost(sandbox.ID) (<-chan struct{}, error)                       { return make(chan struct{}), nil }
func (c *canned) SetLabels(context.Context, sandbox.ID, map[string]string) error { return nil }
func (c *canned) Delete(context.Context, sandbox.ID) error                       { return nil }
func (c *canned) Get(_ context.Context, id sandbox.ID) (sandbox.Info, error) {
	return sandbox.Info{ID: id}, nil
}
