package egress

import (
	"bytes"
	"io"
)

// pair is a text and what stands in its place.
type pair struct{ from, to []byte }

// replacer replaces texts in a stream. It holds back only what may be the
// beginning of one, so that a stream of events is not late.
type replacer struct {
	src   io.Reader
	close func() error
	pairs []pair
	held  []byte // read, not yet searched to its end
	ready []byte // searched
	err   error
	buf   [8 << 10]byte
}

func newReplacer(src io.ReadCloser, pairs []pair) *replacer {
	return &replacer{src: src, close: src.Close, pairs: pairs}
}

// Read implements io.Reader.
func (r *replacer) Read(p []byte) (int, error) {
	for len(r.ready) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		n, err := r.src.Read(r.buf[:])
		r.held = append(r.held, r.buf[:n]...)
		r.err = err
		r.ready, r.held = replaceIn(r.ready[:0], r.held, r.pairs, err != nil)
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// Close implements io.Closer.
func (r *replacer) Close() error { return r.close() }

// replaceIn appends to out what of b is decided, and gives the rest.
func replaceIn(out, b []byte, pairs []pair, last bool) (done, rest []byte) {
	for {
		at, which := -1, 0
		for i, p := range pairs {
			if j := bytes.Index(b, p.from); j >= 0 && (at < 0 || j < at || j == at && len(p.from) > len(pairs[which].from)) {
				at, which = j, i
			}
		}
		if at < 0 {
			break
		}
		out = append(out, b[:at]...)
		out = append(out, pairs[which].to...)
		b = b[at+len(pairs[which].from):]
	}
	keep := 0
	if !last {
		keep = undecided(b, pairs)
	}
	out = append(out, b[:len(b)-keep]...)
	return out, bytes.Clone(b[len(b)-keep:])
}

// undecided is the length of b's longest end that begins one of the texts.
func undecided(b []byte, pairs []pair) int {
	most := 0
	for _, p := range pairs {
		for n := min(len(p.from)-1, len(b)); n > most; n-- {
			if bytes.HasSuffix(b, p.from[:n]) {
				most = n
				break
			}
		}
	}
	return most
}
