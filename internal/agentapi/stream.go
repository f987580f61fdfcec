package agentapi

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/caesarion/caesarion/internal/event"
)

// MaxLineBytes is the longest event line that a Stream accepts. The agent
// keeps its events below it: text is split, larger figures are left out.
const MaxLineBytes = 16 << 20

// Stream is a sequence of events from the agent. It belongs to one goroutine,
// but Close may be called from any.
type Stream struct {
	body   io.ReadCloser
	r      *bufio.Reader   // nil after io.EOF
	ctx    context.Context //nolint:containedctx // the life of the stream, to tell why it ended
	cancel context.CancelCauseFunc
	last   int64
	max    int
	whole  bool
	closed sync.Once
}

// Execute starts an execution and gives its events up to execution.finished.
// Leaving the stream does not stop the code. If the agent knows the id
// already, this follows that execution.
func (c *Client) Execute(ctx context.Context, kernelID string, exec Execute) (*Stream, error) {
	return cuttable(c.stream(ctx, http.MethodPost, "/kernels/"+url.PathEscape(kernelID)+"/executions", exec, 0))
}

// cuttable says that the events can be asked for again: Hold may cut them.
func cuttable(s *Stream, err error) (*Stream, error) {
	if err != nil {
		return nil, err
	}
	if body, ok := s.body.(*heldBody); ok {
		body.stream(s.cancel)
	}
	return s, nil
}

// Events gives the events of an execution after number after, up to
// execution.finished and the late output that is already there.
func (c *Client) Events(ctx context.Context, exeID string, after int64) (*Stream, error) {
	return cuttable(c.stream(ctx, http.MethodGet, eventsPath(exeID, after), nil, after))
}

// Follow is Events that goes on after execution.finished with late output,
// until the kernel ends or the agent forgets the execution.
func (c *Client) Follow(ctx context.Context, exeID string, after int64) (*Stream, error) {
	return cuttable(c.stream(ctx, http.MethodGet, eventsPath(exeID, after)+"&follow=true", nil, after))
}

func eventsPath(exeID string, after int64) string {
	return "/executions/" + url.PathEscape(exeID) + "/events?after=" + strconv.FormatInt(after, 10)
}

// Run starts a process and gives its events up to process.finished.
func (c *Client) Run(ctx context.Context, run Run) (*Stream, error) {
	return c.stream(ctx, http.MethodPost, "/processes", run, 0)
}

// Readers are large so that net/http's own small buffer is passed by.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 32<<10) }}

