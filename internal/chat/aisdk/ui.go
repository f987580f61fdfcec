package aisdk

import (
	"encoding/json"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// uiEncoder writes the UI message stream: server-sent events, each one chunk.
// providerExecuted is on every chunk of a tool, so that no client runs it or
// answers for it.
type uiEncoder struct{ buf []byte }

// The response headers of the UI message stream, beside those of every stream.
const (
	HeaderUI   = "X-Vercel-Ai-Ui-Message-Stream" // v1
	HeaderData = "X-Vercel-Ai-Data-Stream"       // v1
)

func (e *uiEncoder) chunk(v any) {
	e.buf = append(e.buf, "data: "...)
	e.buf = append(e.buf, jsonOf(v)...)
	e.buf = append(e.buf, "\n\n"...)
}

func (e *uiEncoder) bytes() []byte {
	b := e.buf
	e.buf = nil
	return b
}

type uiChunk struct {
	Type             string          `json:"type"`
	ID               string          `json:"id,omitempty"`
	MessageID        string          `json:"messageId,omitempty"`
	Delta            string          `json:"delta,omitempty"`
	ToolCallID       string          `json:"toolCallId,omitempty"`
	ToolName         string          `json:"toolName,omitempty"`
	InputTextDelta   string          `json:"inputTextDelta,omitempty"`
	Input            json.RawMessage `json:"input,omitempty"`
	Output           any             `json:"output,omitempty"`
	ErrorText        string          `json:"errorText,omitempty"`
	ProviderExecuted bool            `json:"providerExecuted,omitempty"`
	Preliminary      bool            `json:"preliminary,omitempty"`
	Data             any             `json:"data,omitempty"`
	Transient        bool            `json:"transient,omitempty"`
	Reason           string          `json:"reason,omitempty"`
	FinishReason     string          `json:"finishReason,omitempty"`
	MessageMetadata  any             `json:"messageMetadata,omitempty"`
}

func (e *uiEncoder) start(messageID string, meta any) {
	e.buf = append(e.buf, ": stream-open\n\n"...)
	e.chunk(uiChunk{Type: "start", MessageID: messageID, MessageMetadata: meta})
}
func (e *uiEncoder) startStep(string)    { e.chunk(uiChunk{Type: "start-step"}) }
func (e *uiEncoder) finishStep(bool)     { e.chunk(uiChunk{Type: "finish-step"}) }
func (e *uiEncoder) textStart(id string) { e.chunk(uiChunk{Type: "text-start", ID: id}) }
func (e *uiEncoder) textDelta(id, text string) {
	e.chunk(uiChunk{Type: "text-delta", ID: id, Delta: text})
}
func (e *uiEncoder) textEnd(id string)        { e.chunk(uiChunk{Type: "text-end", ID: id}) }
func (e *uiEncoder) reasoningStart(id string) { e.chunk(uiChunk{Type: "reasoning-start", ID: id}) }
func (e *uiEncoder) reasoningEnd(id string)   { e.chunk(uiChunk{Type: "reasoning-end", ID: id}) }
func (e *uiEncoder) reasoningDelta(id, text string) {
	e.chunk(uiChunk{Type: "reasoning-delta", ID: id, Delta: text})
}

func (e *uiEncoder) toolStart(id, name string) {
	e.chunk(uiChunk{Type: "tool-input-start", ToolCallID: id, ToolName: name, ProviderExecuted: true})
}

func (e *uiEncoder) toolDelta(id, text string) {
	e.chunk(uiChunk{Type: "tool-input-delta", ToolCallID: id, InputTextDelta: text})
}

func (e *uiEncoder) toolInput(id, name string, input json.RawMessage) {
	e.chunk(uiChunk{Type: "tool-input-available", ToolCallID: id, ToolName: name, Input: input, ProviderExecuted: true})
}

func (e *uiEncoder) execution(id string, data any) {
	e.chunk(uiChunk{Type: "data-execution", ID: id, Data: data, Transient: true})
}

func (e *uiEncoder) preliminary(id string, output func() any) {
	raw := jsonOf(output())
	if len(raw) <= preliminaryBytes {
		e.chunk(uiChunk{Type: "tool-output-available", ToolCallID: id, Output: json.RawMessage(raw), Preliminary: true, ProviderExecuted: true})
	}
}

func (e *uiEncoder) toolOutput(id, _ string, _, output any) {
	e.chunk(uiChunk{Type: "tool-output-available", ToolCallID: id, Output: json.RawMessage(jsonOf(output)), ProviderExecuted: true})
}

func (e *uiEncoder) toolFailed(id, _ string, _ any, text string) {
	e.chunk(uiChunk{Type: "tool-output-error", ToolCallID: id, ErrorText: text, ProviderExecuted: true})
}

func (e *uiEncoder) abort(reason string) { e.chunk(uiChunk{Type: "abort", Reason: reason}) }

func (e *uiEncoder) fail(text string) { e.chunk(uiChunk{Type: "error", ErrorText: text}) }

func (e *uiEncoder) finish(reason string, _ v1.TokenUsage, meta any) {
	e.chunk(uiChunk{Type: "finish", FinishReason: reason, MessageMetadata: meta})
	e.buf = append(e.buf, "data: [DONE]\n\n"...)
}

func (e *uiEncoder) keepAlive() { e.buf = append(e.buf, ": keep-alive\n\n"...) }
