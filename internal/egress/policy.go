package egress

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Mode is how a Policy treats hosts.
type Mode int

// The modes. Any other value refuses everything.
const (
	None Mode = iota // nothing
	List             // what Allow names
	Open             // every public address, except port 25
)

var modeNames = [...]string{"none", "list", "open"}

func (m Mode) String() string {
	if m < 0 || int(m) >= len(modeNames) {
		return "mode(" + strconv.Itoa(int(m)) + ")"
	}
	return modeNames[m]
}

// MarshalText makes modes words in JSON and YAML.
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads "none", "list" or "open".
func (m *Mode) UnmarshalText(b []byte) error {
	for i, name := range modeNames {
		if string(b) == name {
			*m = Mode(i)
			return nil
		}
	}
	return fmt.Errorf("egress mode %q: none, list or open", b)
}

// Policy is what one sandbox may reach. The zero Policy is nothing.
type Policy struct {
	Mode     Mode
	Packages bool // the package mirror, also with None; Open and a List that has the index have it anyway
	Allow    []Rule
	Secrets  []Secret

	MaxConns    int           // streams at once; default 128
	MaxBytes    int64         // both directions, for the sandbox's life; default Options.MaxBytes
	IdleTimeout time.Duration // a connection without a byte; default 5 min
	DialTimeout time.Duration // look-up and connect; default 15 s
}

const (
	defaultMaxConns = 128
	defaultIdle     = 5 * time.Minute
	defaultDial     = 15 * time.Second
	portSMTP        = 25 // open networks are used to send spam first of all
)

func (p Policy) withDefaults(maxBytes int64) Policy {
	if p.MaxConns <= 0 {
		p.MaxConns = defaultMaxConns
	}
	p.MaxConns = min(p.MaxConns, maxStreams)
	if p.MaxBytes <= 0 {
		p.MaxBytes = maxBytes
	}
	if p.IdleTimeout <= 0 {
		p.IdleTimeout = defaultIdle
	}
	if p.DialTimeout <= 0 {
		p.DialTimeout = defaultDial
	}
	return p
}

// grant is a permission to ask for a host.
type grant struct {
	listed bool // a rule covers it
	exact  bool // a rule names the host itself, so looking it up tells nobody anything
}

// grantFor decides by names alone; nothing has been looked up yet.
func (p Policy) grantFor(t target, c Client) (grant, *Refusal) {
	switch p.Mode {
	case None:
		if p.Packages {
			return grant{}, denied(codeHost, "%s is not among the hosts this sandbox may reach, only packages by pip and uv are%s", t, who(c))
		}
		return grant{}, &Refusal{Kind: KindOff, Code: codeOff, Text: "This sandbox has no network" + who(c) + "."}
	case List, Open:
	default:
		return grant{}, denied(codePolicy, "the network policy of this sandbox can't be read%s", who(c))
	}
	var g grant
	for _, r := range p.Allow {
		if r.matches(t) {
			g.listed = true
			g.exact = g.exact || !r.wildcard
		}
	}
	switch {
	case t.name != "" && inward(t.name) && !g.exact:
		return grant{}, denied(codeInward, "%s is a name of inner networks, which sandboxes reach only if a rule names it%s", t.host(), who(c))
	case g.listed:
		return g, nil
	case p.Mode == Open && t.port == portSMTP:
		return grant{}, denied(codeHost, "port 25 is closed to sandboxes unless a rule names it%s", who(c))
	case p.Mode == Open:
		return g, nil
	}
	host := t.host()
	if t.port != 443 && t.port != 80 {
		host = t.String()
	}
	return grant{}, denied(codeHost, "%s is not among the hosts this sandbox may reach%s", host, who(c))
}

// mayInstall tells whether the policy has the mirror of the index at t.
func (p Policy) mayInstall(index target) bool {
	switch p.Mode {
	case None:
		return p.Packages
	case Open:
		return true
	case List:
		if p.Packages {
			return true
		}
		for _, r := range p.Allow {
			if r.matches(index) {
				return true
			}
		}
	}
	return false
}

// who ends a refusal: whom to ask about what.
func who(c Client) string {
	if c.Template == "" {
		return " (ask the operator: egress)"
	}
	return " (template " + printable(c.Template, 64) + "; ask the operator: egress)"
}

// printable makes foreign text fit for a header or a log line.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s[:min(len(s), 4*most)])
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}
