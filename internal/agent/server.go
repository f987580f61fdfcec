package agent

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/quiet"
)

const (
	// maxStrangers bounds the connections that have not shown the token. User
	// code can open as many as it likes; the oldest of them has to go first.
	maxStrangers = 64
	// headerTimeout is how long a request's header may take.
	headerTimeout  = 10 * time.Second
	maxHeaderBytes = 32 << 10
)

// Serve answers on l until ctx ends; then it closes l and all connections.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	guarded := &guard{Listener: agentapi.Listener(quietListener{l}), strangers: list.New()}
	srv := &http.Server{
		Handler:           a,
		ReadHeaderTimeout: headerTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(a.log.Handler(), slog.LevelWarn),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
		Protocols: new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(guarded); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("agent: serve: %w", err)
	}
	return nil
}

// quietListener accepts connections that leave the runtime's monitor asleep.
type quietListener struct{ net.Listener }

func (l quietListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return quiet.Conn(conn), nil
}

// connKey is where a request's context holds its connection.
type connKey struct{}

// markTrusted says that the request's connection has shown the token.
func markTrusted(r *http.Request) {
	if c, ok := r.Context().Value(connKey{}).(*guardedConn); ok {
		c.trust()
	}
}

// guard is a listener that closes the oldest stranger when there are too many.
type guard struct {
	net.Listener

	mu        sync.Mutex
	strangers *list.List // of *guardedConn, oldest first
}

// guardedConn is a connection that is a stranger until it has shown the token.
type guardedConn struct {
	net.Conn
	guard *guard
	place *list.Element // guarded by guard.mu; nil once trusted or closed
}

func (g *guard) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn := &guardedConn{Conn: c, guard: g}
	var oldest *guardedConn
	g.mu.Lock()
	conn.place = g.strangers.PushBack(conn)
	if g.strangers.Len() > maxStrangers {
		oldest, _ = g.strangers.Remove(g.strangers.Front()).(*guardedConn)
		oldest.place = nil
	}
	g.mu.Unlock()
	if oldest != nil {
		_ = oldest.Conn.Close()
	}
	return conn, nil
}

func (c *guardedConn) trust() {
	c.guard.mu.Lock()
	defer c.guard.mu.Unlock()
	if c.place != nil {
		c.guard.strangers.Remove(c.place)
		c.place = nil
	}
}

func (c *guardedConn) Close() error {
	c.trust()
	return c.Conn.Close()
}
