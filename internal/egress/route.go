package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Resolver looks names up. *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// absolute looks up names as they are: the search domains of this machine would
// make an outside name an inner one.
type absolute struct{ *net.Resolver }

func (r absolute) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if strings.Contains(host, ".") {
		host += "."
	}
	return r.Resolver.LookupNetIP(ctx, network, host)
}

// maxAddrs bounds how many addresses of one name are tried.
const maxAddrs = 8

// route is a target with the way to it, judged.
type route struct {
	to      target
	addrs   []netip.Addr // those not refused; none if only the company proxy knows the name
	proxy   bool         // by the company proxy
	trusted bool         // the operator named the host in the configuration
}

type routeKey struct{}

// route looks the target up and judges its addresses. u may be nil: then no
// sandbox chose the name.
func (g *Gateway) route(ctx context.Context, u *usage, t target, gr grant, trusted bool) (*route, *Refusal) {
	rt := &route{to: t, trusted: trusted}
	found := []netip.Addr{t.addr}
	if !t.addr.IsValid() {
		var ref *Refusal
		if found, ref = g.lookup(ctx, u, t, gr.exact || trusted); ref != nil {
			// Behind a company proxy this machine often knows no outside names, or
			// nobody to ask for them. The proxy does, but only names that the
			// operator listed are left to it.
			if g.upstream != nil && (ref.Code == codeName || ref.Code == codeLookup) && (gr.listed || trusted) {
				rt.proxy = true
				return rt, nil
			}
			return nil, ref
		}
	}
	private := false
	for _, a := range found {
		ap := netip.AddrPortFrom(a.Unmap(), uint16(t.port))
		if g.judge(ap, trusted) != "" {
			continue
		}
		private = private || within(g.guard.allow, a.Unmap()) || trusted && g.guard.refuses(ap) != ""
		if len(rt.addrs) < maxAddrs {
			rt.addrs = append(rt.addrs, a.Unmap())
		}
	}
	if len(rt.addrs) == 0 {
		if t.addr.IsValid() {
			return nil, denied(codeAddress, "%s is an address that sandboxes may not reach, whatever their policy says", t.host())
		}
		return nil, denied(codeAddress, "%s leads to an address that sandboxes may not reach, whatever their policy says", t.host())
	}
	rt.proxy = g.upstream != nil && !private
	return rt, nil
}

// judge is the guard's word; a host that the operator named in the
// configuration may be on any network, but never metadata.
func (g *Gateway) judge(ap netip.AddrPort, trusted bool) string {
	why := g.guard.refuses(ap)
	if trusted && why != "metadata" && why != "unclear" {
		return ""
	}
	return why
}

// lookup asks for a name's addresses.
func (g *Gateway) lookup(ctx context.Context, u *usage, t target, exact bool) ([]netip.Addr, *Refusal) {
	if u != nil {
		if addrs, ok := u.known(t.name); ok {
			return addrs, nil
		}
		if !exact && !wait(ctx, u.lookups) {
			return nil, limited(codeLookups, "this sandbox looks up new names too fast")
		}
	}
	addrs, err := g.resolver.LookupNetIP(ctx, "ip", t.name)
	if err != nil {
		if e, ok := errors.AsType[*net.DNSError](err); ok && e.IsNotFound {
			return nil, unreachable(codeName, err, "there is no host %s", t.name)
		}
		return nil, unreachable(codeLookup, err, "the name %s can't be looked up now", t.name)
	}
	if len(addrs) == 0 {
		return nil, unreachable(codeName, nil, "there is no host %s", t.name)
	}
	if u != nil {
		u.learn(t.name, addrs)
	}
	return addrs, nil
}

// dial connects to the route's target; the address dialled is judged again.
func (g *Gateway) dial(ctx context.Context, rt *route, within time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if rt.proxy {
		return g.dialByProxy(ctx, rt.to)
	}
	return g.dialDirect(ctx, rt)
}

func (g *Gateway) dialDirect(ctx context.Context, rt *route) (net.Conn, error) {
	var errs []error
	for i, a := range rt.addrs {
		// An address that does not answer leaves time for the others.
		try, cancel := context.WithCancel(ctx)
		if end, ok := ctx.Deadline(); ok {
			cancel()
			try, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(len(rt.addrs)-i))
		}
		d := net.Dialer{KeepAlive: 30 * time.Second, ControlContext: func(_ context.Context, _, address string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(address)
			if err != nil || g.judge(ap, rt.trusted) != "" {
				return denied(codeAddress, "%s leads to an address that sandboxes may not reach, whatever their policy says", rt.to.host())
			}
			return nil
		}}
		c, err := d.DialContext(try, "tcp", netip.AddrPortFrom(a, uint16(rt.to.port)).String())
		cancel()
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	err := errors.Join(errs...)
	if r, ok := errors.AsType[*Refusal](err); ok {
		return nil, r
	}
	why := "does not answer"
	if errors.Is(err, syscall.ECONNREFUSED) {
		why = "refuses the connection"
	}
	return nil, unreachable(codeDial, err, "%s %s", rt.to, why)
}

