package egress

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/servertest"
)

// company is a proxy that opens all TLS, with an authority of its own, and
// wants a password. It knows names that nobody else does.
type company struct {
	*httptest.Server
	to   string // where all names lead
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
	auth string

	mu    sync.Mutex
	asked []string // method, host and path of each request
}

func newCompany(t *testing.T, to string) *company {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &company{to: to, key: key, auth: "Basic Y29tcGFueTpwYXNz"}
	c.ca = &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "Company inspection"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte("company"), // Python wants to find it in what it signs
	}
	c.ca.Raw = c.sign(t, c.ca)
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

func (c *company) sign(t *testing.T, cert *x509.Certificate) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, cert, c.ca, &c.key.PublicKey, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func (c *company) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Proxy-Authorization") != c.auth {
		http.Error(w, "who are you?", http.StatusProxyAuthRequired)
		return
	}
	if r.Method != http.MethodConnect {
		c.pass(w, r, "http://"+r.URL.Host)
		return
	}
	host, _, _ := net.SplitHostPort(r.Host)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{host}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, c.ca, &c.key.PublicKey, c.key)
	if err != nil {
		return
	}
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	inner := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: c.key}}, MinVersion: tls.VersionTLS12})
	br := bufio.NewReader(inner)
	for {
		req, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		rec := httptest.NewRecorder()
		c.pass(rec, req, "https://"+host)
		resp := rec.Result()
		resp.ContentLength = int64(rec.Body.Len())
		if resp.Write(inner) != nil {
			return
		}
	}
}

// pass asks the one server there is.
func (c *company) pass(w http.ResponseWriter, r *http.Request, base string) {
	c.mu.Lock()
	c.asked = append(c.asked, r.Method+" "+base+r.URL.Path)
	c.mu.Unlock()
	out := r.Clone(r.Context())
	out.RequestURI = ""
	out.URL = &url.URL{Scheme: "http", Host: c.to, Path: r.URL.Path, RawQuery: r.URL.RawQuery}
	resp, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func (c *company) saw(what string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Contains(c.asked, what)
}

// An installation behind a proxy that opens TLS names it, its authority and the
// index once; then everything works in sandboxes, secrets included.
func TestBehindAnInspectingProxy(t *testing.T) {
	o := NewOutside(t, Loopback)
	c := newCompany(t, o.Plain.Listener.Addr().String())
	data := servertest.DataDir(t)
	write := func(name, text string) string {
		file := filepath.Join(data, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	config := write("config.yaml", fmt.Sprintf(`
network: packages
egress:
  proxy_file: %s
  package_index: https://index.company.test/simple
  ca_certs: [%s]
templates:
  work: {network: {allow: ["www.company.test"], packages: true, secrets: [{name: KEY, host: "api.company.test:443", value_file: %s}]}, pool_size: 0}
`, write("proxy", strings.Replace(c.URL, "http://", "http://company:pass@", 1)),
		write("company.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.ca.Raw}))), write("secret", planted)))
	s := servertest.Start(t, data, "--config", config)
	sb := Create(t, s, v1.CreateSandbox{Template: "work"})
	sb.Want("pip", "%pip install tinypure", "Successfully installed tinypure-1.0")
	sb.Want("what it installed", "import tinypure; print(tinypure.answer)", "42")
	for tool, code := range map[string]string{
		"urllib":   Fetch("https://www.company.test/hello"),
		"requests": `import requests; print(requests.get("https://www.company.test/hello", timeout=20).content)`,
		"httpx":    `import httpx; print(httpx.get("https://www.company.test/hello", timeout=20).content)`,
		"curl":     `!echo "b'$(curl -sS https://www.company.test/hello)'"`,
		"plain":    Fetch("http://www.company.test/hello"),
	} {
		sb.Want(tool, code, "b'hello'")
	}
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("Bearer "+planted)))
	sb.Want("a secret", `import requests
print(requests.get("https://api.company.test/whoami", headers={"Authorization": "Bearer {{secret.KEY}}"}, timeout=20).text)`, sum)
	if got := sb.Run(`print(requests.get("https://api.company.test/echo", headers={"Authorization": "Bearer {{secret.KEY}}"}, timeout=20).text)`); strings.Contains(got, planted) || !strings.Contains(got, "{{secret.KEY}}") {
		t.Errorf("an echo: %q", got)
	}
	sb.Want("another name", Fetch("https://elsewhere.company.test/hello"), "elsewhere.company.test is not among the hosts")
	for _, what := range []string{"GET https://index.company.test/simple/tinypure/", "GET https://www.company.test/hello", "GET http://www.company.test/hello", "GET https://api.company.test/whoami"} {
		if !c.saw(what) {
			t.Errorf("the proxy never saw %q: %q", what, c.asked)
		}
	}
}
