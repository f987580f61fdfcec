package fleet_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
)

// TestRecordsOfOtherClocks: what servers with a wrong clock wrote down does not
// end what runs, nor keep for longer what does not.
func TestRecordsOfOtherClocks(t *testing.T) {
	h := newPythonHost(t)
	tmpl := fleet.Template{IdleTimeout: time.Hour}
	first := newFleet(t, h.Driver(), tmpl, 0)
	busy, idle, ahead := create(t, first, fleet.CreateRequest{}), create(t, first, fleet.CreateRequest{}), create(t, first, fleet.CreateRequest{})
	run, _, err := busy.Execute(t.Context(), fleet.ExecuteRequest{Code: "import time; time.sleep(60)"})
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	d := h.Driver()
	for _, c := range []struct {
		s  *fleet.Sandbox
		by time.Duration
	}{{busy, -2 * time.Hour}, {idle, -2 * time.Hour}, {ahead, 2 * time.Hour}} {
		info, err := d.Get(t.Context(), c.s.ID())
		if err != nil {
			t.Fatal(err)
		}
		labels := maps.Clone(info.Labels)
		at, err := time.Parse(time.RFC3339Nano, labels["caesarion.used"])
		if err != nil {
			t.Fatal(err)
		}
		labels["caesarion.used"] = at.Add(c.by).Format(time.RFC3339Nano)
		if err := d.SetLabels(t.Context(), c.s.ID(), labels); err != nil {
			t.Fatal(err)
		}
	}

	second := newFleet(t, h.Driver(), tmpl, 0)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := d.Get(t.Context(), idle.ID()); errors.Is(err, errdefs.ErrNotFound) {
			break
		}
		if time.Now().After(end) {
			t.Fatal("one that was unused for too long stays")
		}
	}
	s, err := second.Get(busy.ID())
	if err != nil {
		t.Fatalf("one that runs code is gone: %v", err)
	}
	if e, err := s.Execution(run.ID); err != nil || e.State().Status != fleet.StatusRunning {
		t.Errorf("what ran does not run any more: %v", err)
	}
	if s, err = second.Get(ahead.ID()); err != nil {
		t.Fatal(err)
	}
	if v := s.View(); v.LastUsedAt.After(time.Now()) {
		t.Errorf("it will have been used in %v", time.Until(v.LastUsedAt))
	}
}
