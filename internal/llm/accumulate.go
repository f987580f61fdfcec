package llm

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"strings"
)

// wireChunk is a piece of an answer, or a whole one from a server that does
// not stream. What differs between servers is kept raw and read tolerantly.
type wireChunk struct {
	Choices []struct {
		Index        int        `json:"index"`
		Delta        *wireDelta `json:"delta"`
		Message      *wireDelta `json:"message"`
		FinishReason string     `json:"finish_reason"`
	} `json:"choices"`
	Usage *wireUsage      `json:"usage"`
	Error json.RawMessage `json:"error"`
}

type wireDelta struct {
	Content          json.RawMessage `json:"content"` // string, null or parts
	Refusal          string          `json:"refusal"`
	ReasoningContent string          `json:"reasoning_content"` // DeepSeek, llama.cpp, vLLM
	Reasoning        json.RawMessage `json:"reasoning"`         // Ollama, OpenRouter; a string
	ToolCalls        []wireCallDelta `json:"tool_calls"`
}

type wireCallDelta struct {
	Index    *int   `json:"index"`
	ID       string `json:"id"`
	Function struct {
		Name      string          `json:"name"`
		Arguments json.RawMessage `json:"arguments"` // string, but an object with some
	} `json:"function"`
}

type wireUsage struct {
	PromptTokens        int64 `json:"prompt_tokens"`
	CompletionTokens    int64 `json:"completion_tokens"`
	PromptTokensDetails *struct {
		CachedTokens int64 `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

// maxCalls bounds the tool calls of one answer; no server allows as many.
const maxCalls = 128

// accumulator makes events of chunks. Servers disagree on how a tool call is
// split; see place.
type accumulator struct {
	calls   []*call
	last    int             // index into calls of the latest delta
	byIndex map[int]int     // server's index → index into calls
	ids     map[string]bool // given out

	finish  string // the server's finish_reason, "" so far
	refused bool
	any     bool // something came that is part of an answer
	usage   Usage
}

// call is a tool call on its way. Its start is told with its first arguments,
// or at the end: until then its name may come in pieces.
type call struct {
	serverID, id, name string
	told               bool
}

func newAccumulator() *accumulator {
	return &accumulator{last: -1, byIndex: map[int]int{}, ids: map[string]bool{}}
}

// add takes a chunk and gives its events to emit until that says false.
func (a *accumulator) add(c *wireChunk, emit func(Event) bool) bool {
	if u := c.Usage; u != nil {
		a.usage = Usage{InputTokens: max(u.PromptTokens, 0), OutputTokens: max(u.CompletionTokens, 0)}
		if d := u.PromptTokensDetails; d != nil {
			a.usage.CachedInputTokens = min(max(d.CachedTokens, 0), a.usage.InputTokens)
		}
	}
	for _, choice := range c.Choices {
		if choice.Index != 0 { // nobody asked for a second answer
			continue
		}
		d := choice.Delta
		if d == nil {
			d = choice.Message
		}
		if d != nil && !a.delta(d, emit) {
			return false
		}
		if choice.FinishReason != "" {
			a.any, a.finish = true, choice.FinishReason
		}
	}
	return true
}

func (a *accumulator) delta(d *wireDelta, emit func(Event) bool) bool {
	say := func(kind EventKind, text string) bool {
		if text == "" {
			return true
		}
		a.any = true
		return emit(Event{Kind: kind, Text: text})
	}
	text, thought := contentText(d.Content)
	reasoning := d.ReasoningContent
	if reasoning == "" {
		_ = json.Unmarshal(d.Reasoning, &reasoning) // an object is a summary of what came as text
	}
	if !say(Reasoning, reasoning) || !say(Reasoning, thought) || !say(Text, text) {
		return false
	}
	if d.Refusal != "" {
		a.refused = true
		if !say(Text, d.Refusal) {
			return false
		}
	}
	for i := range d.ToolCalls {
		if !a.call(&d.ToolCalls[i], emit) {
			return false
		}
	}
	return true
}

// contentText reads content, which is a string or, with Mistral, a list of
// parts, some of them thoughts.
func contentText(raw json.RawMessage) (text, thought string) {
	if len(raw) == 0 || json.Unmarshal(raw, &text) == nil {
		return text, ""
	}
	var parts []struct {
		Type     string          `json:"type"`
		Text     string          `json:"text"`
		Thinking json.RawMessage `json:"thinking"`
	}
	if json.Unmarshal(raw, &parts) != nil {
		return "", ""
	}
	for _, p := range parts {
		if p.Type == "thinking" {
			t, _ := contentText(p.Thinking)
			thought += t
			continue
		}
		text += p.Text
	}
	return text, thought
}

func (a *accumulator) call(d *wireCallDelta, emit func(Event) bool) bool {
	args := argumentsText(d.Function.Arguments)
	i := a.place(d)
	if i < 0 {
		return true
	}
	a.any, a.last = true, i
	c := a.calls[i]
	if c.serverID == "" {
		c.serverID = d.ID
	}
	// Some servers repeat the name in every delta.
	if name := d.Function.Name; !c.told && name != c.name {
		c.name += name
	}
	if args == "" {
		return true
	}
	return a.tell(i, emit) && emit(Event{Kind: ToolArguments, Index: i, Text: args})
}

// place finds the call that a delta belongs to, or makes it; -1: too many.
//
// OpenAI's deltas have an index, and the first of a call has id and name. Some
// servers send no index, then a delta with another id, or with a name after
// arguments began, is another call. Gemini's sends several whole calls, all
// with index 0 and ids of their own.
func (a *accumulator) place(d *wireCallDelta) int {
	i, known := a.last, a.last >= 0
	if d.Index != nil {
		i, known = a.byIndex[*d.Index], false
		_, known = a.byIndex[*d.Index]
	} else if d.ID != "" {
		for j, c := range a.calls {
			if c.serverID == d.ID {
				return j
			}
		}
	}
	if known {
		c := a.calls[i]
		another := d.Function.Name != "" && d.ID != "" && c.serverID != "" && d.ID != c.serverID
		if d.Index == nil && d.Function.Name != "" && d.ID == "" && c.told {
			another = true
		}
		if !another {
			return i
		}
	}
	if len(a.calls) == maxCalls {
		return -1
	}
	a.calls = append(a.calls, &call{})
	if d.Index != nil {
		a.byIndex[*d.Index] = len(a.calls) - 1
	}
	return len(a.calls) - 1
}

// tell gives the start of call i and of those before it, once.
func (a *accumulator) tell(i int, emit func(Event) bool) bool {
	for j, c := range a.calls[:i+1] {
		if c.told {
			continue
		}
		c.told, c.id = true, c.serverID
		if c.id == "" || a.ids[c.id] {
			c.id = "call_" + strings.ToLower(rand.Text()[:16])
		}
		a.ids[c.id] = true
		if !emit(Event{Kind: ToolCallStart, Index: j, ID: c.id, Name: c.name}) {
			return false
		}
	}
	return true
}

// end gives what is left, and Finish.
func (a *accumulator) end(emit func(Event) bool) {
	if !a.tell(len(a.calls)-1, emit) {
		return
	}
	reason := FinishStop
	switch {
	case a.finish == "length" || a.finish == "max_tokens" || a.finish == "model_length":
		reason = FinishLength
	case len(a.calls) > 0:
		reason = FinishToolCalls
	case a.refused || a.finish == "refusal":
		reason = FinishRefusal
	}
	emit(Event{Kind: Finish, FinishReason: reason, Usage: a.usage})
}

// argumentsText reads arguments, which are text that should be JSON or, with
// some servers, the JSON itself.
func argumentsText(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}
