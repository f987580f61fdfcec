package agent

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
)

// SOCKS 5, RFC 1928, as far as a way out over TCP needs it.
const (
	socksVersion = 5
	socksConnect = 1

	socksNoAuth       = 0
	socksNoAcceptable = 0xff

	socksIPv4   = 1
	socksDomain = 3
	socksIPv6   = 4

	socksOK             = 0
	socksFailure        = 1
	socksDenied         = 2
	socksUnreachable    = 4
	socksNoSuchCommand  = 7
	socksNoSuchAddress  = 8
	socksReplyBytes     = 10
	socksRequestHeader  = 4
	socksAddressMaximum = 255
)

var errSocks = errors.New("agent: this is no SOCKS 5")

// socks serves a connection whose first byte was socksVersion.
func (c *proxyConn) socks() {
	host, code, err := c.socksRequest()
	if code != socksOK {
		_ = socksReply(c.Conn, code)
		c.linger()
		return
	}
	if err != nil {
		_ = c.Close()
		return
	}
	_ = c.Conn.SetReadDeadline(time.Time{})
	c.tunnel(nil, host, func(why *refusal) error {
		code := byte(socksOK)
		switch {
		case why == nil:
		case why.code == agentapi.EgressUnreachable:
			code = socksUnreachable
		case why.status == http.StatusForbidden:
			code = socksDenied
		default:
			code = socksFailure
		}
		return socksReply(c.Conn, code)
	})
}

// socksRequest reads what the program wants. A code other than socksOK is the answer.
func (c *proxyConn) socksRequest() (host string, code byte, err error) {
	var b [socksAddressMaximum + 1]byte
	read := func(n int) []byte {
		if err == nil {
			_, err = io.ReadFull(c.Conn, b[:n])
		}
		return b[:n]
	}
	methods := read(int(read(1)[0]))
	if err != nil {
		return "", socksOK, err
	}
	method := byte(socksNoAcceptable)
	if slices.Contains(methods, socksNoAuth) {
		method = socksNoAuth
	}
	if _, err := c.Conn.Write([]byte{socksVersion, method}); err != nil || method != socksNoAuth {
		return "", socksOK, errSocks
	}
	head := read(socksRequestHeader)
	if err != nil || head[0] != socksVersion {
		return "", socksOK, errors.Join(err, errSocks)
	}
	command, kind := head[1], head[3]
	if command != socksConnect {
		return "", socksNoSuchCommand, nil
	}
	switch kind {
	case socksIPv4, socksIPv6:
		size := net.IPv4len
		if kind == socksIPv6 {
			size = net.IPv6len
		}
		addr, _ := netip.AddrFromSlice(read(size))
		host = addr.String()
	case socksDomain:
		host = string(read(int(read(1)[0])))
	default:
		return "", socksNoSuchAddress, nil
	}
	port := binary.BigEndian.Uint16(read(2))
	if err != nil {
		return "", socksOK, err
	}
	host = net.JoinHostPort(host, strconv.Itoa(int(port)))
	for _, r := range []byte(host) {
		if r <= ' ' || r > '~' || r == '/' || r == '@' || r == '?' || r == '#' {
			return "", socksFailure, nil // no name, and nothing to make a URL of
		}
	}
	return host, socksOK, nil
}

func socksReply(w io.Writer, code byte) error {
	reply := make([]byte, socksReplyBytes)
	reply[0], reply[1], reply[3] = socksVersion, code, socksIPv4
	_, err := w.Write(reply)
	return err
}
