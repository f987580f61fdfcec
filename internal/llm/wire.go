package llm

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// The request of Chat Completions. Fields that some servers refuse are known
// to optional, which takes them out again.
type wireRequest struct {
	Model               string         `json:"model"`
	Messages            []wireMessage  `json:"messages"`
	Tools               []wireTool     `json:"tools,omitempty"`
	ToolChoice          string         `json:"tool_choice,omitempty"`
	ParallelToolCalls   *bool          `json:"parallel_tool_calls,omitempty"`
	Temperature         *float64       `json:"temperature,omitempty"`
	MaxTokens           int64          `json:"max_tokens,omitempty"`
	MaxCompletionTokens int64          `json:"max_completion_tokens,omitempty"`
	Stream              bool           `json:"stream"`
	StreamOptions       *streamOptions `json:"stream_options,omitempty"`
}

type streamOptions struct {
	IncludeUsage bool `json:"include_usage"`
}

type wireMessage struct {
	Role       string         `json:"role"`
	Content    any            `json:"content"` // string, []wirePart or null
	ToolCalls  []wireToolCall `json:"tool_calls,omitempty"`
	ToolCallID string         `json:"tool_call_id,omitempty"`
}

type wirePart struct {
	Type     string     `json:"type"`
	Text     string     `json:"text,omitempty"`
	ImageURL *wireImage `json:"image_url,omitempty"`
}

type wireImage struct {
	URL string `json:"url"`
}

type wireToolCall struct {
	ID       string       `json:"id"`
	Type     string       `json:"type"`
	Function wireFunction `json:"function"`
}

type wireFunction struct {
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

type wireTool struct {
	Type     string       `json:"type"`
	Function wireToolSpec `json:"function"`
}

type wireToolSpec struct {
	Name        string          `json:"name"`
	Description string          `json:"description,omitempty"`
	Parameters  json.RawMessage `json:"parameters,omitempty"`
}

// The fields that servers are known to refuse, as their errors name them.
const (
	optStreamOptions     = "stream_options"
	optParallelToolCalls = "parallel_tool_calls"
	optTemperature       = "temperature"
	optToolChoice        = "tool_choice"
	optMaxTokens         = "max_tokens"
	optMaxCompletion     = "max_completion_tokens"
)

// toWire makes the body of a request. refused are the optional fields that this
// server does not take.
func (c *chatCompletions) toWire(req Request, refused map[string]bool) wireRequest {
	w := wireRequest{
		Model: c.ep.Model, Stream: true, Messages: make([]wireMessage, 0, len(req.Messages)),
		StreamOptions: &streamOptions{IncludeUsage: true}, Temperature: req.Temperature,
	}
	if w.Temperature == nil {
		w.Temperature = c.ep.Temperature
	}
	for _, m := range req.Messages {
		w.Messages = append(w.Messages, c.toWireMessage(m))
	}
	for _, t := range req.Tools {
		w.Tools = append(w.Tools, wireTool{"function", wireToolSpec(t)})
	}
	if len(w.Tools) > 0 {
		w.ParallelToolCalls = req.ParallelToolCalls
		if req.NoTools {
			w.ToolChoice = "none"
		}
	}
	limit := req.MaxTokens
	if limit == 0 {
		limit = c.ep.Info.MaxOutputTokens
	}
	// OpenAI's reasoning models know the new name only, most others the old.
	switch {
	case refused[optMaxTokens] && refused[optMaxCompletion]:
	case refused[optMaxTokens], c.official && !refused[optMaxCompletion]:
		w.MaxCompletionTokens = limit
	default:
		w.MaxTokens = limit
	}
	if refused[optStreamOptions] {
		w.StreamOptions = nil
	}
	if refused[optParallelToolCalls] {
		w.ParallelToolCalls = nil
	}
	if refused[optTemperature] {
		w.Temperature = nil
	}
	if refused[optToolChoice] {
		w.ToolChoice = ""
	}
	return w
}

// has tells whether the request has an optional field.
func (w *wireRequest) has(field string) bool {
	switch field {
	case optStreamOptions:
		return w.StreamOptions != nil
	case optParallelToolCalls:
		return w.ParallelToolCalls != nil
	case optTemperature:
		return w.Temperature != nil
	case optToolChoice:
		return w.ToolChoice != ""
	case optMaxTokens:
		return w.MaxTokens != 0
	default:
		return w.MaxCompletionTokens != 0
	}
}

// refusedField gives the optional field that the server's words complain
// about, or "". A server that says nothing at all most likely stumbled over
// the newest one.
func (w *wireRequest) refusedField(words string) string {
	// max_completion_tokens first: errors about max_tokens recommend it, which
	// the check for what the request has settles.
	for _, f := range []string{optStreamOptions, optParallelToolCalls, optToolChoice, optTemperature, optMaxCompletion, optMaxTokens} {
		if w.has(f) && strings.Contains(words, f) {
			return f
		}
	}
	if strings.TrimSpace(words) == "" && w.has(optStreamOptions) {
		return optStreamOptions
	}
	return ""
}

func (c *chatCompletions) toWireMessage(m Message) wireMessage {
	w := wireMessage{Role: string(m.Role), Content: m.Text}
	switch m.Role {
	case Assistant:
		for _, call := range m.ToolCalls {
			args := call.Arguments
			if !json.Valid([]byte(args)) {
				// Several servers parse the arguments of the history and
				// answer 400 or 500 to what their own model wrote.
				args = "{}"
			}
			w.ToolCalls = append(w.ToolCalls, wireToolCall{call.ID, "function", wireFunction{call.Name, args}})
		}
		if m.Text == "" && len(w.ToolCalls) > 0 {
			w.Content = nil
		}
	case Tool:
		w.ToolCallID = m.ToolCallID
	case User:
		if len(m.Images) == 0 || !c.ep.Info.Vision {
			break
		}
		var parts []wirePart
		if m.Text != "" {
			parts = append(parts, wirePart{Type: "text", Text: m.Text})
		}
		for _, img := range m.Images {
			url := "data:" + img.MediaType + ";base64," + base64.StdEncoding.EncodeToString(img.Data)
			parts = append(parts, wirePart{Type: "image_url", ImageURL: &wireImage{url}})
		}
		w.Content = parts
	case System:
	}
	return w
}
