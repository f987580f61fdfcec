package main

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// connection is a server to call, and what ends with it.
type connection struct {
	*client.Client
	finish func() error
}

// Close lets go of the server, and ends it if it is one of our own.
func (c *connection) Close() error {
	c.Client.Close()
	if c.finish == nil {
		return nil
	}
	return c.finish()
}

// connect finds the server to use: the one named, the one that runs on the
// data directory, or one in this process that ends with the connection. With
// private, the last has sandboxes of its own, which end with it too.
func (g *globals) connect(ctx context.Context, private bool) (*connection, error) {
	token, err := g.Token()
	if err != nil {
		return nil, err
	}
	if g.Server != "" {
		c, err := client.New(g.Server, client.Options{Token: token.Reveal()})
		if err != nil {
			return nil, err
		}
		return &connection{Client: c}, nil
	}
	if c, err := g.running(ctx, token.Reveal()); c != nil || err != nil {
		return c, err
	}
	wait := startProgress(g, "starting")
	defer wait.Done()
	s, stop, err := startSolo(ctx, g.Base, private, g.Logger)
	if err != nil {
		return nil, err
	}
	c, err := client.New(s.url, client.Options{Token: s.token.Reveal()})
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return &connection{Client: c, finish: stop}, nil
}

// running gives the server that runs on the data directory, or nil. A record
// whose process does not answer is what a killed server left.
func (g *globals) running(ctx context.Context, token string) (*connection, error) {
	rec, err := readServerRecord(g.DataDir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		g.Logger.Warn("the record of the running server can't be read", "err", err)
		return nil, nil
	}
	// A server that was killed leaves its record, and another program may have
	// its port by now. The lock cannot be left.
	if lock, err := tryLock(filepath.Join(g.DataDir, lockFile)); err == nil {
		return nil, lock.Close()
	}
	if token == "" {
		token = rec.Token
	}
	opts := client.Options{Token: token}
	if rec.TLSSHA256 != "" {
		opts.HTTP = pinned(rec.TLSSHA256)
	}
	c, err := client.New(rec.URL, opts)
	if err != nil {
		return nil, err
	}
	err = c.Health(ctx)
	switch {
	case err == nil:
		return &connection{Client: c}, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, errdefs.ErrUnavailable):
		return nil, nil
	}
	if _, ok := errors.AsType[*v1.Problem](err); ok { // another program has the port now
		return nil, nil
	}
	return nil, err
}

// pinned gives an HTTP client that trusts one certificate and no other. Our
// own record, which only its owner can write, says more than a certificate
// authority: the server's certificate is for its name, and we call 127.0.0.1.
func pinned(sha256 string) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection is stricter
		VerifyConnection: func(state tls.ConnectionState) error {
			if fingerprint(state.PeerCertificates[0].Raw) != sha256 {
				return errors.New("the server has another certificate than it wrote into " + serverFile)
			}
			return nil
		},
	}
	return &http.Client{Transport: transport}
}
