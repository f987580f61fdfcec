package agentapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Bounds on what an agent may answer. A sandbox whose agent was taken over by
// user code must cost the server no more than this per call.
const (
	maxHeaderBytes  = 32 << 10
	maxProblemBytes = 64 << 10
	maxSmallBody    = 1 << 20  // health, usage, one kernel
	maxListBody     = 64 << 20 // folder listings, completions
	maxDetail       = 2000     // characters of a problem's sentences

	// callTimeout bounds calls that only look or set; startTimeout those that
	// wait for Python to start, which takes seconds on a busy machine.
	callTimeout  = 30 * time.Second
	startTimeout = 120 * time.Second
	// fileTimeout bounds the waiting for the answer of calls whose work grows
	// with what they are given: deleting a folder, syncing an upload.
	fileTimeout = 10 * time.Minute
)

// Client speaks to one agent. All methods may be called concurrently.
type Client struct {
	http      *http.Client
	transport *http.Transport
	dial      atomic.Pointer[dialFunc]
	token     atomic.Pointer[string]
	direct    directIdle
	gate      gate
}

type dialFunc = func(context.Context) (net.Conn, error)

// NewClient gives a client that opens connections with dial and keeps them for
// later calls. It opens nothing by itself.
func NewClient(dial func(context.Context) (net.Conn, error), token string) *Client {
	c := &Client{}
	c.SetDial(dial)
	c.SetToken(token)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.open(ctx) },
		// One hop inside one machine: there is nothing to compress, and the
		// small default buffers are passed by when large blocks are copied.
		DisableCompression:     true,
		MaxIdleConnsPerHost:    32,
		IdleConnTimeout:        5 * time.Minute,
		MaxResponseHeaderBytes: maxHeaderBytes,
		ExpectContinueTimeout:  0,
		Protocols:              new(http.Protocols),
	}
	transport.Protocols.SetHTTP1(true)
	c.transport = transport
	c.http = &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c
}

// open dials a connection that Hold finds.
func (c *Client) open(ctx context.Context) (*trackedConn, error) {
	conn, err := (*c.dial.Load())(ctx)
	if err != nil {
		return nil, err
	}
	return c.gate.track(conn)
}

// SetDial changes how later connections are opened.
func (c *Client) SetDial(dial func(context.Context) (net.Conn, error)) { c.dial.Store(&dial) }

// SetToken changes what later calls carry.
func (c *Client) SetToken(token string) { c.token.Store(&token) }

// CloseIdle closes the connections that no call is using, for instance before
// a snapshot.
func (c *Client) CloseIdle() {
	c.transport.CloseIdleConnections()
	c.direct.close()
}

// Health asks whether the agent answers.
func (c *Client) Health(ctx context.Context) (Health, error) {
	return call[Health](ctx, c, http.MethodGet, "/health", nil, maxSmallBody, callTimeout)
}

// Configure gives the agent who it is. The token the client was made with is
// sent along, so that a second Configure is accepted too.
func (c *Client) Configure(ctx context.Context, conf Configure) (Health, error) {
	return call[Health](ctx, c, http.MethodPost, "/configure", conf, maxSmallBody, callTimeout)
}

// Trim has the sandbox give back memory that it does not need.
func (c *Client) Trim(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/trim", nil, callTimeout)
}

// Check has an idle kernel run an inert cell: it leaves nothing behind.
func (c *Client) Check(ctx context.Context, kernelID string) error {
	return c.do(ctx, http.MethodPost, "/kernels/"+url.PathEscape(kernelID)+"/check", nil, callTimeout)
}

// Usage reads the sandbox's resource counters.
func (c *Client) Usage(ctx context.Context) (Usage, error) {
	return call[Usage](ctx, c, http.MethodGet, "/usage", nil, maxSmallBody, callTimeout)
}

// Kernels lists the kernels.
func (c *Client) Kernels(ctx context.Context) ([]Kernel, error) {
	return call[[]Kernel](ctx, c, http.MethodGet, "/kernels", nil, maxSmallBody, callTimeout)
}

