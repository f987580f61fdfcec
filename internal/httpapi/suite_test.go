package httpapi_test

import (
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/caesarion/caesarion/internal/httpapi/httpapitest"
	"github.com/caesarion/caesarion/internal/kernel"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(programDir) // a temporary folder
		os.Exit(code)
	}))
}

var programDir string

// program unpacks the kernel's program once for all sandboxes.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "httpapi-test-*")
	if err != nil {
		return "", err
	}
	programDir = dir
	return kernel.Unpack(dir)
})

func newDriver(tb testing.TB) sandbox.Driver {
	tb.Helper()
	dir, err := program()
	if err != nil {
		tb.Fatal(err)
	}
	d, err := fake.New(fake.Options{Python: kerneltest.Python(tb), ProgramDir: dir})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := d.Host().Close(); err != nil {
			tb.Error(err)
		}
	})
	return d
}

func kill(d sandbox.Driver, id sandbox.ID) error {
	return d.(*fake.Driver).Host().Kill(id, "out_of_memory") //nolint:forcetypeassert // newDriver made it
}

func TestAPI(t *testing.T) {
	httpapitest.Run(t, newDriver, httpapitest.Options{Kill: kill})
}

// Nobody can tell by which replica he is answered.
func TestAPIThroughAnotherReplica(t *testing.T) {
	httpapitest.Run(t, newDriver, httpapitest.Options{Kill: kill, Postgres: pgtest.New(t)})
}
