package pool_test

import (
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
	"github.com/caesarion/caesarion/internal/sandbox/fake/faketest"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// The other tests' agents are scripted; this one is real, with Python.
func TestARealAgentIsHandedOver(t *testing.T) {
	opts := options(1)
	opts.Snapshots = false
	opts.Templates["python"] = pool.Template{Image: "python", Limits: limits, Preload: []string{"decimal"}, Size: 1}
	p := open(t, faketest.New(t).Driver(), opts)
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
	if out, err := agenttest.Output(t.Context(), l.Client, "krn_mine", "import os; print(os.environ['A'])"); err != nil || out != "1\n" {
		t.Errorf("it printed %q: %v", out, err)
	}
}
