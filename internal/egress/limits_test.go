package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/store"
)

func withPolicy(tb testing.TB, change func(*Policy)) Client {
	p := Policy{Mode: List, Allow: rules(tb, "allowed.test:*", "*.wild.test:*")}
	change(&p)
	return Client{Sandbox: "sbx_l", Policy: func() Policy { return p }}
}

func TestConnectionsAreLimited(t *testing.T) {
	port := listenEcho(t)
	_, o := hosts(port)
	reg := prometheus.NewPedanticRegistry()
	o.Registerer = reg
	g := newGateway(t, o)
	c := withPolicy(t, func(p *Policy) { p.MaxConns = 3 })
	a := open(t, g, c)
	open3 := []*tunnelled{a.tunnel(at("allowed.test", port)), a.tunnel(at("allowed.test", port)), a.tunnel(at("allowed.test", port))}
	if got := a.refused(at("allowed.test", port)); got.Code != codeConns || got.Status != 429 || got.Kind != "limited" {
		t.Errorf("%+v", got)
	}
	// A second door of the sandbox has the same limit.
	b := open(t, g, c)
	if got := b.refused(at("allowed.test", port)); got.Code != codeConns {
		t.Errorf("%+v", got)
	}
	open3[0].Close()
	until(t, "a place is free", func() bool {
		c, no, err := a.connectTo(t.Context(), at("allowed.test", port))
		if err == nil && no == nil {
			c.Close()
		}
		return err == nil && no == nil
	})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := false
	for _, f := range families {
		for _, m := range f.GetMetric() {
			counted = counted || f.GetName() == "caesarion_egress_refusals_total" && m.GetLabel()[0].GetValue() == codeConns && m.GetCounter().GetValue() >= 2
		}
	}
	if !counted {
		t.Error("refusals are not counted")
	}
}

func TestBytesAreLimitedForTheSandboxsLife(t *testing.T) {
	port := listenEcho(t)
	_, o := hosts(port)
	g := newGateway(t, o)
	c := withPolicy(t, func(p *Policy) { p.MaxBytes = 1 << 20 })
	a := open(t, g, c)
	conn := a.tunnel(at("allowed.test", port))
	go conn.Write(make([]byte, 4<<20))
	n, err := io.Copy(io.Discard, conn)
	if err == nil || n > 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if got := a.refused(at("allowed.test", port)); got.Code != codeBytes {
		t.Errorf("%+v", got)
	}
	// Cutting the door does not give a fresh budget.
	a.conn.Close()
	a.raw.Close()
	<-a.served
	b := open(t, g, c)
	if got := b.refused(at("allowed.test", port)); got.Code != codeBytes || g.Used("sbx_l") < 1<<20 {
		t.Errorf("%+v, %d used", got, g.Used("sbx_l"))
	}
	if got := b.do(http.MethodGet, "http://"+at("allowed.test", port)+"/", nil); got.Code != codeBytes {
		t.Errorf("%+v", got)
	}
}

func TestTheAccountIsToldAndMayRefuse(t *testing.T) {
	port := listenEcho(t)
	_, o := hosts(port)
	g := newGateway(t, o)
	var told, most atomic.Int64
	most.Store(1 << 40)
	c := withPolicy(t, func(*Policy) {})
	c.Account = func(n int64) error {
		if told.Add(n) > most.Load() {
			return errdefs.New(errdefs.ErrExhausted, "egress-limit", "your organisation has used its 1 TB of traffic today").WithHint("it begins anew at midnight UTC")
		}
		return nil
	}
	var used atomic.Int64
	c.Used = func() { used.Add(1) }
	a := open(t, g, c)
	conn := a.tunnel(at("allowed.test", port))
	conn.Write([]byte("12345"))
	conn.CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "12345" {
		t.Fatal(got, err)
	}
	until(t, "all bytes are told", func() bool { return told.Load() == 10 })
	if used.Load() == 0 {
		t.Error("nobody heard that the sandbox is used")
	}
	running := a.tunnel(at("allowed.test", port))
	most.Store(5)
	if got := a.refused(at("allowed.test", port)); got.Code != codeAccount || strings.TrimSpace(got.Body) != "your organisation has used its 1 TB of traffic today (it begins anew at midnight UTC)" {
		t.Errorf("%+v", got)
	}
	go running.Write(make([]byte, 2*accountEvery))
	if _, err := io.Copy(io.Discard, running); err == nil {
		t.Error("a connection went on over the limit")
	}
}

