package httpapi_test

import (
	"testing"

	"gopkg.in/yaml.v3"

	"github.com/caesarion/caesarion/internal/httpapi"
	"github.com/caesarion/caesarion/internal/httpapi/httpapitest"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

// A route without an entry is closed; this says so before somebody wonders.
func TestEveryRouteSaysWhatItAsksFor(t *testing.T) {
	var doc struct {
		Paths map[string]map[string]struct {
			ID string `yaml:"operationId"`
		}
	}
	if err := yaml.Unmarshal(httpapi.New(nil, httpapi.Options{Version: "0"}).OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	table, seen := httpapi.AccessTable(), map[string]bool{}
	for path, ops := range doc.Paths {
		for method, op := range ops {
			seen[op.ID] = true
			if table[op.ID] == "" {
				t.Errorf("%s %s (%s) is not in the access table", method, path, op.ID)
			}
		}
	}
	for op := range table {
		if !seen[op] {
			t.Errorf("the access table has %s, which is no route", op)
		}
	}
}

func TestWalk(t *testing.T) { httpapitest.Walk(t, newDriver, httpapitest.Options{Kill: kill}) }

func TestWalkThroughAnotherReplica(t *testing.T) {
	t.Parallel() // it mostly waits
	httpapitest.Walk(t, newDriver, httpapitest.Options{Kill: kill, Postgres: pgtest.New(t)})
}

func TestRights(t *testing.T) { httpapitest.Rights(t, newDriver, httpapitest.Options{Kill: kill}) }

func TestRightsThroughAnotherReplica(t *testing.T) {
	t.Parallel() // it mostly waits
	httpapitest.Rights(t, newDriver, httpapitest.Options{Kill: kill, Postgres: pgtest.New(t)})
}

func TestSignIn(t *testing.T) { httpapitest.SignIn(t, newDriver, httpapitest.Options{Kill: kill}) }

func TestAttacks(t *testing.T) { httpapitest.Attacks(t, newDriver, httpapitest.Options{Kill: kill}) }

func TestAttacksThroughAnotherReplica(t *testing.T) {
	t.Parallel() // it mostly waits
	httpapitest.Attacks(t, newDriver, httpapitest.Options{Kill: kill, Postgres: pgtest.New(t)})
}
