package accounts_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
)

// What somebody could do who has a key, a link or an account for a while, to
// have more or to have it for longer.

func TestAKeyMakesNoneThatOutlivesIt(t *testing.T) {
	onBoth(t, accounts.Options{CacheFor: time.Hour}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		_, ann := s.user("ann@example.org", org.ID, "", true)
		key, text, err := s.CreateKey(ctx, ann, accounts.NewKey{Name: "short", Life: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		long, _, err := s.CreateKey(ctx, ann, accounts.NewKey{Name: "long", Life: -1})
		if err != nil {
			t.Fatal(err)
		}
		who, err := s.Verify(ctx, text, accounts.From{})
		if err != nil {
			t.Fatal(err)
		}
		for _, life := range []time.Duration{2 * time.Hour, -1} {
			_, _, err := s.CreateKey(ctx, who, accounts.NewKey{Name: "child", Life: life})
			wantCode(t, err, "key-outlives-maker")
		}
		child, _, err := s.CreateKey(ctx, who, accounts.NewKey{Name: "child"})
		if err != nil || !child.ExpiresAt.Equal(key.ExpiresAt) {
			t.Errorf("a child without an end = %+v, %v, want that of its maker", child, err)
		}
		_, _, err = s.RotateKey(ctx, who, long.ID, time.Hour)
		wantCode(t, err, "key-outlives-maker")
		own, _, err := s.RotateKey(ctx, who, key.ID, time.Minute)
		if err != nil || own.ExpiresAt.After(s.now().Add(time.Hour+time.Second)) {
			t.Errorf("a key in its own place = %+v, %v", own, err)
		}
		// It was believed a moment ago, by a server that did not hear of its end.
		if err := s.RevokeKey(ctx, ann, key.ID); err != nil {
			t.Fatal(err)
		}
		_, _, err = s.CreateKey(ctx, who, accounts.NewKey{Name: "late"})
		wantCode(t, err, "key-invalid")
		_, _, err = s.RotateKey(ctx, ann, key.ID, time.Hour)
		wantCode(t, err, "key-over")
		cookie, browser, err := s.SignIn(ctx, "ann@example.org", password, accounts.From{Address: "192.0.2.1"})
		if err != nil || cookie == "" {
			t.Fatal(err)
		}
		if err := s.SignOut(ctx, ann.User, ""); err != nil {
			t.Fatal(err)
		}
		_, _, err = s.CreateKey(ctx, browser, accounts.NewKey{Name: "late"})
		wantCode(t, err, "signed-out")
		bob, asBob := s.user("bob@example.org", org.ID, identity.RoleMember, false)
		yes := true
		if _, err := s.ChangeUser(ctx, bob.ID, accounts.Change{Disabled: &yes}); err != nil {
			t.Fatal(err)
		}
		_, _, err = s.CreateKey(ctx, asBob, accounts.NewKey{Name: "late"})
		wantCode(t, err, "key-user-gone")
	})
}

func TestOthersKeysNeedTheScopeOfAdmins(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		_, ann := s.user("ann@example.org", org.ID, "", true)
		_, bob := s.user("bob@example.org", org.ID, identity.RoleMember, false)
		bobs, _, err := s.CreateKey(ctx, bob, accounts.NewKey{Name: "bob's"})
		if err != nil {
			t.Fatal(err)
		}
		narrow := ann
		narrow.Scopes = []string{identity.ScopeAccountRead, identity.ScopeAccountWrite}
		if list, err := s.Keys(ctx, narrow, true); err != nil || len(list) != 0 {
			t.Errorf("without admin:read all keys are there: %+v, %v", list, err)
		}
		_, err = s.Key(ctx, narrow, bobs.ID)
		wantCode(t, err, "key-not-found")
		narrow.Scopes = append(narrow.Scopes, identity.ScopeAdminRead)
		if _, err := s.Key(ctx, narrow, bobs.ID); err != nil {
			t.Errorf("with admin:read: %v", err)
		}
		wantCode(t, s.RevokeKey(ctx, narrow, bobs.ID), "key-not-found")
		narrow.Scopes = append(narrow.Scopes, identity.ScopeAdminWrite)
		if err := s.RevokeKey(ctx, narrow, bobs.ID); err != nil {
			t.Errorf("with admin:write: %v", err)
		}
	})
}

