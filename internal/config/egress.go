package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/caesarion/caesarion/internal/egress"
	"github.com/caesarion/caesarion/internal/errdefs"
)

const egressKey = "egress"

// The networks that have a name.
const (
	NetworkNone     = "none"
	NetworkPackages = "packages" // pip and uv, and nothing else
	NetworkOpen     = "open"     // every public address
)

// Egress is how sandboxes get out, whatever their templates allow.
type Egress struct {
	AllowPrivate     []string `yaml:"allow_private,omitempty"`      // company networks that templates may name: 10.20.0.0/16
	Proxy            string   `yaml:"proxy,omitempty"`              // company proxy: http://proxy.example.com:3128
	ProxyFile        string   `yaml:"proxy_file,omitempty"`         // holds its address with user and password
	CACerts          []string `yaml:"ca_certs,omitempty"`           // PEM files of the company's authorities
	PackageIndex     string   `yaml:"package_index,omitempty"`      // simple index; default https://pypi.org/simple
	PackageIndexFile string   `yaml:"package_index_file,omitempty"` // holds its address with user and password
	PackageHosts     []string `yaml:"package_hosts,omitempty"`      // further hosts that its pages name and that are private
	Cache            Bytes    `yaml:"cache,omitempty"`              // disk for package files; default 10GiB
	MaxBytes         Bytes    `yaml:"max_bytes,omitempty"`          // traffic of a sandbox's life; default 10GiB
}

// Network is what a template's sandboxes may reach. The zero Network is what
// --network says.
type Network struct {
	Name     string // NetworkNone, …; empty: what follows
	Allow    []string
	Packages bool
	Secrets  []NetworkSecret
	MaxConns int
	MaxBytes Bytes
}

// NetworkSecret is a value that programs use without having it.
type NetworkSecret struct {
	Name        string   `yaml:"name"`
	Host        string   `yaml:"host"`                  // as in allow
	ValueFile   string   `yaml:"value_file,omitempty"`  // read anew each time it is used
	ValueEnv    string   `yaml:"value_env,omitempty"`   // of the server
	Placeholder string   `yaml:"placeholder,omitempty"` // what programs send; default {{secret.NAME}}
	In          []string `yaml:"in,omitempty"`          // headers (default), query, body
	PlainHTTP   bool     `yaml:"plain_http,omitempty"`  // sent by http://, too; default: https:// only
}

// networkFields is Network when it is more than a name.
type networkFields struct {
	Allow    []string        `yaml:"allow,omitempty"`
	Packages bool            `yaml:"packages,omitempty"`
	Secrets  []NetworkSecret `yaml:"secrets,omitempty"`
	MaxConns int             `yaml:"max_connections,omitempty"`
	MaxBytes Bytes           `yaml:"max_bytes,omitempty"`
}

// IsZero reports whether the template says nothing of it.
func (n Network) IsZero() bool {
	return n.Name == "" && len(n.Allow) == 0 && !n.Packages && len(n.Secrets) == 0 && n.MaxConns == 0 && n.MaxBytes == 0
}

// UnmarshalYAML takes a name, or a mapping.
func (n *Network) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind == yaml.ScalarNode {
		*n = Network{Name: node.Value}
		return nil
	}
	var fields networkFields
	if err := checkEntryKeys[networkFields](*node, "network"); err != nil {
		return fmt.Errorf("line %w", err)
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value != "secrets" {
			continue
		}
		for _, secret := range node.Content[i+1].Content {
			if err := checkEntryKeys[NetworkSecret](*secret, "secret"); err != nil {
				return fmt.Errorf("line %w", err)
			}
		}
	}
	if err := node.Decode(&fields); err != nil {
		return err
	}
	*n = Network{Allow: fields.Allow, Packages: fields.Packages, Secrets: fields.Secrets, MaxConns: fields.MaxConns, MaxBytes: fields.MaxBytes}
	return nil
}

