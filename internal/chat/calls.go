package chat

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/llm"
)

// maxSandboxFailures ends a turn whose cells can't run at all: a model would
// try until its rounds are used up.
const maxSandboxFailures = 3

// maxCalls bounds the calls of one answer. Models that loop inside an answer
// write hundreds.
const maxCalls = 32

// runTools runs the calls of an answer and keeps what came of them for the
// next request. Cells run in the order of their calls, as they share a kernel;
// everything else runs beside them.
func (l *loop) runTools(ctx context.Context, round int, a *answer) error {
	items := make([]v1.Item, len(a.calls))
	cut := a.finish == llm.FinishLength
	var group sync.WaitGroup
	var cells []int
	for i, c := range a.calls {
		switch {
		case i >= maxCalls:
			items[i] = l.refuse(c, badArguments("There were more than %d calls at once; this one did not run.", maxCalls))
		case c.Name == toolPython:
			cells = append(cells, i)
		default:
			group.Go(func() { items[i] = l.runTool(ctx, c, cut) })
		}
	}
	var fatal error
	for _, i := range cells {
		// The code of all cells is settled before the first one runs, so that
		// people see what is to come; a cell that stopped the turn stops the rest.
		var err error
		if items[i], err = l.runCell(ctx, a.calls[i], cut); err != nil && fatal == nil {
			fatal = err
		}
	}
	group.Wait()
	for i := range items {
		l.own = append(l.own, entry{Item: items[i], round: round})
	}
	if fatal != nil {
		return fatal
	}
	return context.Cause(ctx)
}

// refuse answers a call with an error for the model.
func (l *loop) refuse(c *call, err error) v1.Item {
	it := v1.Item{ID: c.item, Kind: "tool", Tool: &v1.ToolCall{ID: c.ID, Name: c.Name, Arguments: json.RawMessage(c.Arguments), Error: err.Error()}}
	if c.Name == toolPython {
		code := string(c.shown)
		it.Kind, it.Code = "cell", code
		it.Tool.Arguments = json.RawMessage(codeArguments(code))
		l.setCode(c.item, code, *it.Tool)
		l.finish(c.item, statusError, err.Error())
		return it
	}
	l.finishTool(c.item, nil, err.Error())
	return it
}

// runCell runs a call of python_interpreter. The error is one that ends the turn.
func (l *loop) runCell(ctx context.Context, c *call, cut bool) (v1.Item, error) {
	code, err := parseCode(c.Arguments, cut)
	if err != nil {
		return l.refuse(c, err), nil
	}
	tool := v1.ToolCall{ID: c.ID, Name: c.Name, Arguments: json.RawMessage(codeArguments(code))}
	if err := l.t.SetCode(c.item, code, tool); err != nil {
		return v1.Item{}, err
	}
	it := v1.Item{ID: c.item, Kind: "cell", Code: code, Tool: &tool}
	if ctx.Err() != nil {
		it.Status = statusStopped
		if !closing(ctx) {
			l.finish(c.item, statusStopped, "")
		}
		return it, nil
	}
	ran, err := l.perform(ctx, c.item)
	if err == nil {
		if neverRan(ran) {
			return ran, l.sandboxFailed(ran.Reason, ran.Message, nil)
		}
		l.failures = 0
		return ran, nil
	}
	if ctx.Err() != nil {
		it.Status = statusStopped
		return it, nil
	}
	code2, text := codeSandbox, "The sandbox failed."
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		code2, text = cmp.Or(e.Code, codeSandbox), e.Msg
		if e.Hint != "" {
			text += " " + sentence(e.Hint)
		}
	}
	it.Tool.Error = "The sandbox could not run this: " + text
	it.Status = statusError
	l.finish(c.item, statusError, text)
	return it, l.sandboxFailed(code2, text, err)
}

