package pool_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The other tests' agents are scripted; this one is real, with Python.
func TestARealAgentIsHandedOver(t *testing.T) {
	h, err := fake.NewHost(fake.Options{Python: kerneltest.Python(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	opts := options(1)
	opts.Snapshots = false
	opts.Templates["python"] = pool.Template{Image: "python", Limits: limits, Preload: []string{"decimal"}, Size: 1}
	p := open(t, h.Driver(), opts)
	defer shut(t, p)
	deadline := time.Now().Add(time.Minute)
	for p.Stats()["python"].Ready == 0 {
		if time.Now().After(deadline) {
			t.Fatalf("it never gets ready: %+v", p.Stats()["python"])
		}
		time.Sleep(10 * time.Millisecond)
	}
	l, err := p.Lease(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Client.CloseIdle()
	if l.Start != pool.StartWarm || !l.KernelReady {
		t.Errorf("lease %+v", l)
	}
	stream, err := l.Client.Execute(t.Context(), "krn_mine", agentapi.Execute{ID: "exe_1", Code: "import os; assert os.environ['A'] == '1'"})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	for {
		rec, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		if rec.Type == event.OutputError {
			t.Errorf("%s", rec.Line)
		}
		if rec.Type == event.ExecutionFinished {
			return
		}
	}
}