// MarshalYAML writes what UnmarshalYAML reads.
func (n Network) MarshalYAML() (any, error) {
	if n.Name != "" {
		return n.Name, nil
	}
	return networkFields{n.Allow, n.Packages, n.Secrets, n.MaxConns, n.MaxBytes}, nil
}

// NetworkOf gives the network of a template.
func (s *Server) NetworkOf(template string) Network {
	if n := s.Templates[template].Network; !n.IsZero() {
		return n
	}
	return Network{Name: s.Network}
}

// readEgress decodes the section of a file.
func (f *File) readEgress(text []byte) error {
	var doc struct {
		Egress yaml.Node `yaml:"egress"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("config: %s: %s: %s", f.Path, egressKey, yamlMessage(err))
	}
	if doc.Egress.IsZero() {
		return nil
	}
	if err := checkEntryKeys[Egress](doc.Egress, "section egress"); err != nil {
		return fmt.Errorf("config: %s:%w", f.Path, err)
	}
	if err := doc.Egress.Decode(&f.Egress); err != nil {
		return fmt.Errorf("config: %s: %s: %s", f.Path, egressKey, yamlMessage(err))
	}
	return nil
}

var secretName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// maxRules bounds what one template can allow.
const maxRules = 1000

func (s *Server) validateEgress() error {
	if err := validateNetworkName("network", s.Network); err != nil {
		return err
	}
	e := &s.Egress
	for _, text := range e.AllowPrivate {
		if p, err := netip.ParsePrefix(text); err != nil || p != p.Masked() {
			return invalid("egress.allow_private", text, "write a network as 10.20.0.0/16 or fd00:1234::/32")
		}
	}
	for _, path := range e.CACerts {
		if info, err := os.Stat(path); err != nil || info.IsDir() {
			return invalid("egress.ca_certs", path, "it must be a PEM file that can be read")
		}
	}
	for _, a := range []struct{ key, address, file string }{
		{"egress.proxy", e.Proxy, e.ProxyFile}, {"egress.package_index", e.PackageIndex, e.PackageIndexFile},
	} {
		if a.address != "" && a.file != "" {
			return invalid(a.key, a.address, "it is given twice: leave out this or "+a.key+"_file")
		}
		if _, err := readAddress(a.key, a.address, a.file); err != nil {
			return err
		}
	}
	for _, host := range e.PackageHosts {
		if _, err := egress.ParseRule(host); err != nil {
			return invalid("egress.package_hosts", host, "write a host, or a host and port, such as files.example.com")
		}
	}
	if e.Cache < 0 || e.MaxBytes < 0 {
		return invalid("egress.cache and egress.max_bytes", min(e.Cache, e.MaxBytes), "sizes such as 10GiB")
	}
	for _, name := range s.SortedTemplates() {
		if err := s.Templates[name].Network.validate(templatesKey + "." + name + ".network"); err != nil {
			return err
		}
	}
	return nil
}

func validateNetworkName(key, name string) error {
	switch name {
	case "", NetworkNone, NetworkPackages, NetworkOpen:
		return nil
	}
	return invalid(key, name, "allowed are none, packages (pip and uv) and open; a template may also have {allow: [pypi.org, \"*.example.com:8443\"], packages: true}")
}

func (n Network) validate(key string) error {
	if err := validateNetworkName(key, n.Name); err != nil {
		return err
	}
	if len(n.Allow) > maxRules {
		return invalid(key+".allow", len(n.Allow), fmt.Sprintf("at most %d", maxRules))
	}
	for _, text := range n.Allow {
		if _, err := egress.ParseRule(text); err != nil {
			return badRule(key+".allow", text, err)
		}
	}
	if n.MaxConns < 0 || n.MaxBytes < 0 {
		return invalid(key, min(int64(n.MaxConns), int64(n.MaxBytes)), "max_connections and max_bytes are not negative")
	}
	seen := map[string]bool{}
	for _, secret := range n.Secrets {
		key := key + ".secrets"
		switch {
		case !secretName.MatchString(secret.Name):
			return invalid(key+".name", secret.Name, "up to 64 letters, digits and underscores, such as API_KEY")
		case seen[secret.Name]:
			return invalid(key+".name", secret.Name, "another secret of the template has this name")
		case (secret.ValueFile == "") == (secret.ValueEnv == ""):
			return invalid(key, secret.Name, "give value_file or value_env: the value itself does not belong into this file")
		}
		seen[secret.Name] = true
		if _, err := egress.ParseRule(secret.Host); err != nil {
			return badRule(key+".host", secret.Host, err)
		}
		for _, place := range secret.In {
			if place != "headers" && place != "query" && place != "body" {
				return invalid(key+".in", place, "allowed are headers, query and body")
			}
		}
		if _, err := secret.Value(); err != nil {
			return err
		}
	}
	return nil
}

func badRule(key, text string, err error) error {
	hint := "write pypi.org, *.example.com, example.com:8443, example.com:8000-8010 or 10.0.0.7:5432"
	if e, ok := err.(*errdefs.Error); ok && e.Hint != "" { //nolint:errorlint // as ParseRule gives it
		hint = e.Hint
	}
	return invalid(key, text, hint)
}

// Value reads the secret.
func (s NetworkSecret) Value() (string, error) {
	if s.ValueEnv != "" {
		if text := strings.TrimSpace(os.Getenv(s.ValueEnv)); text != "" {
			return text, nil
		}
		return "", errdefs.New(errdefs.ErrInvalid, CodeInvalid, "secret %s: the environment variable %s is empty", s.Name, s.ValueEnv).
			WithHint("set it before the server starts, or use value_file")
	}
	info, err := os.Stat(s.ValueFile)
	if err == nil && info.Size() > maxKeySize {
		err = fmt.Errorf("larger than %s, which is no secret", Bytes(maxKeySize))
	}
	var content []byte
	if err == nil {
		content, err = os.ReadFile(s.ValueFile)
	}
	text := strings.TrimSpace(string(content))
	if err == nil && text == "" {
		err = fmt.Errorf("%s is empty", s.ValueFile)
	}
	if err != nil {
		return "", errdefs.New(errdefs.ErrInvalid, CodeInvalid, "secret %s: value_file: %v", s.Name, err).
			WithHint("the file holds the value and nothing else")
	}
	return text, nil
}

// ProxyURL gives the company's proxy; nil: none.
func (e *Egress) ProxyURL() (*url.URL, error) {
	return readAddress("egress.proxy", e.Proxy, e.ProxyFile)
}

// IndexURL gives the package index, or "" for the default.
func (e *Egress) IndexURL() (string, error) {
	u, err := readAddress("egress.package_index", e.PackageIndex, e.PackageIndexFile)
	if u == nil || err != nil {
		return "", err
	}
	return u.String(), nil
}

// readAddress gives an address of the settings, or one that stands in a file
// because it has a password.
func readAddress(key, text, file string) (*url.URL, error) {
	if file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("config: %s_file: %w", key, err)
		}
		text = strings.TrimSpace(string(content))
	} else if text == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		if file != "" { // its content is secret
			return nil, invalid(key+"_file", file, "it must hold an address such as https://user:password@example.com/simple")
		}
		return nil, invalid(key, text, "write an address such as https://example.com/simple")
	}
	if file == "" && u.User != nil {
		return nil, invalid(key, u.Redacted(), "an address with a password belongs into a file: use "+key+"_file")
	}
	return u, nil
}

// Certificates reads the files of CACerts, as PEM.
func (e *Egress) Certificates() ([]byte, error) {
	var all []byte
	for _, path := range e.CACerts {
		content, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("config: egress.ca_certs: %w", err)
		}
		all = append(append(all, content...), '\n')
	}
	return all, nil
}
