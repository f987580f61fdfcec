package limits_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/limits"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("database/sql.(*DB).connectionOpener"))
}

// patience bounds whatever should take a moment.
const patience = 30 * time.Second

var (
	ann = identity.Owner{User: "usr_ann", Org: "org_acme"}
	bob = identity.Owner{User: "usr_bob", Org: "org_acme"}
	eve = identity.Owner{User: "usr_eve", Org: "org_other"}
)

// clock stands still unless it is set.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.set(time.Date(2026, 11, 23, 12, 0, 20, 0, time.UTC))
	return c
}
func (c *clock) set(t time.Time)         { c.at.Store(t.UnixNano()) }
func (c *clock) now() time.Time          { return time.Unix(0, c.at.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.at.Add(int64(d)) }

// site is one database, which several servers open.
type site struct {
	t     *testing.T
	open  func() *store.Store
	clock *clock
}

// onBoth runs a test with each database.
func onBoth(t *testing.T, test func(*testing.T, *site)) {
	must := func(t *testing.T, st *store.Store, err error) *store.Store {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	t.Run("SQLite", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "a.db")
		test(t, &site{t, func() *store.Store {
			st, err := store.Open(t.Context(), file, store.Options{})
			return must(t, st, err)
		}, newClock()})
	})
	t.Run("Postgres", func(t *testing.T) {
		url := pgtest.New(t)
		test(t, &site{t, func() *store.Store {
			st, err := store.OpenPostgres(t.Context(), url, store.Options{})
			return must(t, st, err)
		}, newClock()})
	})
}

// serve starts a server's part; stop ends it.
func (s *site) serve(opts limits.Options) (svc *limits.Service, stop func()) {
	s.t.Helper()
	st := s.open()
	svc, err := limits.New(s.t.Context(), st, opts.WithClock(s.clock.now))
	if err != nil {
		s.t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := errors.Join(svc.Close(), st.Close()); err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(stop)
	return svc, stop
}

func most(pairs ...any) limits.Set {
	set := limits.Set{Most: map[limits.Name]int64{}}
	for i := 0; i < len(pairs); i += 2 {
		set.Most[pairs[i].(limits.Name)] = int64(pairs[i+1].(int))
	}
	return set
}

func wantRefusal(t *testing.T, err error, code string, kind error) *limits.Error {
	t.Helper()
	e, ok := errors.AsType[*limits.Error](err)
	if !ok || errdefs.CodeOf(err) != code || !errors.Is(err, kind) {
		t.Fatalf("error = %v, want a refusal %s (%v)", err, code, kind)
	}
	return e
}

func await(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ready(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// admitted runs n requests and counts those that are not refused.
func admitted(t *testing.T, n int, ask func() error) int {
	t.Helper()
	got := 0
	for range n {
		err := ask()
		if err == nil {
			got++
			continue
		}
		if !errors.Is(err, errdefs.ErrExhausted) {
			t.Fatal(err)
		}
	}
	return got
}

func TestRequestsOfAMinute(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		svc, _ := s.serve(limits.Options{Rules: limits.Rules{Default: most(limits.Executions, 5)}})
		ctx := t.Context()
		if got := admitted(t, 8, func() error { return svc.Execute(ctx, ann) }); got != 5 {
			t.Errorf("%d were admitted, want 5", got)
		}
		e := wantRefusal(t, svc.Execute(ctx, ann), "limit-executions", errdefs.ErrExhausted)
		if want := s.clock.now().Add(40 * time.Second); !e.Frees.Equal(want) || e.Used != 5 || e.Most != 5 || e.Scope != limits.User {
			t.Errorf("refusal = %+v, want 5 of 5, until %v", e, want)
		}
		if text := e.Error(); !strings.Contains(text, "You have run 5 of 5 executions in this minute.") || !strings.Contains(text, "12:01:00 UTC, in 40s") {
			t.Errorf("sentence = %q", text)
		}
		if err := svc.Execute(ctx, bob); err != nil {
			t.Errorf("another is refused: %v", err)
		}
		s.clock.advance(40 * time.Second)
		if err := svc.Execute(ctx, ann); err != nil {
			t.Errorf("in the next minute: %v", err)
		}
	})
}

func TestAnOrganisationTogether(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		svc, _ := s.serve(limits.Options{Rules: limits.Rules{
			Default:       most(limits.Creates, 4),
			Organisations: map[string]limits.Set{limits.Any: most(limits.Creates, 6), "org_other": most(limits.Creates, 1)},
		}})
		ctx := t.Context()
		if got := admitted(t, 9, func() error { return svc.Create(ctx, ann, 1) }); got != 4 {
			t.Errorf("%d of ann's were admitted, want 4", got)
		}
		if got := admitted(t, 9, func() error { return svc.Create(ctx, bob, 1) }); got != 2 {
			t.Errorf("%d of bob's were admitted, want what the organisation has left: 2", got)
		}
		e := wantRefusal(t, svc.Create(ctx, bob, 1), "limit-creates", errdefs.ErrExhausted)
		if e.Scope != limits.Organisation {
			t.Errorf("scope = %s", e.Scope)
		}
		// What the organisation refused is not counted as bob's.
		list, err := svc.Of(ctx, bob, limits.Held{})
		if err != nil {
			t.Fatal(err)
		}
		if got := figure(t, list[0], limits.Creates); got.Used != 2 || got.Most != 4 {
			t.Errorf("bob used %d of %d, want 2 of 4", got.Used, got.Most)
		}
		if got := figure(t, list[1], limits.Creates); got.Used != 6 || got.Most != 6 {
			t.Errorf("the organisation used %d of %d, want 6 of 6", got.Used, got.Most)
		}
		wantRefusal(t, svc.Create(ctx, eve, 3), "limit-creates", errdefs.ErrForbidden) // it can never be
	})
}

