package replica

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	ttl      = 1200 * time.Millisecond
	patience = 30 * time.Second
)

// tables gives a database that has them.
func tables(t *testing.T) func() *sql.DB {
	t.Helper()
	url := pgtest.New(t)
	if err := store.Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return func() *sql.DB {
		st, err := store.OpenPostgres(t.Context(), url, store.Options{NoMigrate: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		})
		return st.DB()
	}
}

func open(t *testing.T, db *sql.DB, name string) *Registry {
	t.Helper()
	r, err := Open(t.Context(), db, Options{ID: NewID(name), Address: name + ".example:1", TTL: ttl, sweepEvery: ttl / 4, unusedFor: ttl / 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // its database may be closed by then
	return r
}

// die has a replica stop renewing, without a word.
func die(r *Registry) {
	r.cancel(errors.New("it died"))
	r.work.Wait()
	r.lapse.Stop()
}

// held is a Holder that notes what it is given.
type held struct {
	mu    sync.Mutex
	taken map[string]int
	keeps map[string]bool
	all   []Record
	maker map[string]string
	fail  error
}

func (h *held) Take(_ context.Context, keys []string, done func(string, error)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range keys {
		if h.fail == nil {
			h.taken[k]++
		}
		done(k, h.fail)
	}
}

func (h *held) Holds(key string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keeps[key]
}

func (h *held) Keys(context.Context) ([]Record, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all), nil
}

func (h *held) Maker(_ context.Context, key string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.maker[key]
}

func (h *held) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.taken)
}

func newHeld() *held { return &held{taken: map[string]int{}, keeps: map[string]bool{}} }

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