func TestKeysThatAreOverDoNotFillTheDatabase(t *testing.T) {
	onBoth(t, accounts.Options{AuditFor: time.Hour}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		_, ann := s.user("ann@example.org", org.ID, "", true)
		made := 0
		for ; made < 1100; made++ {
			k, _, err := s.CreateKey(ctx, ann, accounts.NewKey{Name: "k"})
			if err != nil {
				wantCode(t, err, "too-many-keys")
				break
			}
			if err := s.RevokeKey(ctx, ann, k.ID); err != nil {
				t.Fatal(err)
			}
		}
		if made != 1000 {
			t.Errorf("%d keys were made in a day", made)
		}
		s.pass(25 * time.Hour)
		await(t, "keys that are over stay for ever", func() bool {
			list, err := s.Keys(ctx, ann, false)
			return err == nil && len(list) == 0
		})
		if _, _, err := s.CreateKey(ctx, ann, accounts.NewKey{Name: "k"}); err != nil {
			t.Errorf("the next day: %v", err)
		}
	})
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestTheFirstUseOfAKeyIsTold(t *testing.T) {
	onBoth(t, accounts.Options{CacheFor: time.Nanosecond}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		_, ann := s.user("ann@example.org", org.ID, "", true)
		key, text, err := s.CreateKey(ctx, ann, accounts.NewKey{Name: "ci"})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if _, err := s.Verify(ctx, text, accounts.From{Address: fmt.Sprintf("192.0.2.%d", i+1)}); err != nil {
				t.Fatal(err)
			}
		}
		list, err := s.Audit(ctx, accounts.AuditQuery{Action: "use-key"})
		if err != nil || len(list) != 1 || list[0].Object != key.ID || list[0].Address != "192.0.2.1" || list[0].Org != org.ID || list[0].User != ann.User {
			t.Errorf("told = %+v, %v", list, err)
		}
	})
}

// A link is as good as a password, for the rights at the time it was made.
func TestLinksEndWithTheRightsOfBefore(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		from := accounts.From{Address: "192.0.2.1"}
		org, other := s.org("Acme"), s.org("Other")
		_, _ = s.user("ann@example.org", org.ID, "", true)
		s.user("chief@example.org", other.ID, "", false)
		yes, admin := true, identity.RoleAdmin
		for name, change := range map[string]func(id string, who identity.Principal) error{
			"operator": func(id string, _ identity.Principal) error {
				return second(s.ChangeUser(ctx, id, accounts.Change{Operator: &yes}))
			},
			"role": func(id string, _ identity.Principal) error {
				return second(s.ChangeUser(ctx, id, accounts.Change{Org: org.ID, Role: &admin}))
			},
			"elsewhere": func(id string, _ identity.Principal) error {
				return second(s.ChangeUser(ctx, id, accounts.Change{Org: other.ID, Role: &admin}))
			},
			"disabled": func(id string, _ identity.Principal) error {
				return second(s.ChangeUser(ctx, id, accounts.Change{Disabled: &yes}))
			},
			"password": func(_ string, who identity.Principal) error {
				return s.ChangePassword(ctx, who, password, "another long one", from)
			},
		} {
			u, who := s.user(name+"@example.org", org.ID, identity.RoleMember, false)
			link, err := s.NewLink(ctx, u.ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := change(u.ID, who); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			s.pass(time.Hour) // no throttle
			if _, err = s.Redeem(ctx, link, accounts.Setup{Password: "of a thief, long"}, from); errdefs.CodeOf(err) != "link-invalid" {
				t.Errorf("after a change of %s the link of before is good: %v", name, err)
			}
		}
		// One that is made for somebody who is disabled waits until he is let in.
		u, _ := s.User(ctx, "disabled@example.org")
		link, err := s.NewLink(ctx, u.ID)
		if err != nil {
			t.Fatal(err)
		}
		s.pass(time.Hour)
		_, err = s.Redeem(ctx, link, accounts.Setup{Password: "of a thief, long"}, from)
		wantCode(t, err, "link-invalid")
	})
}

