package egress

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"io"
	"math/big"
	"time"
)

// The life of an authority that derives from a secret. All servers write the
// same, whenever they start: it ends with the secret, not by itself.
var (
	derivedFrom  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	derivedUntil = time.Date(2126, 1, 1, 0, 0, 0, 0, time.UTC)
)

// derivedAuthority makes the authority of an installation from its secret, so
// that servers that share nothing else have the same, byte by byte, and a
// sandbox goes on trusting whichever of them has it.
func derivedAuthority(secret []byte) ([]byte, error) {
	key, err := derivedKey(secret)
	if err != nil {
		return nil, err
	}
	serial, err := hkdf.Key(sha256.New, secret, nil, "caesarion egress authority serial", 15)
	if err != nil {
		return nil, err
	}
	tmpl := authorityTemplate(new(big.Int).SetBytes(serial), derivedFrom, derivedUntil)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, steadySigner{key})
	if err != nil {
		return nil, err
	}
	return encodeAuthority(der, key)
}

// derivedKey gives the key that belongs to a secret: a number below the curve's
// order, from so many more bits that none is likelier than another.
func derivedKey(secret []byte) (*ecdsa.PrivateKey, error) {
	curve := elliptic.P256()
	b, err := hkdf.Key(sha256.New, secret, nil, "caesarion egress authority key", 48)
	if err != nil {
		return nil, err
	}
	most := new(big.Int).Sub(curve.Params().N, big.NewInt(1))
	d := new(big.Int).SetBytes(b)
	d.Mod(d, most).Add(d, big.NewInt(1))
	return ecdsa.ParseRawPrivateKey(curve, d.FillBytes(make([]byte, 32)))
}

// steadySigner signs the same bytes alike each time, as RFC 6979 has it.
type steadySigner struct{ key *ecdsa.PrivateKey }

func (s steadySigner) Public() crypto.PublicKey { return s.key.Public() }

func (s steadySigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.key.Sign(nil, digest, opts)
}
