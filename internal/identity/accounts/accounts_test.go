package accounts_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cheap are hashes that cost little; their cost is measured elsewhere.
var cheap = accounts.HashOptions{Time: 1, Memory: 64}

const password = "correct horse battery"

// site is an installation with a clock of its own.
type site struct {
	t    *testing.T
	open func() *store.Store // nil: no second server
	*accounts.Service
	ahead atomic.Int64
}

func (s *site) now() time.Time { return time.Now().Add(time.Duration(s.ahead.Load())) }

func (s *site) pass(d time.Duration) { s.ahead.Add(int64(d)) }

func (s *site) serve(st *store.Store, opts accounts.Options) *accounts.Service {
	opts.Hash = cheap
	opts.SetNow(s.now)
	svc := accounts.New(s.t.Context(), st, opts)
	s.t.Cleanup(func() {
		if err := errors.Join(svc.Close(), st.Close()); err != nil {
			s.t.Error(err)
		}
	})
	return svc
}

// onBoth runs a test on a fresh installation with each database.
func onBoth(t *testing.T, opts accounts.Options, test func(*testing.T, *site)) {
	must := func(t *testing.T, st *store.Store, err error) *store.Store {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	t.Run("SQLite", func(t *testing.T) {
		st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "a.db"), store.Options{})
		s := &site{t: t}
		s.Service = s.serve(must(t, st, err), opts)
		test(t, s)
	})
	t.Run("Postgres", func(t *testing.T) {
		url := pgtest.New(t)
		s := &site{t: t, open: func() *store.Store {
			st, err := store.OpenPostgres(t.Context(), url, store.Options{})
			return must(t, st, err)
		}}
		s.Service = s.serve(s.open(), opts)
		test(t, s)
	})
}

