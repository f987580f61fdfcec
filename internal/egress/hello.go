package egress

import (
	"io"
	"strconv"
)

const (
	recordHeader   = 5
	recordMost     = 16 << 10
	typeHandshake  = 22
	typeHello      = 1
	extServerName  = 0
	nameTypeOfHost = 0
)

// helloReader looks at the first bytes that a program sends into a tunnel. If
// they begin TLS, the name they ask for must be one that the program may reach:
// an allowed host often shares its address with others. What is not TLS passes.
//
// Source: RFC 8446 §4.1.2 and §5.1, RFC 6066 §3.
type helloReader struct {
	src     io.Reader
	allowed func(name string) *Refusal
	refused func(*Refusal)
	held    []byte
	decided bool
	err     error // of src, for when what is held has gone
}

// Read implements io.Reader.
func (r *helloReader) Read(p []byte) (int, error) {
	for !r.decided {
		var ref *Refusal
		if r.decided, ref = r.decide(); ref != nil {
			r.refused(ref)
			return 0, errCut
		}
		if r.decided {
			break
		}
		n, err := r.src.Read(p)
		r.held = append(r.held, p[:n]...)
		if err != nil {
			r.decided, r.err = true, err // less than a beginning begins nothing
		}
	}
	if len(r.held) > 0 {
		n := copy(p, r.held)
		if r.held = r.held[n:]; len(r.held) == 0 {
			r.held = nil
		}
		return n, nil
	}
	if r.err != nil {
		return 0, r.err
	}
	return r.src.Read(p)
}

// decide is true when enough is known.
func (r *helloReader) decide() (bool, *Refusal) {
	b := r.held
	if len(b) == 0 {
		return false, nil
	}
	if b[0] != typeHandshake {
		return true, nil
	}
	unclear := denied(codeMisdirected, "the beginning of TLS can't be read")
	if len(b) < recordHeader {
		return false, nil
	}
	n := int(b[3])<<8 | int(b[4])
	if n > recordMost {
		return true, unclear
	}
	if len(b) < recordHeader+n {
		return false, nil
	}
	name, ok := serverName(b[recordHeader : recordHeader+n])
	if !ok {
		return true, unclear
	}
	if name == "" {
		return true, nil
	}
	return true, r.allowed(name)
}

// cursor reads what has its length in front; it is bad once something is short.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n > len(c.b) {
		c.bad = true
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) number(bytes int) int {
	n := 0
	for _, b := range c.take(bytes) {
		n = n<<8 | int(b)
	}
	return n
}

func (c *cursor) part(lengthBytes int) cursor {
	b := c.take(c.number(lengthBytes))
	return cursor{b, c.bad}
}

// serverName finds the name in a ClientHello, which must lie in one record.
func serverName(record []byte) (string, bool) {
	c := cursor{b: record}
	if c.number(1) != typeHello {
		return "", false
	}
	hello := c.part(3)
	hello.take(2 + 32) // version and random
	_ = hello.part(1)  // session
	_ = hello.part(2)  // cipher suites
	_ = hello.part(1)  // compressions
	if !hello.bad && len(hello.b) == 0 {
		return "", true // of old, without extensions
	}
	extensions := hello.part(2)
	name, seen := "", false
	for !extensions.bad && len(extensions.b) > 0 {
		kind := extensions.number(2)
		ext := extensions.part(2)
		if kind != extServerName {
			continue
		}
		list := ext.part(2)
		if list.number(1) != nameTypeOfHost || seen {
			return "", false
		}
		host := list.part(2)
		if host.bad || len(list.b) > 0 || len(host.b) == 0 {
			return "", false
		}
		name, seen = string(host.b), true
	}
	return name, !extensions.bad && !hello.bad
}

// mayName tells whether a tunnel to t may ask for another name inside: if the
// policy would have allowed a tunnel to that one, too.
func (p Policy) mayName(t target, c Client) func(string) *Refusal {
	if p.Mode != List || t.name == "" {
		return nil
	}
	return func(name string) *Refusal {
		at, ok := parseHost(name)
		at.port = t.port
		if !ok {
			return denied(codeMisdirected, "TLS asks for %s in a tunnel to %s", strconv.Quote(printable(name, 80)), t)
		}
		if at == t {
			return nil
		}
		if _, ref := p.grantFor(at, c); ref != nil {
			return denied(codeMisdirected, "TLS asks for %s in a tunnel to %s", at.host(), t)
		}
		return nil
	}
}
