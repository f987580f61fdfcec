package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

const (
	// doorWait is how long a program's connection waits for a door that the
	// server opens soon: after a lease, a wake or a restart of the server.
	doorWait = 5 * time.Second
	// streamWindow is what one stream may have on its way to a program that does
	// not read. Together with maxProxyConns it bounds the agent's memory.
	streamWindow = 512 << 10
	// frameBytes is the largest frame: few enough system calls for a fast
	// download, and small beside the window. With its header it fits into one
	// frame of a windowed connection, see agentapi.Window.
	frameBytes = 63 << 10
	// maxRefusal bounds the sentence of an answer that refuses.
	maxRefusal = 400
)

// off is what programs are told where there is no network.
const off = "This sandbox has no network: nothing can be downloaded or installed. The operator allows it by the template's setting network."

// shut is what they are told where there should be one.
const shut = "This sandbox's network is not there at the moment. Try again in a few seconds."

// egress is the sandbox's way out: a proxy for programs, and the door that the
// server holds open for it. It decides nothing.
//
//	program ──HTTP, CONNECT, SOCKS5──▶ proxy ──stream──▶ door ══ HTTP/2 ══▶ server
type egress struct {
	agent *Agent
	env   []string // for every process; nil: there is no proxy
	certs *bundle

	mu       sync.Mutex
	door     *door         // nil: none
	opened   chan struct{} // closed at the next door; nil: nobody waits
	promised bool          // the server opens a door, or another
	closed   bool          // with the agent
}

// door is one connection to the server, over which programs get out.
type door struct {
	conn *http.ClientConn
	raw  *doorConn
}

// doorConn tells when HTTP/2 is done with the connection.
type doorConn struct {
	net.Conn
	in     *bufio.Reader // what came with the request; nil: nothing is left of it
	closed func()
	once   sync.Once
}

func (c *doorConn) Read(p []byte) (int, error) {
	if c.in != nil {
		if n := min(len(p), c.in.Buffered()); n > 0 {
			return c.in.Read(p[:n])
		}
		c.in = nil
	}
	return c.Conn.Read(p)
}

func (c *doorConn) Close() error {
	c.once.Do(c.closed)
	return c.Conn.Close()
}

func newEgress(a *Agent) *egress {
	e := &egress{agent: a}
	if a.opts.Proxy != "" {
		e.certs = newBundle(a.real(bundleDir), a.opts.Root)
		e.env = proxyEnv(a.opts.Proxy, e.certs)
	}
	return e
}

// postEgress makes the call's connection the door.
func postEgress(a *Agent, w http.ResponseWriter, r *http.Request) error {
	if r.Header.Get("Upgrade") != agentapi.EgressProtocol {
		return errdefs.New(errdefs.ErrInvalid, "invalid-upgrade", "the call asks for no protocol that is known here")
	}
	if a.opts.Proxy == "" {
		return errdefs.New(errdefs.ErrUnsupported, "no-proxy", "this agent offers programs no proxy")
	}
	body, err := readJSON[agentapi.Egress](w, r)
	if err != nil {
		return err
	}
	if err := a.egress.certs.add(body.CACerts); err != nil {
		a.log.Warn("certificates", "err", err) // what needs none works
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	a.egress.promise(true) // from now on programs wait for it
	_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+agentapi.EgressProtocol+"\r\n\r\n")
	if err == nil {
		err = a.egress.open(conn, buf.Reader)
	}
	if err != nil {
		a.log.Warn("egress", "err", err)
		_ = conn.Close()
	}
	return nil // nobody is there to be told
}

// open makes conn the door, in the place of another.
func (e *egress) open(conn net.Conn, in *bufio.Reader) error {
	d := &door{}
	d.raw = &doorConn{Conn: conn, in: in, closed: func() { e.forget(d) }}
	transport := &http.Transport{
		DialContext:        func(context.Context, string, string) (net.Conn, error) { return d.raw, nil },
		DisableCompression: true, // programs ask for what they can read
		Protocols:          new(http.Protocols),
		HTTP2:              &http.HTTP2Config{MaxReceiveBufferPerStream: streamWindow, MaxReadFrameSize: frameBytes, StrictMaxConcurrentRequests: true},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	cc, err := transport.NewClientConn(context.Background(), "http", "door:80")
	if err != nil {
		return fmt.Errorf("agent: egress: %w", err)
	}
	d.conn = cc
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return cc.Close()
	}
	old := e.door
	e.door, e.promised = d, true
	if e.opened != nil {
		close(e.opened)
		e.opened = nil
	}
	e.mu.Unlock()
	if cc.Err() != nil {
		e.forget(d) // it ended before it was there
	}
	if old != nil {
		old.close()
	}
	return nil
}

