package gvisor

import (
	"context"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/urpc"
	"gvisor.dev/gvisor/runsc/boot"
	"gvisor.dev/gvisor/runsc/container"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Dial opens a stream to the agent: a socket pair, one end of which the
// sentry connects to the agent's port on its own loopback.
func (d *Driver) Dial(ctx context.Context, id sandbox.ID) (net.Conn, error) {
	b, err := d.lookup(id)
	if err != nil {
		return nil, err
	}
	l, err := b.awake()
	if err != nil {
		return nil, err
	}
	return dialAgent(ctx, l.container)
}

func dialAgent(ctx context.Context, c *container.Container) (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("gvisor: dial: %w", err)
	}
	// Both ends of this pair are sockets of the host; what the sentry sends is
	// bounded by the far end's buffer.
	if err := unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, agentapi.WindowSocketBytes); err != nil {
		_ = unix.Close(fds[0])
		_ = unix.Close(fds[1])
		return nil, fmt.Errorf("gvisor: dial: %w", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "agent-far")
	conn, err := net.FileConn(near) // duplicates the descriptor
	_ = near.Close()
	if err != nil {
		_ = far.Close()
		return nil, fmt.Errorf("gvisor: dial: %w", err)
	}
	// The control call has no context: a sentry that hangs must not hang us.
	done := make(chan error, 1)
	go func() {
		defer far.Close()
		done <- c.PortForward(&boot.PortForwardOpts{
			FilePayload: urpc.FilePayload{Files: []*os.File{far}},
			ContainerID: c.ID,
			Port:        agentapi.Port,
		})
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, errdefs.New(errdefs.ErrUnavailable, "sandbox-unreachable", "the sandbox does not answer").WithCause(fmt.Errorf("gvisor: dial: %w", err))
	}
	return agentapi.Window(conn), nil
}
