package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// maxAnswerBytes bounds an answer that is read whole. The largest real one is
// an execution with outputs (16 MiB) or a folder's list.
const maxAnswerBytes = 64 << 20

// Options configures a Client. The zero value suits a server without token.
type Options struct {
	Token string       // sent with every call
	HTTP  *http.Client // default: a client of its own, without timeouts but those of contexts
}

// Client calls one server.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// New makes a Client for the server at address, a URL as the server prints it:
// a token in its query is used unless opts has one. No connection is made.
func New(address string, opts Options) (*Client, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	base, err := url.Parse(address)
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, errdefs.New(errdefs.ErrInvalid, "server-url-invalid", "%q is not the URL of a server", address).
			WithHint("write it as http://127.0.0.1:8000")
	}
	c := &Client{base: base, token: opts.Token, http: opts.HTTP}
	if c.token == "" {
		c.token = base.Query().Get("token")
	}
	base.RawQuery, base.Fragment = "", ""
	base.Path = strings.TrimRight(base.Path, "/")
	if c.http == nil {
		c.http = &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}
	}
	return c, nil
}

// URL gives the server's address, without token.
func (c *Client) URL() string { return c.base.String() }

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// request makes a request; path holds escaped segments.
func (c *Client) request(ctx context.Context, method, path string, query url.Values, body io.Reader) (*http.Request, error) {
	target := c.base.String() + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// do sends a request and turns every failure into an error. The caller closes
// the body of what it gets.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(req.Context(), err)
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, problem(resp)
}

// unreachable says that the server gave no answer, unless the caller gave up.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if urlErr, ok := errors.AsType[*url.Error](err); ok { // its text repeats method and URL, with the query
		err = urlErr.Err
	}
	return errdefs.New(errdefs.ErrUnavailable, "server-unreachable", "no answer from %s: %v", c.base, err).
		WithHint("is the server running? caesarion serve starts one")
}

// problem reads the body of a failure.
func problem(resp *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	p := &v1.Problem{}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if kind != v1.MediaProblem || json.Unmarshal(text, p) != nil || p.Code == "" {
		*p = v1.Problem{
			Title:  http.StatusText(resp.StatusCode),
			Code:   "unexpected-answer",
			Detail: fmt.Sprintf("the server answered %s without an explanation", resp.Status),
			Hint:   "check that the URL is that of a Caesarion server",
		}
	}
	p.Status = resp.StatusCode
	if p.RequestID == "" {
		p.RequestID = resp.Header.Get(v1.HeaderRequestID)
	}
	return p
}

// call sends in as JSON, unless nil, and reads the JSON answer into out, unless nil.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("client: %w", err)
		}
		body = bytes.NewReader(text)
	}
	req, err := c.request(ctx, method, path, query, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", v1.MediaJSON)
	if in != nil {
		req.Header.Set("Content-Type", v1.MediaJSON)
	}
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswerBytes))
		return err
	}
	limited := io.LimitReader(resp.Body, maxAnswerBytes)
	if err := json.NewDecoder(limited).Decode(out); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("client: answer of %s %s: %w", method, path, err)
	}
	_, _ = io.Copy(io.Discard, limited) // so that the connection can be used again
	return nil
}

// Health reports whether the server answers; it needs no token.
func (c *Client) Health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	return c.call(ctx, http.MethodGet, "/health", nil, nil, &v1.Health{})
}

// Info says what the installation is and can do.
func (c *Client) Info(ctx context.Context) (v1.Info, error) {
	var info v1.Info
	return info, c.call(ctx, http.MethodGet, "/v1/info", nil, nil, &info)
}

// segments joins path segments, each escaped.
func segments(parts ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, p := range parts {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(p))
	}
	return b.String()
}
