package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/httpapi/nbformat"
)

const executeOperation = "execute"

type executeInput struct {
	SandboxPath
	Raw
	Accept string `header:"Accept" doc:"application/json (default): answers at the end; text/event-stream or application/x-ndjson: streams the events"`
	Prefer string `header:"Prefer" doc:"respond-async: answers 202 at once" example:"respond-async"`
	Key    string `header:"Idempotency-Key" maxLength:"255" doc:"The same key gives the same execution instead of a new one"`
	Body   executeBody
}

// executeBody also notes whether the body was UTF-8, which a JSON decoder
// mends without a word.
type executeBody struct {
	v1.Execute
	mended bool
}

// UnmarshalJSON sees the bytes as they came.
func (b *executeBody) UnmarshalJSON(raw []byte) error {
	if err := json.Unmarshal(raw, &b.Execute); err != nil {
		return err
	}
	b.mended = mended(b.Code, raw)
	return nil
}

// Schema describes the body in the OpenAPI as what it is on the wire.
func (b *executeBody) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(typeFor[v1.Execute](), true, "Execute")
}

// ExecutionPath is the part of an input that names an execution.
type ExecutionPath struct {
	SandboxPath
	ExecutionID string `path:"execution_id" maxLength:"64" doc:"Identifier of the execution"`
}

type eventsInput struct {
	ExecutionPath
	Raw
	Accept      string `header:"Accept" doc:"text/event-stream (default) or application/x-ndjson"`
	LastEventID string `header:"Last-Event-ID" doc:"Resume after this number"`
	After       int64  `query:"after" minimum:"0" doc:"The same, for clients that can't send the header"`
	Follow      bool   `query:"follow" doc:"Go on after execution.finished with output of threads the code left behind, until the kernel runs something else"`
}

