package main

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// certificateEvery is how often the files of a certificate are looked at, by
// handshakes: where there are none, nobody looks.
const certificateEvery = time.Second

// certificate is what the server shows of itself. Renewed files are taken
// without a restart; as long as they do not fit each other, as between two
// copies, or can't be read, the one before stays.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger
	changed           func(fingerprint string) error // told of another certificate; may be nil

	mu     sync.Mutex
	pair   *tls.Certificate
	seen   [2]os.FileInfo // of what pair came from, or of what failed
	looked time.Time
}

// loadCertificate reads a certificate that must be right at the start.
func loadCertificate(certFile, keyFile string) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: slog.New(slog.DiscardHandler)}
	c.seen, _ = c.stat() // reading them says why not
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, errdefs.New(errdefs.ErrInvalid, "tls-invalid", "tls_cert %s and tls_key %s do not work: %v", certFile, keyFile, err).
			WithHint("both are PEM files; the key belongs to the first certificate")
	}
	c.pair, c.looked = &pair, time.Now()
	return c, nil
}

// record writes the server's record with the certificate's fingerprint, now and
// whenever it changes. There may be no certificate.
func (c *certificate) record(dataDir string, rec serverRecord) error {
	if c == nil {
		return writeServerRecord(dataDir, rec)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changed = func(fingerprint string) error {
		rec.TLSSHA256 = fingerprint
		return writeServerRecord(dataDir, rec)
	}
	return c.changed(fingerprint(c.pair.Certificate[0]))
}

// get is tls.Config's GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < certificateEvery {
		return c.pair, nil
	}
	c.looked = time.Now()
	now, err := c.stat()
	if err == nil && sameFile(now[0], c.seen[0]) && sameFile(now[1], c.seen[1]) {
		return c.pair, nil
	}
	if err == nil {
		c.seen = now
		var pair tls.Certificate
		if pair, err = tls.LoadX509KeyPair(c.certFile, c.keyFile); err == nil {
			c.pair = &pair
			sum := fingerprint(pair.Certificate[0])
			c.log.Info("new TLS certificate", "sha256", sum, "names", pair.Leaf.DNSNames, "not_after", pair.Leaf.NotAfter)
			if c.changed != nil {
				if err := c.changed(sum); err != nil {
					c.log.Warn("commands on this machine do not know the new TLS certificate", "err", err)
				}
			}
			return c.pair, nil
		}
	}
	c.log.Warn("the TLS certificate changed and can't be used; the one before stays", "code", "tls-invalid", "cert", c.certFile, "key", c.keyFile, "not_after", c.pair.Leaf.NotAfter, "err", err)
	return c.pair, nil
}

func (c *certificate) stat() (files [2]os.FileInfo, err error) {
	var errs [2]error
	files[0], errs[0] = os.Stat(c.certFile)
	files[1], errs[1] = os.Stat(c.keyFile)
	return files, errors.Join(errs[:]...)
}

// sameFile tells whether a file is as it was. Renewals replace files, or links
// to them, or write into them.
func sameFile(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}
