package fleet_test

import (
	"errors"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
)

func TestWakingMakesRoom(t *testing.T) {
	f := newFleet(t, newHost(t).Driver(), fleet.Template{PauseAfter: time.Hour}, 1)
	first := create(t, f, fleet.CreateRequest{})
	pause(t, first)
	second := create(t, f, fleet.CreateRequest{}) // those that sleep take no place
	for second.Explain(first.Resume(t.Context())) != nil {
		time.Sleep(5 * time.Millisecond) // until its default kernel has failed to start
	}
	if st := second.View().State; st != sandbox.StatePaused {
		t.Errorf("the other is %s", st)
	}
	done := first.Use()
	defer done()
	if err := second.Resume(t.Context()); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("resume = %v, want no place", err)
	}
}

func TestAWakeLeavesTheMachineSomeMemory(t *testing.T) {
	f, err := fleet.New(t.Context(), newHost(t).Driver(), nil, fleet.Options{ // fake sandboxes take 1 MiB
		Templates: map[string]fleet.Template{"python": {}}, MaxSandboxes: 50,
	}.WithMemory(1<<20, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	s := create(t, f, fleet.CreateRequest{})
	pause(t, s)
	if err := s.Resume(t.Context()); codeOf(err) != "host-memory-short" {
		t.Errorf("resume = %v", err)
	}
	if st := s.View().State; st != sandbox.StatePaused {
		t.Errorf("it is %s", st)
	}
}

func TestQuotaDropsTheOldestMemory(t *testing.T) {
	f, err := fleet.New(t.Context(), newHost(t).Driver(), nil, fleet.Options{
		Templates: map[string]fleet.Template{"python": {}}, DiskQuota: 2<<20 + 1<<19, // fake sandboxes take 1 MiB
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	var all []*fleet.Sandbox
	for range 3 {
		s := create(t, f, fleet.CreateRequest{})
		pause(t, s)
		all = append(all, s)
	}
	for end := time.Now().Add(10 * time.Second); all[0].View().SavedBytes > 1<<19; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the oldest keeps its memory")
		}
	}
	for _, s := range all[1:] {
		if s.View().SavedBytes < 1<<20 {
			t.Error("a younger one lost its memory")
		}
	}
	if err := all[0].Resume(t.Context()); err != nil || all[0].View().Restarted == nil || all[0].View().Restarted.Reason != sandbox.CodeNoMemory {
		t.Errorf("resume = %v, %+v", err, all[0].View().Restarted)
	}
}
