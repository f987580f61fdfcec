package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/session"
)

// Every object that a request names is found here, and is there only for those
// whose it is: everybody else gets what he would get for one that never was.

// sandbox finds the sandbox of a request.
func (a *API) sandbox(ctx context.Context, id string) (*fleet.Sandbox, error) {
	if _, err := a.remembered(ctx, id); err != nil { // also of one that is gone, and why, others learn nothing
		return nil, err
	}
	return a.fleet.Get(sandbox.ID(id))
}

// remembered finds a sandbox, also one that is gone, for reading.
func (a *API) remembered(ctx context.Context, id string) (*fleet.Sandbox, error) {
	note(ctx, slog.String("sandbox_id", id))
	s, err := a.fleet.Remembered(sandbox.ID(id))
	var owner identity.Owner
	if gone, ok := errors.AsType[*fleet.GoneError](err); ok {
		owner = gone.Owner
	} else if starting, ok := errors.AsType[*fleet.StartingError](err); ok {
		owner = starting.Owner
	} else if err != nil {
		return nil, err
	} else {
		owner = s.Owner()
	}
	if !identity.From(ctx).Owns(owner) {
		return nil, fleet.NotFound(id)
	}
	return s, err
}

// session finds the session of a request.
func (a *API) session(ctx context.Context, id string) (*session.Session, error) {
	note(ctx, slog.String("session_id", id))
	if a.opts.Sessions == nil {
		return nil, errNoSessions()
	}
	s, err := a.opts.Sessions.Get(ctx, id)
	if err == nil && !identity.From(ctx).Owns(s.Owner()) {
		return nil, session.NotFound(id)
	}
	return s, err
}

// named finds the session that a client named so, and with create makes it.
func (a *API) named(ctx context.Context, name string, create bool) (*session.Session, error) {
	s, err := a.opts.Sessions.ByClientID(ctx, name, create)
	if err == nil && !identity.From(ctx).Owns(s.Owner()) {
		return nil, session.NotFound(name)
	}
	return s, err
}

// snapshot finds the snapshot of a request.
func (a *API) snapshot(ctx context.Context, idOrName string) (sandbox.Snapshot, error) {
	note(ctx, slog.String("snapshot", idOrName))
	who := identity.From(ctx)
	return a.fleet.SnapshotFor(ctx, idOrName, who.Owner(), who.Owns)
}

// create makes a sandbox that is whose the request is.
func (a *API) create(ctx context.Context, req fleet.CreateRequest) (*fleet.Sandbox, error) {
	who := identity.From(ctx)
	req.Owner, req.Sees = who.Owner(), who.Owns
	return a.fleet.Create(ctx, req)
}

// everywhere gives the sandboxes that a request's list has.
func (a *API) everywhere(ctx context.Context) ([]fleet.View, error) {
	views, err := a.fleet.Everywhere(ctx)
	who := identity.From(ctx)
	return slices.DeleteFunc(views, func(v fleet.View) bool { return !who.Owns(v.Owner) }), err
}

// principal gives what says who sends a request, now and later on, where there
// are accounts.
func (a *API) principal(r *http.Request) func(context.Context) (identity.Principal, error) {
	if text := tokenOf(r); text != "" {
		from := a.from(r)
		return func(ctx context.Context) (identity.Principal, error) {
			if a.tokenGood(text) {
				return identity.Installation(), nil
			}
			return a.opts.Accounts.Verify(ctx, text, from)
		}
	}
	if value := a.loginCookie(r); value != "" && !foreignPage(r) {
		return func(ctx context.Context) (identity.Principal, error) { return a.opts.Accounts.Resume(ctx, value) }
	}
	return func(context.Context) (identity.Principal, error) {
		return identity.Principal{}, errdefs.New(errdefs.ErrUnauthenticated, "unauthenticated", "Nobody is signed in, and there is no API key.").
			WithHint("Sign in on the page, or send a key as \"Authorization: Bearer csk_…\" or \"X-API-Key: csk_…\".")
	}
}

// clientAddress says where a request comes from: what the nearest proxy says
// that the operator trusts.
func (a *API) clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if len(a.opts.TrustedProxies) == 0 {
		return host
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && a.trusted(host); i-- {
		addr, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		host = addr.String()
	}
	return host
}

func (a *API) trusted(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && slices.ContainsFunc(a.opts.TrustedProxies, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) })
}
