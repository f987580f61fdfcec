package egress

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func hosts(port int) (*zone, Options) {
	z := &zone{hosts: map[string][]netip.Addr{"allowed.test": addrs("127.0.0.1"), "x.wild.test": addrs("127.0.0.1"), "wild.test": addrs("127.0.0.1")}}
	return z, Options{Resolver: z, AllowPrivate: []netip.Prefix{loopback}}
}

func TestATunnelCarriesBothDirectionsAndHalfClose(t *testing.T) {
	port := listenEcho(t)
	for _, how := range []string{"unix", "tcp", "pipe"} {
		t.Run(how, func(t *testing.T) {
			_, o := hosts(port)
			g := newGateway(t, o)
			var a *agent
			switch how {
			case "unix":
				a = open(t, g, allowing(t, "allowed.test:*"))
			case "tcp":
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				near, far := connect(t, l)
				a = openOn(t, g, allowing(t, "allowed.test:*"), near, far)
			case "pipe":
				near, far := net.Pipe()
				a = openOn(t, g, allowing(t, "allowed.test:*"), near, far)
			}
			c := a.tunnel(at("allowed.test", port))
			br := bufio.NewReader(c)
			for i := range 3 {
				fmt.Fprintf(c, "line %d\n", i)
				if got, err := br.ReadString('\n'); err != nil || got != fmt.Sprintf("line %d\n", i) {
					t.Fatalf("got %q, %v", got, err)
				}
			}
			sent := make([]byte, 3<<20)
			rand.Read(sent)
			go func() {
				c.Write(sent)
				c.CloseWrite()
			}()
			got, err := io.ReadAll(br)
			if err != nil {
				t.Fatalf("after the half-close: %v", err)
			}
			if string(got) != string(sent) {
				t.Fatalf("%d bytes came back of %d, or others", len(got), len(sent))
			}
		})
	}
}