func (s *site) org(name string) accounts.Organisation {
	s.t.Helper()
	o, err := s.CreateOrg(s.t.Context(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return o
}

func (s *site) user(email, org string, role identity.Role, operator bool) (accounts.User, identity.Principal) {
	s.t.Helper()
	u, err := s.CreateUser(s.t.Context(), accounts.NewUser{Email: email, Password: password, Org: org, Role: role, Operator: operator})
	if err != nil {
		s.t.Fatal(err)
	}
	return u, identity.Principal{User: u.ID, Org: org, Name: u.Name, Role: u.Roles[0].Role, Operator: operator}
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	if got := errdefs.CodeOf(err); got != code || code == "" {
		t.Errorf("error = %v, want the code %s", err, code)
	}
}

func TestKeys(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		_, ann := s.user("ann@example.org", org.ID, identity.RoleOwner, true)
		_, bob := s.user("bob@example.org", org.ID, identity.RoleMember, false)
		key, text, err := s.CreateKey(ctx, bob, accounts.NewKey{Name: "ci", Scopes: []string{identity.ScopeSandboxesRead}})
		if err != nil || !strings.HasPrefix(text, key.ID+"_") || len(text) < len(key.ID)+43 {
			t.Fatalf("key = %+v %q, %v", key, text, err)
		}
		who, err := s.Verify(ctx, text, accounts.From{})
		if err != nil || who.User != bob.User || who.Org != org.ID || who.Role != identity.RoleMember || who.Key != key.ID || !slices.Equal(who.Scopes, key.Scopes) || who.Operator {
			t.Errorf("verified = %+v, %v", who, err)
		}
		for _, bad := range []string{"", "csk_", key.ID, key.ID + "_", text + "x", text[:len(text)-1], strings.Replace(text, "csk_", "csk_x", 1), key.ID + "_" + strings.Repeat("a", 43), strings.Repeat("csk_", 100)} {
			if _, err := s.Verify(ctx, bad, accounts.From{}); !errors.Is(err, errdefs.ErrUnauthenticated) {
				t.Errorf("Verify(%q) = %v", bad, err)
			}
		}
		_, _, err = s.CreateKey(ctx, who, accounts.NewKey{Name: "more", Scopes: []string{identity.ScopeAdminWrite}})
		wantCode(t, err, "scope-missing")
		_, _, err = s.CreateKey(ctx, bob, accounts.NewKey{Name: "x", Scopes: []string{"root"}})
		wantCode(t, err, "scope-unknown")
		_, _, err = s.CreateKey(ctx, bob, accounts.NewKey{Name: "x", Scopes: []string{}})
		wantCode(t, err, "scopes-empty")
		if child, _, err := s.CreateKey(ctx, who, accounts.NewKey{Name: "same"}); err != nil || !slices.Equal(child.Scopes, who.Scopes) {
			t.Errorf("a key made with a key = %+v, %v, want no more scopes", child, err)
		}

		// Another's keys are not there; an admin has the organisation's.
		other := s.org("Other")
		_, eve := s.user("eve@example.org", other.ID, identity.RoleOwner, false)
		_, err = s.Key(ctx, eve, key.ID)
		wantCode(t, err, "key-not-found")
		wantCode(t, s.RevokeKey(ctx, eve, key.ID), "key-not-found")
		if list, err := s.Keys(ctx, eve, true); err != nil || len(list) != 0 {
			t.Errorf("keys of another organisation = %v, %v", list, err)
		}
		if list, err := s.Keys(ctx, ann, true); err != nil || len(list) != 2 {
			t.Errorf("keys of the organisation = %v, %v", list, err)
		}
		if list, err := s.Keys(ctx, identity.Installation(), false); err != nil || len(list) != 2 {
			t.Errorf("keys with the installation's token = %v, %v", list, err)
		}
		_, _, err = s.RotateKey(ctx, ann, key.ID, 0)
		wantCode(t, err, "key-of-another")

		// Rotation: both are good for the overlap, then the new one alone.
		next, nextText, err := s.RotateKey(ctx, bob, key.ID, time.Hour)
		if err != nil || next.Name != "ci" || !slices.Equal(next.Scopes, key.Scopes) {
			t.Fatalf("rotated = %+v, %v", next, err)
		}
		for _, k := range []string{text, nextText} {
			if _, err := s.Verify(ctx, k, accounts.From{}); err != nil {
				t.Errorf("in the overlap: %v", err)
			}
		}
		s.pass(time.Hour + time.Second)
		if _, err := s.Verify(ctx, text, accounts.From{}); err == nil {
			t.Error("the old key is good after the overlap")
		}
		if _, err := s.Verify(ctx, nextText, accounts.From{}); err != nil {
			t.Errorf("the new key: %v", err)
		}
		if err := s.RevokeKey(ctx, ann, next.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Verify(ctx, nextText, accounts.From{}); err == nil {
			t.Error("a revoked key is good")
		}
		_, short, err := s.CreateKey(ctx, bob, accounts.NewKey{Name: "short", Life: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Verify(ctx, short, accounts.From{}); err != nil {
			t.Fatal(err)
		}
		s.pass(time.Minute)
		if _, err := s.Verify(ctx, short, accounts.From{}); err == nil {
			t.Error("a key outlives its end in the cache")
		}
	})
}

func TestLastUseIsKeptWithoutBeingWaitedFor(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		org := s.org("Acme")
		_, ann := s.user("ann@example.org", org.ID, "", true)
		key, text, err := s.CreateKey(t.Context(), ann, accounts.NewKey{Name: "ci"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Verify(t.Context(), text, accounts.From{}); err != nil {
			t.Fatal(err)
		}
		s.pass(2 * time.Minute) // the next round of the janitor writes it
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			k, err := s.Key(t.Context(), ann, key.ID)
			if err != nil {
				t.Fatal(err)
			}
			if !k.LastUsedAt.IsZero() {
				return
			}
			if time.Now().After(end) {
				t.Fatal("the last use is never written")
			}
		}
	})
}

func TestRevocationIsInForceOnOtherServers(t *testing.T) {
	// The cache alone would let the key through for an hour.
	onBoth(t, accounts.Options{CacheFor: time.Hour}, func(t *testing.T, s *site) {
		if s.open == nil {
			return // with SQLite there is one server
		}
		second := s.serve(s.open(), accounts.Options{CacheFor: time.Hour})
		org := s.org("Acme")
		_, ann := s.user("ann@example.org", org.ID, "", true)
		key, text, err := s.CreateKey(t.Context(), ann, accounts.NewKey{Name: "ci"})
		if err != nil {
			t.Fatal(err)
		}
		// It may still be on its way to listen, and then it forgets as it begins.
		if _, err := second.Verify(t.Context(), text, accounts.From{}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := s.RevokeKey(t.Context(), ann, key.ID); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := second.Verify(t.Context(), text, accounts.From{}); err != nil {
				t.Logf("refused by the other server after %s", time.Since(start))
				return
			}
			if time.Since(start) > 20*time.Second {
				t.Fatal("the other server takes a revoked key")
			}
			time.Sleep(time.Millisecond)
		}
	})
}

func TestSignIn(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		ann, _ := s.user("ann@example.org", org.ID, "", true)
		from := accounts.From{Address: "192.0.2.1", Agent: "test"}
		cookie, who, err := s.SignIn(ctx, " ANN@example.org ", password, from)
		if err != nil || who.User != ann.ID || who.Role != identity.RoleOwner || who.Login == "" || !who.Operator {
			t.Fatalf("sign-in = %+v, %v", who, err)
		}
		again, _, err := s.SignIn(ctx, "ann@example.org", password, from)
		if err != nil || again == cookie {
			t.Errorf("a second sign-in has the same cookie, or fails: %v", err)
		}
		got, err := s.Resume(ctx, cookie)
		if err != nil || got.User != who.User || got.Login != who.Login || got.Role != who.Role || !got.Operator {
			t.Errorf("resumed = %+v, %v, want %+v", got, err, who)
		}
		for _, bad := range []string{"", "x", cookie + "x", who.Login} {
			if _, err := s.Resume(ctx, bad); !errors.Is(err, errdefs.ErrUnauthenticated) {
				t.Errorf("Resume(%q) = %v", bad, err)
			}
		}
		if err := s.SignOut(ctx, ann.ID, who.Login); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Resume(ctx, cookie); err == nil {
			t.Error("signed out, and the cookie is good")
		}
		if _, err := s.Resume(ctx, again); err != nil {
			t.Errorf("the other browser: %v", err)
		}
		s.pass(6 * 24 * time.Hour)
		if _, err := s.Resume(ctx, again); err != nil {
			t.Errorf("after six days: %v", err)
		}
		s.pass(8 * 24 * time.Hour)
		if _, err := s.Resume(ctx, again); err == nil {
			t.Error("a browser that did nothing for more than a week is signed in")
		}
		used, _, err := s.SignIn(ctx, "ann@example.org", password, from)
		if err != nil {
			t.Fatal(err)
		}
		s.pass(31 * 24 * time.Hour)
		if _, err := s.Resume(ctx, used); err == nil {
			t.Error("a browser is signed in after its absolute end")
		}
		one, w1, _ := s.SignIn(ctx, "ann@example.org", password, from)
		two, _, _ := s.SignIn(ctx, "ann@example.org", password, from)
		if err := s.ChangePassword(ctx, w1, "wrong", "another long one", from); errdefs.CodeOf(err) != "password-wrong" {
			t.Errorf("with a wrong password: %v", err)
		}
		if err := s.ChangePassword(ctx, w1, password, "another long one", from); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Resume(ctx, one); err != nil {
			t.Errorf("who changed the password is signed out: %v", err)
		}
		if _, err := s.Resume(ctx, two); err == nil {
			t.Error("another browser is signed in after the password was changed")
		}
		if err := s.SignOut(ctx, ann.ID, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Resume(ctx, one); err == nil {
			t.Error("signed out everywhere, and a cookie is good")
		}
	})
}

func TestFailedSignInsAreSlowedDown(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		s.user("ann@example.org", org.ID, "", true)
		try := func(email, pw, address string) error {
			_, _, err := s.SignIn(ctx, email, pw, accounts.From{Address: address})
			return err
		}
		for range 5 {
			wantCode(t, try("ann@example.org", "wrong password", "192.0.2.1"), "sign-in-failed")
			wantCode(t, try("nobody@example.org", "wrong password", "192.0.2.2"), "sign-in-failed")
		}
		wantCode(t, try("ann@example.org", password, "192.0.2.9"), "sign-in-throttled")
		wantCode(t, try("nobody@example.org", password, "192.0.2.9"), "sign-in-throttled")
		s.pass(2 * time.Second)
		if err := try("ann@example.org", password, "192.0.2.9"); err != nil {
			t.Errorf("after the wait: %v", err)
		}
		// One address that tries many accounts, from all of its IPv6 network.
		for i := range 20 {
			wantCode(t, try("user"+string(rune('a'+i))+"@example.org", "wrong password", "2001:db8::"+string(rune('a'+i%6))), "sign-in-failed")
		}
		wantCode(t, try("ann@example.org", password, "2001:db8::1"), "sign-in-throttled")
		if err := try("ann@example.org", password, "2001:db8:1::1"); err != nil {
			t.Errorf("from another network: %v", err)
		}
		// Many at once are no way around it.
		s.pass(time.Hour)
		var passed atomic.Int64
		var all sync.WaitGroup
		for range 30 {
			all.Go(func() {
				if errdefs.CodeOf(try("ann@example.org", "wrong password", "192.0.2.50")) == "sign-in-failed" {
					passed.Add(1)
				}
			})
		}
		all.Wait()
		if n := passed.Load(); n > 7 {
			t.Errorf("%d of 30 tries at once were compared", n)
		}
	})
}

