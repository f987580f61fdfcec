package egress

import (
	"archive/zip"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Loopback is an address of loopback that programs do not take for their own:
// NO_PROXY has 127.0.0.1 only.
const Loopback = "127.0.0.2"

// Outside is what lies beyond the door: a package index and a server with and
// without TLS.
type Outside struct {
	Plain, TLS *httptest.Server
	CA         []byte // of TLS, PEM
	CAFile     string // has CA
	Wheels     map[string]Wheel
	Downloads  atomic.Int64
	Upgrades   atomic.Int64 // requests for another protocol
	Hellos     atomic.Int64 // requests for /hello
	Git        string       // folder of a repository, below /git; "": none

	tight bool // servers from now on let templates reach nothing of it

	mu   sync.Mutex
	seen []string
}

// Authorizations gives that of each request so far, with "plain " or "tls " in
// front.
func (o *Outside) Authorizations() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.seen)
}

// Wheel is a package of the index.
type Wheel struct {
	File string
	Data []byte
}

// NewOutside serves on an address of this machine; the certificate is for it
// and for more names.
func NewOutside(t testing.TB, address string, names ...string) *Outside {
	t.Helper()
	o := &Outside{Wheels: map[string]Wheel{
		"tinypure": NewWheel(t, "tinypure", "py3-none-any", map[string][]byte{"tinypure/__init__.py": []byte("answer = 42\n")}),
	}}
	o.Plain, o.TLS = o.listen(t, address), o.listen(t, address)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Company"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.ParseIP(address)}, DNSNames: names, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	o.TLS.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	o.Plain.Start()
	o.TLS.StartTLS()
	o.CA = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	o.CAFile = filepath.Join(t.TempDir(), "company.pem")
	if err := os.WriteFile(o.CAFile, o.CA, 0o600); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *Outside) listen(t testing.TB, address string) *httptest.Server {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: o, ReadHeaderTimeout: time.Minute}}
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP implements http.Handler.
func (o *Outside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	how := "plain "
	if r.TLS != nil {
		how = "tls "
	}
	o.mu.Lock()
	o.seen = append(o.seen, how+r.Header.Get("Authorization"))
	o.mu.Unlock()
	if r.Header.Get("Upgrade") != "" {
		o.Upgrades.Add(1)
	}
	kind, rest, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	switch kind {
	case "simple":
		if wh, ok := o.Wheels[rest]; ok {
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprintf(w, "<!DOCTYPE html><html><body><a href=\"/files/%s/%s#sha256=%x\">%s</a></body></html>", rest, wh.File, sha256.Sum256(wh.Data), wh.File)
			return
		}
	case "files":
		name, _, _ := strings.Cut(rest, "/")
		if wh, ok := o.Wheels[name]; ok {
			o.Downloads.Add(1)
			_, _ = w.Write(wh.Data)
			return
		}
	case "git":
		if o.Git != "" {
			http.StripPrefix("/git/", http.FileServer(http.Dir(o.Git))).ServeHTTP(w, r)
			return
		}
	case "hello":
		o.Hellos.Add(1)
		_, _ = io.WriteString(w, "hello")
		return
	case "upgrade":
		_, _ = io.WriteString(w, "no upgrade")
		return
	case "pretend": // to be the proxy
		w.Header().Set("Caesarion-Egress", "off")
		w.Header().Set("Caesarion-Egress-Code", "no-network")
		return
	case "echo":
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		_, _ = io.WriteString(w, r.Header.Get("Authorization"))
		return
	case "trailer":
		w.Header().Set("Trailer", "X-Last")
		_, _ = io.WriteString(w, "text")
		w.Header().Set("X-Last", r.Header.Get("Authorization"))
		return
	case "lead": // away, with what came
		w.Header().Set("Location", "http://"+rest+"/?"+r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusFound)
		return
	case "whoami": // the value itself would be masked on its way back
		fmt.Fprintf(w, "%x", sha256.Sum256([]byte(r.Header.Get("Authorization"))))
		return
	case "inward": // to where clouds keep credentials
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusFound)
		return
	case "random": // the same each time
		n, _ := strconv.ParseInt(rest, 10, 64)
		w.Header().Set("Content-Length", rest)
		_, _ = io.CopyN(w, Random(), n)
		return
	case "zeros":
		n, _ := strconv.ParseInt(rest, 10, 64)
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		for block := make([]byte, 1<<20); n > 0; n -= int64(len(block)) {
			if _, err := w.Write(block[:min(n, int64(len(block)))]); err != nil {
				return
			}
		}
		return
	}
	http.NotFound(w, r)
}

// Random gives bytes without end that are the same each time.
func Random() io.Reader { return mathrand.NewChaCha8([32]byte{}) }

// NewWheel makes a wheel of files.
func NewWheel(t testing.TB, name, tag string, files map[string][]byte) Wheel {
	t.Helper()
	info := name + "-1.0.dist-info/"
	all := maps.Clone(files)
	all[info+"METADATA"] = fmt.Appendf(nil, "Metadata-Version: 2.1\nName: %s\nVersion: 1.0\n", name)
	all[info+"WHEEL"] = fmt.Appendf(nil, "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: %t\nTag: %s\n", strings.HasSuffix(tag, "any"), tag)
	var record strings.Builder
	for _, path := range slices.Sorted(maps.Keys(all)) {
		sum := sha256.Sum256(all[path])
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", path, base64.RawURLEncoding.EncodeToString(sum[:]), len(all[path]))
	}
	all[info+"RECORD"] = []byte(record.String() + info + "RECORD,,\n")
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		w, err := z.Create(path)
		if err == nil {
			_, err = w.Write(all[path])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return Wheel{name + "-1.0-" + tag + ".whl", out.Bytes()}
}
