// Package cleanup_test proves that nothing is left of sandboxes that nobody
// uses, and nothing taken from who does, whatever ends in between.
package cleanup_test

import (
	"os"
	"testing"

	"github.com/caesarion/caesarion/test/kubetest"
)

func TestMain(m *testing.M) {
	if text := os.Getenv(serverEnv); text != "" {
		os.Exit(serverMain(text))
	}
	os.Exit(kubetest.Main(m, kubetest.Fake))
}
