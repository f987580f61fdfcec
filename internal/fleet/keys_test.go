package fleet

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/sandbox"
)

// listed is a driver that has these sandboxes.
type listed struct {
	sandbox.Driver
	infos []sandbox.Info
}

func (l listed) List(context.Context) ([]sandbox.Info, error) { return l.infos, nil }

func TestKeysLeavesWhatIsBeingMadeToItsMaker(t *testing.T) {
	old, now := time.Now().Add(-strangerFor), time.Now()
	f := &Fleet{driver: listed{infos: []sandbox.Info{
		{ID: "old", State: sandbox.StateRunning, CreatedAt: old},
		{ID: "of a session", State: sandbox.StateRunning, CreatedAt: old, Labels: map[string]string{labelSession: "session"}},
		{ID: "claimed a moment ago", State: sandbox.StateRunning, CreatedAt: now},
		{ID: "starting", State: sandbox.StateStarting, CreatedAt: old},
		{ID: "ready for somebody", State: sandbox.StateRunning, CreatedAt: old, Pooled: true},
	}}}
	keys, err := f.Keys(t.Context())
	if want := []string{"old", "session"}; err != nil || !slices.Equal(keys, want) {
		t.Errorf("keys %q, %v; want %q", keys, err, want)
	}
}
