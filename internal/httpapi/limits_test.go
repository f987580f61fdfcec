package httpapi_test

import (
	"testing"

	"github.com/caesarion/caesarion/internal/httpapi/httpapitest"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestLimits(t *testing.T) { httpapitest.Limits(t, newDriver, httpapitest.Options{Kill: kill}) }

func TestLimitsThroughAnotherReplica(t *testing.T) {
	httpapitest.Limits(t, newDriver, httpapitest.Options{Kill: kill, Postgres: pgtest.New(t)})
}