func TestLinks(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		from := accounts.From{Address: "192.0.2.1"}
		setup, err := s.NewSetup(ctx)
		if err != nil || setup == "" {
			t.Fatalf("no link for the first start: %v", err)
		}
		in := accounts.Setup{Email: "ann@example.org", Password: password, Org: "Acme"}
		_, err = s.Redeem(ctx, setup+"x", in, from)
		wantCode(t, err, "link-invalid")
		_, err = s.Redeem(ctx, setup, accounts.Setup{Email: "ann@example.org", Password: "short"}, from)
		wantCode(t, err, "password-too-short")
		id, err := s.Redeem(ctx, setup, in, from)
		if err != nil {
			t.Fatal(err)
		}
		u, err := s.User(ctx, id)
		if err != nil || !u.Operator || len(u.Roles) != 1 || u.Roles[0].Role != identity.RoleOwner || u.Roles[0].OrgName != "Acme" {
			t.Errorf("first user = %+v, %v", u, err)
		}
		_, err = s.Redeem(ctx, setup, in, from)
		wantCode(t, err, "link-invalid")
		if again, err := s.NewSetup(ctx); err != nil || again != "" {
			t.Errorf("with a user there is a link for the first start: %v", err)
		}
		bob, err := s.CreateUser(ctx, accounts.NewUser{Email: "bob@example.org", Org: u.Roles[0].Org})
		if err != nil || bob.Roles[0].Role != identity.RoleMember {
			t.Fatalf("%+v, %v", bob, err)
		}
		_, _, err = s.SignIn(ctx, "bob@example.org", "", from)
		wantCode(t, err, "sign-in-failed")
		first, _ := s.NewLink(ctx, bob.ID)
		second, err := s.NewLink(ctx, bob.ID)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Redeem(ctx, first, accounts.Setup{Password: password}, from)
		wantCode(t, err, "link-invalid")
		if got, err := s.Redeem(ctx, second, accounts.Setup{Password: password}, from); err != nil || got != bob.ID {
			t.Errorf("redeemed = %q, %v", got, err)
		}
		if _, _, err := s.SignIn(ctx, "bob@example.org", password, from); err != nil {
			t.Errorf("with the new password: %v", err)
		}
		late, _ := s.NewLink(ctx, bob.ID)
		s.pass(accounts.LinkFor + time.Second)
		_, err = s.Redeem(ctx, late, accounts.Setup{Password: password}, from)
		wantCode(t, err, "link-invalid")
	})
}

