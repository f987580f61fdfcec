package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/httpapi"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/identity/accounts"
	"github.com/caesarion/caesarion/internal/store"
)

// What it costs to know who asks, to ask the table and to write the audit: the
// same request with the token, and with a key of a user.
func BenchmarkWhoAsks(b *testing.B) {
	st, err := store.Open(b.Context(), filepath.Join(b.TempDir(), "a.db"), store.Options{})
	if err != nil {
		b.Fatal(err)
	}
	svc := accounts.New(b.Context(), st, accounts.Options{})
	b.Cleanup(func() { _ = svc.Close(); _ = st.Close() }) // nothing to save
	org, err := svc.CreateOrg(b.Context(), "Acme")
	if err != nil {
		b.Fatal(err)
	}
	u, err := svc.CreateUser(b.Context(), accounts.NewUser{Email: "a@example.org", Org: org.ID})
	if err != nil {
		b.Fatal(err)
	}
	_, key, err := svc.CreateKey(b.Context(), identity.Principal{User: u.ID, Org: org.ID, Role: identity.RoleOwner}, accounts.NewKey{Name: "x"})
	if err != nil {
		b.Fatal(err)
	}
	fl, err := fleet.New(b.Context(), newDriver(b), nil, fleet.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = fl.Close() })
	for _, tt := range []struct {
		name, token string
		opts        httpapi.Options
	}{
		{"token", "test-token-0123456789", httpapi.Options{Token: "test-token-0123456789"}},
		{"key", key, httpapi.Options{Token: "test-token-0123456789", Accounts: svc}},
	} {
		api := httpapi.New(fl, tt.opts)
		for name, req := range map[string]func() *http.Request{
			"read":    func() *http.Request { return httptest.NewRequest("GET", "/v1/sandboxes/sbx_x", nil) },
			"audited": func() *http.Request { return httptest.NewRequest("DELETE", "/v1/sandboxes/sbx_x", nil) },
		} {
			b.Run(tt.name+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					r := req()
					r.Host = "127.0.0.1"
					r.Header.Set("Authorization", "Bearer "+tt.token)
					w := httptest.NewRecorder()
					if api.ServeHTTP(w, r); w.Code != http.StatusNotFound {
						b.Fatal(w.Code, w.Body)
					}
				}
			})
		}
	}
}