func (a *API) executionRoutes() {
	tags := []string{tagExecutions}
	const path = "/v1/sandboxes/{sandbox_id}/executions"
	register(a, huma.Operation{
		OperationID: executeOperation, Method: http.MethodPost, Path: path, Tags: tags, MaxBodyBytes: maxExecBody,
		Summary: "Run code",
		Description: "The form of the answer follows from Accept: application/json waits for the end and gives the outputs; text/event-stream and application/x-ndjson give numbered events as they happen. " +
			"The execution belongs to the sandbox: closing the connection does not stop it, and its events can be read again from GET …/events. " +
			"Executions on one kernel run one after the other; one that waits begins with execution.queued.\n\n" +
			"A Python exception is an output with status `error`, not an HTTP failure. Failures: 400 `code-empty`, `code-not-utf8`; 404 `kernel-not-found`; 409 `idempotency-key-reused`; 413 `code-too-large`; 429 `too-many-executions`.",
		Responses: executeResponses(),
	}, a.execute)
	register(a, huma.Operation{
		OperationID: "list-executions", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List the executions that are remembered, newest first, without outputs",
	}, func(ctx context.Context, in *SandboxPath) (*answer[v1.ExecutionList], error) {
		s, err := a.remembered(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		list := v1.ExecutionList{Executions: []v1.Execution{}}
		for _, e := range s.Executions() {
			list.Executions = append(list.Executions, viewExecution(e))
		}
		return &answer[v1.ExecutionList]{list}, nil
	})
	register(a, huma.Operation{
		OperationID: "get-execution", Method: http.MethodGet, Path: path + "/{execution_id}", Tags: tags,
		Summary: "Get an execution with its outputs so far", Description: "Works for a while after the sandbox is gone. Failures: 404 `execution-not-found`.",
	}, func(ctx context.Context, in *ExecutionPath) (*answer[v1.Execution], error) {
		e, err := a.execution(ctx, *in)
		if err != nil {
			return nil, err
		}
		out, err := withOutputs(ctx, e)
		return &answer[v1.Execution]{out}, err
	})
	register(a, huma.Operation{
		OperationID: "get-execution-events", Method: http.MethodGet, Path: path + "/{execution_id}/events", Tags: tags,
		Summary:     "Follow the events of an execution",
		Description: "From the beginning, or after Last-Event-ID or ?after=. Any number of readers may follow; a stream that is cut is resumed by number. 204 when it has ended and there is nothing after that number, which also ends an EventSource. Two types belong to the stream and have no number: stream.gap (older events are no longer kept; data.oldest is the next) and stream.interrupted (the server stops or restarts: come back after data.after).",
		Responses:   eventResponses("The events", true),
	}, a.events)
	register(a, huma.Operation{
		OperationID: "interrupt-execution", Method: http.MethodPost, Path: path + "/{execution_id}/interrupt", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Interrupt an execution", Description: "One that waits is aborted; one that has ended stays as it is.",
	}, func(ctx context.Context, in *ExecutionPath) (*struct{}, error) {
		e, err := a.execution(ctx, *in)
		if err != nil {
			return nil, err
		}
		return nil, e.Sandbox().Explain(e.Interrupt(ctx))
	})
	register(a, huma.Operation{
		OperationID: "answer-input", Method: http.MethodPost, Path: path + "/{execution_id}/input", Tags: tags, DefaultStatus: http.StatusNoContent, MaxBodyBytes: 8 << 20,
		Summary: "Answer input() or getpass()", Description: "Failures: 409 `no-input-requested`.",
	}, func(ctx context.Context, in *struct {
		ExecutionPath
		Body v1.Input
	},
	) (*struct{}, error) {
		e, err := a.execution(ctx, in.ExecutionPath)
		if err != nil {
			return nil, err
		}
		return nil, e.Sandbox().Explain(e.Input(ctx, in.Body.Value))
	})
}

func (a *API) execution(ctx context.Context, p ExecutionPath) (*fleet.Execution, error) {
	s, err := a.remembered(ctx, p.SandboxID)
	if err != nil {
		return nil, err
	}
	note(ctx, slog.String("execution_id", p.ExecutionID))
	e, err := s.Execution(p.ExecutionID)
	return e, s.Explain(err)
}

// checkCode refuses what can't be Python; mended says that decoding changed it.
func checkCode(code string, mended bool) error {
	switch {
	case len(code) > maxCode:
		return errCodeTooLarge()
	case strings.TrimSpace(code) == "":
		return errdefs.New(errdefs.ErrInvalid, "code-empty", "The code is empty.").WithHint("Send Python in the field \"code\".")
	case mended:
		return errdefs.New(errdefs.ErrInvalid, "code-not-utf8", "The code is not valid UTF-8.").WithHint("Encode the request body as UTF-8.")
	case strings.ContainsRune(code, 0):
		return errdefs.New(errdefs.ErrInvalid, "code-has-nul", "The code has a NUL character, which Python source can't have.").WithHint("Write \\x00 in a string instead.")
	}
	return nil
}

// mended reports whether decoding raw put U+FFFD into code: for bytes that are
// no UTF-8, or for half of a surrogate pair. Who writes that character writes
// it as such or as its own escape.
func mended(code string, raw []byte) bool {
	return !utf8.Valid(raw) || strings.ContainsRune(code, utf8.RuneError) &&
		!bytes.Contains(raw, []byte("\uFFFD")) && !bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`))
}

func (a *API) execute(ctx context.Context, in *executeInput) (*huma.StreamResponse, error) {
	s, err := a.sandbox(ctx, in.SandboxID)
	if err != nil {
		return nil, err
	}
	if err := checkCode(in.Body.Code, in.Body.mended); err != nil {
		return nil, err
	}
	e, _, err := s.Execute(ctx, fleet.ExecuteRequest{
		Code: in.Body.Code, KernelID: in.Body.KernelID, Timeout: millis(in.Body.TimeoutMS),
		AllowStdin: in.Body.AllowStdin, StopOnError: in.Body.StopOnError, Silent: in.Body.Silent,
		NoHistory:       in.Body.StoreHistory != nil && !*in.Body.StoreHistory,
		UserExpressions: in.Body.UserExpressions, OutputLimitBytes: in.Body.OutputLimitBytes,
		IdempotencyKey: in.Key,
	})
	if err != nil {
		return nil, s.Explain(err)
	}
	note(ctx, slog.String("execution_id", e.ID))
	h := in.w.Header()
	h[v1.HeaderExecutionID] = []string{e.ID}
	h["Location"] = []string{"/v1/sandboxes/" + in.SandboxID + "/executions/" + e.ID}
	if prefersAsync(in.Prefer) {
		return stream(func() {
			h.Set("Preference-Applied", "respond-async")
			writeJSON(in.w, http.StatusAccepted, viewExecution(e))
		}), nil
	}
	form := accepted(in.Accept, v1.MediaJSON)
	if form != v1.MediaJSON {
		return stream(func() { a.streamRecords(in.w, in.r, e.Reader(0, false), 0, form) }), nil
	}
	out, err := a.await(ctx, e)
	if err != nil {
		return nil, err
	}
	return stream(func() { writeJSON(in.w, http.StatusOK, out) }), nil
}

// await waits for the end and gives the outputs.
func (a *API) await(ctx context.Context, e *fleet.Execution) (v1.Execution, error) {
	select {
	case <-e.Done():
		return withOutputs(ctx, e)
	case <-a.draining.Done():
		return v1.Execution{}, errdefs.New(errdefs.ErrUnavailable, "server-stopping", "The server is stopping; the execution goes on.").
			WithHint("Read it from the Location of this answer in a few seconds.")
	case <-ctx.Done():
		return v1.Execution{}, context.Cause(ctx)
	}
}

func prefersAsync(prefer string) bool {
	for p := range strings.SplitSeq(prefer, ",") {
		if strings.EqualFold(strings.TrimSpace(p), "respond-async") {
			return true
		}
	}
	return false
}

func (a *API) events(ctx context.Context, in *eventsInput) (*huma.StreamResponse, error) {
	after, err := resumeAfter(in.LastEventID, in.After)
	if err != nil {
		return nil, err
	}
	e, err := a.execution(ctx, in.ExecutionPath)
	if err != nil {
		return nil, err
	}
	in.w.Header()[v1.HeaderExecutionID] = []string{e.ID}
	if !in.Follow {
		if st := e.State(); !st.FinishedAt.IsZero() && after >= st.LastSeq {
			return stream(func() { in.w.WriteHeader(http.StatusNoContent) }), nil
		}
	}
	form := accepted(in.Accept, v1.MediaSSE)
	if form == v1.MediaJSON {
		form = v1.MediaNDJSON // who asks for JSON wants no SSE
	}
	return stream(func() { a.streamRecords(in.w, in.r, e.Reader(after, in.Follow), after, form) }), nil
}

func viewExecution(e *fleet.Execution) v1.Execution {
	st := e.State()
	out := v1.Execution{
		ID: e.ID, SandboxID: string(e.Sandbox().ID()), KernelID: e.KernelID,
		Status: string(st.Status), Reason: string(st.Finished.Reason), Message: st.Finished.Message,
		ExecutionCount: st.Finished.ExecutionCount, Outputs: []v1.Output{}, LastSeq: st.LastSeq,
		CreatedAt: st.CreatedAt, DurationMS: st.Finished.DurationMS,
		OutputBytes: st.Finished.OutputBytes, DroppedBytes: st.Finished.DroppedBytes, OutputFile: st.Finished.OutputFile,
		Payload: st.Finished.Payload, UserExpressions: st.Finished.UserExpressions,
	}
	if st.Status == fleet.StatusQueued {
		out.Ahead = st.Ahead
	}
	if !st.StartedAt.IsZero() {
		out.StartedAt = &st.StartedAt
	}
	if !st.FinishedAt.IsZero() {
		out.FinishedAt = &st.FinishedAt
	}
	if st.Input != nil {
		out.Input = &v1.InputRequest{Prompt: st.Input.Prompt, Password: st.Input.Password}
	}
	return out
}

// errNow ends a read at what is there already.
var errNow = errors.New("httpapi: no more for now")

// withOutputs gives an execution with what it wrote so far.
func withOutputs(ctx context.Context, e *fleet.Execution) (v1.Execution, error) {
	out := viewExecution(e)
	now, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	cancel(errNow)
	var fold nbformat.Folder
	r := e.Reader(0, false)
	for {
		batch, err := r.Next(now)
		var gap *event.GapError
		switch {
		case errors.As(err, &gap):
			r.Skip(gap.Oldest)
			continue
		case errors.Is(err, errNow), errors.Is(err, io.EOF), errors.Is(err, errdefs.ErrUnavailable):
			out.Outputs = fold.Outputs()
			return out, nil
		case err != nil:
			return out, err
		}
		for _, rec := range batch {
			fold.Add(rec)
		}
	}
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // a foreign value that can't be JSON; none passes the agent's client
		status = http.StatusInternalServerError
	}
	h := w.Header()
	h["Content-Type"] = []string{v1.MediaJSON}
	h["Content-Length"] = []string{strconv.Itoa(buf.Len())}
	w.WriteHeader(status)
	_, _ = w.Write(buf.Bytes()) // the client may have left
}
