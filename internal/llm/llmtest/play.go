package llmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
)

// player sends one step's answer.
type player struct {
	w    http.ResponseWriter
	ctx  context.Context //nolint:containedctx // of the request, for the life of the answer
	step Step
	req  Request
	id   string

	pieces int64 // sent, as a count of tokens
	gone   bool  // the client left
}

func (p *player) play() {
	st := &p.step
	if st.Raw != "" {
		p.w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(p.w, st.Raw) // the client may have left
		p.after()
		return
	}
	if st.NoStream {
		p.document()
		return
	}
	p.w.Header().Set("Content-Type", "text/event-stream")
	p.w.WriteHeader(http.StatusOK)
	p.delta(map[string]any{"role": "assistant", "content": ""})
	field := st.ReasoningField
	if field == "" {
		field = "reasoning_content"
	}
	p.say(field, st.Reasoning)
	p.say("content", st.Text)
	p.say("refusal", st.Refusal)
	for i := range st.Calls {
		p.call(i)
	}
	if st.Error != nil {
		p.send(map[string]any{"error": st.Error})
	}
	if st.Cut || st.Hang || st.Error != nil {
		p.after()
		return
	}
	last := p.chunk(map[string]any{}, p.finish())
	if st.EarlyUsage {
		last["usage"] = p.usage()
	}
	p.send(last)
	if !st.EarlyUsage && p.wantsUsage() {
		usage := p.chunk(nil, "")
		usage["choices"], usage["usage"] = []any{}, p.usage()
		p.send(usage)
	}
	if !st.NoDone {
		p.write("data: [DONE]\n\n")
	}
	p.after()
}

// after is what comes behind the answer.
func (p *player) after() {
	p.flush()
	if p.step.Hang {
		<-p.ctx.Done()
	}
	if p.step.Cut {
		panic(http.ErrAbortHandler) // net/http's way to break a connection
	}
}

func (p *player) finish() string {
	switch {
	case p.step.Finish != "":
		return p.step.Finish
	case len(p.step.Calls) > 0:
		return "tool_calls"
	default:
		return "stop"
	}
}

func (p *player) wantsUsage() bool {
	var req struct {
		StreamOptions struct {
			IncludeUsage bool `json:"include_usage"`
		} `json:"stream_options"`
	}
	return json.Unmarshal(p.req.Raw, &req) == nil && req.StreamOptions.IncludeUsage
}

func (p *player) usage() map[string]any {
	u := Usage{Input: p.req.tokens, Output: p.pieces}
	if p.step.Usage != nil {
		u = *p.step.Usage
	}
	return map[string]any{
		"prompt_tokens": u.Input, "completion_tokens": u.Output, "total_tokens": u.Input + u.Output,
		"prompt_tokens_details": map[string]any{"cached_tokens": u.Cached},
	}
}

func (p *player) say(field, text string) {
	for _, piece := range split(text, p.step.Split) {
		p.piece(map[string]any{field: piece})
	}
}

func (p *player) call(i int) {
	c := &p.step.Calls[i]
	first := map[string]any{"type": "function", "function": map[string]any{"name": c.Name, "arguments": ""}}
	switch c.ID {
	case "":
		first["id"] = fmt.Sprintf("call_%s_%d", p.id, i)
	case "none":
	default:
		first["id"] = c.ID
	}
	send := func(delta map[string]any) {
		if !p.step.NoIndex {
			delta["index"] = i
		}
		p.piece(map[string]any{"tool_calls": []any{delta}})
	}
	if p.step.WholeArguments || p.step.ObjectArguments {
		var args any = c.arguments
		if p.step.ObjectArguments {
			args = json.RawMessage(c.arguments)
		}
		first["function"] = map[string]any{"name": c.Name, "arguments": args}
		send(first)
		return
	}
	send(first)
	for _, piece := range split(c.arguments, p.step.Split) {
		send(map[string]any{"function": map[string]any{"arguments": piece}})
	}
}

// piece sends a delta at the step's speed.
func (p *player) piece(delta map[string]any) {
	if p.gone {
		return
	}
	if p.step.Comments {
		p.write(": ping\n\n")
	}
	p.pieces++
	p.delta(delta)
	if p.step.Drip > 0 {
		p.flush()
		p.gone = !pause(p.ctx, p.step.Drip)
	}
}

func (p *player) delta(delta map[string]any) { p.send(p.chunk(delta, "")) }

func (p *player) chunk(delta map[string]any, finish string) map[string]any {
	choice := map[string]any{"index": 0, "delta": delta, "finish_reason": nil}
	if finish != "" {
		choice["finish_reason"] = finish
	}
	c := map[string]any{
		"id": "chatcmpl-" + p.id, "object": "chat.completion.chunk", "created": 0, "model": p.req.Model,
		"choices": []any{choice}, "usage": nil,
	}
	if p.step.Obfuscation {
		c["obfuscation"] = "x7Qk"
	}
	return c
}

func (p *player) send(body any) {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		p.gone = true // a script whose object_arguments are no JSON
		return
	}
	end := "\n"
	if p.step.Tight {
		end = ""
	}
	p.write("data: " + b.String() + end)
}

func (p *player) write(text string) {
	if p.gone {
		return
	}
	_, err := io.WriteString(p.w, text)
	p.gone = err != nil || p.ctx.Err() != nil
}

func (p *player) flush() {
	_ = http.NewResponseController(p.w).Flush() // the client may have left
}

// document answers without a stream.
func (p *player) document() {
	st := &p.step
	message := map[string]any{"role": "assistant", "content": st.Text}
	var calls []any
	for i := range st.Calls {
		c := &st.Calls[i]
		calls = append(calls, map[string]any{
			"id": fmt.Sprintf("call_%s_%d", p.id, i), "type": "function",
			"function": map[string]any{"name": c.Name, "arguments": c.arguments},
		})
	}
	if calls != nil {
		message["tool_calls"] = calls
	}
	answer(p.w, http.StatusOK, map[string]any{
		"id": "chatcmpl-" + p.id, "object": "chat.completion", "model": p.req.Model, "usage": p.usage(),
		"choices": []any{map[string]any{"index": 0, "message": message, "finish_reason": p.finish()}},
	})
}

// split cuts a text into pieces of n characters, or, for 0, into what looks
// like tokens: words with the space before them.
func split(text string, n int) []string {
	var pieces []string
	var b strings.Builder
	count, inWord := 0, false
	for _, r := range text {
		word := unicode.IsLetter(r) || unicode.IsDigit(r)
		if b.Len() > 0 && (n > 0 && count == n || n == 0 && (inWord && !word || count == 8)) {
			pieces = append(pieces, b.String())
			b.Reset()
			count = 0
		}
		b.WriteRune(r)
		count++
		inWord = word
	}
	if b.Len() > 0 {
		pieces = append(pieces, b.String())
	}
	return pieces
}