func second(_ accounts.User, err error) error { return err }

func TestNobodyIsKeptOutByTheFailuresOfOthers(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		s.user("ann@example.org", org.ID, "", true)
		try := func(pw, address string) error {
			_, _, err := s.SignIn(ctx, "ann@example.org", pw, accounts.From{Address: address})
			return err
		}
		if err := try(password, "192.0.2.1"); err != nil {
			t.Fatal(err)
		}
		// Somebody fails at each moment at which he may, from everywhere.
		for i := range 40 {
			_ = try("wrong password", fmt.Sprintf("198.51.100.%d", i%200))
			s.pass(61 * time.Second)
			_ = try("wrong password", fmt.Sprintf("198.51.100.%d", i%200))
		}
		wantCode(t, try(password, "203.0.113.1"), "sign-in-throttled")
		if err := try(password, "192.0.2.1"); err != nil {
			t.Errorf("Ann, from where she always is: %v", err)
		}
		wantCode(t, try(password, "203.0.113.1"), "sign-in-throttled") // that did not help him
		// That place has its own count.
		for range 5 {
			wantCode(t, try("wrong password", "192.0.2.1"), "sign-in-failed")
		}
		wantCode(t, try(password, "192.0.2.1"), "sign-in-throttled")
	})
}

func TestFailuresAreCountedByAllServersAndAfterARestart(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		if s.open == nil {
			return // SQLite has one server
		}
		org := s.org("Acme")
		s.user("ann@example.org", org.ID, "", true)
		servers := []*accounts.Service{s.Service, s.serve(s.open(), accounts.Options{}), s.serve(s.open(), accounts.Options{})}
		var compared atomic.Int64
		for i := range 30 {
			_, _, err := servers[i%3].SignIn(t.Context(), "ann@example.org", "wrong password", accounts.From{Address: fmt.Sprintf("192.0.2.%d", i)})
			if errdefs.CodeOf(err) == "sign-in-failed" {
				compared.Add(1)
			}
		}
		if n := compared.Load(); n > 6 {
			t.Errorf("three servers compared %d passwords at once, want 5 as one does", n)
		}
		_, _, err := s.serve(s.open(), accounts.Options{}).SignIn(t.Context(), "ann@example.org", password, accounts.From{Address: "192.0.2.99"})
		wantCode(t, err, "sign-in-throttled")
	})
}

