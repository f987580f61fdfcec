package pgtest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// againEnv says to a test binary that its stores are to be on Postgres.
const againEnv = "CAESARION_TEST_DATABASE"

// Wanted reports whether the stores of this run are to be on Postgres: it is
// the second run of Again, or the environment has
// CAESARION_TEST_DATABASE=postgres.
func Wanted() bool { return os.Getenv(againEnv) == "postgres" }

// Again runs all tests of this binary once more, with stores on Postgres, as
// one test. The tests named in skip are about SQLite itself.
func Again(t *testing.T, skip ...string) {
	t.Helper()
	if Wanted() {
		return // everything runs on Postgres already
	}
	args := []string{"-test.count=1", "-test.skip=^(" + strings.Join(append(skip, t.Name()), "|") + ")$"}
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+(time.Until(end)-5*time.Second).String())
	}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), againEnv+"=postgres")
	out, err := cmd.CombinedOutput()
	if err != nil {
		if len(out) > 20_000 {
			out = out[len(out)-20_000:]
		}
		t.Errorf("on Postgres: %v\n%s", err, out)
	}
}