func TestRightsChangeAtOnce(t *testing.T) {
	onBoth(t, accounts.Options{CacheFor: time.Hour}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		ann, _ := s.user("ann@example.org", org.ID, "", true)
		bob, asBob := s.user("bob@example.org", org.ID, identity.RoleMember, false)
		_, text, err := s.CreateKey(ctx, asBob, accounts.NewKey{Name: "ci"})
		if err != nil {
			t.Fatal(err)
		}
		role := func() identity.Role {
			who, _ := s.Verify(ctx, text, accounts.From{})
			return who.Role
		}
		if got := role(); got != identity.RoleMember {
			t.Fatalf("role = %q", got)
		}
		viewer, yes, no := identity.RoleViewer, true, false
		if _, err := s.ChangeUser(ctx, bob.ID, accounts.Change{Org: org.ID, Role: &viewer}); err != nil || role() != viewer {
			t.Errorf("role = %q, %v", role(), err)
		}
		if _, err := s.ChangeUser(ctx, bob.ID, accounts.Change{Disabled: &yes}); err != nil || role() != "" {
			t.Errorf("disabled, role = %q, %v", role(), err)
		}
		if _, err := s.ChangeUser(ctx, bob.ID, accounts.Change{Disabled: &no}); err != nil || role() != viewer {
			t.Errorf("enabled again, role = %q, %v", role(), err)
		}
		_, err = s.ChangeUser(ctx, ann.ID, accounts.Change{Org: org.ID, Role: &viewer})
		wantCode(t, err, "last-owner")
		_, err = s.ChangeUser(ctx, ann.ID, accounts.Change{Operator: &no})
		wantCode(t, err, "last-operator")
		_, err = s.ChangeUser(ctx, ann.ID, accounts.Change{Disabled: &yes})
		wantCode(t, err, "last-operator")
		wantCode(t, s.RemoveUser(ctx, ann.ID, org.ID), "last-owner")
		if err := s.RemoveUser(ctx, bob.ID, org.ID); err != nil || role() != "" {
			t.Errorf("removed, role = %q, %v", role(), err)
		}
		_, err = s.CreateUser(ctx, accounts.NewUser{Email: "BOB@example.org", Org: org.ID})
		wantCode(t, err, "user-exists")
		_, err = s.CreateUser(ctx, accounts.NewUser{Email: "x@example.org", Org: "org_none"})
		wantCode(t, err, "organisation-not-found")
		_, err = s.User(ctx, "x@example.org")
		wantCode(t, err, "user-not-found") // nothing of it was kept
		if list, err := s.Users(ctx, org.ID); err != nil || len(list) != 1 || list[0].Email != "ann@example.org" {
			t.Errorf("users = %+v, %v", list, err)
		}
	})
}

