package config

import (
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/errdefs"
)

const signInFile = `
auth: accounts
public_url: https://caesarion.example.org
trusted_proxies: [10.0.0.0/8, 192.0.2.7]
sign_in:
  idle: 2d
  providers:
    - name: company
      issuer: https://id.example.org
      client_id: caesarion
      organisation: Acme
      role_claim: realm_access.roles
      roles: {staff: member, heads: admin}
      operators: [root]
`

func TestSignInIsRead(t *testing.T) {
	f, err := parse("test.yaml", []byte(signInFile))
	if err != nil {
		t.Fatal(err)
	}
	p := f.SignIn.Providers
	if len(p) != 1 || p[0].Roles["heads"] != "admin" || p[0].RoleClaim != "realm_access.roles" || f.SignIn.Idle.Std().Hours() != 48 {
		t.Errorf("sign_in = %+v", f.SignIn)
	}
	if _, err := parse("test.yaml", []byte(strings.Replace(signInFile, "client_id", "clientid", 1))); err == nil {
		t.Error("an unknown key of a provider is taken")
	}
}

func TestSignInIsChecked(t *testing.T) {
	good := func() Server {
		s := Server{Auth: AuthAccounts, SignIn: SignIn{Providers: []Provider{{
			Name: "a", Issuer: "https://id.example.org", ClientID: "x", Organisation: "Acme", DefaultRole: "member",
		}}}}
		return s
	}
	s := good()
	if err := s.validateSignIn(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Server){
		"no accounts":       func(s *Server) { s.Auth = AuthToken },
		"a bad proxy":       func(s *Server) { s.TrustedProxies = []string{"x"} },
		"a bad address":     func(s *Server) { s.PublicURL = "caesarion" },
		"idle beyond life":  func(s *Server) { s.SignIn.Idle, s.SignIn.Life = Seconds(2000), Seconds(1000) },
		"a bad name":        func(s *Server) { s.SignIn.Providers[0].Name = "A b" },
		"a bad issuer":      func(s *Server) { s.SignIn.Providers[0].Issuer = "id" },
		"an open issuer":    func(s *Server) { s.SignIn.Providers[0].Issuer = "http://id.example.org" },
		"too short":         func(s *Server) { s.SignIn.Idle = Seconds(10) },
		"no client":         func(s *Server) { s.SignIn.Providers[0].ClientID = "" },
		"no organisation":   func(s *Server) { s.SignIn.Providers[0].Organisation = "" },
		"no role":           func(s *Server) { s.SignIn.Providers[0].DefaultRole = "" },
		"an unknown role":   func(s *Server) { s.SignIn.Providers[0].DefaultRole = "root" },
		"roles of no claim": func(s *Server) { s.SignIn.Providers[0].Roles = map[string]string{"x": "member"} },
		"a name twice":      func(s *Server) { s.SignIn.Providers = append(s.SignIn.Providers, s.SignIn.Providers[0]) },
		"a bad mapped role": func(s *Server) {
			s.SignIn.Providers[0].RoleClaim, s.SignIn.Providers[0].Roles = "g", map[string]string{"x": "y"}
		},
		"operators, no claim": func(s *Server) { s.SignIn.Providers[0].Operators = []string{"x"} },
	} {
		s := good()
		change(&s)
		if err := s.validateSignIn(); errdefs.CodeOf(err) != CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}
