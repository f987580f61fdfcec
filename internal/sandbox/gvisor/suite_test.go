package gvisor_test

import (
	"context"
	"testing"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/httpapi/httpapitest"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// TestAgentInARealSandbox lets user code do its worst, in gVisor.
func TestAgentInARealSandbox(t *testing.T) {
	d := open(t, options(t, needReal(t), stateDir(t)))
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
	img := needReal(t)
	httpapitest.Run(t, func(t testing.TB) sandbox.Driver { return open(t, options(t, img, stateDir(t))) }, httpapitest.Options{})
}
