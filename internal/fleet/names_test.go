package fleet_test

import (
	"testing"

	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity"
)

// An admin sees what his users named, but what he starts by a name is his own:
// theirs has programs of theirs in it, and gets his environment.
func TestNobodyPutsASnapshotInThePlaceOfAnothers(t *testing.T) {
	d := newAlbum(newPythonHost(t))
	f := newFleet(t, d, fleet.Template{}, 0)
	save := func(owner identity.Owner) string {
		snap, err := create(t, f, fleet.CreateRequest{Owner: owner}).Snapshot(t.Context(), "prepared")
		if err != nil {
			t.Fatal(err)
		}
		return string(snap.ID)
	}
	anns := save(ann)
	bobs := save(bob) // later
	all := func(identity.Owner) bool { return true }
	for _, tt := range []struct {
		name  string
		owner identity.Owner
		want  string
	}{{"prepared", ann, anns}, {"prepared", bob, bobs}, {"prepared", identity.Owner{User: "usr_chief", Org: "org_acme"}, bobs}, {bobs, ann, bobs}} {
		got, err := f.SnapshotFor(t.Context(), tt.name, tt.owner, all)
		if err != nil || string(got.ID) != tt.want {
			t.Errorf("%s is given %s for %s, want %s: %v", tt.owner.User, got.ID, tt.name, tt.want, err)
		}
	}
}