func (c *Client) stream(ctx context.Context, method, path string, body any, after int64) (*Stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	// The agent sends its header with the first event, which comes at once.
	timer := time.AfterFunc(callTimeout, func() { cancel(errTimeout) })
	resp, err := c.sendDirect(ctx, method, path, body)
	if !timer.Stop() && err == nil {
		_ = resp.Body.Close()
		err = errTimeout
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	r := readers.Get().(*bufio.Reader) //nolint:forcetypeassert // the pool holds nothing else
	r.Reset(resp.Body)
	s := &Stream{body: resp.Body, r: r, ctx: ctx, cancel: cancel, last: after, max: MaxLineBytes}
	if held, ok := resp.Body.(*heldBody); ok {
		if direct, ok := held.ReadCloser.(*directBody); ok {
			s.whole = direct.whole()
		}
	}
	return s, nil
}

// Next gives the next event, or io.EOF after the last one. The record's line
// is the agent's own bytes: valid UTF-8 and JSON, numbered without a gap, of a
// known type and with data of that type's shape. Reading up to io.EOF lets the
// connection be used again.
func (s *Stream) Next() (event.Record, error) {
	if s.r == nil {
		return event.Record{}, io.EOF
	}
	line, err := s.line()
	if err != nil {
		if errors.Is(err, io.EOF) && len(line) == 0 {
			s.r.Reset(nil)
			readers.Put(s.r)
			s.r = nil
			return event.Record{}, io.EOF
		}
		return event.Record{}, s.fail(err)
	}
	rec, err := parseRecord(line)
	if err != nil {
		return event.Record{}, err
	}
	if rec.Seq != s.last+1 {
		return event.Record{}, badAnswer("event %d follows event %d", rec.Seq, s.last)
	}
	s.last = rec.Seq
	return rec, nil
}

// Whole reports whether everything up to io.EOF was there when the stream
// began, so that Next never waits.
func (s *Stream) Whole() bool { return s.whole }

// Buffered tells whether a further line is already here, so that a caller who
// passes events on can wait with its flush.
func (s *Stream) Buffered() bool {
	if s.r == nil {
		return false
	}
	n := s.r.Buffered()
	if n == 0 {
		return false
	}
	data, _ := s.r.Peek(n)
	return bytes.IndexByte(data, '\n') >= 0
}

// Close leaves the stream. What was started goes on.
func (s *Stream) Close() error {
	s.closed.Do(func() {
		s.cancel(errStreamClosed)
		_ = s.body.Close()
	})
	return nil
}

var errStreamClosed = errors.New("agentapi: stream was closed")

// line reads one line without its newline into memory of its own.
func (s *Stream) line() ([]byte, error) {
	var line []byte
	for {
		part, err := s.r.ReadSlice('\n')
		if len(line)+len(part) > s.max {
			return line, badAnswer("an event has more than %d bytes", s.max)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line[:len(line)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, io.ErrUnexpectedEOF
		default:
			return line, err
		}
	}
}

func (s *Stream) fail(err error) error {
	_ = s.Close()
	if cause := context.Cause(s.ctx); cause != nil && !errors.Is(cause, errStreamClosed) {
		return cause
	}
	return transportError(context.WithoutCancel(s.ctx), err)
}

// parseRecord checks one line. It is what stands between hostile code and
// everybody who reads events, so it accepts nothing it does not know.
func parseRecord(line []byte) (event.Record, error) {
	if !utf8.Valid(line) {
		return event.Record{}, badAnswer("an event is not UTF-8")
	}
	var e event.Event
	if err := json.Unmarshal(line, &e); err != nil {
		return event.Record{}, badAnswer("an event is not JSON").WithCause(err)
	}
	if e.Seq < 1 || e.Time.IsZero() {
		return event.Record{}, badAnswer("an event has no number or time")
	}
	if err := CheckData(e.Type, e.Data); err != nil {
		return event.Record{}, badAnswer("an event's data does not fit its type").WithCause(err)
	}
	return event.Record{Seq: e.Seq, Type: e.Type, Line: line}, nil
}

var errShape = errors.New("agentapi: unexpected shape")

// CheckData reports whether data, which is valid JSON, has the shape that
// typ's data must have. The agent asks before it passes on what a kernel said.
func CheckData(typ event.Type, data json.RawMessage) error {
	if !isObject(data) {
		return errShape
	}
	switch typ {
	case event.OutputStream:
		s, err := shape[event.Stream](data)
		if err == nil && s.Name != "stdout" && s.Name != "stderr" {
			return errShape
		}
		return err
	case event.OutputDisplay, event.OutputUpdate, event.OutputResult:
		d, err := shape[event.Display](data)
		if err == nil && (!isObject(d.Data) || len(d.Metadata) > 0 && !isObject(d.Metadata) || len(d.Transient) > 0 && !isObject(d.Transient)) {
			return errShape
		}
		return err
	case event.OutputError:
		if tooMany(data, nil) { // lines of a traceback
			return errShape
		}
		return second(shape[event.Error](data))
	case event.ExecutionQueued:
		return second(shape[event.Queued](data))
	case event.ExecutionStarted:
		return second(shape[event.Started](data))
	case event.ExecutionFinished:
		f, err := shape[event.Finished](data)
		if err == nil && !knownStatus(f.Status) {
			return errShape
		}
		return err
	case event.OutputTruncated:
		return second(shape[event.Truncated](data))
	case event.InputRequested:
		return second(shape[event.Input](data))
	case event.KernelInterrupted:
		return second(shape[event.Interrupt](data))
	case event.KernelRestarted:
		return second(shape[event.Restarted](data))
	case event.ProcessFinished:
		p, err := shape[event.ProcessExit](data)
		if err == nil && !knownStatus(p.Status) {
			return errShape
		}
		return err
	case event.OutputClear:
		return second(shape[struct {
			Wait bool `json:"wait"`
		}](data))
	case event.ProcessStarted:
		return second(shape[struct {
			PID int `json:"pid"`
		}](data))
	case event.CommOpen, event.CommMessage, event.CommClose:
		return second(shape[struct {
			ID     string `json:"comm_id"`
			Target string `json:"target_name"`
		}](data))
	}
	return errShape
}

func knownStatus(s event.Status) bool {
	switch s {
	case event.StatusOK, event.StatusError, event.StatusInterrupted, event.StatusTimeout, event.StatusKilled, event.StatusAborted:
		return true
	}
	return false
}

func shape[T any](data json.RawMessage) (T, error) {
	var v T
	err := json.Unmarshal(data, &v)
	return v, err
}

func second[T any](_ T, err error) error { return err }

func isObject(data json.RawMessage) bool { return len(data) > 0 && data[0] == '{' }
