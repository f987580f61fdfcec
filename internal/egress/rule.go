package egress

import (
	"strconv"
	"strings"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// maxRule bounds a rule's text: the longest name, a wildcard and two ports.
const maxRule = maxName + 16

// Rule names hosts and ports that a sandbox may reach.
//
//	pypi.org              that host, ports 80 and 443
//	*.example.com         every name below example.com, at any depth, not itself
//	example.com:22        one port
//	example.com:8000-8010 a range of ports
//	example.com:*         every port
//	10.0.0.7:5432         one address; [2001:db8::1]:443 with brackets
//
// The zero Rule matches nothing.
type Rule struct {
	host     target
	wildcard bool
	low      int // first port; 0: 80 and 443
	high     int
}

// ParseRule reads a rule.
func ParseRule(s string) (Rule, error) {
	bad := func(why string) (Rule, error) {
		shown := s
		if len(shown) > 80 {
			shown = shown[:80] + "…"
		}
		return Rule{}, errdefs.New(errdefs.ErrInvalid, "egress-rule-invalid", "egress rule %q: %s", shown, why).
			WithHint("write a host (pypi.org), a wildcard (*.example.com), or either with a port (example.com:8080, example.com:8000-8010, example.com:*)")
	}
	if s == "" || len(s) > maxRule {
		return bad("it is empty or too long")
	}
	host, ports, err := splitRule(s)
	if err != "" {
		return bad(err)
	}
	var r Rule
	if ports != "" {
		low, high, isRange := strings.Cut(ports, "-")
		var ok bool
		switch {
		case ports == "*":
			r.low, r.high, ok = 1, 65535, true
		case isRange:
			var ok2 bool
			r.low, ok = parsePort(low)
			r.high, ok2 = parsePort(high)
			ok = ok && ok2 && r.low <= r.high
		default:
			r.low, ok = parsePort(ports)
			r.high = r.low
		}
		if !ok {
			return bad("the port is not a number from 1 to 65535, a range of them, or *")
		}
	}
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		r.wildcard, host = true, rest
	}
	if strings.Contains(host, "*") {
		return bad("a wildcard stands alone at the front, as in *.example.com")
	}
	var ok bool
	if r.host, ok = parseHost(host); !ok {
		return bad("the host is neither a name nor an address")
	}
	if r.wildcard && (r.host.addr.IsValid() || !strings.Contains(r.host.name, ".")) {
		return bad("a wildcard needs a name with at least two parts behind it")
	}
	return r, nil
}

func splitRule(s string) (host, ports, why string) {
	if strings.HasPrefix(s, "[") {
		h, rest, ok := strings.Cut(s[1:], "]")
		if !ok || rest != "" && !strings.HasPrefix(rest, ":") || !strings.Contains(h, ":") || rest == ":" {
			return "", "", "brackets are for an IPv6 address"
		}
		return h, strings.TrimPrefix(rest, ":"), ""
	}
	switch strings.Count(s, ":") {
	case 0:
		return s, "", ""
	case 1:
		h, p, _ := strings.Cut(s, ":")
		if p == "" {
			return "", "", "the port is missing"
		}
		return h, p, ""
	default:
		return s, "", "" // an IPv6 address without port
	}
}

// Matches tells whether the rule covers the host, which may be written as
// people write it, and the port.
func (r Rule) Matches(host string, port int) bool {
	t, ok := parseHost(host)
	if !ok {
		return false
	}
	t.port = port
	return r.matches(t)
}

func (r Rule) matches(t target) bool {
	switch {
	case r.low == 0 && t.port != 80 && t.port != 443:
		return false
	case r.low != 0 && (t.port < r.low || t.port > r.high):
		return false
	case r.host.addr.IsValid() || t.addr.IsValid():
		return !r.wildcard && r.host.addr == t.addr
	case r.host.name == "" || t.name == "":
		return false
	case r.wildcard:
		return strings.HasSuffix(t.name, "."+r.host.name)
	default:
		return t.name == r.host.name
	}
}

// String gives the rule as ParseRule reads it.
func (r Rule) String() string {
	h := r.host.host()
	if r.host.addr.IsValid() {
		if r.host.addr.Is6() {
			h = "[" + h + "]"
		}
	} else if r.wildcard {
		h = "*." + h
	}
	switch {
	case r.low == 0:
		return h
	case r.low == 1 && r.high == 65535:
		return h + ":*"
	case r.low == r.high:
		return h + ":" + strconv.Itoa(r.low)
	default:
		return h + ":" + strconv.Itoa(r.low) + "-" + strconv.Itoa(r.high)
	}
}

// MarshalText makes rules strings in JSON and YAML.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText is ParseRule.
func (r *Rule) UnmarshalText(b []byte) (err error) {
	*r, err = ParseRule(string(b))
	return err
}