func figure(t *testing.T, u limits.Usage, name limits.Name) limits.Figure {
	t.Helper()
	for _, f := range u.Figures {
		if f.Limit == name {
			return f
		}
	}
	t.Fatalf("no figure %s in %+v", name, u)
	return limits.Figure{}
}

func TestWhatIsKnownAfterwards(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		svc, _ := s.serve(limits.Options{Rules: limits.Rules{Default: most(limits.Egress, 1000, limits.CPU, 60_000, limits.Tokens, 0)}})
		if err := svc.Traffic(ann, 999); err != nil {
			t.Error(err)
		}
		e := wantRefusal(t, svc.Traffic(ann, 500), "limit-egress", errdefs.ErrExhausted)
		if e.Used != 1499 || !e.Frees.Equal(time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("refusal = %+v", e)
		}
		wantRefusal(t, svc.Traffic(ann, 0), "limit-egress", errdefs.ErrExhausted)
		if err := svc.UsedCPU(ann, 59*time.Second); err != nil {
			t.Error(err)
		}
		if err := svc.Execute(t.Context(), ann); err != nil {
			t.Error(err)
		}
		wantRefusal(t, svc.UsedCPU(ann, time.Second), "limit-cpu", errdefs.ErrExhausted)
		e = wantRefusal(t, svc.Execute(t.Context(), ann), "limit-cpu", errdefs.ErrExhausted)
		if !strings.Contains(e.Error(), "You have used 1m of 1m of CPU time today.") {
			t.Errorf("sentence = %q", e)
		}
		wantRefusal(t, svc.MayAsk(ann), "limit-model-tokens", errdefs.ErrForbidden)
		s.clock.advance(12 * time.Hour)
		if err := svc.Traffic(ann, 0); err != nil {
			t.Errorf("the next day: %v", err)
		}
	})
}

