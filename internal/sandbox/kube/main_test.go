package kube

import (
	"os"
	"testing"

	"github.com/caesarion/caesarion/test/kubetest"
)

func TestMain(m *testing.M) {
	if os.Getenv("WARM_KUBECONFIG") != "" {
		os.Exit(m.Run())
	}
	os.Exit(kubetest.Main(m))
}
