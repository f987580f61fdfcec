package httpapi

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
)

// closedAtEnd is a request's body that net/http closed when the answer began.
type closedAtEnd struct{ io.Reader }

func (b *closedAtEnd) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	switch {
	case n == 0:
		return 0, http.ErrBodyReadAfterClose
	case n < len(p):
		return n, io.EOF
	}
	return n, err
}

func (b *closedAtEnd) Close() error { return nil }

// The owner may answer as soon as it has the last byte: that this side looks for
// more must not break the answer off.
func TestForwardedBodyEndsOnce(t *testing.T) {
	body := &onceBody{from: &closedAtEnd{strings.NewReader(`{"code":"1"}`)}}
	p := make([]byte, 100)
	if n, err := body.Read(p); n != 12 || !errors.Is(err, io.EOF) {
		t.Fatalf("read %d %v", n, err)
	}
	if n, err := body.Read(p); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("after its end: %d %v", n, err)
	}
}
