package config_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// loadEgress reads a file that has text, and gives the settings.
func loadEgress(t *testing.T, text string) (config.Server, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(config.Base{Config: path})
}

const egressText = `
network: packages
egress:
  allow_private: [10.20.0.0/16]
  proxy: http://proxy.example.com:3128
  package_index: https://index.example.com/simple
  cache: 1GiB
templates:
  closed: {network: none}
  listed:
    network:
      allow: [pypi.org, "*.example.com:8443"]
      packages: true
      max_bytes: 1MiB
      secrets:
        - {name: API_KEY, host: api.example.com, value_file: SECRET, in: [headers, query]}
`

func TestNetworksOfTemplates(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("the value\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := loadEgress(t, strings.ReplaceAll(egressText, "SECRET", secret))
	if err != nil {
		t.Fatal(err)
	}
	if n := s.NetworkOf("python"); n.Name != config.NetworkPackages {
		t.Errorf("python: %+v", n)
	}
	if n := s.NetworkOf("closed"); n.Name != config.NetworkNone {
		t.Errorf("closed: %+v", n)
	}
	n := s.NetworkOf("listed")
	if n.Name != "" || len(n.Allow) != 2 || !n.Packages || n.MaxBytes != 1<<20 || len(n.Secrets) != 1 {
		t.Fatalf("listed: %+v", n)
	}
	if value, err := n.Secrets[0].Value(); err != nil || value != "the value" {
		t.Errorf("secret: %q, %v", value, err)
	}
	// What is printed says the same, without the secret.
	var out bytes.Buffer
	if err := config.Print(&out, config.Base{}, s); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "the value") {
		t.Error("the secret is printed")
	}
	again, err := loadEgress(t, strings.Replace(out.String(), `data_dir: ""`, "data_dir: /nowhere", 1))
	if err != nil {
		t.Fatalf("what is printed can't be read: %v\n%s", err, out.String())
	}
	if n := again.NetworkOf("listed"); len(n.Allow) != 2 || len(n.Secrets) != 1 || again.Egress.Cache != 1<<30 {
		t.Errorf("printed and read: %+v, %+v", n, again.Egress)
	}
}

func TestBadNetworks(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"a mode":           {"network: all", "network"},
		"of a template":    {"templates: {a: {network: closed}}", `templates.a.network: "closed" is not allowed`},
		"a rule":           {"templates: {a: {network: {allow: ['*']}}}", `templates.a.network.allow: "*" is not allowed`},
		"a key":            {"templates: {a: {network: {alow: [x.org]}}}", `unknown key "alow" of a network`},
		"a secret's key":   {"templates: {a: {network: {secrets: [{name: A, host: x.org, value: abc}]}}}", `unknown key "value" of a secret`},
		"no value":         {"templates: {a: {network: {secrets: [{name: A, host: x.org}]}}}", "templates.a.network.secrets"},
		"no file":          {"templates: {a: {network: {secrets: [{name: A, host: x.org, value_file: /nowhere}]}}}", "secret A: value_file"},
		"a section's key":  {"egress: {prox: x}", `unknown key "prox" of a section egress`},
		"a network":        {"egress: {allow_private: [10.0.0.1/8]}", "egress.allow_private"},
		"a proxy":          {"egress: {proxy: proxy.example.com}", "egress.proxy"},
		"a password":       {"egress: {package_index: 'https://user:hunter2@example.com/simple'}", "egress.package_index"},
		"certificates":     {"egress: {ca_certs: [/nowhere.pem]}", "egress.ca_certs"},
		"a size":           {"egress: {cache: much}", "egress"},
		"twice an address": {"egress: {proxy: 'http://x.org', proxy_file: /nowhere}", "egress.proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadEgress(t, tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			hint := ""
			if e, ok := err.(*errdefs.Error); ok { //nolint:errorlint // as Validate gives it
				hint = e.Hint
				if hint == "" {
					t.Error("nothing says what is allowed")
				}
			}
			if strings.Contains(err.Error()+hint, "hunter2") {
				t.Errorf("the password is shown: %v", err)
			}
		})
	}
}
