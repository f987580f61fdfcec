package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// maxEventBytes bounds one event: its data is at most 16 MiB of output,
	// which JSON escapes to a multiple.
	maxEventBytes = 128 << 20
	// resumeFor is how long a broken stream is tried again without a new
	// event. A server that restarts needs a few seconds.
	resumeFor = 30 * time.Second
	// The pause between two tries grows from the first to the second.
	firstPause, lastPause = 50 * time.Millisecond, 2 * time.Second
)

// StreamGap is the type of an event without number that stands for older
// events the server no longer keeps.
const StreamGap event.Type = "stream.gap"

// streamInterrupted is what a server that stops sends last.
const streamInterrupted event.Type = "stream.interrupted"

var errInterrupted = errors.New("the server is stopping")

// Stream is the events of one execution or process, in order.
type Stream struct {
	ID string // "exe_…" or "prc_…"

	ctx    context.Context // of all its requests; ends with the opener's, and by Close
	cancel context.CancelCauseFunc
	resume func(after int64) (*http.Response, error)
	last   event.Type
	body   io.ReadCloser
	lines  *bufio.Reader
	seq    int64
	done   bool
}

// Execute runs code in a sandbox. Closing the stream does not stop the code;
// Interrupt does.
func (c *Client) Execute(ctx context.Context, sandboxID string, in v1.Execute) (*Stream, error) {
	text, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	// With the key, a second try after a connection that broke before the
	// answer finds the first execution instead of running the code twice.
	key := sandbox.RandomSuffix()
	ctx, cancel := context.WithCancelCause(ctx)
	open := func() (*http.Response, error) {
		req, err := c.request(ctx, http.MethodPost, segments("sandboxes", sandboxID, "executions"), nil, bytes.NewReader(text))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", v1.MediaJSON)
		req.Header.Set("Accept", v1.MediaNDJSON)
		req.Header.Set(v1.HeaderIdempotencyKey, key)
		return c.do(req)
	}
	resp, err := open()
	if errors.Is(err, errdefs.ErrUnavailable) && ctx.Err() == nil {
		resp, err = open()
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	s := newStream(ctx, cancel, resp, v1.HeaderExecutionID, event.ExecutionFinished)
	s.resume = func(after int64) (*http.Response, error) {
		return c.events(ctx, sandboxID, s.ID, after)
	}
	return s, nil
}

// Follow reads the events of an execution that somebody started, from the one
// numbered after+1 on.
func (c *Client) Follow(ctx context.Context, sandboxID, execution string, after int64) (*Stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	resume := func(after int64) (*http.Response, error) { return c.events(ctx, sandboxID, execution, after) }
	resp, err := resume(after)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	s := newStream(ctx, cancel, resp, v1.HeaderExecutionID, event.ExecutionFinished)
	s.ID, s.seq, s.resume = execution, after, resume
	return s, nil
}

// Run starts a process beside the kernels. Unlike an execution it ends with
// its stream: a broken one cannot be resumed.
func (c *Client) Run(ctx context.Context, sandboxID string, in v1.RunProcess) (*Stream, error) {
	text, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := c.request(ctx, http.MethodPost, segments("sandboxes", sandboxID, "processes"), nil, bytes.NewReader(text))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	req.Header.Set("Content-Type", v1.MediaJSON)
	req.Header.Set("Accept", v1.MediaNDJSON)
	resp, err := c.do(req)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return newStream(ctx, cancel, resp, v1.HeaderProcessID, event.ProcessFinished), nil
}

// KillProcess ends a process and its children.
func (c *Client) KillProcess(ctx context.Context, sandboxID, process string) error {
	return c.call(ctx, http.MethodDelete, segments("sandboxes", sandboxID, "processes", process), nil, nil, nil)
}

// Interrupt stops an execution as Ctrl-C would.
func (c *Client) Interrupt(ctx context.Context, sandboxID, execution string) error {
	return c.call(ctx, http.MethodPost, segments("sandboxes", sandboxID, "executions", execution, "interrupt"), nil, nil, nil)
}

// Input answers an input.requested event.
func (c *Client) Input(ctx context.Context, sandboxID, execution, value string) error {
	return c.call(ctx, http.MethodPost, segments("sandboxes", sandboxID, "executions", execution, "input"), nil, v1.Input{Value: value}, nil)
}

func (c *Client) events(ctx context.Context, sandboxID, execution string, after int64) (*http.Response, error) {
	req, err := c.request(ctx, http.MethodGet, segments("sandboxes", sandboxID, "executions", execution, "events"), url.Values{}, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", v1.MediaNDJSON)
	if after > 0 {
		req.Header.Set(v1.HeaderLastEventID, strconv.FormatInt(after, 10))
	}
	return c.do(req)
}

func newStream(ctx context.Context, cancel context.CancelCauseFunc, resp *http.Response, idHeader string, last event.Type) *Stream {
	s := &Stream{ID: resp.Header.Get(idHeader), ctx: ctx, cancel: cancel, last: last}
	s.read(resp)
	return s
}

func (s *Stream) read(resp *http.Response) {
	s.body, s.lines = resp.Body, bufio.NewReaderSize(resp.Body, 64<<10)
}

// ErrClosed is what Next gives after Close.
var ErrClosed = errors.New("client: stream closed")

// Close ends the stream, also a Next that waits in another goroutine.
func (s *Stream) Close() error {
	s.cancel(ErrClosed) // closes the body, too
	return nil
}

// Next gives the next event, or io.EOF after the last one.
func (s *Stream) Next() (event.Event, error) {
	if s.done {
		return event.Event{}, io.EOF
	}
	if s.ctx.Err() != nil {
		return event.Event{}, context.Cause(s.ctx)
	}
	ev, err := s.next()
	for started, pause := time.Now(), firstPause; err != nil; pause = min(2*pause, lastPause) {
		if s.ctx.Err() != nil {
			return ev, context.Cause(s.ctx)
		}
		if s.resume == nil || time.Since(started) > resumeFor {
			return ev, errdefs.New(errdefs.ErrUnavailable, "stream-broken", "the connection broke while output arrived: %v", err).
				WithHint("check that the server still runs")
		}
		select {
		case <-s.ctx.Done():
			return ev, context.Cause(s.ctx)
		case <-time.After(pause):
		}
		_ = s.body.Close()
		resp, resumeErr := s.resume(s.seq)
		if errors.Is(resumeErr, errdefs.ErrUnavailable) {
			err = resumeErr
			continue
		}
		if resumeErr != nil { // the server answers, but no longer knows the execution
			return ev, resumeErr
		}
		s.read(resp)
		if resp.StatusCode == http.StatusNoContent { // there is nothing after seq
			s.done = true
			return ev, io.EOF
		}
		ev, err = s.next()
	}
	if ev.Type == s.last {
		s.done = true
		// Reading to the end lets the connection be used again.
		_, _ = io.CopyN(io.Discard, s.lines, 1)
		_ = s.body.Close()
	}
	return ev, nil
}

// next reads one event; what was seen already, after a resume, is skipped.
func (s *Stream) next() (event.Event, error) {
	for {
		line, err := s.line()
		if err != nil {
			return event.Event{}, err
		}
		if len(bytes.TrimSpace(line)) == 0 { // keeps proxies awake
			continue
		}
		var ev event.Event
		if err := json.Unmarshal(line, &ev); err != nil {
			return ev, fmt.Errorf("client: an event that is no JSON: %w", err)
		}
		switch {
		case ev.Type == streamInterrupted:
			return ev, errInterrupted
		case ev.Seq == 0: // of the stream, not of the execution: StreamGap
			return ev, nil
		case ev.Seq <= s.seq:
			continue
		}
		s.seq = ev.Seq
		return ev, nil
	}
}

func (s *Stream) line() ([]byte, error) {
	var line []byte
	for {
		part, err := s.lines.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			if errors.Is(err, io.EOF) { // the last event must come before the end
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		case len(line) > maxEventBytes:
			return nil, fmt.Errorf("client: an event of more than %d bytes", maxEventBytes)
		}
	}
}