// perform runs a cell. It does not wait for the end of one that was stopped,
// and leaves one that runs when the server stops to the next process.
func (l *loop) perform(ctx context.Context, item string) (v1.Item, error) {
	type end struct {
		item v1.Item
		err  error
	}
	ended := make(chan end, 1)
	go func() { // ends with the cell, or with the session
		it, err := l.t.RunCell(l.t.Context(), item, l.s.opts.ToolTimeout)
		ended <- end{it, err}
	}()
	select {
	case e := <-ended:
		return e.item, e.err
	case <-ctx.Done():
		return v1.Item{}, context.Cause(ctx)
	}
}

// neverRan says that no kernel took a cell, by a failure of its sandbox.
func neverRan(it v1.Item) bool { return it.Status == "aborted" && it.Reason != "" }

// sandboxFailed counts failures in a row, and gives the error that ends the
// turn when there are too many.
func (l *loop) sandboxFailed(code, text string, cause error) error {
	if l.failures++; l.failures < maxSandboxFailures {
		return nil
	}
	return errdefs.New(errdefs.ErrUnavailable, code, "The sandbox could not run code %d times in a row: %s", l.failures, text).WithCause(cause)
}

// runTool runs any other call.
func (l *loop) runTool(ctx context.Context, c *call, cut bool) v1.Item {
	args, err := parseObject(c.Arguments, cut)
	if err != nil {
		return l.refuse(c, err)
	}
	ctx, cancel := context.WithTimeout(ctx, l.s.opts.ToolTimeout)
	defer cancel()
	var out json.RawMessage
	switch {
	case c.Name == toolWeather && l.s.opts.WeatherURL != NoWeather:
		out, err = l.s.weather(ctx, args)
	case c.Name == toolFiles:
		var text string
		if text, err = l.listFiles(ctx, args); err == nil {
			out, err = json.Marshal(map[string]string{"files": text})
		}
	default:
		err = badArguments("There is no tool named %q. There are: %s.", short(c.Name, 60), strings.Join(l.s.toolNames(), ", "))
	}
	it := v1.Item{ID: c.item, Kind: "tool", Status: statusOK, Tool: &v1.ToolCall{ID: c.ID, Name: c.Name, Result: out}}
	it.Tool.Arguments, _ = json.Marshal(args) // what JSON gave
	if err == nil {
		l.finishTool(c.item, out, "")
		return it
	}
	it.Tool.Error = "Aborted by the user."
	if ctx.Err() == nil || errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
		it.Tool.Error = toolError(err)
	}
	if !closing(ctx) {
		l.finishTool(c.item, nil, it.Tool.Error)
	}
	return it
}

func toolError(err error) string {
	if e, ok := errors.AsType[*argumentsError](err); ok {
		return e.text
	}
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		if e.Hint != "" {
			return e.Msg + " " + sentence(e.Hint)
		}
		return e.Msg
	}
	return "The tool failed: something went wrong in the server."
}

// explainTools makes it clear when a model can't call tools at all: most
// servers then answer 400 with a word about tools.
func explainTools(err error) error {
	e, ok := errors.AsType[*errdefs.Error](err)
	if !ok || e.Code != llm.CodeRejected || !mentionsTools(e.Msg) {
		return err
	}
	return errdefs.New(errdefs.ErrUnsupported, "model-without-tools", "This model can't call tools, so it can't run code: %s", e.Msg).
		WithHint("choose a model that supports tool calls (with Ollama: one of the category “tools”; with llama.cpp: start the server with --jinja)").WithCause(err)
}

// What can't be recorded any more belongs to a turn that has ended: a person
// stopped it, or deleted the item.

func (l *loop) finish(item, status, message string) {
	l.lost(l.t.FinishItem(item, status, message))
}

func (l *loop) setCode(item, code string, call v1.ToolCall) {
	l.lost(l.t.SetCode(item, code, call))
}

func (l *loop) finishTool(item string, result json.RawMessage, failure string) {
	l.lost(l.t.FinishTool(item, result, failure))
}

func (l *loop) lost(err error) {
	if err != nil {
		l.log.Debug("not recorded", slog.Any("err", err))
	}
}