func TestTheProgramHearsTheLastByteAfterItHasClosed(t *testing.T) {
	port := listenWith(t, func(c net.Conn) {
		b, _ := io.ReadAll(c) // ends only by the half-close
		fmt.Fprintf(c, "got %d", len(b))
	})
	_, o := hosts(port)
	a := open(t, newGateway(t, o), allowing(t, "allowed.test:*"))
	c := a.tunnel(at("allowed.test", port))
	c.Write([]byte("hello"))
	c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "got 5" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestAResetOutsideIsAResetInside(t *testing.T) {
	port := listenWith(t, func(c net.Conn) {
		c.Write([]byte("half"))
		io.ReadFull(c, make([]byte, 2))
		c.(*net.TCPConn).SetLinger(0)
	})
	_, o := hosts(port)
	a := open(t, newGateway(t, o), allowing(t, "allowed.test:*"))
	c := a.tunnel(at("allowed.test", port))
	io.ReadFull(c, make([]byte, 4))
	c.Write([]byte("go"))
	if _, err := io.ReadAll(c); err == nil {
		t.Fatal("a reset came as a clean end")
	}
}

func TestWhatIsAllowedAndWhatIsRefused(t *testing.T) {
	port := listenEcho(t)
	lg, logger := newLog()
	_, o := hosts(port)
	o.Logger = logger
	g := newGateway(t, o)
	a := open(t, g, allowing(t, "allowed.test:*", "*.wild.test:*", "127.0.0.1:*", "10.0.0.7:5432", "missing.test"))
	a.tunnel(at("allowed.test", port))
	a.tunnel(at("ALLOWED.test.", port))
	a.tunnel(at("x.wild.test", port))
	a.tunnel(at("127.0.0.1", port))
	a.tunnel(at("::ffff:127.0.0.1", port))
	for _, c := range []struct{ host, kind, code string }{
		{at("wild.test", port), "denied", codeHost},
		{"other.test:443", "denied", codeHost},
		{"allowed.test", "denied", codeBadHost},
		{"allowed.test:0", "denied", codeBadHost},
		{"allowed.test:99999", "denied", codeBadHost},
		{"127.0.0.2:" + fmt.Sprint(port), "denied", codeHost},
		{"10.0.0.7:5432", "denied", codeAddress},
		{"2130706433:80", "denied", codeBadHost},
		{"0x7f.1:80", "denied", codeBadHost},
		{"127.1:80", "denied", codeBadHost},
		{"[fe80::1%25eth0]:80", "denied", codeBadHost},
		{"missing.test:443", "unreachable", codeName},
		{"allowed.test:1", "unreachable", codeDial},
		{"localhost:80", "denied", codeInward},
		{"db:5432", "denied", codeInward},
		{"a.internal:80", "denied", codeInward},
	} {
		if got := a.refused(c.host); got.Kind != c.kind || got.Code != c.code || strings.TrimSpace(got.Body) == "" {
			t.Errorf("%s: %+v, want %s %s", c.host, got, c.kind, c.code)
		}
	}
	if got := a.refused("pypi.org:443"); strings.TrimSpace(got.Body) != "pypi.org is not among the hosts this sandbox may reach (template python; ask the operator: egress)" || got.Status != 403 {
		t.Errorf("%+v", got)
	}
	until(t, "the log has the refusal", func() bool { return strings.Contains(lg.String(), `"host":"pypi.org"`) })
	mustContain(t, lg.String(), `"sandbox_id":"sbx_test"`, `"session_id":"ses_test"`, `"user":"ada"`, `"decision":"denied"`, `"code":"host-not-allowed"`)
}

func TestPlainHTTPIsForwarded(t *testing.T) {
	port := listenHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/redirect" {
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
			return
		}
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Caesarion-Egress", "denied")
		w.Header().Set("X-Connection", r.Header.Get("Proxy-Authorization")+r.Header.Get("Keep-Alive"))
		w.Header().Set("X-UA", strings.Join(r.Header["User-Agent"], ","))
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.RequestURI, b)
	})
	lg, logger := newLog()
	_, o := hosts(port)
	o.Logger = logger
	a := open(t, newGateway(t, o), allowing(t, "allowed.test:*", "169.254.169.254:*"))
	got := a.do(http.MethodPost, "http://"+at("allowed.test", port)+"/a%2fb/secretpath?q=;1&x=%20", strings.NewReader("body"), "Proxy-Authorization", "Basic x", "User-Agent", "curl/8")
	if want := fmt.Sprintf("POST allowed.test:%d /a%%2fb/secretpath?q=;1&x=%%20 body", port); got.Status != 200 || got.Body != want {
		t.Errorf("got %+v, want %q", got, want)
	}
	if got.Header.Get("X-Connection") != "" || got.Kind != "" || got.Header.Get("X-Ua") != "curl/8" {
		t.Errorf("headers %v", got.Header)
	}
	red := a.do(http.MethodGet, "http://"+at("allowed.test", port)+"/redirect", nil)
	if red.Status != http.StatusFound {
		t.Fatalf("%+v", red)
	}
	if got := a.do(http.MethodGet, red.Header.Get("Location"), nil); got.Kind != "denied" || got.Code != codeAddress {
		t.Errorf("the redirect's host: %+v", got)
	}
	if got := a.do(http.MethodGet, "http://other.test/", nil); got.Status != 403 || got.Code != codeHost {
		t.Errorf("%+v", got)
	}
	until(t, "logged", func() bool { return strings.Count(lg.String(), `"msg":"egress"`) == 4 })
	if strings.Contains(lg.String(), "secretpath") {
		t.Error("a path is in the log")
	}
}

func TestANameThatChangesBetweenLookUpAndDialIsNotDialled(t *testing.T) {
	port := listenEcho(t)
	// The name answers with a public address first and with loopback later: the
	// first answer alone counts, and what is dialled is judged again.
	z := &zone{answer: func(_ string, n int) ([]netip.Addr, error) {
		if n == 1 {
			return addrs("192.0.2.1", "127.0.0.1", "::1", "::ffff:169.254.169.254", "64:ff9b::a00:1"), nil
		}
		return addrs("127.0.0.1"), nil
	}}
	a := open(t, newGateway(t, Options{Resolver: z}), allowing(t, "rebind.test:*"))
	for range 3 {
		if got := a.refused(at("rebind.test", port)); got.Code != codeAddress {
			t.Errorf("%+v", got)
		}
	}
	g := newGateway(t, Options{Resolver: z})
	rt := &route{to: target{name: "rebind.test", port: port}, addrs: addrs("127.0.0.1")}
	if c, err := g.dialDirect(t.Context(), rt); err == nil {
		c.Close()
		t.Error("the address was dialled though the guard refuses it")
	} else if asRefusal(err, rt.to).Code != codeAddress {
		t.Errorf("%v", err)
	}
}

