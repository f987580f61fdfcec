package main

import (
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
)

// One server without Postgres: what its fleet has is its own affair, everything
// else is nobody's.
func TestTheReaperOfOneServerAsksItsFleet(t *testing.T) {
	driver, err := fake.New(fake.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := driver.Host().Close(); err != nil {
			t.Error(err)
		}
	})
	s := &server{}
	reaper := s.reaper("host/me", map[string]fleet.Template{"python": {IdleTimeout: time.Minute, Lifetime: time.Hour}})
	owned := func(id sandbox.ID) bool {
		t.Helper()
		yes, err := reaper.Owned(t.Context(), id, "")
		if err != nil {
			t.Fatal(err)
		}
		return yes
	}
	if !owned(sandbox.NewID()) {
		t.Error("before it has looked at what is there, something is nobody's")
	}
	f, err := fleet.New(t.Context(), driver, nil, fleet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	s.adopted.Store(f)
	sb, err := f.Create(t.Context(), fleet.CreateRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if !owned(sb.ID()) || owned(sandbox.NewID()) {
		t.Error("what it has is nobody's, or the other way round")
	}
	if err := sb.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if owned(sb.ID()) {
		t.Error("it still has what it deleted")
	}
	for id, want := range map[string]bool{"host/me": true, "host/before": false, "": false} {
		if alive, err := reaper.Alive(t.Context(), id); err != nil || alive != want {
			t.Errorf("%q is alive: %v, %v", id, alive, err)
		}
	}
	long := time.Now().Add(-2 * time.Hour)
	if _, over := reaper.Expired(sandbox.Info{Template: "python", CreatedAt: long}, time.Now()); !over {
		t.Error("one whose life is over goes on")
	}
	if _, over := reaper.Expired(sandbox.Info{Template: "python", CreatedAt: time.Now()}, time.Now()); over {
		t.Error("a new one is over")
	}
}
