package kube_test

import (
	"testing"

	"github.com/caesarion/caesarion/internal/httpapi/httpapitest"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/store/pgtest"
	"github.com/caesarion/caesarion/test/kubetest"
)

// TestWalkOnPods is the walk over the whole OpenAPI with other users' objects,
// asked of two servers whose sandboxes are pods.
func TestWalkOnPods(t *testing.T) {
	d := open(t, options(t, ""))
	httpapitest.Walk(t, func(testing.TB) sandbox.Driver { return d }, httpapitest.Options{
		Image: kubetest.Image(t, "python"), Postgres: pgtest.New(t),
	})
}
