package gvisor_test

import (
	"testing"

	"github.com/caesarion/caesarion/internal/httpapi/httpapitest"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
)

// TestWalkOnRealSandboxes is the walk with other users' objects, snapshots and
// copies among them, which the fake driver has not.
func TestWalkOnRealSandboxes(t *testing.T) {
	img := gvisortest.Image(t)
	httpapitest.Walk(t, func(t testing.TB) sandbox.Driver { return open(t, options(t, img, gvisortest.StateDir(t))) }, httpapitest.Options{})
}