func TestWhateverIsUnclearIsRefused(t *testing.T) {
	port := listenEcho(t)
	_, o := hosts(port)
	broken := &zone{answer: func(string, int) ([]netip.Addr, error) { return nil, errors.New("server failure") }}
	empty := &zone{answer: func(string, int) ([]netip.Addr, error) { return nil, nil }}
	for name, c := range map[string]struct {
		client   func() Policy
		resolver Resolver
		code     string
	}{
		"no policy":            {nil, o.Resolver, codePolicy},
		"a policy that fails":  {func() Policy { panic("store is closed") }, o.Resolver, codePolicy},
		"an unknown mode":      {func() Policy { return Policy{Mode: 17, Allow: rules(t, "allowed.test:*"), Packages: true} }, o.Resolver, codePolicy},
		"a negative mode":      {func() Policy { return Policy{Mode: -1} }, o.Resolver, codePolicy},
		"the zero policy":      {func() Policy { return Policy{} }, o.Resolver, codeOff},
		"a list of nothing":    {func() Policy { return Policy{Mode: List} }, o.Resolver, codeHost},
		"the zero rule":        {func() Policy { return Policy{Mode: List, Allow: make([]Rule, 3)} }, o.Resolver, codeHost},
		"a broken resolver":    {func() Policy { return Policy{Mode: Open} }, broken, codeLookup},
		"a resolver's nothing": {func() Policy { return Policy{Mode: Open} }, empty, codeName},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t, Options{Resolver: c.resolver, AllowPrivate: o.AllowPrivate})
			a := open(t, g, Client{Sandbox: "s", Policy: c.client})
			if got := a.refused(at("allowed.test", port)); got.Code != c.code {
				t.Errorf("%+v, want %s", got, c.code)
			}
			if got := a.do(http.MethodGet, "http://"+at("allowed.test", port)+"/", nil); got.Code != c.code {
				t.Errorf("plain: %+v, want %s", got, c.code)
			}
			if c.code == codePolicy {
				if got := a.do(http.MethodGet, "http://"+MirrorHost+"/simple/six/", nil); got.Status < 400 {
					t.Errorf("mirror: %+v", got)
				}
			}
		})
	}
}

func TestTheDoorEndsWithItsContextAndCutsWhatRuns(t *testing.T) {
	port := listenEcho(t)
	_, o := hosts(port)
	g := newGateway(t, o)
	near, far := sockets(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, far, allowing(t, "allowed.test:*")) }()
	a := &agent{tb: t}
	b := openClient(t, near)
	a.conn = b
	c := a.tunnel(at("allowed.test", port))
	c.Write([]byte("x"))
	io.ReadFull(c, make([]byte, 1))
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("Serve: %v", err)
		}
	case <-time.After(soon):
		t.Fatal("Serve does not end with its context")
	}
	if _, err := io.ReadAll(c); err == nil {
		t.Error("the program saw a clean end")
	}
}

func TestADoorThatIsClosedBeforeItOpensEnds(t *testing.T) {
	g := newGateway(t, Options{})
	for range 50 {
		near, far := net.Pipe()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		done := make(chan error, 1)
		go func() { done <- g.Serve(ctx, far, Client{Sandbox: "s"}) }()
		wantEnd(t, done)
		near.Close()
	}
}

func openClient(tb testing.TB, near net.Conn) *http.ClientConn {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	tr := &http.Transport{Protocols: &protocols, DialContext: func(context.Context, string, string) (net.Conn, error) { return near, nil }}
	cc, err := tr.NewClientConn(tb.Context(), "http", "door:80")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { cc.Close(); near.Close() })
	return cc
}
