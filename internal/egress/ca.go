package egress

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

const (
	// authorityFile holds key and certificate in one file, so that a server that
	// dies while it writes leaves both or neither.
	authorityFile = "egress-ca.pem"
	authorityFor  = 10 * 365 * 24 * time.Hour
	leafFor       = 7 * 24 * time.Hour
	leafRenew     = 24 * time.Hour
	// clockSlack is for sandboxes whose clocks are behind.
	clockSlack = 24 * time.Hour
	maxLeaves  = 512
)

// authority is the installation's own: it signs for hosts that have a secret,
// and only sandboxes of this installation trust it.
type authority struct {
	pem  []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	leaf *ecdsa.PrivateKey // of every leaf of this process

	mu     sync.Mutex // guards leaves
	leaves map[string]*tls.Certificate
}

// newAuthority derives the authority from a secret, else loads that of dir or
// makes it; without either it keeps one in memory.
func newAuthority(secret []byte, dir string) (*authority, error) {
	leaf, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	var text []byte
	switch {
	case len(secret) > 0:
		text, err = derivedAuthority(secret)
	case dir == "":
		text, err = makeAuthority()
	default:
		text, err = keptAuthority(dir)
	}
	if err != nil {
		return nil, err
	}
	a := &authority{leaf: leaf, leaves: make(map[string]*tls.Certificate)}
	if err := a.parse(text); err != nil {
		return nil, errdefs.New(errdefs.ErrInvalid, "egress-ca-invalid", "the installation's authority in %s can't be used", filepath.Join(dir, authorityFile)).
			WithHint("put the right file back, or remove it to have a new one made; running sandboxes then no longer trust hosts with secrets").WithCause(err)
	}
	return a, nil
}

func keptAuthority(dir string) ([]byte, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("egress: folder of the authority: %w", err)
	}
	file := filepath.Join(dir, authorityFile)
	text, err := os.ReadFile(file)
	if err == nil || !errors.Is(err, os.ErrNotExist) {
		return text, err
	}
	if text, err = makeAuthority(); err != nil {
		return nil, err
	}
	tmp, err := os.CreateTemp(dir, ".egress-ca-*") // made with mode 0600
	if err != nil {
		return nil, fmt.Errorf("egress: write the authority: %w", err)
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return nil, fmt.Errorf("egress: write the authority: %w", err)
	}
	// A link fails if another server was first; then both use what is there.
	if err := os.Link(tmp.Name(), file); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("egress: write the authority: %w", err)
	}
	return os.ReadFile(file)
}

func makeAuthority() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := authorityTemplate(serial, time.Now().Add(-clockSlack), time.Now().Add(authorityFor))
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return encodeAuthority(der, key)
}

func authorityTemplate(serial *big.Int, from, until time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Caesarion egress of this installation", Organization: []string{"Caesarion"}},
		NotBefore:             from,
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true, IsCA: true, MaxPathLenZero: true,
	}
}

func encodeAuthority(der []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})...), nil
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
}

func (a *authority) parse(text []byte) error {
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return errors.New("not an ECDSA authority")
	}
	if time.Now().After(pair.Leaf.NotAfter) {
		return errors.New("expired")
	}
	a.cert, a.key = pair.Leaf, key
	a.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: bytes.Clone(pair.Leaf.Raw)})
	return nil
}

// mac is a keyed hash that all servers of the installation make alike.
func (a *authority) mac(purpose string, b []byte) ([]byte, error) {
	secret, err := a.key.Bytes()
	if err != nil {
		return nil, err
	}
	k := hmac.New(sha256.New, secret)
	k.Write([]byte("caesarion egress " + purpose))
	h := hmac.New(sha256.New, k.Sum(nil))
	h.Write(b)
	return h.Sum(nil), nil
}

// config answers as host, and as no other.
func (a *authority) config(host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName != "" {
				if t, ok := parseHost(hello.ServerName); !ok || t.host() != host {
					return nil, errors.New("egress: the name asked for by TLS is not the tunnel's")
				}
			}
			return a.certificate(host)
		},
	}
}

func (a *authority) certificate(host string) (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	if c := a.leaves[host]; c != nil && now.Add(leafRenew).Before(c.Leaf.NotAfter) {
		return c, nil
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"Caesarion egress"}},
		NotBefore:    now.Add(-clockSlack),
		NotAfter:     now.Add(leafFor),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		tmpl.IPAddresses = []net.IP{ip.AsSlice()}
	} else {
		tmpl.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &a.leaf.PublicKey, a.key)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if len(a.leaves) >= maxLeaves {
		clear(a.leaves)
	}
	c := &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: a.leaf, Leaf: parsed}
	a.leaves[host] = c
	return c, nil
}