func own(t *testing.T, r *Registry, key string) Owner {
	t.Helper()
	o, err := r.Own(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestWithoutReplicasEverythingIsOurs(t *testing.T) {
	var r *Registry
	if o, err := r.Own(t.Context(), "k"); err != nil || !o.Mine || !r.Owns("k") || r.Take(t.Context(), "k") != nil || r.Make(t.Context(), "k") != nil {
		t.Errorf("got %+v %v", o, err)
	}
	if _, ok, err := r.Owner(t.Context(), "k"); !ok || err != nil {
		t.Error(err)
	}
	if keys, err := r.Orphans(t.Context(), 1); keys != nil || err != nil {
		t.Error(keys, err)
	}
	r.Start(t.Context(), newHeld())
	r.Forget("k")
	r.Retire()
	if alive, err := r.Alive(t.Context(), "r"); !alive || err != nil {
		t.Error(alive, err)
	}
	if _, ok, err := r.Gone(t.Context(), "s"); ok || err != nil || r.Bury(t.Context(), "s", Gone{}, false) != nil {
		t.Error(ok, err)
	}
	if r.ID() != "" || r.Ready() != nil || r.Fenced() != nil || r.Term().Err() != nil || r.Release(t.Context(), "k") != nil || r.Close() != nil {
		t.Error("a nil Registry does not let everything pass")
	}
}

func TestOfManyWhoAskOneOwns(t *testing.T) {
	db := tables(t)
	var all []*Registry
	holders := map[*Registry]*held{}
	for i := range 3 {
		r := open(t, db(), fmt.Sprint("r", i))
		h := newHeld()
		r.Start(t.Context(), h)
		all, holders[r] = append(all, r), h
	}
	const keys = 60
	owners := make([][]string, keys)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range keys {
		for _, r := range all {
			for range 2 {
				wg.Go(func() {
					o, err := r.Own(t.Context(), fmt.Sprint("key", i))
					if err != nil {
						t.Error(err)
						return
					}
					if o.Mine != (o.ID == r.ID()) || o.Address == "" {
						t.Errorf("%s is told %+v", r.ID(), o)
					}
					mu.Lock()
					defer mu.Unlock()
					owners[i] = append(owners[i], o.ID)
				})
			}
		}
	}
	wg.Wait()
	for i, ids := range owners {
		if len(slices.Compact(slices.Sorted(slices.Values(ids)))) != 1 || len(ids) != 6 {
			t.Fatalf("key %d is owned by %q", i, ids)
		}
	}
	total := 0
	for r, h := range holders {
		for key, n := range h.taken {
			if n != 1 || !r.Owns(key) {
				t.Errorf("%s was given %s %d times", r.ID(), key, n)
			}
		}
		total += h.count()
	}
	if total != keys {
		t.Errorf("%d of %d keys were given to somebody", total, keys)
	}
}

func TestWhatADeadReplicaHadIsTakenOverOnce(t *testing.T) {
	db := tables(t)
	a := open(t, db(), "a")
	const keys = 150
	for i := range keys {
		if err := a.Make(t.Context(), fmt.Sprint("key", i)); err != nil {
			t.Fatal(err)
		}
	}
	hb, hc := newHeld(), newHeld()
	b, c := open(t, db(), "b"), open(t, db(), "c")
	b.Start(t.Context(), hb)
	c.Start(t.Context(), hc)
	eventually(t, "both to be settled", func() bool { return b.settled() && c.settled() })
	if n := hb.count() + hc.count(); n != 0 {
		t.Fatalf("%d keys were taken from the living", n)
	}
	if o := own(t, b, "key0"); o.ID != a.ID() {
		t.Fatalf("b is told %+v", o)
	}
	life := b.Life(a.ID())
	die(a)
	died := time.Now()
	eventually(t, "all keys to be taken over", func() bool { return hb.count()+hc.count() >= keys })
	if took := time.Since(died); took < ttl/2 || took > ttl+3*time.Second {
		t.Errorf("it took %v", took)
	}
	eventually(t, "the life of a to end", func() bool { return life.Err() != nil })
	for i := range keys {
		key := fmt.Sprint("key", i)
		if n := hb.taken[key] + hc.taken[key]; n != 1 {
			t.Errorf("%s was given to somebody %d times", key, n)
		}
		eventually(t, "an owner", func() bool { return b.Owns(key) != c.Owns(key) })
	}
	if hb.count() == 0 || hc.count() == 0 {
		t.Logf("one took all: %d and %d", hb.count(), hc.count())
	}
}

func TestOneThatClosesIsFollowedAtOnce(t *testing.T) {
	db := tables(t)
	a, b := open(t, db(), "a"), open(t, db(), "b")
	h := newHeld()
	b.Start(t.Context(), h)
	own(t, a, "k")
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	eventually(t, "b to take it", func() bool { return b.Owns("k") })
	if took := time.Since(start); took > ttl*3/4 {
		t.Errorf("it took %v, as if a were dead", took)
	}
	if _, err := a.Own(t.Context(), "k"); errdefs.CodeOf(err) != "server-stopping" {
		t.Errorf("a says %v", err)
	}
	if o, ok, err := b.Owner(t.Context(), "k"); err != nil || !ok || !o.Mine {
		t.Errorf("got %+v %v %v", o, ok, err)
	}
	if _, ok, err := b.Owner(t.Context(), "nobody's"); err != nil || ok {
		t.Errorf("got %v %v", ok, err)
	}
}

func TestOneThatWasDeclaredDeadIsFenced(t *testing.T) {
	db := tables(t)
	a, b := open(t, db(), "a"), open(t, db(), "b")
	own(t, a, "k")
	term := a.Term()
	if _, err := b.db.ExecContext(t.Context(), `DELETE FROM replicas WHERE id=$1`, a.ID()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.Fenced():
	case <-time.After(patience):
		t.Fatal("a does not learn it")
	}
	if a.Owns("k") || errdefs.CodeOf(a.Take(t.Context(), "k")) != "replica-fenced" || a.Ready() == nil || term.Err() == nil {
		t.Error("a goes on")
	}
	if o := own(t, b, "k"); !o.Mine {
		t.Errorf("b is told %+v", o)
	}
}

// A statement that was long on its way arrives when the database is back for
// all, before anybody else has said that it lives.
func TestADeclarationThatIsLateDeclaresNobodyDead(t *testing.T) {
	db := tables(t)
	a, b := open(t, db(), "a"), open(t, db(), "b")
	die(a) // from here on this test renews for it
	die(b)
	if _, err := a.db.ExecContext(t.Context(), `UPDATE replicas SET seen_at = seen_at - interval '1 hour' WHERE id=$1`, b.ID()); err != nil {
		t.Fatal(err)
	}
	rows := func() (n int) {
		if err := a.db.QueryRowContext(t.Context(), `SELECT count(*) FROM replicas WHERE id=$1`, b.ID()).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var conn *sql.Conn
	if err := a.renew(t.Context(), &conn); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	a.seen = a.seen.Add(-ttl) // so long ago was it sent
	a.declare(t.Context(), "")
	if rows() != 1 {
		t.Error("b was declared dead by what came late")
	}
	if err := a.renew(t.Context(), &conn); err != nil {
		t.Fatal(err)
	}
	a.declare(t.Context(), "")
	if rows() != 0 {
		t.Error("b was not declared dead")
	}
}

// A pause of the whole process: what it believes afterwards must not be older
// than TTL/2, whichever goroutine runs first.
func TestOneThatCouldNotRenewOwnsNothing(t *testing.T) {
	db := tables(t)
	a := open(t, db(), "a")
	own(t, a, "k")
	die(a)
	eventually(t, "a to be stale", func() bool { return !a.Owns("k") })
	if _, err := a.Own(t.Context(), "k"); err == nil {
		t.Error("a owns it")
	}
}

func TestWhatIsNotUsedIsReleased(t *testing.T) {
	db := tables(t)
	a, b := open(t, db(), "a"), open(t, db(), "b")
	h := newHeld()
	h.keeps["kept"] = true
	own(t, a, "kept")
	own(t, a, "rests")
	if o := own(t, b, "rests"); o.Mine {
		t.Fatal("b has it")
	}
	a.Start(t.Context(), h)
	eventually(t, "the key that rests to be free", func() bool {
		_, ok, err := b.Owner(t.Context(), "rests")
		return err == nil && !ok
	})
	b.Forget("rests") // as a request does that a says no to
	if o := own(t, b, "rests"); !o.Mine {
		t.Errorf("b is told %+v", o)
	}
	if o := own(t, b, "kept"); o.ID != a.ID() {
		t.Errorf("b is told %+v", o)
	}
	if err := a.Release(t.Context(), "kept"); err != nil || a.Owns("kept") {
		t.Errorf("a still has it: %v", err)
	}
}

func TestWhatIsForgottenIsTakenAgain(t *testing.T) {
	db := tables(t)
	a := open(t, db(), "a")
	h := newHeld()
	h.keeps["k"] = true
	h.all = []Record{{Key: "k"}, {Key: "stray"}}
	h.keeps["stray"] = true
	a.Start(t.Context(), h)
	if !a.Owns("k") || !a.Owns("stray") {
		t.Fatal("what had no owner has none")
	}
	a.Forget("k")
	eventually(t, "it to be taken again", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.taken["k"] == 2
	})
	eventually(t, "it to be ours", func() bool { return a.Owns("k") })

	// What can't be taken is tried until it can.
	h.mu.Lock()
	h.fail = errors.New("not now")
	h.mu.Unlock()
	if _, err := a.Own(t.Context(), "new"); err == nil {
		t.Fatal("it is owned, though it can't be taken over")
	}
	h.mu.Lock()
	h.fail = nil
	h.mu.Unlock()
	eventually(t, "the new one", func() bool { return a.Owns("new") })
}

func TestADatabaseThatIsPutBackIsBelieved(t *testing.T) {
	db := tables(t)
	a, b := open(t, db(), "a"), open(t, db(), "b")
	own(t, a, "lost")
	own(t, a, "moved")
	if _, err := a.db.ExecContext(t.Context(), `DELETE FROM owners`); err != nil {
		t.Fatal(err)
	}
	if o := own(t, b, "moved"); !o.Mine {
		t.Fatal("b can't have it")
	}
	h := newHeld()
	h.keeps["moved"], h.keeps["lost"] = true, true
	a.Start(t.Context(), h)
	eventually(t, "a to ask again", func() bool {
		return !a.Owns("moved") && own(t, a, "moved").ID == b.ID() && own(t, a, "lost").Mine
	})
}

// A last write of a dead replica may hold the row of a key.
func TestAKeyThatIsLockedKeepsNoOtherBack(t *testing.T) {
	db := tables(t)
	other := db()
	a := open(t, db(), "a")
	for _, k := range []string{"k1", "k2", "k3"} {
		own(t, a, k)
	}
	tx, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	var one int
	if err := tx.QueryRowContext(t.Context(), `SELECT 1 FROM owners WHERE key='k2' AND replica=$1 FOR SHARE`, a.ID()).Scan(&one); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	b := open(t, db(), "b")
	b.Start(t.Context(), newHeld())
	eventually(t, "the others", func() bool { return b.Owns("k1") && b.Owns("k3") })
	if b.Owns("k2") {
		t.Error("b owns what is written right now")
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last", func() bool { return b.Owns("k2") })
}

// The path of a request: 0 allocations, and tens of nanoseconds.
func BenchmarkOwn(b *testing.B) {
	r := &Registry{epoch: time.Now()}
	r.until.Store(int64(time.Hour))
	r.held.Store("ses_aaaaaaaaaaaaaaaaaaaaaaaaaa", &entry{})
	ctx := context.Background()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if o, err := r.Own(ctx, "ses_aaaaaaaaaaaaaaaaaaaaaaaaaa"); err != nil || !o.Mine {
				b.Error(o, err)
			}
		}
	})
}
