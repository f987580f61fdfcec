package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
)

const signInKey = "sign_in"

// SignIn is how people sign in where auth is accounts. Zero durations mean the
// defaults.
type SignIn struct {
	Idle      Duration   `yaml:"idle,omitempty"`      // a browser that does nothing for so long is signed out; default 7d
	Life      Duration   `yaml:"life,omitempty"`      // and any after so long; default 30d
	AuditFor  Duration   `yaml:"audit_for,omitempty"` // entries of the audit stay so long; default 90d
	Providers []Provider `yaml:"providers,omitempty"` // in the order that people see them
}

// Provider is a provider of OpenID Connect, and what it says means here.
type Provider struct {
	Name             string            `yaml:"name"`            // in addresses
	Title            string            `yaml:"title,omitempty"` // for people; default: the name
	Issuer           string            `yaml:"issuer"`
	ClientID         string            `yaml:"client_id"`
	ClientSecretFile string            `yaml:"client_secret_file,omitempty"`
	ClientSecretEnv  string            `yaml:"client_secret_env,omitempty"`
	Scopes           []string          `yaml:"scopes,omitempty"`             // default: openid, email, profile
	Organisation     string            `yaml:"organisation,omitempty"`       // name of everybody's; made if it is not there
	OrgClaim         string            `yaml:"organisation_claim,omitempty"` // or the claim that has it
	Organisations    map[string]string `yaml:"organisations,omitempty"`      // names by values of that claim; default: the value is the name
	RoleClaim        string            `yaml:"role_claim,omitempty"`         // claim with groups; dots lead into objects: realm_access.roles
	Roles            map[string]string `yaml:"roles,omitempty"`              // roles by values of that claim
	DefaultRole      string            `yaml:"default_role,omitempty"`       // of everybody else; default: they are refused
	Operators        []string          `yaml:"operators,omitempty"`          // values of that claim that make an operator
	EmailDomains     []string          `yaml:"email_domains,omitempty"`      // default: any
	LinkByEmail      bool              `yaml:"link_by_email,omitempty"`      // an account with the address is his, if the provider has verified it
}

// Secret reads the client's secret; "" for a public client.
func (p *Provider) Secret() (Secret, error) {
	if p.ClientSecretEnv != "" {
		if text := strings.TrimSpace(os.Getenv(p.ClientSecretEnv)); text != "" {
			return Secret(text), nil
		}
		return "", errdefs.New(errdefs.ErrInvalid, CodeInvalid, "%s: provider %q: the environment has no %s", signInKey, p.Name, p.ClientSecretEnv).WithHint("set it, or use client_secret_file")
	}
	if p.ClientSecretFile == "" {
		return "", nil
	}
	info, err := os.Stat(p.ClientSecretFile)
	if err == nil && info.Size() > maxKeySize {
		err = fmt.Errorf("larger than %s, which is no secret", Bytes(maxKeySize))
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(p.ClientSecretFile)
	}
	if err != nil {
		return "", fmt.Errorf("config: %s: provider %q: client_secret_file: %w", signInKey, p.Name, err)
	}
	return Secret(strings.TrimSpace(string(text))), nil
}

