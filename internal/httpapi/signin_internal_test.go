package httpapi

import (
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/caesarion/caesarion/internal/identity"
)

func TestWhereARequestComesFrom(t *testing.T) {
	a := &API{opts: Options{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
	for _, tt := range []struct{ remote, forwarded, want string }{
		{"192.0.2.1:5", "", "192.0.2.1"},
		{"192.0.2.1:5", "203.0.113.9", "192.0.2.1"}, // nobody believes a stranger
		{"10.0.0.1:5", "203.0.113.9", "203.0.113.9"},
		{"10.0.0.1:5", "1.2.3.4, 203.0.113.9, 10.0.0.2", "203.0.113.9"}, // what the client wrote itself does not count
		{"10.0.0.1:5", "nonsense", "10.0.0.1"},
		{"10.0.0.1:5", "", "10.0.0.1"},
		{"[2001:db8::1]:5", "", "2001:db8::1"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.remote
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		if got := a.clientAddress(r); got != tt.want {
			t.Errorf("%s, forwarded for %q: %s, want %s", tt.remote, tt.forwarded, got, tt.want)
		}
	}
}

func TestPathsLeadNowhereElse(t *testing.T) {
	for path, want := range map[string]string{
		"": "/", "/": "/", "/s/ses_x?a=b": "/s/ses_x?a=b", "s/x": "/", "//evil.example": "/", "/\\evil.example": "/", "https://evil.example": "/",
		"javascript:x": "/", "/\r\nx": "/", "\\\\evil.example": "/", "///evil.example": "/",
	} {
		if got := localPath(path); got != want {
			t.Errorf("localPath(%q) = %q, want %q", path, got, want)
		}
	}
}

// Who asks is under the same proof as the rest of a forwarded request.
func TestProofHasWhoAsks(t *testing.T) {
	f := &forwarder{key: []byte("key")}
	ann := identity.Principal{User: "ann", Org: "acme", Role: identity.RoleMember, Scopes: []string{}}
	got, ok := readWho(writeWho(ann))
	if !ok || got.User != "ann" || got.Role != identity.RoleMember || got.Local || got.Operator {
		t.Errorf("read = %+v, %v", got, ok)
	}
	proof := f.prove("owner", "ses_x", writeWho(ann), "GET", "/v1/sessions/ses_x")
	for name, who := range map[string]identity.Principal{"another": {User: "bob"}, "the only user": identity.Local(), "nobody": {}} {
		if f.prove("owner", "ses_x", writeWho(who), "GET", "/v1/sessions/ses_x") == proof {
			t.Errorf("%s has the same proof", name)
		}
	}
	for _, bad := range []string{"", "x", "e30=", "bnVsbA.", "!"} {
		if p, ok := readWho(bad); ok && p.Known() {
			t.Errorf("readWho(%q) = %+v", bad, p)
		}
	}
}
