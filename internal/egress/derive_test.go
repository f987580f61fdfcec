package egress

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"
)

// Servers that have nothing in common but the installation's secret have the
// same authority, and sandboxes that trust one's trust the other's leaves.
func TestTheAuthorityOfASecret(t *testing.T) {
	open := func(secret, dir string) *Gateway {
		g, err := New(Options{Secret: []byte(secret), Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = g.Close() })
		return g
	}
	secret := strings.Repeat("s", 32)
	one, two, other := open(secret, t.TempDir()), open(secret, ""), open(strings.Repeat("t", 32), "")
	if !bytes.Equal(one.CA(), two.CA()) {
		t.Errorf("two servers have two authorities:\n%s%s", one.CA(), two.CA())
	}
	if bytes.Equal(one.CA(), other.CA()) || one.ca.key.Equal(other.ca.key) {
		t.Error("another secret has the same authority")
	}
	leaf, err := two.ca.certificate("api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	verify := func(trusted *Gateway) error {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(trusted.CA())
		_, err := leaf.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: "api.example.com"})
		return err
	}
	if err := verify(one); err != nil {
		t.Errorf("the second server's leaf: %v", err)
	}
	if verify(other) == nil {
		t.Error("another installation trusts it")
	}
	// What stands for an echoed value must not differ either.
	a, err := one.ca.mac("test", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := two.ca.mac("test", []byte("x")); err != nil || !bytes.Equal(a, b) {
		t.Errorf("keyed hashes differ: %x %x %v", a, b, err)
	}
	if text := one.CA(); bytes.Contains(text, []byte("PRIVATE")) {
		t.Error("the key is given away")
	}
}
