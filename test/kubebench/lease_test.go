package kubebench

import (
	"context"
	"fmt"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/kubetest"
)

// full waits until the pool is full.
func (s *server) full(tb testing.TB, size int) {
	tb.Helper()
	kubetest.Wait(tb, "a full pool", func(ctx context.Context) error {
		info, err := s.Info(ctx)
		if err != nil {
			return err
		}
		for _, t := range info.Templates {
			if t.Pool != nil && t.Pool.Size == size && t.Pool.Ready == size && t.Pool.Starting == 0 {
				return nil
			}
		}
		return fmt.Errorf("%+v", info.Templates)
	})
}

// TestAWarmLeaseIsOneWrite counts by the API server's own figures. Nobody but
// our servers creates and patches pods: kubelet and scheduler write to
// subresources.
func TestAWarmLeaseIsOneWrite(t *testing.T) {
	w := newWorld(t)
	in := w.install(t, "writes", chartLimits("", 1))
	s := in.serve(t)
	s.full(t, 1)
	const leases = 3
	before := writesNow(t)
	for range leases {
		sb, err := s.CreateSandbox(t.Context(), v1.CreateSandbox{})
		if err != nil {
			t.Fatal(err)
		}
		if sb.Start != "warm" {
			t.Errorf("the sandbox started %s", sb.Start)
		}
		stream, err := s.Execute(t.Context(), sb.ID, v1.Execute{Code: "1+1"})
		if err != nil {
			t.Fatal(err)
		}
		for _, err = stream.Next(); err == nil; _, err = stream.Next() { //nolint:revive // to the end
		}
		stream.Close()
		s.full(t, 1)
	}
	if got := writesNow(t).since(before); got["PATCH pods"] != leases || got["POST pods"] != leases || got["DELETE pods"] != 0 {
		t.Errorf("%d leases of warm pods took %s; each is to be one patch, and a pod is made in its place", leases, got)
	}
}
