package egress

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/errdefs"
)

func TestRules(t *testing.T) {
	for _, c := range []struct {
		rule string
		yes  []string
		no   []string
	}{
		{"pypi.org", []string{"pypi.org:443", "pypi.org:80", "PyPI.org.:443"}, []string{"pypi.org:22", "x.pypi.org:443", "pypi.org.evil.com:443", "notpypi.org:443", "pypi.orgs:443"}},
		{"*.example.com", []string{"a.example.com:443", "a.b.example.com:80"}, []string{"example.com:443", "aexample.com:443", "a.example.com.evil.org:443", "a.example.com:8443"}},
		{"example.com:22", []string{"example.com:22"}, []string{"example.com:443", "example.com:222"}},
		{"example.com:8000-8010", []string{"example.com:8000", "example.com:8010"}, []string{"example.com:7999", "example.com:8011", "example.com:443"}},
		{"example.com:*", []string{"example.com:1", "example.com:65535"}, []string{"a.example.com:1"}},
		{"10.0.0.7:5432", []string{"10.0.0.7:5432", "[::ffff:10.0.0.7]:5432", "[::ffff:a00:7]:5432"}, []string{"10.0.0.7:5433", "10.0.0.8:5432"}},
		{"[2001:db8::1]:443", []string{"[2001:db8::1]:443", "[2001:db8:0:0::1]:443"}, []string{"[2001:db8::2]:443", "[2001:db8::1]:80"}},
		{"2001:db8::1", []string{"[2001:db8::1]:443"}, nil},
		{"bücher.example", []string{"xn--bcher-kva.example:443", "BÜCHER.example:443", "bücher。example:443"}, []string{"bucher.example:443"}},
		{"localhost:8080", []string{"localhost:8080"}, []string{"a.localhost:8080"}},
		{"my_host.example.com", []string{"my_host.example.com:443"}, nil},
	} {
		r, err := ParseRule(c.rule)
		if err != nil {
			t.Errorf("%s: %v", c.rule, err)
			continue
		}
		again, err := ParseRule(r.String())
		if err != nil || again != r {
			t.Errorf("%s is written %s, which is another rule (%v)", c.rule, r, err)
		}
		for _, want := range []bool{true, false} {
			for _, s := range map[bool][]string{true: c.yes, false: c.no}[want] {
				to, ok := parseTarget(s, 0)
				if !ok {
					t.Errorf("%s is no target", s)
				}
				if got := r.matches(to); got != want {
					t.Errorf("%s matches %s: %v", c.rule, s, got)
				}
			}
		}
	}
	for _, bad := range []string{
		"", "*", "*.com", "*.", "a.*.com", "*a.com", "**.a.com", "a.com:", "a.com:0", "a.com:65536", "a.com:9-8", "a.com:-1", "a.com:1-", "a.com: 80", "a.com:80:81",
		"http://a.com", "a.com/x", "a b.com", "a..com", ".a.com", "-a.com", "a-.com", "10.0.0", "0x7f.0.0.1", "1.2.3.4.5", "010.0.0.1", "2130706433", "[1.2.3.4]:80", "[::1", "[::1]x", "[::1]:",
		"fe80::1%eth0", "*.10.0.0.1", "*.[::1]", "user@a.com", "a.com\n", "a\x00.com", strings.Repeat("a", 64) + ".com", strings.Repeat("a.", 127) + "com", "*.xn--", "１２７.0.0.1.9",
	} {
		if r, err := ParseRule(bad); err == nil {
			t.Errorf("%q is a rule: %s", bad, r)
		} else if !errors.Is(err, errdefs.ErrInvalid) || errdefs.CodeOf(err) != "egress-rule-invalid" {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if (Rule{}).Matches("", 80) || (Rule{}).Matches("a.com", 443) || (Rule{}).Matches("0.0.0.0", 0) {
		t.Error("the zero rule matches something")
	}
}

func TestHostsAreReadAsTheyWillBeDialled(t *testing.T) {
	for in, want := range map[string]string{
		"example.com": "example.com", "EXAMPLE.com.": "example.com", "127.0.0.1": "127.0.0.1", "127.0.0.1.": "127.0.0.1",
		"::1": "::1", "::ffff:7f00:1": "127.0.0.1", "１２７.0.0.1": "127.0.0.1", "①②⑦.0.0.1": "127.0.0.1", "127。0。0。1": "127.0.0.1",
		"ｌocalhost": "localhost", "ﬁ.example": "fi.example",
		"0177.0.0.1": "", "0x7f.0.0.1": "", "0x7f000001": "", "017700000001": "", "2130706433": "", "127.1": "", "127.0.1": "", "1.2.3.4.5": "", "a.0x": "", "a.1": "", "0X7F.1": "",
		"fe80::1%25lo": "", "fe80::1%lo": "", "": "", ".": "", "..": "", "a..b": "", "a.b..": "", "a b": "", "a\tb": "", "a\x00b": "", "a/b": "", "a@b": "", "a#b": "", "a?b": "", "a\\b": "", "[::1]": "", "a\u00adb.example": "ab.example",
		"%31%32%37.0.0.1": "", "localhost%00.example.com": "",
	} {
		got, ok := parseHost(in)
		if ok != (want != "") || ok && got.host() != want {
			t.Errorf("%q: %q %v, want %q", in, got.host(), ok, want)
		}
	}
}

func TestTheGuardKnowsEveryFormOfAnAddress(t *testing.T) {
	g := &guard{}
	refused := `0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.255.255.254 169.254.0.1 169.254.169.254 169.254.170.2
		172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 168.63.129.16
		:: ::1 ::ffff:10.0.0.1 ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::10.0.0.1 ::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::127.0.0.1 64:ff9b::169.254.169.254 64:ff9b:1::8.8.8.8 2002:a00:1:: 2002:7f00:1:: 2002:808:808::
		2001::1 2001:0:53aa:64c:0:0:f5ff:fffe 2001:db8::1 2001:2::1 2001:10::1 3fff::1 fc00::1 fd00::1 fd00:ec2::254 fd20:ce::254 fe80::1 fe80::a9fe:a9fe fec0::1 ff02::1 ff0e::1 100::1 5f00::1 4000::1 8000::1
		2600::5efe:a00:1 2600::200:5efe:a00:1`
	for s := range strings.FieldsSeq(refused) {
		if g.refuses(netip.AddrPortFrom(netip.MustParseAddr(s), 443)) == "" {
			t.Errorf("%s is let through", s)
		}
	}
	for s := range strings.FieldsSeq("8.8.8.8 1.1.1.1 100.63.255.255 100.128.0.1 172.15.255.255 172.32.0.1 192.0.1.1 198.17.255.255 198.20.0.1 223.255.255.255 168.63.129.17 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2606:4700::1111 2a00:1450::1 2001:4860:4860::8888 2620:fe::fe") {
		if why := g.refuses(netip.AddrPortFrom(netip.MustParseAddr(s), 443)); why != "" {
			t.Errorf("%s is refused: %s", s, why)
		}
	}
	if g.refuses(netip.AddrPort{}) == "" || g.refuses(netip.MustParseAddrPort("8.8.8.8:0")) == "" || g.refuses(netip.MustParseAddrPort("[2606:4700::1%eth0]:80")) == "" {
		t.Error("an unclear address is let through")
	}
}

func TestWhatTheOperatorOpensAndWhatStaysClosed(t *testing.T) {
	own, err := (&guard{}).machine()
	if err != nil {
		t.Fatal(err)
	}
	p := func(ss ...string) []netip.Prefix { return plainPrefixes(prefixes(ss...)) }
	for _, c := range []struct {
		name string
		g    *guard
		addr string
		want bool
	}{
		{"a company network", &guard{allow: p("10.1.0.0/16")}, "10.1.2.3:443", true},
		{"its mapped form", &guard{allow: p("10.1.0.0/16")}, "[::ffff:10.1.2.3]:443", true},
		{"its NAT64 form", &guard{allow: p("10.1.0.0/16")}, "[64:ff9b::10.1.2.3]:443", true},
		{"a mapped prefix", &guard{allow: p("::ffff:10.1.0.0/112")}, "10.1.2.3:443", true},
		{"beside it", &guard{allow: p("10.1.0.0/16")}, "10.2.0.1:443", false},
		{"metadata within", &guard{allow: p("169.254.0.0/16")}, "169.254.169.254:80", false},
		{"metadata by name", &guard{allow: p("169.254.169.254/32")}, "169.254.169.254:80", false},
		{"everything, metadata", &guard{allow: p("0.0.0.0/0", "::/0")}, "[fd00:ec2::254]:80", false},
		{"everything, loopback", &guard{allow: p("0.0.0.0/0", "::/0")}, "127.0.0.1:80", false},
		{"everything, loopback 6", &guard{allow: p("0.0.0.0/0", "::/0")}, "[::1]:80", false},
		{"everything, nothing", &guard{allow: p("0.0.0.0/0", "::/0")}, "0.0.0.0:80", false},
		{"loopback itself", &guard{allow: p("127.0.0.1/32")}, "127.0.0.1:80", true},
		{"the server's port there", &guard{allow: p("127.0.0.1/32"), own: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:80")}}, "127.0.0.1:80", false},
		{"the server's port everywhere", &guard{allow: p("127.0.0.0/8"), own: []netip.AddrPort{netip.MustParseAddrPort("[::]:80")}}, "127.0.0.5:80", false},
		{"another port of it", &guard{allow: p("127.0.0.1/32"), own: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:81")}}, "127.0.0.1:80", true},
		{"a public address closed", &guard{refuse: p("8.8.8.0/24")}, "8.8.8.8:443", false},
		{"a private one closed again", &guard{allow: p("10.0.0.0/8"), refuse: p("10.9.0.0/16")}, "10.9.1.1:443", false},
	} {
		if got := c.g.refuses(netip.MustParseAddrPort(c.addr)) == ""; got != c.want {
			t.Errorf("%s: %s is let through: %v", c.name, c.addr, got)
		}
	}
	for _, a := range own {
		if (&guard{}).refuses(netip.AddrPortFrom(a, 443)) == "" || !a.IsLoopback() && (&guard{allow: p("0.0.0.0/0", "::/0")}).refuses(netip.AddrPortFrom(a, 443)) == "" {
			t.Errorf("this machine's own address %s is let through", a)
		}
	}
}

// Whatever a program asks for, what is matched is what is dialled: an address
// in any spelling is that address, and a name never ends up as one.
func FuzzTarget(f *testing.F) {
	for _, s := range []string{"example.com:443", "127.0.0.1:80", "[::1]:80", "0x7f.1:80", "１２７.1:80", "a.b.:1", "xn--a.com:80", "[fe80::1%25a]:1", "ß.de:443", "a\u200d.com:443", "\xbc0:1"} {
		f.Add(s)
	}
	rule, err := ParseRule("*.example.com:*")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseTarget(s, 0)
		if !ok {
			return
		}
		if got.port < 1 || got.port > 65535 || got.addr.IsValid() == (got.name != "") {
			t.Fatalf("%q: %+v", s, got)
		}
		again, ok := parseTarget(got.String(), 0)
		if !ok || again != got {
			t.Fatalf("%q is %q, which is read as %+v", s, got, again)
		}
		if got.name != "" {
			if !validName(got.name) || len(got.name) > maxName {
				t.Fatalf("%q: name %q", s, got.name)
			}
			if _, err := netip.ParseAddr(got.name); err == nil {
				t.Fatalf("%q: a name that is an address: %q", s, got.name)
			}
			if rule.matches(got) != strings.HasSuffix(got.name, ".example.com") {
				t.Fatalf("%q matches", s)
			}
		}
	})
}

func FuzzRule(f *testing.F) {
	for _, s := range []string{"pypi.org", "*.example.com:80-90", "[::1]:443", "10.0.0.1:*", "bücher.example", "\xc30"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRule(s)
		if err != nil {
			return
		}
		again, err := ParseRule(r.String())
		if err != nil || again != r {
			t.Fatalf("%q is written %q, which is read as %v, %v", s, r, again, err)
		}
	})
}

// The guard refuses every address that embeds a refused one in a form that
// something on the way may unpack.
func FuzzGuard(f *testing.F) {
	f.Add([]byte{10, 0, 0, 1}, uint16(443))
	f.Add([]byte{169, 254, 169, 254}, uint16(80))
	g := &guard{}
	f.Fuzz(func(t *testing.T, b []byte, port uint16) {
		if len(b) != 4 {
			return
		}
		v4 := netip.AddrFrom4([4]byte(b))
		refused := g.refuses(netip.AddrPortFrom(v4, port)) != ""
		private := v4.IsPrivate() || v4.IsLoopback() || v4.IsLinkLocalUnicast() || v4.IsMulticast() || v4.IsUnspecified()
		if private && !refused {
			t.Fatalf("%s is let through", v4)
		}
		forms := [][16]byte{
			{10: 0xff, 11: 0xff, 12: b[0], 13: b[1], 14: b[2], 15: b[3]},
			{1: 0x64, 2: 0xff, 3: 0x9b, 12: b[0], 13: b[1], 14: b[2], 15: b[3]},
			{12: b[0], 13: b[1], 14: b[2], 15: b[3]},
			{0: 0x20, 1: 0x02, 2: b[0], 3: b[1], 4: b[2], 5: b[3], 15: 1},
			{0: 0x26, 10: 0x5e, 11: 0xfe, 12: b[0], 13: b[1], 14: b[2], 15: b[3]},
			{0: 0x20, 1: 0x01, 12: ^b[0], 13: ^b[1], 14: ^b[2], 15: ^b[3]},
		}
		for _, form := range forms {
			if a := netip.AddrFrom16(form); refused && g.refuses(netip.AddrPortFrom(a, port)) == "" {
				t.Fatalf("%s is refused, %s is not", v4, a)
			}
		}
	})
}
