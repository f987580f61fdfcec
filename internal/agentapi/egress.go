package agentapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// EgressProtocol is what a connection speaks after POST /egress: HTTP/2 with
// prior knowledge. The server, which opened the connection, answers; the agent
// asks, for a program that wants to get out.
//
// A stream is a tunnel (CONNECT host:port), or a request with an absolute
// authority. What is refused has status 403 (or 502, where the other end can't
// be reached) and EgressHeader, whose code says why; the body is a sentence
// for people, of one line.
const EgressProtocol = "caesarion-egress"

// EgressHeader is on every answer that the door gave by itself.
const EgressHeader = "Caesarion-Egress"

// What EgressHeader may have.
const (
	EgressDenied      = "denied"      // the policy does not allow it
	EgressLimited     = "limited"     // too many connections or bytes
	EgressUnreachable = "unreachable" // allowed, but it does not answer
	EgressOff         = "off"         // there is no network
)

// PackageHost is the name under which the packages of the installation's index
// are reached, as http://, through the proxy. Nobody resolves it.
const PackageHost = "packages.caesarion.internal"

// NetworkEnv is the environment variable that names the network a sandbox has;
// absent: none. Programs may read it. The agent takes it as a promise that the
// server opens a door soon.
const NetworkEnv = "CAESARION_NETWORK"

// Egress is the body of POST /egress.
type Egress struct {
	// CACerts are PEM certificates that programs are to trust besides the image's.
	CACerts string `json:"ca_certs,omitempty"`
}

// egressTimeout bounds the opening of a door, which is one round trip.
const egressTimeout = 30 * time.Second

// Egress opens the connection through which programs of the sandbox get out:
// the caller answers what comes over it, see EgressProtocol. A later one takes
// the place of an earlier one. It is no call under way: Hold closes it.
func (c *Client) Egress(ctx context.Context, body Egress) (net.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, egressTimeout, errTimeout)
	defer cancel()
	if err := c.gate.enter(ctx); err != nil {
		return nil, err
	}
	conn, err := c.open(ctx)
	c.gate.leave() // from here on Hold finds the connection: an agent that does not answer must not keep it waiting
	if err != nil {
		return nil, transportError(ctx, err)
	}
	leave := context.AfterFunc(ctx, func() { _ = conn.Close() })
	r, err := c.upgrade(conn, body)
	if !leave() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close()
		return nil, transportError(ctx, err)
	}
	return &upgradedConn{conn, r}, nil
}

// upgrade makes the request and reads the header of the answer.
func (c *Client) upgrade(conn net.Conn, body Egress) (*bufio.Reader, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	if len(data) > directMax {
		return nil, errors.New("agentapi: the certificates are too large")
	}
	request := append([]byte(nil), "POST /egress HTTP/1.1\r\nHost: agent\r\nConnection: Upgrade\r\nUpgrade: "+EgressProtocol+"\r\n"...)
	if token := *c.token.Load(); token != "" {
		request = append(request, "Authorization: Bearer "+token+"\r\n"...)
	}
	request = append(request, "Content-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(data))+"\r\n\r\n"...)
	if _, err := conn.Write(append(request, data...)); err != nil {
		return nil, err
	}
	in := &io.LimitedReader{R: conn, N: maxHeaderBytes}
	r := bufio.NewReader(in)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodPost})
	if err != nil {
		return nil, badAnswer("its header is no HTTP").WithCause(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		if resp.StatusCode < 400 {
			return nil, badAnswer("status %d where the protocol was to change", resp.StatusCode)
		}
		in.N = maxProblemBytes
		return nil, problemError(resp)
	}
	in.N = 1<<63 - 1
	return r, nil
}

// upgradedConn is a connection of which something may be in a buffer.
type upgradedConn struct {
	*trackedConn
	r *bufio.Reader
}

func (c *upgradedConn) Read(p []byte) (int, error) { return c.r.Read(p) }
