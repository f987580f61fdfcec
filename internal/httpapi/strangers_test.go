package httpapi_test

import (
	"testing"

	"github.com/caesarion/caesarion/internal/httpapi/httpapitest"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestGone(t *testing.T) { httpapitest.Gone(t, newDriver, httpapitest.Options{Kill: kill}) }

func TestGoneThroughAnotherReplica(t *testing.T) {
	t.Parallel() // it mostly waits
	httpapitest.Gone(t, newDriver, httpapitest.Options{Kill: kill, Postgres: pgtest.New(t)})
}

func TestOrganisations(t *testing.T) {
	httpapitest.Organisations(t, newDriver, httpapitest.Options{Kill: kill})
}

func TestOrganisationsThroughAnotherReplica(t *testing.T) {
	httpapitest.Organisations(t, newDriver, httpapitest.Options{Kill: kill, Postgres: pgtest.New(t)})
}
