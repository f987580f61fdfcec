package kerneltest

import (
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/caesarion/caesarion/internal/kernel"
)

var programDir string // "" if no test asked for it

var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kernel-test-*")
	if err != nil {
		return "", err
	}
	programDir = dir
	return kernel.Unpack(dir)
})

// Program unpacks the kernel's program once for all tests of a binary: what
// Python compiles of it stays beside it. The folder goes with Main.
func Program(tb testing.TB) string {
	tb.Helper()
	dir, err := program()
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

// Main is the TestMain of packages whose tests start kernels: it looks for
// goroutines that were left, and removes what Program made.
func Main(m *testing.M, options ...goleak.Option) {
	goleak.VerifyTestMain(m, append(options, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(programDir) // a temporary folder
		os.Exit(code)
	}))...)
}
