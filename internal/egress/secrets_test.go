package egress

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

const (
	planted = "sk-planted/SECRET+value&0123456789"
	holder  = "{{secret.api}}"
)

// api is a host that has a secret: it notes what it got and shows it again.
type api struct {
	*httptest.Server
	mu   sync.Mutex
	got  []*http.Request
	body []string
}

func newAPI(tb testing.TB, secure bool) *api {
	a := &api{}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		a.mu.Lock()
		a.got, a.body = append(a.got, r), append(a.body, string(b))
		a.mu.Unlock()
		switch r.URL.Path {
		case "/echo":
			w.Header().Set("X-Echo", r.Header.Get("X-Key"))
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"key":%q,"auth":%q,"q":%q}`, r.Header.Get("X-Key"), r.Header.Get("Authorization"), r.URL.RawQuery)
		case "/binary":
			w.Header().Set("Content-Type", "application/octet-stream")
			w.Header().Set("Content-Length", fmt.Sprint(len(planted)+4))
			fmt.Fprintf(w, "<<%s>>", r.Header.Get("X-Key"))
		case "/gzip":
			w.Header().Set("Content-Type", "text/plain")
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			fmt.Fprint(z, "zipped "+r.Header.Get("X-Key"))
			z.Close()
		case "/brotli":
			w.Header().Set("Content-Encoding", "br")
			fmt.Fprint(w, r.Header.Get("X-Key"))
		case "/edges":
			w.Header().Set("Link", r.Header.Get("X-Key"))
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
			w.Header().Set("Trailer", "X-Last")
			fmt.Fprint(w, "between")
			w.Header().Set("X-Last", r.Header.Get("X-Key"))
			w.Header().Set(http.TrailerPrefix+"X-Very-Last", r.Header.Get("X-Key"))
		case "/redirect":
			http.Redirect(w, r, "https://other.test/?"+r.Header.Get("X-Key"), http.StatusFound)
		case "/stream":
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: {{one\n\n")
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		default:
			fmt.Fprint(w, "ok ", r.Host)
		}
	})
	if secure {
		a.Server = httptest.NewTLSServer(h)
	} else {
		a.Server = httptest.NewServer(h)
	}
	tb.Cleanup(a.Server.Close)
	return a
}

func (a *api) last() (*http.Request, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.got) == 0 {
		return &http.Request{}, ""
	}
	return a.got[len(a.got)-1], a.body[len(a.body)-1]
}

// keyed is a sandbox with a secret for example.com.
func keyed(tb testing.TB, in Place) Client {
	p := Policy{Mode: List, Allow: rules(tb, "example.com:*", "other.test:*"), Secrets: []Secret{{
		Name: "api", Host: rules(tb, "example.com:*")[0], In: in, Value: func() (string, error) { return planted, nil }, PlainHTTP: true,
	}}}
	return Client{Sandbox: "sbx_s", Template: "python", Policy: func() Policy { return p }}
}

func secretOptions(a *api) Options {
	o := Options{
		Resolver:     &zone{hosts: map[string][]netip.Addr{"example.com": addrs("127.0.0.1"), "other.test": addrs("127.0.0.1")}},
		AllowPrivate: []netip.Prefix{loopback},
	}
	if c := a.Certificate(); c != nil {
		o.CACerts = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return o
}

// trusting speaks TLS in a tunnel as a program that trusts the installation.
func (a *agent) trusting(g *Gateway, hostport, name string) (*tls.Conn, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(g.CA())
	c := tls.Client(a.tunnel(hostport), &tls.Config{RootCAs: roots, ServerName: name, NextProtos: []string{"h2", "http/1.1"}})
	return c, c.Handshake()
}

func exchange(tb testing.TB, c io.ReadWriter, br *bufio.Reader, r *http.Request) *answered {
	tb.Helper()
	if err := r.Write(c); err != nil {
		tb.Fatal(err)
	}
	resp, err := http.ReadResponse(br, r)
	if err != nil {
		tb.Fatal(err)
	}
	return readAnswer(tb, resp)
}

func TestTheValueGoesToItsHostAndThePlaceholderComesBack(t *testing.T) {
	for _, secure := range []bool{true, false} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			host := newAPI(t, secure)
			port := portOf(t, host.URL)
			lg, logger := newLog()
			o := secretOptions(host)
			o.Logger = logger
			g := newGateway(t, o)
			a := open(t, g, keyed(t, 0))
			var do func(method, path string, body io.Reader, header ...string) *answered
			if secure {
				c, err := a.trusting(g, at("example.com", port), "example.com")
				if err != nil {
					t.Fatal(err)
				}
				if p := c.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
					t.Errorf("protocol %q", p)
				}
				br := bufio.NewReader(c)
				do = func(method, path string, body io.Reader, header ...string) *answered {
					r, _ := http.NewRequest(method, "http://"+at("example.com", port)+path, body)
					for i := 0; i < len(header); i += 2 {
						r.Header.Set(header[i], header[i+1])
					}
					return exchange(t, c, br, r)
				}
			} else {
				do = func(method, path string, body io.Reader, header ...string) *answered {
					return a.do(method, "http://"+at("example.com", port)+path, body, header...)
				}
			}
			basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+holder))
			got := do(http.MethodGet, "/echo?a=b", nil, "X-Key", "Bearer "+holder, "Authorization", basic)
			r, _ := host.last()
			if _, pw, _ := r.BasicAuth(); r.Header.Get("X-Key") != "Bearer "+planted || pw != planted {
				t.Errorf("the host got %v", r.Header)
			}
			if strings.Contains(got.Body, planted) || got.Header.Get("X-Echo") != "Bearer "+holder {
				t.Errorf("%+v", got)
			}
			mustContain(t, got.Body, "Bearer "+holder, basic, "a=b")

			// Not where it does not belong.
			do(http.MethodPost, "/?k="+holder, strings.NewReader("body "+holder))
			if r, b := host.last(); strings.Contains(r.RequestURI+b, "planted") {
				t.Errorf("the value is in %s or %s", r.RequestURI, b)
			}
			// Chunked, both ways.
			do(http.MethodPost, "/", iotest.OneByteReader(strings.NewReader(strings.Repeat("x", 1000))), "X-Key", holder)
			if r, b := host.last(); len(b) != 1000 || r.Header.Get("X-Key") != planted {
				t.Errorf("%d bytes, %v", len(b), r.Header)
			}
			if got := do(http.MethodGet, "/binary", nil, "X-Key", holder); got.Body != "<<"+strings.Repeat("*", len(planted))+">>" {
				t.Errorf("%+v", got)
			}
			if got := do(http.MethodGet, "/gzip", nil, "X-Key", holder, "Accept-Encoding", "gzip"); got.Body != "zipped "+holder {
				t.Errorf("%+v", got)
			}
			if got := do(http.MethodGet, "/redirect", nil, "X-Key", holder); got.Status != http.StatusFound || strings.Contains(fmt.Sprint(got), "planted") {
				t.Errorf("%+v", got)
			}
			if got := do(http.MethodGet, "/edges", nil, "X-Key", holder); got.Body != "between" || strings.Contains(fmt.Sprint(got), "planted") || got.Trailer.Get("X-Last") != holder {
				t.Errorf("%+v", got)
			}
			if got := do(http.MethodGet, "/brotli", nil, "X-Key", holder); got.Code != codeEcho || strings.Contains(got.Body, planted) {
				t.Errorf("%+v", got)
			}
			if strings.Contains(lg.String(), "planted") {
				t.Error("the value is in the log")
			}
		})
	}
}

// A program that is led to http:// does not send the value in the clear, on
// whatever port, and is told why.
func TestPlainHTTPGetsNoValueUnlessTheSecretSaysSo(t *testing.T) {
	host := newAPI(t, false)
	port := portOf(t, host.URL)
	c := keyed(t, InHeaders|InQuery|InBody)
	p := c.Policy()
	p.Secrets[0].PlainHTTP = false
	c.Policy = func() Policy { return p }
	a := open(t, newGateway(t, secretOptions(host)), c)
	base := "http://" + at("example.com", port)
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("user:"+holder))
	for name, got := range map[string]*answered{
		"a header":          a.do(http.MethodGet, base+"/echo", nil, "X-Key", holder),
		"basic credentials": a.do(http.MethodGet, base+"/echo", nil, "Authorization", basic),
		"the query":         a.do(http.MethodGet, base+"/echo?k="+holder, nil),
	} {
		if got.Code != codeSecretPlain {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if r, _ := host.last(); r.URL != nil {
		t.Errorf("the host got %s", r.RequestURI)
	}
	if got := a.do(http.MethodPost, base+"/", strings.NewReader(holder)); got.Status != http.StatusOK {
		t.Errorf("without the placeholder where it counts: %+v", got)
	}
	if _, b := host.last(); b != holder {
		t.Errorf("the body became %q", b)
	}
}

func TestQueryAndBodyGetTheValueIfTheSecretSaysSo(t *testing.T) {
	host := newAPI(t, false)
	port := portOf(t, host.URL)
	a := open(t, newGateway(t, secretOptions(host)), keyed(t, InQuery|InBody))
	for _, q := range []string{holder, "%7B%7Bsecret.api%7D%7D"} {
		a.do(http.MethodPost, "http://"+at("example.com", port)+"/?k="+q, strings.NewReader("client_secret="+holder+"&x="+q), "X-Key", holder)
		r, b := host.last()
		if r.URL.Query().Get("k") != planted || strings.Contains(b, "secret.api") || !strings.Contains(b, "client_secret="+planted) {
			t.Errorf("%s %s", r.RequestURI, b)
		}
		if r.Header.Get("X-Key") != holder {
			t.Errorf("the header has it too: %v", r.Header)
		}
	}
	if got := a.do(http.MethodGet, "http://"+at("example.com", port)+"/echo?k="+holder, nil); strings.Contains(got.Body, "planted") {
		t.Errorf("%+v", got)
	}
}

func TestOtherHostsAndOtherNamesNeverGetTheValue(t *testing.T) {
	host, other := newAPI(t, true), newAPI(t, true)
	g := newGateway(t, secretOptions(host))
	a := open(t, g, keyed(t, 0))
	port := portOf(t, host.URL)

	// In a tunnel to the host, requests for another are refused.
	c, err := a.trusting(g, at("example.com", port), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(c)
	for _, h := range []string{"other.test", at("other.test", port), at("example.com", port+1), "example.com.evil.test"} {
		r, _ := http.NewRequest(http.MethodGet, "http://"+at("example.com", port)+"/", nil)
		r.Host = h
		r.Header.Set("X-Key", holder)
		if got := exchange(t, c, br, r); got.Code != codeMisdirected {
			t.Errorf("%s: %+v", h, got)
		}
	}
	// TLS for another name is not answered.
	if c, err := a.trusting(g, at("example.com", port), "other.test"); err == nil {
		c.Close()
		t.Error("a certificate for another name")
	}
	// A host without a secret is not opened: the program sees its own certificate.
	tc := tls.Client(a.tunnel(at("other.test", portOf(t, other.URL))), &tls.Config{InsecureSkipVerify: true})
	if err := tc.Handshake(); err != nil {
		t.Fatal(err)
	}
	if !tc.ConnectionState().PeerCertificates[0].Equal(other.Certificate()) {
		t.Error("the TLS of a host without a secret was opened")
	}
	r, _ := http.NewRequest(http.MethodGet, "http://other.test/", nil)
	r.Header.Set("X-Key", holder)
	exchange(t, tc, bufio.NewReader(tc), r)
	if r, _ := other.last(); r.Header.Get("X-Key") != holder {
		t.Errorf("another host got %v", r.Header)
	}
	// Something that is not TLS ends.
	raw := a.tunnel(at("example.com", port))
	fmt.Fprintf(raw, "GET / HTTP/1.1\r\nHost: example.com\r\nX-Key: %s\r\n\r\n", holder)
	b, _ := io.ReadAll(raw)
	if strings.Contains(string(b), "planted") {
		t.Errorf("%s", b)
	}
	if r, _ := host.last(); r.Header != nil {
		t.Errorf("the host was asked: %v", r.Header)
	}
}

func TestAnUpstreamWithABadCertificateIsRefused(t *testing.T) {
	host := newAPI(t, true)
	o := secretOptions(host)
	o.CACerts = nil // nobody signed it
	g := newGateway(t, o)
	a := open(t, g, keyed(t, 0))
	port := portOf(t, host.URL)
	c, err := a.trusting(g, at("example.com", port), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	r, _ := http.NewRequest(http.MethodGet, "http://"+at("example.com", port)+"/", nil)
	r.Header.Set("X-Key", holder)
	if got := exchange(t, c, bufio.NewReader(c), r); got.Code != codeTLS || got.Status != 502 {
		t.Errorf("%+v", got)
	}
	if r, _ := host.last(); r.Header != nil {
		t.Error("the host got a request")
	}
}

func TestAValueThatCannotBeReadIsRefusedWhereItIsNeeded(t *testing.T) {
	host := newAPI(t, false)
	g := newGateway(t, secretOptions(host))
	u := "http://" + at("example.com", portOf(t, host.URL)) + "/"
	for name, value := range map[string]func() (string, error){
		"none":         nil,
		"an error":     func() (string, error) { return "", errors.New("vault is sealed") },
		"empty":        func() (string, error) { return "", nil },
		"too short":    func() (string, error) { return "abc", nil },
		"a line break": func() (string, error) { return "abc\r\nX-Evil: 1", nil },
	} {
		t.Run(name, func(t *testing.T) {
			p := Policy{Mode: List, Allow: rules(t, "example.com:*"), Secrets: []Secret{{Name: "api", Host: rules(t, "example.com:*")[0], PlainHTTP: true, Value: value}}}
			a := open(t, g, Client{Policy: func() Policy { return p }})
			if got := a.do(http.MethodGet, u, nil, "X-Key", holder); got.Code != codeSecret {
				t.Errorf("%+v", got)
			}
			if got := a.do(http.MethodGet, u, nil, "Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("u:"+holder))); got.Code != codeSecret {
				t.Errorf("%+v", got)
			}
			if got := a.do(http.MethodGet, u, nil); got.Status != 200 {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestEventsOfAHostWithASecretAreNotLate(t *testing.T) {
	host := newAPI(t, false)
	a := open(t, newGateway(t, secretOptions(host)), keyed(t, 0))
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at("example.com", portOf(t, host.URL))+"/stream", nil)
	resp, err := a.conn.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	line, err := bufio.NewReader(resp.Body).ReadString('\n')
	if err != nil || line != "data: {{one\n" {
		t.Errorf("%q %v", line, err)
	}
}

func TestWhatRunsInAnOpenedTunnelEndsWithIt(t *testing.T) {
	host := newAPI(t, true)
	g := newGateway(t, secretOptions(host))
	near, far := sockets(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.Serve(ctx, far, keyed(t, 0)) }()
	a := &agent{tb: t, conn: openClient(t, near)}
	hostport := at("example.com", portOf(t, host.URL))
	for range 3 {
		c, err := a.trusting(g, hostport, "example.com")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET /stream HTTP/1.1\r\nHost: %s\r\nX-Key: %s\r\n\r\n", hostport, holder)
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	wantEnd(t, done)
}

func TestMaskingFindsValuesWhereverTheyAreCut(t *testing.T) {
	pairs := []pair{{[]byte("abcab"), []byte("X")}, {[]byte("abc"), []byte("YY")}, {[]byte("bca"), []byte("")}}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		in := make([]byte, rnd.IntN(40))
		for i := range in {
			in[i] = "abcd"[rnd.IntN(4)]
		}
		whole, _ := replaceIn(nil, in, pairs, true)
		got, err := io.ReadAll(newReplacer(io.NopCloser(&pieces{in, rnd}), pairs))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(got, []byte("abc")) && !bytes.Contains(whole, []byte("abc")) {
			t.Fatalf("%s cut gives %s, whole %s", in, got, whole)
		}
	}
	r := newReplacer(io.NopCloser(iotest.OneByteReader(strings.NewReader("x"+planted+"y"))), []pair{{[]byte(planted), []byte(holder)}})
	if got, err := io.ReadAll(r); err != nil || string(got) != "x"+holder+"y" {
		t.Errorf("%s %v", got, err)
	}
}

// pieces is a reader that gives a few bytes at a time.
type pieces struct {
	b   []byte
	rnd *rand.Rand
}

func (p *pieces) Read(to []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	n := copy(to, p.b[:min(len(p.b), 1+p.rnd.IntN(4))])
	p.b = p.b[n:]
	return n, nil
}

func TestTheAuthorityIsMadeOnceAndKeptPrivately(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "egress")
	var wg sync.WaitGroup
	cas := make([]string, 8)
	for i := range cas {
		wg.Go(func() {
			g, err := New(Options{Dir: dir})
			if err != nil {
				t.Error(err)
				return
			}
			defer g.Close()
			cas[i] = string(g.CA())
		})
	}
	wg.Wait()
	for _, ca := range cas {
		if ca != cas[0] || ca == "" || strings.Contains(ca, "PRIVATE") {
			t.Error("servers of one installation have several authorities, or show the key")
		}
	}
	info, err := os.Stat(filepath.Join(dir, authorityFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("%d files", len(entries))
	}
	if err := os.WriteFile(filepath.Join(dir, authorityFile), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "can't be used") {
		t.Errorf("%v", err)
	}
}

func TestLeavesAreForOneHostAndRenewed(t *testing.T) {
	a, err := newAuthority(nil, "")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.pem)
	for _, h := range []string{"example.com", "10.0.0.7", "2001:db8::1"} {
		c, err := a.certificate(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: h}); err != nil {
			t.Errorf("%s: %v", h, err)
		}
		if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "evil.test"}); err == nil {
			t.Errorf("%s: also for another", h)
		}
		again, _ := a.certificate(h)
		if again != c {
			t.Error("not cached")
		}
		c.Leaf.NotAfter = time.Now().Add(time.Hour)
		if renewed, _ := a.certificate(h); renewed == c {
			t.Error("not renewed")
		}
	}
}