func TestSomebodyOfAProvider(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		x := accounts.External{Issuer: "https://id.example.org", Subject: "1", Email: "ann@example.org", Name: "Ann", Verified: true, Org: "Acme", Role: identity.RoleMember}
		id, _, err := s.Accept(ctx, x)
		if err != nil {
			t.Fatal(err)
		}
		x.Role, x.Email = identity.RoleAdmin, "ann.new@example.org"
		again, _, err := s.Accept(ctx, x)
		if err != nil || again != id {
			t.Errorf("the same person = %q, %v, want %q", again, err, id)
		}
		if u, _ := s.User(ctx, id); len(u.Roles) != 1 || u.Roles[0].Role != identity.RoleAdmin || u.Email != "ann@example.org" {
			t.Errorf("user = %+v", u)
		}
		org, err := s.FindOrg(ctx, "Acme")
		if err != nil {
			t.Fatal(err)
		}
		bob, _ := s.user("bob@example.org", org.ID, identity.RoleOwner, true)
		thief := accounts.External{Issuer: "https://id.example.org", Subject: "2", Email: "bob@example.org", Verified: true, Org: "Acme", Role: identity.RoleMember}
		_, _, err = s.Accept(ctx, thief)
		wantCode(t, err, "provider-email-taken")
		thief.Link, thief.Verified = true, false
		_, _, err = s.Accept(ctx, thief)
		wantCode(t, err, "provider-email-taken")
		thief.Verified = true
		if got, _, err := s.Accept(ctx, thief); err != nil || got != bob.ID {
			t.Errorf("linked = %q, %v", got, err)
		}
	})
}

func TestAuditIsBoundedInAgeAndApart(t *testing.T) {
	onBoth(t, accounts.Options{AuditFor: time.Hour}, func(t *testing.T, s *site) {
		ctx := t.Context()
		for i := range 1200 {
			e := accounts.NewEntry(identity.Principal{User: "usr_a", Org: "org_a", Key: "csk_a"}, "execute")
			e.Status = 200
			if i == 700 {
				e.Org, e.Object = "org_b", strings.Repeat("x", 300)+"\xff"
			}
			s.Record(e)
		}
		list, err := s.Audit(ctx, accounts.AuditQuery{Org: "org_b"})
		if err != nil || len(list) != 1 || list[0].Via != "csk_a" || len(list[0].Object) != 200 {
			t.Errorf("of one organisation = %+v, %v", list, err)
		}
		total, before := 0, int64(0)
		for {
			page, err := s.Audit(ctx, accounts.AuditQuery{Before: before, Limit: 500})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			total, before = total+len(page), page[len(page)-1].N
		}
		if total != 1200 {
			t.Errorf("%d entries, want 1200", total)
		}
		s.pass(2 * time.Hour)
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			page, err := s.Audit(context.WithoutCancel(ctx), accounts.AuditQuery{})
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				return
			}
			if time.Now().After(end) {
				t.Fatal("old entries stay")
			}
		}
	})
}
