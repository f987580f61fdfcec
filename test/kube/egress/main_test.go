package egress

import (
	"os"
	"testing"

	"github.com/caesarion/caesarion/test/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }
