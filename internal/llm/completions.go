package llm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Endpoint says how to reach a model behind the Chat Completions protocol.
// It prints without its secrets.
type Endpoint struct {
	Info    Info
	BaseURL string            // "https://api.openai.com/v1": what stands before /chat/completions
	Model   string            // the server's name of the model; empty: Info.Name
	Key     string            // sent as bearer token; empty: none
	Headers map[string]string // sent with each request; as secret as the key

	Temperature *float64 // for requests that say none; nil: the server's default

	// Timeout is the longest silence: until the first byte of the answer, and
	// between two pieces of it. 0: two minutes, which a model on a slow
	// machine needs to read a long conversation.
	Timeout time.Duration

	// Transport sends the requests; nil: one of its own, with the proxy that
	// HTTPS_PROXY and its like name.
	Transport http.RoundTripper
}

// String implements fmt.Stringer.
func (e Endpoint) String() string {
	return fmt.Sprintf("model %s of %s", e.Info.Name, hostOf(e.BaseURL))
}

// GoString implements fmt.GoStringer.
func (e Endpoint) GoString() string { return e.String() }

// LogValue implements slog.LogValuer.
func (e Endpoint) LogValue() slog.Value { return slog.StringValue(e.String()) }

const (
	defaultTimeout = 2 * time.Minute
	// defaultContext is the window of a model that nobody described: what
	// nearly every current model has.
	defaultContext = 32 << 10
	// lingerTimeout is how long usage is waited for behind the model's last
	// word, with servers that neither send it nor end the stream.
	lingerTimeout = 3 * time.Second
	maxErrorBody  = 64 << 10
)

// The bounds of asking again.
const (
	maxTries     = 4
	firstBackoff = 500 * time.Millisecond
	// maxRetryAfter is the longest pause a person would watch; a server that
	// wants more gets an error that says so.
	maxRetryAfter = 30 * time.Second
)

var errSilent = errors.New("silence")

// NewChatCompletions makes a Model of an endpoint. It does no I/O; a mistake in
// the address is an ErrInvalid.
func NewChatCompletions(ep Endpoint) (Model, error) {
	u, err := url.Parse(ep.BaseURL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, errdefs.New(errdefs.ErrInvalid, "model-base-url", "model %q: its base URL can't be used", ep.Info.Name).
			WithHint("write it as https://api.example.org/v1, without a user or password")
	}
	if ep.Model == "" {
		ep.Model = ep.Info.Name
	}
	if ep.Info.Title == "" {
		ep.Info.Title = ep.Info.Name
	}
	if ep.Info.ContextTokens <= 0 {
		ep.Info.ContextTokens = defaultContext
	}
	if ep.Timeout <= 0 {
		ep.Timeout = defaultTimeout
	}
	if ep.Transport == nil {
		ep.Transport = NewTransport()
	}
	return &chatCompletions{
		ep:       ep,
		url:      u.JoinPath("chat", "completions").String(),
		official: u.Hostname() == "api.openai.com",
		client: &http.Client{
			Transport: ep.Transport,
			// A redirect would carry the key and the conversation elsewhere.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		refused: map[string]bool{},
	}, nil
}

// NewTransport makes what models send their requests with; several can share
// one.
func NewTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the standard library's own value
	t.MaxResponseHeaderBytes = 64 << 10
	t.MaxIdleConnsPerHost = 8   // turns of several sessions
	t.DisableCompression = true // proxies gather what they compress, and words would come in lumps
	return t
}

// chatCompletions is a Model behind the Chat Completions protocol.
type chatCompletions struct {
	ep       Endpoint
	url      string
	official bool // OpenAI itself
	client   *http.Client

	mu      sync.Mutex
	refused map[string]bool // optional fields that the server does not take
}

func (c *chatCompletions) Info() Info { return c.ep.Info }

func (c *chatCompletions) Stream(ctx context.Context, req Request) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		silence := newSilence(c.ep.Timeout, cancel)
		resp, err := c.ask(ctx, req, silence, func(ev Event) bool { return yield(ev, nil) })
		if resp == nil {
			if err != nil {
				yield(Event{}, err)
			}
			return
		}
		defer resp.Body.Close()
		gone := false
		err = c.read(ctx, &silentReader{resp.Body, silence}, silence, func(ev Event) bool {
			gone = !yield(ev, nil)
			return !gone
		})
		if err != nil && !gone {
			yield(Event{}, err)
		}
	}
}

// ask sends the request until the server takes it. Without response and error,
// the caller left.
func (c *chatCompletions) ask(ctx context.Context, req Request, silence *silence, emit func(Event) bool) (*http.Response, error) {
	backoff := firstBackoff
	for try := 1; ; {
		w := c.toWire(req, c.refusedFields())
		body, err := json.Marshal(w)
		if err != nil {
			return nil, fmt.Errorf("llm: request: %w", err)
		}
		resp, fail := c.post(ctx, body, silence)
		if fail == nil {
			return resp, nil
		}
		if fail.err == nil { // ctx ended
			return nil, context.Cause(ctx)
		}
		if field := w.refusedField(fail.words); fail.fieldRefused && field != "" {
			c.refuse(field) // one less each time, so this ends
			continue
		}
		pause := backoff + rand.N(backoff/4) //nolint:gosec // spreads requests, guards nothing
		if fail.after >= 0 {
			pause = fail.after
		}
		deadline, bounded := ctx.Deadline()
		switch {
		case !fail.again || try == maxTries:
			return nil, fail.err
		case pause > maxRetryAfter, bounded && time.Until(deadline) < pause:
			return nil, fail.err.WithHint("its server asks to wait %s; try again then, or choose another model", pause.Round(time.Second))
		}
		if !emit(Event{Kind: Retry, Text: fail.err.Msg, After: pause}) {
			return nil, nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		}
		try++
		backoff *= 2
	}
}