func TestWhatExistsAtAMoment(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		svc, _ := s.serve(limits.Options{Rules: limits.Rules{
			Default:       most(limits.Sandboxes, 2, limits.Memory, 4<<30),
			Organisations: map[string]limits.Set{"org_acme": most(limits.Sandboxes, 3)},
		}})
		one := limits.Holding{Sandboxes: 1, MemoryBytes: 1 << 30, DiskBytes: 5 << 30}
		two := limits.Holding{Sandboxes: 2, MemoryBytes: 2 << 30, DiskBytes: 10 << 30}
		three := limits.Holding{Sandboxes: 3, MemoryBytes: 3 << 30}
		if err := svc.Hold(ann, one, limits.Held{User: one, Organisation: two}); err != nil {
			t.Error(err)
		}
		e := wantRefusal(t, svc.Hold(ann, one, limits.Held{User: two, Organisation: two}), "limit-sandboxes", errdefs.ErrExhausted)
		if e.Used != 2 || e.Most != 2 || !e.Frees.IsZero() {
			t.Errorf("refusal = %+v", e)
		}
		e = wantRefusal(t, svc.Hold(bob, one, limits.Held{Organisation: three}), "limit-sandboxes", errdefs.ErrExhausted)
		if e.Scope != limits.Organisation {
			t.Errorf("scope = %s", e.Scope)
		}
		large := limits.Holding{Sandboxes: 1, MemoryBytes: 8 << 30}
		e = wantRefusal(t, svc.Hold(eve, large, limits.Held{}), "limit-memory", errdefs.ErrForbidden)
		if !strings.Contains(e.Error(), "8 GiB") || !strings.Contains(e.Error(), "4 GiB") {
			t.Errorf("sentence = %q", e)
		}
	})
}

func TestUploads(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		set := most(limits.UploadSize, 1<<20)
		set.UploadTypes = []string{".csv", ".tar.gz"}
		svc, _ := s.serve(limits.Options{Rules: limits.Rules{Default: set, Users: map[string]limits.Set{limits.Local: {UploadTypes: []string{}}}}})
		for _, name := range []string{"a.csv", "/uploaded_files/B.CSV", "x.tar.gz"} {
			if err := svc.Upload(ann, name, 1<<20); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, name := range []string{"a.exe", "csv", ".csv", "a.csv.exe", "x.gz"} {
			if err := svc.Upload(ann, name, 1); errdefs.CodeOf(err) != "limit-upload-type" {
				t.Errorf("%s: %v", name, err)
			}
		}
		if err := svc.Upload(ann, "a.csv", 1<<20+1); errdefs.CodeOf(err) != "limit-upload-size" || !errors.Is(err, errdefs.ErrTooLarge) {
			t.Error(err)
		}
		if err := svc.Upload(identity.Owner{}, "a.exe", -1); err != nil {
			t.Errorf("who may upload all: %v", err)
		}
	})
}

func TestRulesByRoleAndName(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		var mu sync.Mutex
		dir := limits.Directory{
			People:        map[string]limits.Person{ann.User: {Email: "ann@example.org", Roles: map[string]identity.Role{ann.Org: identity.RoleAdmin}}},
			Organisations: map[string]string{ann.Org: "Acme"},
		}
		svc, _ := s.serve(limits.Options{
			Rules: limits.Rules{
				Default:       most(limits.Sandboxes, 1, limits.Tokens, 7),
				Roles:         map[string]limits.Set{"admin": most(limits.Sandboxes, 5)},
				Users:         map[string]limits.Set{"bob@example.org": most(limits.Sandboxes, 9), limits.Local: most(limits.Sandboxes, -1)},
				Organisations: map[string]limits.Set{"Acme": most(limits.Sandboxes, 20)},
			},
			Directory: func(context.Context) (limits.Directory, error) {
				mu.Lock()
				defer mu.Unlock()
				return dir, nil
			},
		})
		has := func(owner identity.Owner, name limits.Name) int64 {
			list, err := svc.Of(t.Context(), owner, limits.Held{})
			if err != nil {
				t.Fatal(err)
			}
			return figure(t, list[0], name).Most
		}
		if got := has(ann, limits.Sandboxes); got != 5 {
			t.Errorf("an admin has %d, want 5", got)
		}
		if got := has(ann, limits.Tokens); got != 7 {
			t.Errorf("an admin has %d tokens, want the default's 7", got)
		}
		if got := has(identity.Owner{}, limits.Sandboxes); got != limits.Unlimited {
			t.Errorf("the only user has %d, want no limit", got)
		}
		mu.Lock() // a new user is learned of when he comes
		dir = limits.Directory{People: map[string]limits.Person{bob.User: {Email: "bob@example.org"}}, Organisations: dir.Organisations}
		mu.Unlock()
		await(t, "a new user's own limit is never learned", func() bool { return has(bob, limits.Sandboxes) == 9 })
		list, err := svc.Of(t.Context(), bob, limits.Held{Organisation: limits.Holding{Sandboxes: 4}})
		if err != nil || len(list) != 2 || figure(t, list[1], limits.Sandboxes).Most != 20 || figure(t, list[1], limits.Sandboxes).Used != 4 {
			t.Errorf("the organisation: %+v, %v", list, err)
		}
	})
}

