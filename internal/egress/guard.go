package egress

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// ownFor is how long the list of this machine's addresses is good for.
const ownFor = 30 * time.Second

func prefixes(ss ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(ss))
	for i, s := range ss {
		out[i] = netip.MustParsePrefix(s)
	}
	return out
}

// Source: IANA's special-purpose address registries for IPv4 and IPv6. Of IPv6
// only 2000::/3 is given out, so the list names what is special within it.
var (
	special4 = prefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15",
		"198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	)
	global6  = netip.MustParsePrefix("2000::/3")
	special6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
	nat64    = netip.MustParsePrefix("64:ff9b::/96")
	// metadata is where clouds hand out credentials. No configuration opens it.
	metadata = prefixes(
		"169.254.169.0/24", "169.254.170.0/24", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32",
		"fd00:ec2::/32", "fd20:ce::254/128", "fe80::a9fe:a9fe/128",
	)
)

// guard judges addresses, whatever a policy says.
type guard struct {
	allow  []netip.Prefix   // private networks the operator opened
	refuse []netip.Prefix   // further ones the operator closed
	own    []netip.AddrPort // where this server listens

	mu    sync.Mutex // guards what follows
	addrs []netip.Addr
	at    time.Time
}

// refuses tells why nobody may reach a; "" if everybody may.
func (g *guard) refuses(ap netip.AddrPort) string {
	a := ap.Addr()
	if !a.IsValid() || a.Zone() != "" || ap.Port() == 0 {
		return "unclear"
	}
	a = a.Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	switch {
	case within(metadata, a):
		return "metadata"
	case g.listens(a, ap.Port()):
		return "own"
	case within(g.refuse, a):
		return "operator"
	}
	own, err := g.machine()
	if err != nil {
		return "unclear"
	}
	for _, o := range own {
		if o == a && !o.IsLoopback() && !named(g.allow, a) {
			return "own"
		}
	}
	switch {
	case a.IsUnspecified() || a.IsMulticast():
		return "special"
	case a.IsLoopback():
		// A wide prefix that happens to cover this machine does not mean it.
		for _, p := range g.allow {
			if p.Addr().IsLoopback() && p.Contains(a) {
				return ""
			}
		}
		return "special"
	case within(g.allow, a):
		return ""
	}
	if a.Is4() {
		if within(special4, a) {
			return "special"
		}
		return ""
	}
	if !global6.Contains(a) || within(special6, a) || isatap(a) {
		return "special"
	}
	return ""
}

// listens tells whether this server itself is at a and port.
func (g *guard) listens(a netip.Addr, port uint16) bool {
	for _, o := range g.own {
		if o.Port() != port {
			continue
		}
		if o.Addr().Unmap() == a {
			return true
		}
		if !o.Addr().IsValid() || o.Addr().IsUnspecified() {
			if a.IsLoopback() || a.IsUnspecified() {
				return true
			}
			own, err := g.machine()
			if err != nil {
				return true
			}
			if slices.Contains(own, a) {
				return true
			}
		}
	}
	return false
}

// machine lists this machine's own addresses.
func (g *guard) machine() ([]netip.Addr, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.addrs != nil && time.Since(g.at) < ownFor {
		return g.addrs, nil
	}
	as, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	out := make([]netip.Addr, 0, len(as))
	for _, a := range as {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, ip.Unmap())
			}
		}
	}
	g.addrs, g.at = out, time.Now()
	return out, nil
}

func within(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// named tells whether a prefix is a alone.
func named(ps []netip.Prefix, a netip.Addr) bool {
	for _, p := range ps {
		if p.IsSingleIP() && p.Addr() == a {
			return true
		}
	}
	return false
}

// isatap finds addresses that end in an IPv4 address by RFC 5214.
func isatap(a netip.Addr) bool {
	b := a.As16()
	id := binary.BigEndian.Uint32(b[8:12])
	return id == 0x5efe || id == 0x02005efe
}
