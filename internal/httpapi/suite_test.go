package httpapi_test

import (
	"testing"

	"github.com/caesarion/caesarion/internal/httpapi/httpapitest"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/sandbox/fake/faketest"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

func newDriver(tb testing.TB) sandbox.Driver {
	tb.Helper()
	return faketest.New(tb).Driver()
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
