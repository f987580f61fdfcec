package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// pems makes a certificate for a name, and its key.
func pems(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// TestACertificateIsRenewedWithoutARestart: new files are shown to the next
// client; files that can't be used never take the place of what works.
func TestACertificateIsRenewedWithoutARestart(t *testing.T) {
	dir := t.TempDir()
	cfg := config.Server{Listen: "127.0.0.1:0", TLSCert: filepath.Join(dir, "cert.pem"), TLSKey: filepath.Join(dir, "key.pem")}
	put := func(path string, text []byte) {
		t.Helper()
		if err := os.WriteFile(path+".new", text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := listen(t.Context(), cfg); err == nil {
		t.Fatal("it starts without its files")
	} else if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != "tls-invalid" {
		t.Fatalf("%v, want tls-invalid", err)
	}
	cert, key := pems(t, "one.example.org")
	put(cfg.TLSCert, cert)
	put(cfg.TLSKey, key)
	l, shown, err := listen(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	shown.log = slog.New(slog.NewTextHandler(&log, nil))
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = conn.(*tls.Conn).HandshakeContext(context.Background()) //nolint:forcetypeassert // listen made it
			_ = conn.Close()
		}
	}()
	if err := shown.record(dir, serverRecord{PID: 1}); err != nil {
		t.Fatal(err)
	}
	name := func() string {
		t.Helper()
		shown.mu.Lock()
		shown.looked = time.Time{} // as if a second had passed
		shown.mu.Unlock()
		conn, err := (&tls.Dialer{NetDialer: new(net.Dialer), Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(t.Context(), "tcp", l.Addr().String()) //nolint:gosec // the test looks at it itself
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		leaf := conn.(*tls.Conn).ConnectionState().PeerCertificates[0] //nolint:forcetypeassert // of tls.Dialer
		rec, err := readServerRecord(dir)
		if err != nil || rec.TLSSHA256 != fingerprint(leaf.Raw) {
			t.Errorf("%s: commands on this machine expect %s, %v", leaf.DNSNames[0], rec.TLSSHA256, err)
		}
		return leaf.DNSNames[0]
	}
	if got := name(); got != "one.example.org" {
		t.Errorf("at first: %s", got)
	}
	cert2, key2 := pems(t, "two.example.org")
	put(cfg.TLSCert, cert2) // its key is not there yet
	if got := name(); got != "one.example.org" {
		t.Errorf("with half of the new one: %s", got)
	}
	put(cfg.TLSKey, key2)
	if got := name(); got != "two.example.org" {
		t.Errorf("with the new one: %s", got)
	}
	put(cfg.TLSCert, []byte("no certificate"))
	if got := name(); got != "two.example.org" {
		t.Errorf("with a broken one: %s", got)
	}
	if err := os.Remove(cfg.TLSKey); err != nil {
		t.Fatal(err)
	}
	if got := name(); got != "two.example.org" {
		t.Errorf("without a key: %s", got)
	}
	if text := log.String(); !strings.Contains(text, "new TLS certificate") || !strings.Contains(text, "code=tls-invalid") || strings.Contains(text, "PRIVATE") {
		t.Errorf("the log: %s", text)
	}
}