// readSignIn decodes the section of a file.
func (f *File) readSignIn(text []byte) error {
	var doc struct {
		SignIn yaml.Node `yaml:"sign_in"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("config: %s: %s: %s", f.Path, signInKey, yamlMessage(err))
	}
	if doc.SignIn.IsZero() {
		return nil
	}
	if err := checkEntryKeys[SignIn](doc.SignIn, "section sign_in"); err != nil {
		return fmt.Errorf("config: %s:%w", f.Path, err)
	}
	var parts struct {
		Providers []yaml.Node `yaml:"providers"`
	}
	if err := doc.SignIn.Decode(&parts); err == nil {
		for _, node := range parts.Providers {
			if err := checkEntryKeys[Provider](node, "provider"); err != nil {
				return fmt.Errorf("config: %s:%w", f.Path, err)
			}
		}
	}
	if err := doc.SignIn.Decode(&f.SignIn); err != nil {
		return fmt.Errorf("config: %s: %s: %s", f.Path, signInKey, yamlMessage(err))
	}
	return nil
}

// Proxies gives the networks of TrustedProxies.
func (s *Server) Proxies() ([]netip.Prefix, error) {
	var list []netip.Prefix
	for _, text := range s.TrustedProxies {
		prefix, err := netip.ParsePrefix(text)
		if addr, e := netip.ParseAddr(text); e == nil {
			prefix, err = netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		if err != nil {
			return nil, invalid("trusted_proxies", text, "write a network or an address, such as 10.0.0.0/8 or 192.0.2.7")
		}
		list = append(list, prefix)
	}
	return list, nil
}

const maxProviders = 20

// minIdle is the least time for which a browser stays signed in.
const minIdle = Duration(5 * time.Minute)

// guarded tells whether nobody on the way can change what an address says.
func guarded(address string) bool {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "https" {
		return err == nil
	}
	addr, err := netip.ParseAddr(u.Hostname())
	return u.Hostname() == "localhost" || err == nil && addr.IsLoopback()
}

var providerName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// validateSignIn checks how people sign in.
func (s *Server) validateSignIn() error {
	if _, err := s.Proxies(); err != nil {
		return err
	}
	in := &s.SignIn
	switch {
	case s.PublicURL != "" && !httpURL(s.PublicURL):
		return invalid("public_url", s.PublicURL, "write it as https://caesarion.example.org")
	case in.Idle < 0 || in.Life < 0 || in.AuditFor < 0:
		return invalid(signInKey, "a negative time", "idle, life and audit_for are times such as 7d")
	case in.Idle > 0 && in.Idle < minIdle || in.Life > 0 && in.Life < minIdle:
		return invalid(signInKey, fmt.Sprintf("idle %s, life %s", in.Idle, in.Life), fmt.Sprintf("at least %s, as the last use is written once a minute", minIdle))
	case in.Life > 0 && in.Idle > in.Life:
		return invalid(signInKey+".idle", in.Idle, fmt.Sprintf("at most life, which is %s", in.Life))
	case len(in.Providers) > maxProviders:
		return invalid(signInKey+".providers", len(in.Providers), fmt.Sprintf("at most %d", maxProviders))
	case len(in.Providers) > 0 && s.Auth != AuthAccounts:
		return errdefs.New(errdefs.ErrInvalid, CodeInvalid, "%s.providers: auth is %s, which has no users", signInKey, s.Auth).WithHint("use auth accounts")
	}
	seen := map[string]bool{}
	for i := range in.Providers {
		p := &in.Providers[i]
		if err := p.validate(fmt.Sprintf("%s.providers[%d]", signInKey, i)); err != nil {
			return err
		}
		if seen[p.Name] {
			return invalid(signInKey+".providers", p.Name, "each name once")
		}
		seen[p.Name] = true
	}
	return nil
}

func (p *Provider) validate(key string) error {
	switch {
	case !providerName.MatchString(p.Name):
		return invalid(key+".name", p.Name, "up to 32 lower-case letters, digits and dashes")
	case !httpURL(p.Issuer):
		return invalid(key+".issuer", p.Issuer, "the address that the provider calls its issuer, such as https://accounts.example.org")
	case !guarded(p.Issuer):
		return invalid(key+".issuer", p.Issuer, "https: who can change what the issuer says signs in as anybody; http is taken on this machine only")
	case p.ClientID == "":
		return invalid(key+".client_id", p.ClientID, "what the provider calls this server")
	case p.Organisation == "" && p.OrgClaim == "":
		return invalid(key+".organisation", "", "name one, or the claim that has it in organisation_claim")
	case p.RoleClaim == "" && len(p.Roles)+len(p.Operators) > 0:
		return invalid(key+".role_claim", "", "name the claim whose values roles and operators are about")
	case len(p.Roles) == 0 && p.DefaultRole == "":
		return invalid(key+".default_role", "", "give roles by values of role_claim, or a role for everybody")
	case p.DefaultRole != "" && !identity.Role(p.DefaultRole).Valid():
		return invalid(key+".default_role", p.DefaultRole, "allowed are viewer, member, admin and owner")
	}
	for value, role := range p.Roles {
		if !identity.Role(role).Valid() {
			return invalid(key+".roles."+value, role, "allowed are viewer, member, admin and owner")
		}
	}
	return nil
}

// The values of Server.Auth.
const (
	AuthToken    = "token"
	AuthNone     = "none"
	AuthAccounts = "accounts"
)