// post sends the request once.
func (c *chatCompletions) post(ctx context.Context, body []byte, silence *silence) (*http.Response, *failure) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, c.unreachable(err)
	}
	for name, value := range c.ep.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream, application/json")
	req.Header.Set("User-Agent", "caesarion")
	if c.ep.Key != "" {
		req.Header.Set("Authorization", "Bearer "+c.ep.Key)
	}
	silence.begin()
	defer silence.end()
	resp, err := c.client.Do(req) //nolint:bodyclose // closed by Stream, or below
	if err != nil {
		switch {
		case errors.Is(context.Cause(ctx), errSilent):
			return nil, &failure{err: c.timeout("did not answer"), after: -1}
		case ctx.Err() != nil:
			return nil, &failure{}
		}
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // its address may hold secrets
		}
		return nil, c.unreachable(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what came says enough
	return nil, c.failed(resp, text)
}

// read gives the events of an answer that the server began.
func (c *chatCompletions) read(ctx context.Context, body io.Reader, silence *silence, emit func(Event) bool) error {
	buffered := bufio.NewReader(body)
	acc := newAccumulator()
	switch first, err := firstByte(buffered); {
	case err != nil:
		return c.broken(ctx, err, acc)
	case first == '{':
		return c.readWhole(ctx, buffered, acc, emit)
	case first == '<':
		return c.bad("it is a web page", nil)
	}
	events := newSSEReader(buffered)
	for {
		data, err := events.next()
		if err != nil {
			if acc.finish != "" && !errors.Is(err, errTooLong) && !c.left(ctx) {
				return c.end(acc, emit)
			}
			return c.broken(ctx, err, acc)
		}
		if bytes.Equal(bytes.TrimSpace(data), []byte("[DONE]")) {
			if !acc.any {
				return c.bad("it said nothing", nil)
			}
			return c.end(acc, emit)
		}
		var chunk wireChunk
		if err := json.Unmarshal(data, &chunk); err != nil {
			return c.bad("a piece of it is no JSON of this protocol", err)
		}
		if len(chunk.Error) > 0 && string(chunk.Error) != "null" {
			return c.failedMidway(data)
		}
		if !acc.add(&chunk, emit) {
			return nil
		}
		if acc.finish != "" {
			silence.limit = min(silence.limit, lingerTimeout)
		}
	}
}

// left tells whether the caller's context ended.
func (c *chatCompletions) left(ctx context.Context) bool {
	return ctx.Err() != nil && !errors.Is(context.Cause(ctx), errSilent)
}

// readWhole reads an answer of a server that does not stream.
func (c *chatCompletions) readWhole(ctx context.Context, body io.Reader, acc *accumulator, emit func(Event) bool) error {
	text, err := io.ReadAll(io.LimitReader(body, maxLine+1))
	if err != nil {
		return c.broken(ctx, err, acc)
	}
	if len(text) > maxLine {
		return c.bad("it is too long", nil)
	}
	var chunk wireChunk
	if err := json.Unmarshal(text, &chunk); err != nil {
		return c.bad("it is no JSON of this protocol", err)
	}
	if len(chunk.Error) > 0 && string(chunk.Error) != "null" {
		return c.failedMidway(text)
	}
	if !acc.add(&chunk, emit) {
		return nil
	}
	if !acc.any {
		return c.bad("there is no answer in it", nil)
	}
	return c.end(acc, emit)
}

func (c *chatCompletions) end(acc *accumulator, emit func(Event) bool) error {
	switch acc.finish {
	case "content_filter":
		return c.filtered()
	case "error":
		return c.failedMidway(nil)
	}
	acc.end(emit)
	return nil
}

// firstByte gives the first byte that is no white space, and leaves it there.
// A JSON document and a page begin otherwise than a stream.
func firstByte(r *bufio.Reader) (byte, error) {
	for {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		if strings.IndexByte(" \t\r\n", b) < 0 {
			return b, r.UnreadByte()
		}
	}
}

func (c *chatCompletions) refusedFields() map[string]bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.refused)
}

func (c *chatCompletions) refuse(field string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused[field] = true
}

// silence ends a request that nothing is heard of for too long. Only waiting
// counts, not what the reader of the events does.
type silence struct {
	limit time.Duration
	timer *time.Timer
}

func newSilence(limit time.Duration, cancel context.CancelCauseFunc) *silence {
	s := &silence{limit: limit, timer: time.AfterFunc(limit, func() { cancel(errSilent) })}
	s.timer.Stop()
	return s
}

func (s *silence) begin() { s.timer.Reset(s.limit) }
func (s *silence) end()   { s.timer.Stop() }

type silentReader struct {
	r       io.Reader
	silence *silence
}

func (r *silentReader) Read(p []byte) (int, error) {
	r.silence.begin()
	defer r.silence.end()
	return r.r.Read(p)
}
