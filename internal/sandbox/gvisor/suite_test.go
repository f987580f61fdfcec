package gvisor_test

import (
	"context"
	"testing"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/httpapi/httpapitest"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
	"github.com/caesarion/caesarion/internal/sandbox/sandboxtest"
)

// TestAgentInARealSandbox lets user code do its worst, in gVisor.
func TestAgentInARealSandbox(t *testing.T) {
	d := open(t, options(t, gvisortest.Image(t), gvisortest.StateDir(t)))
	agenttest.Run(t, func(t testing.TB) *agentapi.Client {
		info, err := d.Create(t.Context(), sandbox.Spec{Limits: smallLimits})
		if err != nil {
			t.Fatal(err)
		}
		c := client(d, info)
		t.Cleanup(func() {
			c.CloseIdle()
			if err := d.Delete(context.Background(), info.ID); err != nil {
				t.Error(err)
			}
		})
		return c
	}, agenttest.Options{Isolated: true, MemoryBytes: smallLimits.MemoryBytes, Processes: smallLimits.Processes})
}

// TestAPIOnRealSandboxes is the HTTP API's suite, with gVisor behind it.
func TestAPIOnRealSandboxes(t *testing.T) {
	img := gvisortest.Image(t)
	httpapitest.Run(t, func(t testing.TB) sandbox.Driver { return open(t, options(t, img, gvisortest.StateDir(t))) }, httpapitest.Options{})
}

// TestDriverContract is the suite that every driver passes.
func TestDriverContract(t *testing.T) {
	img := gvisortest.Image(t)
	sandboxtest.Run(t, func(t testing.TB) sandboxtest.Harness {
		opts := options(t, img, gvisortest.StateDir(t))
		t.Cleanup(func() { wantNothingLeft(t, opts.StateDir) })
		return sandboxtest.Harness{
			Open: func(t testing.TB) sandbox.Driver {
				d, err := gvisor.New(t.Context(), opts)
				if err != nil {
					t.Fatal(err)
				}
				return d
			},
			Spec: sandbox.Spec{Limits: smallLimits},
			Kill: func(t testing.TB, d sandbox.Driver, id sandbox.ID) {
				info, err := d.Get(t.Context(), id)
				if err != nil {
					t.Fatal(err)
				}
				// The agent is the sandbox's init, and gVisor shields it from nobody.
				c := client(d.(*gvisor.Driver), info) //nolint:forcetypeassert // Open made it
				defer c.CloseIdle()
				stream, err := c.Run(t.Context(), agentapi.Run{ID: agenttest.NewID("prc"), Command: "kill -9 1"})
				if err == nil {
					_ = stream.Close()
				}
			},
		}
	})
}