// Whoever waits in vain for his turn has not failed.
func TestABusyServerCountsNoFailures(t *testing.T) {
	onBoth(t, accounts.Options{Hash: accounts.HashOptions{}}, func(t *testing.T, s *site) {
		org := s.org("Acme")
		s.user("ann@example.org", org.ID, "", true)
		leave := s.Occupy()
		for range 10 {
			_, _, err := s.SignIn(t.Context(), "ann@example.org", password, accounts.From{Address: "192.0.2.1"})
			wantCode(t, err, "sign-in-busy")
		}
		leave()
		if _, _, err := s.SignIn(t.Context(), "ann@example.org", password, accounts.From{Address: "192.0.2.1"}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestAFloodDoesNotFillTheAudit(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		fail := func(address string) {
			e := accounts.NewEntry(identity.Principal{}, "sign-in")
			e.Status, e.Code, e.Object, e.Address = 429, "sign-in-throttled", "ann@example.org", address
			s.Record(e)
		}
		for range 150_000 { // more than wait in line
			fail("198.51.100.7")
		}
		for i := range 20_000 {
			fail(fmt.Sprintf("2001:db8:%x::1", i))
		}
		for range 5000 {
			e := accounts.NewEntry(identity.Principal{User: "usr_flood", Org: "org_a"}, "update-item")
			e.Status = 200
			s.Record(e)
		}
		e := accounts.NewEntry(identity.Principal{User: "usr_a", Org: "org_a"}, "create-key")
		e.Status = 201
		s.Record(e)
		if list, err := s.Audit(ctx, accounts.AuditQuery{Action: "create-key"}); err != nil || len(list) != 1 {
			t.Errorf("what another did = %+v, %v", list, err)
		}
		count := func() (n, more int) {
			for before := int64(0); ; {
				page, err := s.Audit(ctx, accounts.AuditQuery{Before: before, Limit: 1000})
				if err != nil {
					t.Fatal(err)
				}
				if len(page) == 0 {
					return n, more
				}
				for _, e := range page {
					if x, is := strings.CutSuffix(e.Object, " more"); is {
						var m int
						_, _ = fmt.Sscan(x, &m)
						more += m
					} else {
						n++
					}
				}
				before = page[len(page)-1].N
			}
		}
		if n, _ := count(); n > 2000 {
			t.Errorf("%d entries were written", n)
		}
		s.pass(2 * time.Minute)
		await(t, "what was not told one by one is not told at all", func() bool {
			n, more := count()
			return n+more == 150_000+20_000+5000+1
		})
		if n, more := count(); n > 2000 || more < 170_000 {
			t.Errorf("%d entries, and %d more", n, more)
		}
	})
}

// A stream that is open is no use of a browser.
func TestAnOpenStreamKeepsNobodySignedIn(t *testing.T) {
	onBoth(t, accounts.Options{CacheFor: time.Nanosecond}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		s.user("ann@example.org", org.ID, "", true)
		cookie, who, err := s.SignIn(ctx, "ann@example.org", password, accounts.From{Address: "192.0.2.1"})
		if err != nil {
			t.Fatal(err)
		}
		held, release := s.Hold(ctx, who, func(ctx context.Context) (identity.Principal, error) { return s.Resume(ctx, cookie) })
		defer release()
		for range 8 {
			s.pass(24 * time.Hour)
			s.Recheck()
			if err := s.FlushSeen(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if held.Err() == nil {
			t.Error("a stream that nobody looks at keeps a browser signed in")
		}
	})
}

func TestNamesAndAddressesThatLookLikeOthers(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		kate, _ := s.user("kate@example.org", org.ID, "", true)
		for _, email := range []string{"\u212Aate@example.org", "kаte@example.org", "kate@exаmple.org", "kate\u200b@example.org", "kate@example.org\x00", "ka te@example.org", "\"kate\"@example.org", "Kate <kate@example.org>", "kate@", strings.Repeat("a", 250) + "@example.org"} {
			_, err := s.CreateUser(ctx, accounts.NewUser{Email: email, Org: org.ID})
			wantCode(t, err, "email-invalid")
			_, _, err = s.SignIn(ctx, email, password, accounts.From{Address: "192.0.2.1"})
			if err == nil {
				t.Errorf("%q signs in as kate", email)
			}
			s.pass(time.Hour)
			id, _, err := s.Accept(ctx, accounts.External{Issuer: "i", Subject: email, Email: email, Verified: true, Link: true, Org: "Acme", Role: identity.RoleMember})
			if err == nil || id == kate.ID {
				t.Errorf("%q is taken for kate by a provider", email)
			}
		}
		for _, name := range []string{"a\u202egnp.exe", "a\u2066b", "a\x00b", "a\u200bb", "a\ufeff", "\u2028", "a\x1b[31m", "", " ", strings.Repeat("x", 101), "\xff"} {
			_, err := s.CreateOrg(ctx, name)
			wantCode(t, err, "name-invalid")
		}
		for _, name := range []string{"Müller & Söhne", "株式会社", "👩\u200d🔬 lab"} {
			if _, err := s.CreateOrg(ctx, name); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
		id, _, err := s.Accept(ctx, accounts.External{Issuer: "i", Subject: "n", Email: "n@example.org", Name: "\u202e" + strings.Repeat("n", 300), Org: "Acme", Role: identity.RoleMember})
		if u, err2 := s.User(ctx, id); err != nil || err2 != nil || strings.Contains(u.Name, "\u202e") || len(u.Name) > 100 {
			t.Errorf("a provider's name is kept as %q, %v %v", u.Name, err, err2)
		}
	})
}

func TestPasswordsAreTheSameFromEachKeyboard(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		org := s.org("Acme")
		from := accounts.From{Address: "192.0.2.1"}
		long := strings.Repeat("long ", 200)
		for i, pw := range [][2]string{{"Zürich pässwörd", "Zu\u0308rich pa\u0308sswo\u0308rd"}, {"ﬁve full words", "five full words"}, {long, long}} {
			email := fmt.Sprintf("u%d@example.org", i)
			if _, err := s.CreateUser(ctx, accounts.NewUser{Email: email, Org: org.ID, Password: pw[0]}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.SignIn(ctx, email, pw[1], from); err != nil {
				t.Errorf("%q for %q: %v", pw[1], pw[0], err)
			}
		}
		_, err := s.CreateUser(ctx, accounts.NewUser{Email: "x@example.org", Org: org.ID, Password: long + long})
		wantCode(t, err, "password-too-long")
		_, _, err = s.SignIn(ctx, "u0@example.org", long+long, from)
		wantCode(t, err, "sign-in-failed")
	})
}

// An admin elsewhere made the account, with a password that he knows, before the
// one came whose address it is.
func TestAnAccountMadeInAdvanceIsNoWayIn(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		from := accounts.From{Address: "192.0.2.1"}
		evil := s.org("Evil")
		_, _ = s.user("chief@example.org", evil.ID, "", true)
		victim, _ := s.user("victim@example.org", evil.ID, identity.RoleMember, false)
		cookie, _, err := s.SignIn(ctx, "victim@example.org", password, from)
		if err != nil {
			t.Fatal(err)
		}
		link, err := s.NewLink(ctx, victim.ID)
		if err != nil {
			t.Fatal(err)
		}
		id, org, err := s.Accept(ctx, accounts.External{Issuer: "i", Subject: "1", Email: "victim@example.org", Verified: true, Link: true, Org: "Acme", Role: identity.RoleAdmin})
		if err != nil || id != victim.ID {
			t.Fatalf("linked = %q, %v", id, err)
		}
		_, _, err = s.SignIn(ctx, "victim@example.org", password, from)
		wantCode(t, err, "sign-in-failed")
		if _, err := s.Resume(ctx, cookie); err == nil {
			t.Error("a browser of before is signed in")
		}
		_, err = s.Redeem(ctx, link, accounts.Setup{Password: password}, from)
		wantCode(t, err, "link-invalid")
		_, who, err := s.Begin(ctx, id, org, from)
		if err != nil || who.Org != org || who.Org == evil.ID || who.Role != identity.RoleAdmin {
			t.Errorf("signed in as %+v, %v, want the organisation that the provider names", who, err)
		}
	})
}

