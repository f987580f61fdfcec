package replica

import (
	"errors"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
)

// What is being made is its maker's from the first moment on: nobody else takes
// it, however long that takes, and whoever is asked for it names the maker.
func TestWhatALiveReplicaMakesIsLeftToIt(t *testing.T) {
	db := tables(t)
	a, b := open(t, db(), "a"), open(t, db(), "b")
	ha, hb := newHeld(), newHeld()
	for _, h := range []*held{ha, hb} {
		h.all = []Record{{Key: "slow", Maker: a.ID()}, {Key: "asked", Maker: a.ID()}, {Key: "old"}, {Key: "of one long dead", Maker: "x/1"}}
		h.maker = map[string]string{"slow": a.ID(), "asked": a.ID()}
	}
	ha.fail = errdefs.New(errdefs.ErrUnavailable, CodeStarting, "It is still starting.")
	a.Start(t.Context(), newHeld())
	b.Start(t.Context(), hb)
	if !b.Owns("old") || !b.Owns("of one long dead") {
		t.Error("what nobody makes has no owner")
	}
	for range 20 { // far more rounds than any grace would last
		b.strays(t.Context())
	}
	if o, ok, err := b.Owner(t.Context(), "slow"); ok || err != nil {
		t.Fatalf("it has the owner %+v (%v) before its maker is done", o, err)
	}
	if o := own(t, b, "asked"); o.ID != a.ID() || o.Address == "" {
		t.Errorf("b is told %+v", o)
	}
	// The maker itself says so while it is at it.
	a.mu.Lock()
	a.holder = ha
	a.mu.Unlock()
	if _, err := a.Own(t.Context(), "asked"); errdefs.CodeOf(err) != CodeStarting {
		t.Errorf("a says %v", err)
	}
	for _, key := range []string{"slow", "asked"} {
		if err := a.Make(t.Context(), key); err != nil || !a.Owns(key) {
			t.Errorf("a can't have %s: %v", key, err)
		}
		if o := own(t, b, key); o.ID != a.ID() {
			t.Errorf("b is told %+v of %s", o, key)
		}
	}
	if hb.taken["slow"]+hb.taken["asked"] != 0 {
		t.Error("b was given what a makes")
	}
}

func TestWhatADeadReplicaWasMakingIsTakenAtOnce(t *testing.T) {
	db := tables(t)
	a, b := open(t, db(), "a"), open(t, db(), "b")
	h := newHeld()
	h.all = []Record{{Key: "half made", Maker: a.ID()}}
	b.Start(t.Context(), h)
	eventually(t, "b to be settled", b.settled)
	if b.Owns("half made") {
		t.Fatal("it was taken from the living")
	}
	die(a)
	died := time.Now()
	eventually(t, "b to own it", func() bool { return b.Owns("half made") })
	if took := time.Since(died); took > ttl+3*time.Second {
		t.Errorf("it took %v", took)
	}
	// Nobody is left: who starts takes all at once.
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	c := open(t, db(), "c")
	h = newHeld()
	h.all = []Record{{Key: "another", Maker: b.ID()}, {Key: "half made", Maker: a.ID()}}
	c.Start(t.Context(), h)
	if !c.Owns("another") || !c.Owns("half made") {
		t.Error("c does not own at its start what the dead were making")
	}
}

func TestAliveIsWhoHasARow(t *testing.T) {
	db := tables(t)
	a, b := open(t, db(), "a"), open(t, db(), "b")
	alive := func(id string) bool {
		t.Helper()
		yes, err := b.Alive(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return yes
	}
	if !alive(a.ID()) || !alive(b.ID()) || alive("c/1") || alive("") {
		t.Error("who lives is dead, or the other way round")
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if alive(a.ID()) {
		t.Error("one that stopped lives")
	}
	if err := b.db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Alive(t.Context(), a.ID()); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("without a database: %v", err)
	}
}

func TestWhySandboxesAreGoneIsKeptForAWhile(t *testing.T) {
	db := tables(t)
	a, b := open(t, db(), "a"), open(t, db(), "b")
	bury := func(id string, g Gone, guessed bool) {
		t.Helper()
		if err := a.Bury(t.Context(), id, g, guessed); err != nil {
			t.Fatal(err)
		}
	}
	ann := identity.Owner{User: "usr_ann", Org: "org_acme"}
	bury("s1", Gone{"ses_1", "deleted", ann}, false)
	bury("s1", Gone{"ses_1", "lost", identity.Owner{}}, true)
	bury("s2", Gone{"s2", "lost", identity.Owner{}}, true)
	bury("s2", Gone{"s2", "evicted", ann}, false)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]Gone{"s1": {"ses_1", "deleted", ann}, "s2": {"s2", "evicted", ann}} {
		if g, ok, err := b.Gone(t.Context(), id); err != nil || !ok || g != want {
			t.Errorf("%s: %+v %v %v", id, g, ok, err)
		}
	}
	if _, err := b.db.ExecContext(t.Context(), `UPDATE gone SET at = at - interval '25 hours' WHERE sandbox = 's1'`); err != nil {
		t.Fatal(err)
	}
	b.Start(t.Context(), newHeld())
	eventually(t, "the older one to be forgotten", func() bool {
		_, ok, err := b.Gone(t.Context(), "s1")
		return err == nil && !ok
	})
	if _, ok, err := b.Gone(t.Context(), "s2"); err != nil || !ok {
		t.Errorf("the younger one is forgotten, too: %v", err)
	}
}