func TestARestartKeepsWhatWasUsed(t *testing.T) {
	for _, replicas := range []bool{false, true} {
		onBoth(t, func(t *testing.T, s *site) {
			opts := limits.Options{Replicas: replicas, Rules: limits.Rules{Default: most(limits.Executions, 100, limits.Tokens, 50)}}
			svc, stop := s.serve(opts)
			if got := admitted(t, 33, func() error { return svc.Execute(t.Context(), ann) }); got != 33 {
				t.Fatalf("%d were admitted", got)
			}
			svc.Asked(ann, 50)
			stop()
			svc, _ = s.serve(opts)
			if got := admitted(t, 100, func() error { return svc.Execute(t.Context(), ann) }); got != 67 {
				t.Errorf("%d are admitted after a restart, want 67", got)
			}
			wantRefusal(t, svc.MayAsk(ann), "limit-model-tokens", errdefs.ErrExhausted)
		})
	}
}

// Two servers together admit what the limit says, and no more.
func TestReplicasShareALimit(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limit  int
		beyond int // a 64th for each replica
	}{{"a small one exactly", 10, 0}, {"a large one almost", 640, 20}} {
		t.Run(tt.name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, s *site) {
				opts := limits.Options{Replicas: true, Rules: limits.Rules{Default: most(limits.Executions, tt.limit)}}
				a, _ := s.serve(opts)
				b, _ := s.serve(opts)
				var got atomic.Int64
				var wg sync.WaitGroup
				for range 4 {
					for _, svc := range []*limits.Service{a, b} {
						wg.Go(func() {
							for refused := 0; refused < 50; { // until no block can be left
								switch err := svc.Execute(t.Context(), ann); {
								case err == nil:
									got.Add(1)
								case !errors.Is(err, errdefs.ErrExhausted):
									t.Error(err)
									return
								default:
									refused++
									time.Sleep(time.Millisecond)
								}
							}
						})
					}
				}
				wg.Wait()
				if n := int(got.Load()); n < tt.limit || n > tt.limit+tt.beyond {
					t.Errorf("%d were admitted, want %d to %d", n, tt.limit, tt.limit+tt.beyond)
				}
				for _, svc := range []*limits.Service{a, b} {
					wantRefusal(t, svc.Execute(t.Context(), ann), "limit-executions", errdefs.ErrExhausted)
				}
			})
		})
	}
}

// What one server counted, another refuses within a second.
func TestReplicasLearnOfEachOther(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		opts := limits.Options{Replicas: true, Rules: limits.Rules{Default: most(limits.Egress, 1000)}}
		a, _ := s.serve(opts)
		b, _ := s.serve(opts)
		if err := b.Traffic(ann, 0); err != nil {
			t.Fatal(err)
		}
		_ = a.Traffic(ann, 1000)
		await(t, "the other server never learns of it", func() bool {
			s.clock.advance(time.Second)
			return errdefs.CodeOf(b.Traffic(ann, 0)) == "limit-egress"
		})
	})
}

