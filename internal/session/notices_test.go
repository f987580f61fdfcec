package session

import (
	"fmt"
	"slices"
	"testing"

	"github.com/caesarion/caesarion/internal/identity"
)

// What replicas tell each other reaches those whom it concerns, however much it
// is; what can't be read reaches all.
func TestReplicasTellWhoseListChanged(t *testing.T) {
	var a, b notifier
	a.init(true)
	b.init(true)
	heard := map[string]int{}
	listen := func(n *notifier, org string) *listener {
		l := &listener{sees: func(o identity.Owner) bool { return o.Org == org }}
		l.wake = func() { heard[org]++ }
		n.listen(l)
		return l
	}
	listen(&b, "acme")
	listen(&b, "other")
	for i := range 3*ownersAtOnce - 1 {
		a.notify(identity.Owner{User: fmt.Sprintf("usr_%016d", i), Org: "acme"})
	}
	notices := a.untoldNotices("a")
	if len(notices) != 3 || slices.ContainsFunc(notices, func(s string) bool { return len(s) > 7999 }) || len(a.untoldNotices("a")) != 0 {
		t.Errorf("%d notices", len(notices))
	}
	for _, notice := range notices {
		b.hear("b", notice)
		b.hear("a", notice) // its own
	}
	if heard["acme"] != 3*ownersAtOnce-1 || heard["other"] != 0 {
		t.Errorf("heard %v", heard)
	}
	b.hear("b", "")
	b.hear("b", "a/of-a-version-before")
	if heard["other"] != 2 {
		t.Errorf("what may concern everybody was heard %d times", heard["other"])
	}
}
