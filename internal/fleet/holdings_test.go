package fleet

import (
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

// What other replicas have, or make, counts from its first moment; what this one
// makes is counted by its admission.
func TestWhatOtherReplicasMakeCountsAtOnce(t *testing.T) {
	st, err := store.OpenPostgres(t.Context(), pgtest.New(t), store.Options{Replica: "me"})
	if err != nil {
		t.Fatal(err)
	}
	replicas, err := replica.Open(t.Context(), st.DB(), replica.Options{ID: "me", Address: "127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := replicas.Close(); err != nil {
			t.Error(err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	of := func(user, maker string) map[string]string {
		return map[string]string{labelUser: user, labelOrg: "acme", labelMaker: maker}
	}
	one, now := sandbox.Limits{MemoryBytes: 1 << 30, DiskBytes: 2 << 30}, time.Now()
	f := &Fleet{opts: Options{Replicas: replicas}, driver: listed{infos: []sandbox.Info{
		{ID: "made a moment ago", State: sandbox.StateRunning, CreatedAt: now, Limits: one, Labels: of("ann", "other")},
		{ID: "being made", State: sandbox.StateStarting, CreatedAt: now, Limits: one, Labels: of("ann", "other")},
		{ID: "asleep", State: sandbox.StatePaused, Limits: one, MemoryBytes: 5, FilesBytes: 6, Labels: of("ann", "other")},
		{ID: "ended", State: sandbox.StateStopped, Limits: one, Labels: of("ann", "other")},
		{ID: "nobody's yet", State: sandbox.StateRunning, Limits: one, Pooled: true},
		{ID: "made here", State: sandbox.StateRunning, CreatedAt: now, Limits: one, Labels: of("ann", "me")},
		{ID: "of a colleague", State: sandbox.StateRunning, CreatedAt: now, Limits: one, Labels: of("bob", "third")},
	}}}
	held, err := f.Held(t.Context(), identity.Owner{User: "ann", Org: "acme"})
	want := Held{User: Holding{2, 2 << 30, 4<<30 + 11}, Organisation: Holding{3, 3 << 30, 6<<30 + 11}}
	if err != nil || held != want {
		t.Errorf("held = %+v, %v; want %+v", held, err, want)
	}
}