// A block that a server set aside and does not need comes back to the others.
func TestABlockThatIsNotNeededComesBack(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		opts := limits.Options{Replicas: true, Rules: limits.Rules{Default: most(limits.Creates, 32)}}
		a, _ := s.serve(opts)
		b, _ := s.serve(opts)
		if err := a.Create(t.Context(), ann, 1); err != nil { // sets two aside
			t.Fatal(err)
		}
		s.clock.advance(5 * time.Second)
		got := 0
		await(t, "what is set aside never comes back", func() bool {
			s.clock.advance(10 * time.Millisecond)
			got += admitted(t, 40, func() error { return b.Create(t.Context(), ann, 1) })
			return got >= 31
		})
		if got != 31 {
			t.Errorf("%d were admitted, want 31", got)
		}
	})
}

func TestAdminsSeeWhatIsUsed(t *testing.T) {
	onBoth(t, func(t *testing.T, s *site) {
		opts := limits.Options{Replicas: true, Rules: limits.Rules{Default: most(limits.Executions, 1000)}}
		a, _ := s.serve(opts)
		b, _ := s.serve(opts)
		for _, owner := range []identity.Owner{ann, eve} {
			if err := a.Execute(t.Context(), owner); err != nil {
				t.Fatal(err)
			}
			b.Asked(owner, 77)
		}
		held := map[identity.Owner]limits.Holding{bob: {Sandboxes: 3}, {Org: bob.Org}: {Sandboxes: 3}}
		await(t, "one server never sees what the other counted", func() bool {
			all, err := a.All(t.Context(), "", held)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range all {
				if u.Owner == eve {
					return figure(t, u, limits.Tokens).Used == 77
				}
			}
			return false
		})
		list, err := a.All(t.Context(), ann.Org, held)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 3 || list[0].Owner != (identity.Owner{Org: ann.Org}) || list[0].Scope != limits.Organisation || list[1].Owner != ann || list[2].Owner != bob {
			t.Fatalf("list = %+v", list)
		}
		if f := figure(t, list[1], limits.Executions); f.Used != 1 || f.Most != 1000 {
			t.Errorf("ann ran %d of %d", f.Used, f.Most)
		}
		if f := figure(t, list[2], limits.Sandboxes); f.Used != 3 {
			t.Errorf("bob has %d", f.Used)
		}
	})
}

// A database that is away makes nobody wait, and nobody free.
func TestWithoutTheDatabase(t *testing.T) {
	url := filepath.Join(t.TempDir(), "a.db")
	for _, replicas := range []bool{false, true} {
		st, err := store.Open(t.Context(), url, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		svc, err := limits.New(t.Context(), st, limits.Options{Replicas: replicas, Rules: limits.Rules{Default: most(limits.Executions, 100)}}.WithClock(newClock().now))
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Close(); err != nil {
			t.Fatal(err)
		}
		if got := admitted(t, 150, func() error { return svc.Execute(t.Context(), ann) }); got != 100 {
			t.Errorf("replicas %v: %d were admitted, want 100", replicas, got)
		}
		if svc.Close() == nil {
			t.Error("nobody says that what was used is not kept")
		}
	}
}

func BenchmarkExecute(b *testing.B) {
	for _, bb := range []struct {
		name     string
		replicas bool
	}{{"alone", false}, {"with replicas", true}} {
		b.Run(bb.name, func(b *testing.B) {
			st, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "a.db"), store.Options{})
			if err != nil {
				b.Fatal(err)
			}
			set := most(limits.Executions, 1<<40, limits.CPU, 1<<40)
			svc, err := limits.New(b.Context(), st, limits.Options{Replicas: bb.replicas, Rules: limits.Rules{Default: set, Organisations: map[string]limits.Set{limits.Any: set}}})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := svc.Execute(b.Context(), ann); err != nil {
					b.Fatal(err)
				}
			}
			_ = errors.Join(svc.Close(), st.Close())
		})
	}
}