// dialUpstream connects to the company proxy, which the operator chose.
func (g *Gateway) dialUpstream(ctx context.Context) (net.Conn, error) {
	c, err := (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext(ctx, "tcp", proxyAddr(g.upstream))
	if err != nil {
		return nil, unreachable(codeProxy, err, "the company's proxy can't be reached (ask the operator: egress.proxy)")
	}
	return c, nil
}

func proxyAddr(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// dialByProxy asks the company proxy for a tunnel.
func (g *Gateway) dialByProxy(ctx context.Context, t target) (_ net.Conn, err error) {
	c, err := g.dialUpstream(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { c.Close() }) //nolint:errcheck,gosec // only to end what waits
	defer func() {
		if !stop() && err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			c.Close() //nolint:errcheck,gosec // it is of no use
		}
	}()
	conn := c
	failed := func(err error) error {
		return unreachable(codeProxy, err, "the company's proxy gives no way to %s (ask the operator: egress.proxy)", t)
	}
	if g.upstream.Scheme == "https" {
		tc := tls.Client(c, &tls.Config{RootCAs: g.roots, ServerName: g.upstream.Hostname(), MinVersion: tls.VersionTLS12})
		if err := tc.HandshakeContext(ctx); err != nil {
			return nil, failed(err)
		}
		conn = tc
	}
	auth := ""
	if u := g.upstream.User; u != nil {
		pw, _ := u.Password()
		auth = "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+pw)) + "\r\n"
	}
	if _, err := fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", t, t, auth); err != nil {
		return nil, failed(err)
	}
	limit := &io.LimitedReader{R: conn, N: 64 << 10}
	br := bufio.NewReader(limit)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect}) //nolint:bodyclose // its body is the tunnel
	if err != nil {
		return nil, failed(err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, failed(errors.New("the proxy answers " + strconv.Itoa(resp.StatusCode)))
	}
	limit.N = 1 << 62
	return &bufferedConn{Conn: conn, r: br}, nil
}

// bufferedConn is a connection of which some bytes were read already.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite passes the end of one direction on.
func (c *bufferedConn) CloseWrite() error {
	if h, ok := c.Conn.(halfCloser); ok {
		return h.CloseWrite()
	}
	return nil
}

type halfCloser interface{ CloseWrite() error }

// routed is a transport that judges each request's host and dials what was
// judged. Connections it keeps are those of one door, or of the mirror.
type routed struct {
	http    *http.Transport
	dialFor time.Duration // for the look-up, and again for connecting
	route   func(ctx context.Context, t target) (*route, *Refusal)
}

func (g *Gateway) newRouted(dialFor time.Duration, by func(context.Context, target) (*route, *Refusal)) *routed {
	return &routed{route: by, dialFor: dialFor, http: &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			rt, ok := r.Context().Value(routeKey{}).(*route)
			if !ok {
				return nil, denied(codePolicy, "a request has no route")
			}
			if rt.proxy {
				return g.upstream, nil
			}
			return nil, nil
		},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			rt, ok := ctx.Value(routeKey{}).(*route)
			if !ok {
				return nil, denied(codePolicy, "a request has no route")
			}
			ctx, cancel := context.WithTimeout(ctx, dialFor)
			defer cancel()
			if rt.proxy {
				return g.dialUpstream(ctx)
			}
			return g.dialDirect(ctx, rt)
		},
		TLSClientConfig:        &tls.Config{RootCAs: g.roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    dialFor,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConns:           16,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true,
		ExpectContinueTimeout:  time.Second,
	}}
}

// RoundTrip implements http.RoundTripper.
func (r *routed) RoundTrip(req *http.Request) (*http.Response, error) {
	port := 80
	if req.URL.Scheme == "https" {
		port = 443
	}
	t, ok := parseTarget(req.URL.Host, port)
	if !ok {
		return nil, denied(codeBadHost, "%s is not a host", strconv.Quote(printable(req.URL.Host, 80)))
	}
	ctx, cancel := context.WithTimeout(req.Context(), r.dialFor)
	defer cancel()
	rt, ref := r.route(ctx, t)
	if ref != nil {
		return nil, ref
	}
	return r.http.RoundTrip(req.WithContext(context.WithValue(req.Context(), routeKey{}, rt)))
}