func (d *door) close() { _ = d.raw.Close() }

func (e *egress) forget(d *door) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.door == d {
		e.door = nil
	}
}

// promise says whether programs should wait for a door.
func (e *egress) promise(is bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.promised = is
}

// close ends what goes out, for good.
func (e *egress) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.shutDoor()
}

// shutDoor closes the door, such as one that a copied sandbox has of the original.
func (e *egress) shutDoor() {
	e.mu.Lock()
	d := e.door
	e.door = nil
	e.mu.Unlock()
	if d != nil {
		d.close()
	}
}

// refusal is why a program does not get out.
type refusal struct {
	status int
	code   string // of agentapi.EgressHeader
	text   string // one line
}

func (r *refusal) Error() string { return r.text }

// current gives the door. If there is none, but one is promised, it waits a moment.
func (e *egress) current(ctx context.Context) (*door, error) {
	var enough <-chan time.Time
	for {
		e.mu.Lock()
		d, promised := e.door, e.promised
		if d == nil && promised && e.opened == nil {
			e.opened = make(chan struct{})
		}
		opened := e.opened
		e.mu.Unlock()
		if d != nil {
			return d, nil
		}
		if !promised {
			return nil, &refusal{http.StatusForbidden, agentapi.EgressOff, off}
		}
		if enough == nil {
			timer := time.NewTimer(doorWait)
			defer timer.Stop()
			enough = timer.C
		}
		select {
		case <-opened:
		case <-enough:
			return nil, &refusal{http.StatusBadGateway, agentapi.EgressOff, shut}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// ask makes a request through the door. What is refused comes back as a *refusal.
func (e *egress) ask(req *http.Request) (*http.Response, error) {
	resp, err := e.roundTrip(req)
	if err == nil {
		if code := resp.Header.Get(agentapi.EgressHeader); code != "" {
			err = refusalOf(resp, code)
		} else if req.Method == http.MethodConnect && resp.StatusCode != http.StatusOK {
			err = refusalOf(resp, agentapi.EgressUnreachable)
		}
	}
	if err == nil {
		return resp, nil
	}
	why, ok := errors.AsType[*refusal](err)
	if !ok {
		why = &refusal{http.StatusBadGateway, agentapi.EgressUnreachable, "The connection was cut: the sandbox was saved, or the server was restarted. Try again."}
	}
	if why.status == http.StatusForbidden && (req.URL.Hostname() == agentapi.PackageHost || keepsToItself(req)) {
		e.agent.tell(why.text)
	}
	return nil, why
}

// keepsToItself tells whether a program shows nobody what it was answered.
func keepsToItself(req *http.Request) bool {
	program, _, _ := strings.Cut(req.UserAgent(), "/")
	return program == "pip" || program == "uv"
}

func (e *egress) roundTrip(req *http.Request) (*http.Response, error) {
	for {
		d, err := e.current(req.Context())
		if err != nil {
			return nil, err
		}
		resp, err := d.conn.RoundTrip(req)
		if err == nil || d.conn.Err() == nil || req.Body != nil && req.Body != http.NoBody {
			return resp, err
		}
		// It was cut before this was answered, and nothing of it is lost.
		if e.forget(d); req.Method != http.MethodGet && req.Method != http.MethodHead || req.Context().Err() != nil {
			return nil, err
		}
	}
}

// refusalOf reads an answer that the door gave by itself.
func refusalOf(resp *http.Response, code string) *refusal {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	_ = resp.Body.Close()
	line := oneLine(string(text))
	if line == "" {
		line = http.StatusText(resp.StatusCode)
	}
	return &refusal{resp.StatusCode, oneLine(code), line}
}

// oneLine makes a text fit for a status line.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// tell puts a sentence into what runs: pip and uv keep to themselves why an
// index refused them.
func (a *Agent) tell(sentence string) {
	line := "[caesarion] " + sentence + "\n"
	a.mu.Lock()
	var outs []*output
	for _, p := range a.processes {
		outs = append(outs, p.out)
	}
	keepers := make([]*keeper, 0, len(a.kernels))
	for _, k := range a.kernels {
		keepers = append(keepers, k)
	}
	a.mu.Unlock()
	for _, k := range keepers {
		k.mu.Lock()
		if k.current != nil {
			outs = append(outs, k.current.out)
		}
		k.mu.Unlock()
	}
	for _, out := range outs {
		out.notice(line)
	}
}
