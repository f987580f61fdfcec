package kerneltest

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// Python gives the interpreter with IPython and the packages of
// test/kernelsuite/requirements.txt: the one that CAESARION_TEST_PYTHON names,
// or the one that make venv makes. Without any the test is skipped, in CI it
// fails.
func Python(tb testing.TB) string {
	tb.Helper()
	path := os.Getenv("CAESARION_TEST_PYTHON")
	if path == "" {
		_, file, _, _ := runtime.Caller(0)
		path = filepath.Join(filepath.Dir(file), "../../../.cache/venv/bin/python")
	}
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			tb.Fatalf("no Python to test with: %v", err)
		}
		tb.Skipf("no Python to test with (make venv makes it): %v", err)
	}
	return path
}
