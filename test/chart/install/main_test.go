package install

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/caesarion/caesarion/test/chart/helmtest"
	"github.com/caesarion/caesarion/test/kubetest"
)

// TestMain builds helm before it enters the cluster, from which there is no way
// to the modules it is made of.
func TestMain(m *testing.M) {
	flag.Parse()
	if !testing.Short() {
		if _, err := helmtest.Binary(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(kubetest.Main(m))
}