// Kernel gives one kernel.
func (c *Client) Kernel(ctx context.Context, id string) (Kernel, error) {
	return call[Kernel](ctx, c, http.MethodGet, "/kernels/"+url.PathEscape(id), nil, maxSmallBody, callTimeout)
}

// StartKernel starts a kernel and returns when it is ready to run code.
func (c *Client) StartKernel(ctx context.Context, start StartKernel) (Kernel, error) {
	return call[Kernel](ctx, c, http.MethodPost, "/kernels", start, maxSmallBody, startTimeout)
}

// DeleteKernel ends a kernel and everything it started.
func (c *Client) DeleteKernel(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/kernels/"+url.PathEscape(id), nil, callTimeout)
}

// InterruptKernel interrupts what the kernel runs now, if anything.
func (c *Client) InterruptKernel(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodPost, "/kernels/"+url.PathEscape(id)+"/interrupt", nil, callTimeout)
}

// RestartKernel replaces the kernel by a fresh one and returns when that is
// ready. What ran or waited is aborted.
func (c *Client) RestartKernel(ctx context.Context, id string) (Kernel, error) {
	return call[Kernel](ctx, c, http.MethodPost, "/kernels/"+url.PathEscape(id)+"/restart", nil, maxSmallBody, startTimeout)
}

// Request makes a request that has one reply: completion, inspection, ….
func (c *Client) Request(ctx context.Context, kernelID string, req Request) (Reply, error) {
	timeout := callTimeout
	if req.TimeoutMS > 0 {
		timeout += time.Duration(min(req.TimeoutMS, int64(24*time.Hour/time.Millisecond))) * time.Millisecond
	}
	return call[Reply](ctx, c, http.MethodPost, "/kernels/"+url.PathEscape(kernelID)+"/request", req, maxListBody, timeout)
}

// Comm sends a comm message to the kernel.
func (c *Client) Comm(ctx context.Context, kernelID string, msg Comm) error {
	return c.do(ctx, http.MethodPost, "/kernels/"+url.PathEscape(kernelID)+"/comm", msg, callTimeout)
}

// Executions lists the executions the agent still remembers.
func (c *Client) Executions(ctx context.Context) ([]Execution, error) {
	return call[[]Execution](ctx, c, http.MethodGet, "/executions", nil, maxListBody, callTimeout)
}

// InterruptExecution interrupts an execution; one that waits is aborted.
func (c *Client) InterruptExecution(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodPost, "/executions/"+url.PathEscape(id)+"/interrupt", nil, callTimeout)
}

// Input answers the question an execution asked with input.requested.
func (c *Client) Input(ctx context.Context, exeID string, in Input) error {
	return c.do(ctx, http.MethodPost, "/executions/"+url.PathEscape(exeID)+"/input", in, callTimeout)
}

// KillProcess ends a process and its children.
func (c *Client) KillProcess(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/processes/"+url.PathEscape(id), nil, callTimeout)
}

// call makes a request and decodes the JSON answer, which may have up to limit bytes.
func call[T any](ctx context.Context, c *Client, method, path string, body any, limit int64, timeout time.Duration) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		var none T
		return none, err
	}
	return decode[T](ctx, resp, limit)
}

// decode reads the JSON of an answer, which may have up to limit bytes.
func decode[T any](ctx context.Context, resp *http.Response, limit int64) (T, error) {
	var out T
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return out, transportError(ctx, err)
	}
	what := resp.Request.Method + " " + resp.Request.URL.Path
	if int64(len(data)) > limit {
		return out, badAnswer("the answer to %s is larger than %d bytes", what, limit)
	}
	if !utf8.Valid(data) {
		return out, badAnswer("the answer to %s is not UTF-8", what)
	}
	if tooMany(data, &out) {
		return out, badAnswer("the answer to %s has more than %d values", what, maxSyntax)
	}
	if err := json.Unmarshal(data, &out); err != nil {
		return out, badAnswer("the answer to %s is not what was asked for", what).WithCause(err)
	}
	return out, nil
}

