package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/egress"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/limits"
	"github.com/caesarion/caesarion/internal/metrics"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/store"
)

// egressDir holds, in the data directory, the installation's authority and the
// package files that sandboxes asked for.
const egressDir = "egress"

// gateway is what a fleet lets programs out by: a policy for each template.
type gateway struct {
	*egress.Gateway
	policies map[string]egress.Policy
	names    map[string]string // of the networks; those without one are left out
	certs    []byte
	limits   *limits.Service // nil: nothing is counted
}

var _ fleet.Egress = (*gateway)(nil)

// openGateway makes the way out of this server's sandboxes; nil if no template
// has a network.
func openGateway(cfg config.Server, dataDir string, kept *store.Store, listens net.Addr, m *metrics.Metrics, log *slog.Logger) (*gateway, error) {
	g := &gateway{policies: map[string]egress.Policy{}, names: map[string]string{}}
	secrets := false
	for _, name := range cfg.SortedTemplates() {
		network := cfg.NetworkOf(name)
		policy, err := policyOf(network)
		if err != nil {
			return nil, fmt.Errorf("templates.%s.network: %w", name, err)
		}
		switch {
		case policy.Mode != egress.None:
			g.names[name] = policy.Mode.String()
		case policy.Packages:
			g.names[name] = config.NetworkPackages
		default:
			continue
		}
		g.policies[name] = policy
		secrets = secrets || len(policy.Secrets) > 0
	}
	if len(g.names) == 0 {
		return nil, nil //nolint:nilnil // there is nothing to open
	}
	opts := egress.Options{
		Own:        ownAddresses(listens),
		Dir:        filepath.Join(dataDir, egressDir),
		Store:      kept,
		CacheDir:   filepath.Join(dataDir, egressDir, "packages"),
		CacheBytes: int64(cfg.Egress.Cache),
		MaxBytes:   int64(cfg.Egress.MaxBytes),
		Logger:     log,
		Registerer: m.Registerer(),
		Index:      egress.Index{Files: cfg.Egress.PackageHosts},
	}
	for _, text := range cfg.Egress.AllowPrivate {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("egress.allow_private: %w", err)
		}
		opts.AllowPrivate = append(opts.AllowPrivate, prefix)
	}
	var err error
	if opts.Secret, err = cfg.Secret(); err != nil {
		return nil, err
	}
	if opts.Upstream, err = cfg.Egress.ProxyURL(); err != nil {
		return nil, err
	}
	if opts.Index.URL, err = cfg.Egress.IndexURL(); err != nil {
		return nil, err
	}
	if opts.CACerts, err = cfg.Egress.Certificates(); err != nil {
		return nil, err
	}
	if g.Gateway, err = egress.New(opts); err != nil {
		return nil, err
	}
	g.certs = opts.CACerts
	if secrets { // else its certificates are never seen
		g.certs = append(append(g.certs, '\n'), g.CA()...)
	}
	return g, nil
}

// policyOf turns settings into a policy.
func policyOf(n config.Network) (egress.Policy, error) {
	p := egress.Policy{Packages: n.Packages, MaxConns: n.MaxConns, MaxBytes: int64(n.MaxBytes)}
	switch {
	case n.Name == config.NetworkPackages:
		p.Packages = true
	case n.Name == config.NetworkOpen:
		p.Mode = egress.Open
	case n.Name == "" && len(n.Allow)+len(n.Secrets) > 0:
		p.Mode = egress.List
	}
	for _, text := range n.Allow {
		rule, err := egress.ParseRule(text)
		if err != nil {
			return p, err
		}
		p.Allow = append(p.Allow, rule)
	}
	for _, s := range n.Secrets {
		rule, err := egress.ParseRule(s.Host)
		if err != nil {
			return p, err
		}
		secret := egress.Secret{Name: s.Name, Host: rule, Placeholder: s.Placeholder, Value: s.Value, PlainHTTP: s.PlainHTTP}
		for _, place := range s.In {
			secret.In |= map[string]egress.Place{"headers": egress.InHeaders, "query": egress.InQuery, "body": egress.InBody}[place]
		}
		p.Secrets = append(p.Secrets, secret)
		p.Allow = append(p.Allow, rule) // a secret for a host that can't be reached helps nobody
	}
	return p, nil
}

// ownAddresses gives the address under which this server itself is reached; an
// unspecified one stands for all of this machine.
func ownAddresses(listens net.Addr) []netip.AddrPort {
	tcp, ok := listens.(*net.TCPAddr)
	if !ok {
		return nil
	}
	return []netip.AddrPort{tcp.AddrPort()}
}

// Network implements fleet.Egress.
func (g *gateway) Network(template string) string { return g.names[template] }

// CACerts implements fleet.Egress.
func (g *gateway) CACerts() []byte { return g.certs }

// Serve implements fleet.Egress.
func (g *gateway) Serve(ctx context.Context, conn net.Conn, from fleet.Outbound) error {
	client := egress.Client{
		Sandbox: string(from.Sandbox), Session: from.Session, Template: from.Template, User: from.Owner.User, Org: from.Owner.Org,
		Policy: func() egress.Policy { return g.policies[from.Template] },
		Used:   from.Used,
	}
	if g.limits != nil {
		client.Account = func(n int64) error { return g.limits.Traffic(from.Owner, n) }
	}
	return g.Gateway.Serve(ctx, conn, client)
}

// Forget implements fleet.Egress.
func (g *gateway) Forget(id sandbox.ID) { g.Gateway.Forget(string(id)) }

// keepLiving drops what is known of sandboxes that went while no server ran.
func (g *gateway) keepLiving(ctx context.Context, driver sandbox.Driver) error {
	return g.Keep(func() ([]string, error) {
		infos, err := driver.List(ctx)
		ids := make([]string, len(infos))
		for i, info := range infos {
			ids[i] = string(info.ID)
		}
		return ids, err
	})
}
