package main

import (
	"context"
	"errors"
	"io/fs"

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
	if token == "" {
		token = rec.Token
	}
	c, err := client.New(rec.URL, client.Options{Token: token})
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
