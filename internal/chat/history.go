package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/llm"
)

// entry is an item of the thread as the model is told of it.
type entry struct {
	v1.Item
	round int // of the running turn, from 1; 0: of an earlier turn, where it follows from the times
}

// block is what stays or goes as one: what a person said, or one answer of
// the model with the results of all its calls. A call is never parted from
// its result, which servers refuse.
type block struct {
	messages []llm.Message
	user     bool
}

// historyOptions says what the model can take.
type historyOptions struct {
	vision bool
	// sizes and images of files that came with messages, as far as known.
	sizes  map[string]int64
	images map[string]llm.Image
}

// history turns a thread into blocks.
func history(entries []entry, opts historyOptions) []block {
	h := &historian{opts: opts}
	for _, e := range entries {
		switch {
		case e.Kind == "user":
			h.flush()
			h.user(e.Item)
		case e.Kind == "assistant":
			if len(h.calls) > 0 || h.round != e.round {
				h.flush()
			}
			h.round = e.round
			h.text = joinText(h.text, e.Text)
		case e.Tool != nil:
			if h.newRound(e) {
				h.flush()
			}
			h.round = e.round
			h.call(e.Item)
		case e.Kind == "cell":
			h.flush()
			h.personCell(e.Item)
		case e.Kind == "note" && e.Reason != "":
			// The session's own word: variables are gone, for instance.
			h.flush()
			h.context = append(h.context, "["+e.Text+"]")
		}
		// Other notes are what people write for themselves.
	}
	h.flush()
	h.flushContext()
	return h.blocks
}

type historian struct {
	opts   historyOptions
	blocks []block

	// The answer that is being gathered.
	round   int
	text    string
	calls   []llm.ToolCall
	results []llm.Message
	images  []llm.Image
	ended   time.Time // when the first of its calls ended

	context []string // what the person did since the last message
}

// newRound says whether a call belongs to a later answer than those gathered.
// All calls of an answer are there before the first of them ends.
func (h *historian) newRound(e entry) bool {
	if e.round != h.round {
		return true
	}
	if e.round != 0 || len(h.calls) == 0 {
		return false
	}
	return !h.ended.IsZero() && e.CreatedAt.After(h.ended)
}

func (h *historian) call(it v1.Item) {
	h.flushContext()
	call := llm.ToolCall{ID: it.Tool.ID, Name: it.Tool.Name, Arguments: string(it.Tool.Arguments)}
	r := toolResult(it, h.opts.vision)
	if it.Kind == "cell" {
		code := it.Code
		if original, ok := codeArgument(it.Tool.Arguments); ok && (it.Edited || original == code) {
			code = original
		} else if ok {
			r.text = "[The user changed this code to what stands here and ran it.]\n" + r.text
		}
		call.Arguments = codeArguments(code)
	}
	if !json.Valid([]byte(call.Arguments)) || call.Arguments == "" {
		call.Arguments = "{}"
	}
	h.calls = append(h.calls, call)
	h.results = append(h.results, llm.Message{Role: llm.Tool, ToolCallID: call.ID, Text: r.text})
	h.images = append(h.images, r.images...)
	if it.FinishedAt != nil && (h.ended.IsZero() || it.FinishedAt.Before(h.ended)) {
		h.ended = *it.FinishedAt
	}
}

// toolResult gives what a call came to, also if nothing came of it.
func toolResult(it v1.Item, vision bool) result {
	switch {
	case it.Tool.Error != "":
		return result{text: it.Tool.Error}
	case it.Kind == "cell":
		return cellResult(it, vision)
	case len(it.Tool.Result) > 0:
		return result{text: headTail(compactJSON(it.Tool.Result), resultHead, resultTail)}
	}
	if note := statusNote(it); note != "" {
		return result{text: note}
	}
	return result{text: "[Aborted by the user.]"}
}

func compactJSON(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}

func codeArguments(code string) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(map[string]string{"code": code}) // a string
	return strings.TrimSpace(b.String())
}

func codeArgument(raw json.RawMessage) (string, bool) {
	var a struct {
		Code *string `json:"code"`
	}
	if json.Unmarshal(raw, &a) != nil || a.Code == nil {
		return "", false
	}
	return *a.Code, true
}

// flush ends the answer that is being gathered.
func (h *historian) flush() {
	if h.text != "" || len(h.calls) > 0 {
		h.flushContext()
		b := block{messages: []llm.Message{{Role: llm.Assistant, Text: h.text, ToolCalls: h.calls}}}
		b.messages = append(b.messages, h.results...)
		if len(h.images) > 0 {
			// Tool messages hold only text with most servers.
			b.messages = append(b.messages, llm.Message{Role: llm.User, Text: "[Images that the cells above showed, in their order]", Images: h.images})
		}
		h.blocks = append(h.blocks, b)
	}
	h.round, h.text, h.calls, h.results, h.images, h.ended = 0, "", nil, nil, nil, time.Time{}
}

func (h *historian) user(it v1.Item) {
	m := llm.Message{Role: llm.User}
	parts := h.context
	h.context = nil
	if note := h.filesNote(it.Files); note != "" {
		parts = append(parts, note)
	}
	for _, path := range it.Files {
		if img, ok := h.opts.images[path]; ok && h.opts.vision {
			m.Images = append(m.Images, img)
		}
	}
	if it.Text != "" {
		parts = append(parts, it.Text)
	}
	m.Text = strings.Join(parts, "\n\n")
	h.blocks = append(h.blocks, block{messages: []llm.Message{m}, user: true})
}

func (h *historian) filesNote(files []string) string {
	if len(files) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("[Files that came with this message:")
	for i, path := range files {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(" " + path)
		if size, ok := h.opts.sizes[path]; ok {
			b.WriteString(" (" + sizeText(size) + ")")
		}
	}
	b.WriteByte(']')
	return b.String()
}

// personCell keeps a cell that the person ran, until somebody speaks.
func (h *historian) personCell(it v1.Item) {
	if it.Status == "idle" || it.Status == "writing" || strings.TrimSpace(it.Code) == "" {
		return
	}
	r := cellResult(it, false)
	what := "The user ran this cell:"
	if it.Edited {
		what = "The user ran a cell, whose code has changed since then to:"
	}
	h.context = append(h.context, fmt.Sprintf("[%s\n```python\n%s\n```\nOutput:\n%s]", what, headTail(it.Code, streamHead, streamTail), r.text))
}

// flushContext tells of the person's cells where no message of theirs follows.
func (h *historian) flushContext() {
	if len(h.context) == 0 {
		return
	}
	m := llm.Message{Role: llm.User, Text: strings.Join(h.context, "\n\n")}
	h.blocks = append(h.blocks, block{messages: []llm.Message{m}, user: true})
	h.context = nil
}

func joinText(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "\n\n" + b
}
