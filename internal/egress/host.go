package egress

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// maxName and maxLabel are DNS's own bounds.
const (
	maxName  = 253
	maxLabel = 63
)

// names maps what people write to what is looked up: lower case, full-width
// digits and dots to plain ones, other scripts to xn--.
var names = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

// target is a host as it is judged and dialled: either a name or an address.
type target struct {
	name string     // lower case, ASCII, without a trailing dot; "" for an address
	addr netip.Addr // unmapped; invalid for a name
	port int
}

func (t target) host() string {
	if t.addr.IsValid() {
		return t.addr.String()
	}
	return t.name
}

func (t target) String() string { return net.JoinHostPort(t.host(), strconv.Itoa(t.port)) }

// parseTarget reads "host:port" or, if port is not 0, a host alone.
func parseTarget(s string, port int) (target, bool) {
	if len(s) > 4*maxName {
		return target{}, false
	}
	host := s
	if h, p, err := net.SplitHostPort(s); err == nil {
		n, ok := parsePort(p)
		if !ok {
			return target{}, false
		}
		host, port = h, n
	} else if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		host = s[1 : len(s)-1]
	}
	if port < 1 || port > 65535 {
		return target{}, false
	}
	t, ok := parseHost(host)
	t.port = port
	return t, ok
}

func parsePort(s string) (int, bool) {
	if s == "" || len(s) > 5 {
		return 0, false
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, false
		}
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 1 && n <= 65535
}

// parseHost reads a name or an address literal in its plain form. Other
// spellings of addresses (octal, hexadecimal, one number, fewer than four
// parts) are neither: some resolvers take them, so a name ending in a number
// is refused.
func parseHost(s string) (target, bool) {
	if strings.ContainsAny(s, ":%") {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return target{}, false
		}
		return target{addr: a.Unmap()}, true
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c == 0x7f {
			return target{}, false
		}
	}
	if !utf8.ValidString(s) {
		return target{}, false
	}
	name, err := names.ToASCII(s)
	if err != nil {
		return target{}, false
	}
	// What it becomes must stay what it is.
	if again, err := names.ToASCII(name); err != nil || again != name {
		return target{}, false
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if a, err := netip.ParseAddr(name); err == nil && a.Is4() {
		return target{addr: a}, true
	}
	if !validName(name) {
		return target{}, false
	}
	return target{name: name}, true
}

func validName(name string) bool {
	if name == "" || len(name) > maxName {
		return false
	}
	labels := strings.Split(name, ".")
	for _, l := range labels {
		if l == "" || len(l) > maxLabel || l[0] == '-' || l[len(l)-1] == '-' {
			return false
		}
		for _, c := range []byte(l) {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return !isNumber(labels[len(labels)-1])
}

// isNumber tells whether some resolvers read l as a part of an IPv4 address.
func isNumber(l string) bool {
	digits := "0123456789"
	if strings.HasPrefix(l, "0x") {
		l, digits = l[2:], "0123456789abcdef"
	}
	return strings.Trim(l, digits) == ""
}

// inward tells whether a name is one that means something else on every
// network: it needs a rule that names it.
func inward(name string) bool {
	if !strings.Contains(name, ".") {
		return true
	}
	for _, suffix := range []string{".localhost", ".local", ".localdomain", ".internal", ".intranet", ".lan", ".home.arpa", ".in-addr.arpa", ".ip6.arpa", ".onion"} {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}
