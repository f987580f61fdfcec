// Package warm_test has several replicas share ready pods of a real cluster.
package warm_test

import (
	"os"
	"testing"

	"github.com/caesarion/caesarion/test/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }
