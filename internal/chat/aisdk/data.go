package aisdk

import (
	"encoding/json"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// dataEncoder writes the data stream of ai 4: lines of a code, a colon and
// JSON. It has nothing for a tool that still runs, so its output comes at the
// end, as in the original.
type dataEncoder struct{ buf []byte }

func (e *dataEncoder) line(code byte, v any) {
	e.buf = append(e.buf, code, ':')
	e.buf = append(e.buf, jsonOf(v)...)
	e.buf = append(e.buf, '\n')
}

func (e *dataEncoder) bytes() []byte {
	b := e.buf
	e.buf = nil
	return b
}

type dataCall struct {
	ID        string `json:"toolCallId"`
	Name      string `json:"toolName,omitempty"`
	Args      any    `json:"args,omitempty"`
	ArgsDelta string `json:"argsTextDelta,omitempty"`
}

type dataResult struct {
	ID     string `json:"toolCallId"`
	Name   string `json:"toolName"`
	Args   any    `json:"args"`
	Result any    `json:"result"`
}

type dataUsage struct {
	Prompt     int64 `json:"promptTokens"`
	Completion int64 `json:"completionTokens"`
}

type dataFinish struct {
	Reason    string     `json:"finishReason"`
	Usage     *dataUsage `json:"usage,omitempty"`
	Continued *bool      `json:"isContinued,omitempty"`
}

func (e *dataEncoder) start(string, any) {}

// startStep adds the boundary without which a client that saw calls last
// would post again by itself.
func (e *dataEncoder) startStep(messageID string) {
	e.line('f', struct {
		ID string `json:"messageId"`
	}{messageID})
}

func (e *dataEncoder) finishStep(calls bool) {
	reason, no := "stop", false
	if calls {
		reason = "tool-calls"
	}
	e.line('e', dataFinish{Reason: reason, Continued: &no})
}

func (e *dataEncoder) textStart(string)              {}
func (e *dataEncoder) textDelta(_, text string)      { e.line('0', text) }
func (e *dataEncoder) textEnd(string)                {}
func (e *dataEncoder) reasoningStart(string)         {}
func (e *dataEncoder) reasoningDelta(_, text string) { e.line('g', text) }
func (e *dataEncoder) reasoningEnd(string)           {}
func (e *dataEncoder) toolStart(id, name string)     { e.line('b', dataCall{ID: id, Name: name}) }
func (e *dataEncoder) toolDelta(id, text string)     { e.line('c', dataCall{ID: id, ArgsDelta: text}) }

func (e *dataEncoder) toolInput(id, name string, input json.RawMessage) {
	e.line('9', dataCall{ID: id, Name: name, Args: input})
}

func (e *dataEncoder) execution(string, any)          {}
func (e *dataEncoder) preliminary(string, func() any) {}

func (e *dataEncoder) toolOutput(id, name string, in, output any) {
	e.line('a', dataResult{id, name, in, output})
}

// toolFailed gives null, as the original did when a tool failed: its weather
// card knows that.
func (e *dataEncoder) toolFailed(id, name string, in any, _ string) {
	e.line('a', dataResult{id, name, in, nil})
}

func (e *dataEncoder) abort(string) {}

func (e *dataEncoder) fail(text string) { e.line('3', text) }

func (e *dataEncoder) finish(reason string, usage v1.TokenUsage, _ any) {
	e.line('d', dataFinish{Reason: reason, Usage: &dataUsage{usage.InputTokens, usage.OutputTokens}})
}

// keepAlive is an empty line, which parsers pass over.
func (e *dataEncoder) keepAlive() { e.buf = append(e.buf, '\n') }