// do makes a request whose answer has no body.
func (c *Client) do(ctx context.Context, method, path string, body any, timeout time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	_, _ = io.CopyN(io.Discard, resp.Body, 512) // so that the connection can be used again
	return resp.Body.Close()
}

// send makes a request with a JSON body and gives the answer if it is a success.
func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var reader io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("agentapi: encode: %w", err)
		}
		reader = bytes.NewReader(data)
	}
	req, err := c.request(ctx, method, path, reader)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.roundTrip(req)
}

func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	// The host is for the protocol only: dial decides where the call goes.
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, body)
	if err != nil {
		return nil, errdefs.New(errdefs.ErrInvalid, "invalid-request", "this request cannot be put in a URL").WithCause(err)
	}
	if token := *c.token.Load(); token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header["User-Agent"] = nil
	// Ids are chosen by the caller, so doing a request twice is harmless. The nil
	// value lets net/http try again on a fresh connection when an idle one turns out
	// to be closed, and is not sent.
	req.Header["Idempotency-Key"] = nil
	return req, nil
}

// roundTrip makes a call, which is under way until its answer is closed.
func (c *Client) roundTrip(req *http.Request) (*http.Response, error) {
	if err := c.gate.enter(req.Context()); err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.gate.leave()
		return nil, transportError(req.Context(), err)
	}
	resp.Body = &heldBody{ReadCloser: resp.Body, gate: &c.gate}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	return nil, problemError(resp)
}

var errTimeout = errdefs.New(errdefs.ErrUnavailable, "sandbox-timeout", "the sandbox did not answer in time").
	WithHint("try again; if it goes on, delete the sandbox and make a new one")

// transportError tells apart the caller leaving and the sandbox not answering.
func transportError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		return e // of dial: it knows best
	}
	return errdefs.New(errdefs.ErrUnavailable, "sandbox-unreachable", "the sandbox does not answer").WithCause(err)
}

func badAnswer(format string, args ...any) *errdefs.Error {
	return errdefs.New(errdefs.ErrUnavailable, "sandbox-bad-answer", "the sandbox answered what cannot be right: "+format, args...).
		WithHint("code in it may have broken its agent: delete the sandbox and make a new one")
}

var kindOfStatus = map[int]error{
	http.StatusBadRequest:                   errdefs.ErrInvalid,
	http.StatusForbidden:                    errdefs.ErrForbidden,
	http.StatusNotFound:                     errdefs.ErrNotFound,
	http.StatusConflict:                     errdefs.ErrConflict,
	http.StatusRequestEntityTooLarge:        errdefs.ErrTooLarge,
	http.StatusRequestedRangeNotSatisfiable: errdefs.ErrInvalid,
	http.StatusTooManyRequests:              errdefs.ErrExhausted,
	http.StatusNotImplemented:               errdefs.ErrUnsupported,
	http.StatusInsufficientStorage:          errdefs.ErrExhausted,
}

var codePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)

// problemError turns an agent's failure into ours: same code, kind by status.
// A 401 is not the caller's fault but a wrong token on our side.
func problemError(resp *http.Response) error {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxProblemBytes))
	var p Problem
	if err != nil || json.Unmarshal(data, &p) != nil || !codePattern.MatchString(p.Code) {
		return badAnswer("status %d without a usable problem", resp.StatusCode).WithCause(err)
	}
	kind, ok := kindOfStatus[resp.StatusCode]
	if !ok {
		kind = errdefs.ErrUnavailable
	}
	e := errdefs.New(kind, p.Code, "%s", clip(p.Detail))
	if p.Hint != "" {
		e.Hint = clip(p.Hint)
	}
	return e
}

func clip(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if utf8.RuneCountInString(s) > maxDetail {
		s = string([]rune(s)[:maxDetail]) + "…"
	}
	return s
}
