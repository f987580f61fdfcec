package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// users of the API server, each with a token and a kubeconfig.
var users = []struct{ file, name, group string }{
	{"admin", "admin", "system:masters"},
	// With a service account for each controller the start takes three seconds
	// more; with its own rights alone it can't do its work.
	{"kcm", "system:kube-controller-manager", "system:masters"},
	{"scheduler", "system:kube-scheduler", ""},
	{"kubelet", "system:node:" + nodeName, "system:nodes"},
	{"proxy", "system:kube-proxy", ""},
}

// writePKI makes the keys of a cluster and gives the administrator's token.
func writePKI(dir string) (token string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	caKey, err := newKey(filepath.Join(dir, "ca.key"))
	if err != nil {
		return "", err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cluster"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	key, err := newKey(filepath.Join(dir, "apiserver.key"))
	if err != nil {
		return "", err
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.ParseIP("127.0.0.1"), net.ParseIP(serviceIP), net.ParseIP(nodeIP)},
		DNSNames:    []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"},
	}
	sa, err := newKey(filepath.Join(dir, "sa.key"))
	if err != nil {
		return "", err
	}
	saPub, err := x509.MarshalPKIXPublicKey(&sa.PublicKey)
	if err != nil {
		return "", err
	}
	err = errors.Join(
		writeCert(filepath.Join(dir, "ca.crt"), ca, ca, &caKey.PublicKey, caKey),
		writeCert(filepath.Join(dir, "apiserver.crt"), server, ca, &key.PublicKey, caKey),
		writePEM(filepath.Join(dir, "sa.pub"), "PUBLIC KEY", saPub),
	)
	if err != nil {
		return "", err
	}

	var tokens strings.Builder
	for _, u := range users {
		t := make([]byte, 16)
		if _, err := rand.Read(t); err != nil {
			return "", err
		}
		text := hex.EncodeToString(t)
		if u.file == "admin" {
			token = text
		}
		fmt.Fprintf(&tokens, "%s,%s,%s", text, u.name, u.name)
		if u.group != "" {
			fmt.Fprintf(&tokens, ",%q", u.group)
		}
		fmt.Fprintln(&tokens)
		config := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:6443", certificate-authority: %s/ca.crt}}]
users: [{name: u, user: {token: %s}}]
contexts: [{name: d, context: {cluster: c, user: u}}]
current-context: d
`, dir, text)
		if err := os.WriteFile(filepath.Join(dir, u.file+".kubeconfig"), []byte(config), 0o600); err != nil {
			return "", err
		}
	}
	return token, os.WriteFile(filepath.Join(dir, "tokens.csv"), []byte(tokens.String()), 0o600)
}

func newKey(file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(file, "EC PRIVATE KEY", der)
}

func writeCert(file string, cert, parent *x509.Certificate, pub *ecdsa.PublicKey, by *ecdsa.PrivateKey) error {
	der, err := x509.CreateCertificate(rand.Reader, cert, parent, pub, by)
	if err != nil {
		return err
	}
	return writePEM(file, "CERTIFICATE", der)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