func TestAConnectionThatSaysNothingEnds(t *testing.T) {
	port := listenEcho(t)
	_, o := hosts(port)
	lg, logger := newLog()
	o.Logger = logger
	a := open(t, newGateway(t, o), withPolicy(t, func(p *Policy) { p.IdleTimeout = 50 * time.Millisecond }))
	conn := a.tunnel(at("allowed.test", port))
	if _, err := io.ReadAll(conn); err == nil {
		t.Error("a clean end")
	}
	until(t, "it is logged", func() bool { return strings.Contains(lg.String(), `"code":"idle"`) })
	silent := listenHTTP(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	if got := a.do(http.MethodGet, "http://"+at("allowed.test", silent)+"/", nil); got.Status != 502 {
		t.Errorf("%+v", got)
	}
	// A program that takes nothing does not hold its connection either.
	endless := listenWith(t, func(c net.Conn) { _, _ = io.Copy(c, zeros{}) })
	a.tunnel(at("allowed.test", endless))
	until(t, "it is cut", func() bool { return strings.Count(lg.String(), `"code":"idle"`) >= 3 })
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestADialThatHangsEnds(t *testing.T) {
	slow := &blocking{}
	g := newGateway(t, Options{Resolver: slow, AllowPrivate: []netip.Prefix{loopback}})
	a := open(t, g, withPolicy(t, func(p *Policy) { p.DialTimeout = 30 * time.Millisecond }))
	if got := a.refused("allowed.test:443"); got.Kind != "unreachable" || got.Code != codeLookup {
		t.Errorf("%+v", got)
	}
	if got := a.do(http.MethodGet, "http://allowed.test/", nil); got.Kind != "unreachable" {
		t.Errorf("%+v", got)
	}
}

type blocking struct{}

func (*blocking) LookupNetIP(ctx context.Context, _, _ string) ([]netip.Addr, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestRandomNamesBelowAWildcardAreNotAWayOut(t *testing.T) {
	z, o := hosts(0)
	g := newGateway(t, o)
	a := open(t, g, withPolicy(t, func(*Policy) {}))
	var wg sync.WaitGroup
	var refused atomic.Int64
	for i := range 100 {
		wg.Go(func() {
			for j := range 3 {
				if got := a.refused(fmt.Sprintf("secret-data-%d-%d.wild.test:443", i, j)); got.Code == codeLookups {
					refused.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := len(z.looked()); refused.Load() == 0 || n > 2*lookupBurst {
		t.Errorf("%d refused, %d look-ups", refused.Load(), n)
	}
	// Nothing that no rule allows is looked up at all.
	before := len(z.looked())
	for i := range 50 {
		a.refused(fmt.Sprintf("secret-%d.evil.test:443", i))
		a.do(http.MethodGet, fmt.Sprintf("http://secret-%d.evil.test/", i), nil)
	}
	if n := len(z.looked()); n != before {
		t.Errorf("%d names were looked up that no rule allows", n-before)
	}
	// A name that a rule spells out goes on working.
	if got := a.refused("allowed.test:1"); got.Code != codeDial {
		t.Errorf("%+v", got)
	}
	// Another door does not give new ones.
	u := joined(g, "sbx_l")
	defer g.part(u)
	if n := u.lookups.Tokens(); n > lookupBurst/2 {
		t.Errorf("%v look-ups are left", n)
	}
}

func TestOpenIsNotEverything(t *testing.T) {
	z := &zone{hosts: map[string][]netip.Addr{"mail.example.com": addrs("8.8.8.8"), "inner.example.com": addrs("10.0.0.1")}}
	a := open(t, newGateway(t, Options{Resolver: z}), withPolicy(t, func(p *Policy) { p.Mode = Open }))
	for host, code := range map[string]string{
		"mail.example.com:25": codeHost, "inner.example.com:443": codeAddress, "10.0.0.1:443": codeAddress, "[::1]:80": codeAddress,
		"169.254.169.254:80": codeAddress, "localhost:80": codeInward, "kubernetes.default.svc.cluster.local:443": codeInward, "metadata.google.internal:80": codeInward,
	} {
		if got := a.refused(host); got.Code != code {
			t.Errorf("%s: %+v, want %s", host, got, code)
		}
	}
}

// companyProxy is a proxy that takes CONNECT and absolute requests, and notes them.
func companyProxy(tb testing.TB, to int) (*url.URL, *atomic.Int64, chan string) {
	tb.Helper()
	var n atomic.Int64
	asked := make(chan string, 100)
	port := listenWith(tb, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			n.Add(1)
			asked <- r.Method + " " + r.RequestURI + " " + r.Header.Get("Proxy-Authorization")
			if r.Method != http.MethodConnect {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nproxy")
				continue
			}
			if strings.HasPrefix(r.RequestURI, "blocked") {
				io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
				return
			}
			out, err := net.Dial("tcp", at("127.0.0.1", to))
			if err != nil {
				return
			}
			defer out.Close()
			io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
			go func() {
				io.Copy(out, br)
				out.(*net.TCPConn).CloseWrite()
			}()
			io.Copy(c, out)
			return
		}
	})
	return &url.URL{Scheme: "http", Host: at("127.0.0.1", port), User: url.UserPassword("me", "pw")}, &n, asked
}

func TestACompanyProxyIsAskedForWhatIsOutside(t *testing.T) {
	port := listenEcho(t)
	u, n, asked := companyProxy(t, port)
	z := &zone{hosts: map[string][]netip.Addr{"out.example.com": addrs("8.8.8.8"), "in.example.com": addrs("127.0.0.1"), "bad.example.com": addrs("10.0.0.1")}}
	g := newGateway(t, Options{Resolver: z, Upstream: u, AllowPrivate: []netip.Prefix{loopback}})
	a := open(t, g, allowing(t, "*.example.com:*", "unknown.test:*", "blocked.test", "8.8.4.4"))
	for _, host := range []string{"out.example.com:443", "unknown.test:443", "8.8.4.4:443"} {
		c := a.tunnel(host)
		c.Write([]byte("hello"))
		c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q %v", host, got, err)
		}
		if got := <-asked; got != "CONNECT "+host+" Basic bWU6cHc=" {
			t.Errorf("the proxy was asked %q", got)
		}
	}
	if got := a.do(http.MethodGet, "http://out.example.com/x?y", nil); got.Body != "proxy" {
		t.Errorf("%+v", got)
	}
	if got := <-asked; got != "GET http://out.example.com:80/x?y Basic bWU6cHc=" && got != "GET http://out.example.com/x?y Basic bWU6cHc=" {
		t.Errorf("the proxy was asked %q", got)
	}
	before := n.Load()
	// What the operator opened inside is reached directly, what the guard refuses not at all.
	c := a.tunnel(at("in.example.com", port))
	c.Close()
	if got := a.refused("bad.example.com:443"); got.Code != codeAddress {
		t.Errorf("%+v", got)
	}
	if got := a.refused("other.test:443"); got.Code != codeHost {
		t.Errorf("%+v", got)
	}
	if n.Load() != before {
		t.Error("the proxy was asked")
	}
	if got := a.refused("blocked.test:443"); got.Code != codeProxy || got.Kind != "unreachable" {
		t.Errorf("%+v", got)
	}
	// With Open, a name that can't be judged here is not given to the proxy.
	b := open(t, g, withPolicy(t, func(p *Policy) { p.Mode, p.Allow = Open, nil }))
	if got := b.refused("rebound.test:443"); got.Code != codeName {
		t.Errorf("%+v", got)
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	for name, c := range map[string]struct {
		o    Options
		code string
	}{
		"proxy":        {Options{Upstream: &url.URL{Scheme: "socks5", Host: "x:1"}}, "egress-proxy-invalid"},
		"certificates": {Options{CACerts: []byte("none")}, "egress-ca-certs-invalid"},
		"index":        {Options{Index: Index{URL: "ftp://x/simple"}}, "egress-index-invalid"},
		"index host":   {Options{Index: Index{URL: "https:///simple"}}, "egress-index-invalid"},
		"files":        {Options{Index: Index{Files: []string{"a b"}}}, "egress-index-invalid"},
	} {
		if _, err := New(c.o); !errors.Is(err, errdefs.ErrInvalid) || errdefs.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a sandbox has used is counted over its life: over doors, servers that
// end, and servers that are killed. It goes with the sandbox.
func TestBytesAreCountedBeyondTheServersLife(t *testing.T) {
	const most = 1 << 20
	port := listenEcho(t)
	_, o := hosts(port)
	o.Store = openStore(t)
	written := func(sandbox string) (n int64) {
		t.Helper()
		n, err := ledger{o.Store}.read(sandbox)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	c := withPolicy(t, func(p *Policy) { p.MaxBytes = most })
	// use sends until it is cut off or n bytes came back.
	use := func(g *Gateway, n int64) (came int64) {
		a := open(t, g, c)
		if conn, _, err := a.connectTo(t.Context(), at("allowed.test", port)); err == nil && conn != nil {
			go conn.Write(make([]byte, n))
			came, _ = io.CopyN(io.Discard, conn, n) // what is missing was cut off
		}
		a.conn.Close()
		a.raw.Close()
		<-a.served
		return came
	}
	g := newGateway(t, o)
	if came := use(g, most/8); came != most/8 {
		t.Fatalf("%d bytes came", came)
	}
	used := g.Used(c.Sandbox)

	t.Run("a server that ended", func(t *testing.T) {
		g := newGateway(t, o)
		open(t, g, c)
		until(t, "the door", func() bool { return g.Used(c.Sandbox) > 0 })
		if got := g.Used(c.Sandbox); got != used {
			t.Errorf("%d bytes, want %d", got, used)
		}
	})
	t.Run("another server, and back", func(t *testing.T) {
		use(newGateway(t, o), most/8)
		if came := use(g, 1000); came != 1000 {
			t.Fatalf("%d bytes came", came)
		}
		if got := g.Used(c.Sandbox); got < used+most/8 {
			t.Errorf("%d bytes, want those of the other server, too: %d", got, used+most/8)
		}
		used = g.Used(c.Sandbox)
	})
	t.Run("a server that was killed", func(t *testing.T) {
		killed := newGateway(t, o)
		a := open(t, killed, c)
		conn := a.tunnel(at("allowed.test", port))
		go conn.Write(make([]byte, most/8))
		if _, err := io.CopyN(io.Discard, conn, most/8); err != nil {
			t.Fatal(err)
		}
		passed := killed.Used(c.Sandbox)
		g := newGateway(t, o) // while the door of the first is open, as it never ended
		open(t, g, c)
		until(t, "the door", func() bool { return g.Used(c.Sandbox) > 0 })
		if got := g.Used(c.Sandbox); got < passed || got > passed+most/ledgerShare {
			t.Errorf("%d bytes, want %d and a little more", got, passed)
		}
	})
	t.Run("never more in all", func(t *testing.T) {
		all := int64(0)
		for range 20 {
			all += use(newGateway(t, o), most/8)
		}
		if all > most {
			t.Errorf("%d bytes in 20 servers' time, of %d", all, most)
		}
	})
	t.Run("a figure that can't be read", func(t *testing.T) {
		o := o
		o.Store = openStore(t)
		if err := o.Store.Close(); err != nil {
			t.Fatal(err)
		}
		near, far := sockets(t)
		defer far.Close()
		if err := newGateway(t, o).Serve(t.Context(), near, c); err == nil {
			t.Error("the door was opened")
		}
	})
	t.Run("the sandbox is gone", func(t *testing.T) {
		g := newGateway(t, o)
		g.Forget(c.Sandbox)
		if came := use(g, most/8); came != most/8 {
			t.Errorf("%d bytes came", came)
		}
		a := open(t, g, c)
		conn := a.tunnel(at("allowed.test", port))
		g.Forget(c.Sandbox) // while the door is open
		go conn.Write(make([]byte, most/8))
		if _, err := io.CopyN(io.Discard, conn, most/8); err != nil {
			t.Fatal(err)
		}
		a.conn.Close()
		a.raw.Close()
		<-a.served
		if n := written(c.Sandbox); n != 0 || g.Used(c.Sandbox) != 0 {
			t.Errorf("left: %d written, %d bytes", n, g.Used(c.Sandbox))
		}
	})
	t.Run("gone while no server ran", func(t *testing.T) {
		use(newGateway(t, o), 1000)
		g := newGateway(t, o)
		for _, living := range [][]string{{c.Sandbox, "sbx_other"}, {"sbx_other"}} {
			if err := g.Keep(func() ([]string, error) { return living, nil }); err != nil {
				t.Fatal(err)
			}
			if n := written(c.Sandbox); (n != 0) != (len(living) == 2) {
				t.Errorf("with %v: %d", living, n)
			}
		}
	})
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "test.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
