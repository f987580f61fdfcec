package oidc

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// Bounds of what a provider answers.
const (
	maxAnswer    = 1 << 20
	maxRedirects = 3
	answerIn     = 15 * time.Second
)

// bounded gives a client for a provider: it takes no answer that is larger, takes
// longer or leads from TLS to none.
func bounded(c *http.Client) *http.Client {
	b := http.Client{Timeout: answerIn}
	if c != nil {
		b = *c
	}
	if b.Transport == nil {
		b.Transport = http.DefaultTransport
	}
	b.Transport = boundedTransport{b.Transport}
	b.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		switch {
		case len(via) > maxRedirects:
			return errors.New("oidc: too many redirects")
		case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
			return errors.New("oidc: a redirect from TLS to none")
		}
		return nil
	}
	return &b
}

type boundedTransport struct{ next http.RoundTripper }

func (t boundedTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err == nil {
		resp.Body = &boundedBody{resp.Body, maxAnswer}
	}
	return resp, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

var errLarge = errors.New("oidc: the answer is larger than 1 MiB")

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errLarge
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