func TestAProviderTakesNotTheLastOwnerAway(t *testing.T) {
	onBoth(t, accounts.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		yes, no := true, false
		x := accounts.External{Issuer: "i", Subject: "1", Email: "ann@example.org", Org: "Acme", Role: identity.RoleOwner, Operator: &yes}
		id, _, err := s.Accept(ctx, x)
		if err != nil {
			t.Fatal(err)
		}
		x.Role, x.Operator = identity.RoleViewer, &no
		if _, _, err := s.Accept(ctx, x); err != nil {
			t.Fatal(err)
		}
		if u, _ := s.User(ctx, id); !u.Operator || u.Roles[0].Role != identity.RoleOwner {
			t.Errorf("nobody is left: %+v", u)
		}
		y := accounts.External{Issuer: "i", Subject: "2", Email: "bob@example.org", Org: "Acme", Role: identity.RoleOwner, Operator: &yes}
		if _, _, err := s.Accept(ctx, y); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Accept(ctx, x); err != nil {
			t.Fatal(err)
		}
		if u, _ := s.User(ctx, id); u.Operator || u.Roles[0].Role != identity.RoleViewer {
			t.Errorf("with another owner the provider's word counts: %+v", u)
		}
		if _, err := s.ChangeUser(ctx, id, accounts.Change{Disabled: &yes}); err != nil {
			t.Fatal(err)
		}
		x.Role = identity.RoleAdmin
		_, _, err = s.Accept(ctx, x)
		wantCode(t, err, "sign-in-failed")
		if u, _ := s.User(ctx, id); u.Roles[0].Role != identity.RoleViewer {
			t.Errorf("who is disabled has a new role: %+v", u)
		}
	})
}
