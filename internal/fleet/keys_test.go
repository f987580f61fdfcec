package fleet

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// listed is a driver that has these sandboxes.
type listed struct {
	sandbox.Driver
	infos []sandbox.Info
}

func (l listed) List(context.Context) ([]sandbox.Info, error) { return l.infos, nil }

// Age plays no part: whose a sandbox is says its record, from the first moment.
func TestKeysSayWhoMakesWhat(t *testing.T) {
	old, now := time.Now().Add(-24*time.Hour), time.Now()
	by := func(maker string) map[string]string { return map[string]string{labelMaker: maker} }
	f := &Fleet{driver: listed{infos: []sandbox.Info{
		{ID: "before there were replicas", State: sandbox.StateRunning, CreatedAt: old},
		{ID: "of a session", State: sandbox.StateRunning, CreatedAt: old, Labels: map[string]string{labelSession: "session", labelMaker: "a"}},
		{ID: "claimed a moment ago", State: sandbox.StateRunning, CreatedAt: now, Labels: by("a")},
		{ID: "long starting", State: sandbox.StateStarting, CreatedAt: old, Labels: by("b")},
		{ID: "ready for somebody", State: sandbox.StateRunning, CreatedAt: old, Pooled: true},
	}}}
	got, err := f.Keys(t.Context())
	want := []replica.Record{{Key: "before there were replicas"}, {Key: "session", Maker: "a"}, {Key: "claimed a moment ago", Maker: "a"}, {Key: "long starting", Maker: "b"}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}
