package llm

import (
	"context"
	"encoding/json"
	"iter"
	"time"
)

// Model is one language model that can be asked.
//
// All methods may be called concurrently.
type Model interface {
	// Info describes the model; it does no I/O.
	Info() Info

	// Stream asks and gives the answer as it comes.
	//
	// Events come in this order: any number of Retry; then Text, Reasoning,
	// ToolCallStart and ToolArguments in the order the model sent them; at the very
	// end one Finish. ToolArguments follow the ToolCallStart of the same Index; the
	// arguments of a call, joined, are what the model meant as a JSON object
	// and may be no valid JSON. Deltas are never empty. Indexes count from 0
	// without gap; ids are there and differ within one answer, also where the
	// server sends none.
	//
	// A failure is the last pair, with a zero Event: an *errdefs.Error with
	// one of the Code… values, whose text is safe for people and holds no
	// secret. What came before it is what the model said until then. If ctx
	// ends, the error is context.Cause(ctx), and it comes at once. An
	// implementation may ask its server again by itself, but never after the
	// first event other than Retry. Breaking off the loop ends the request.
	Stream(ctx context.Context, req Request) iter.Seq2[Event, error]
}

// Info describes a model to people and to those who build requests.
type Info struct {
	Name            string // what sessions name it by
	Title           string // for people
	Source          string // where it came from: config, OPENAI_API_KEY, or the local server that was found
	ContextTokens   int64  // window: input and output together; never 0
	MaxOutputTokens int64  // most tokens of one answer; 0: the server's own limit
	Vision          bool   // it sees images
	Default         bool   // it answers where no model is named
}

// Role says who speaks in a message.
type Role string

// The roles.
const (
	System    Role = "system"
	User      Role = "user"
	Assistant Role = "assistant"
	Tool      Role = "tool"
)

// Message is one entry of the conversation that the model gets.
type Message struct {
	Role Role
	Text string // of every role
	// Images come behind the text; of user messages, and only for models with
	// Vision.
	Images []Image
	// ToolCalls are what an assistant message called for. Each must be
	// answered by a tool message before anything else is said.
	ToolCalls []ToolCall
	// ToolCallID is the call that a tool message answers.
	ToolCallID string
}

// Image is a picture that the model is shown.
type Image struct {
	MediaType string // image/png, image/jpeg, image/gif or image/webp
	Data      []byte
}

// ToolCall is a call as the model wrote it.
type ToolCall struct {
	ID        string
	Name      string
	Arguments string // meant as a JSON object
}

// ToolSpec offers a tool to the model.
type ToolSpec struct {
	Name        string // letters, digits, dash and underscore, at most 64
	Description string
	Parameters  json.RawMessage // JSON Schema of an object
}

// Request is one question to a model.
type Request struct {
	Messages []Message
	Tools    []ToolSpec
	// NoTools keeps the tools in the request, so that calls in the history
	// stay valid, but asks the model for words only.
	NoTools           bool
	Temperature       *float64 // nil: the model's configured one, or the server's default
	MaxTokens         int64    // of the answer; 0: Info.MaxOutputTokens
	ParallelToolCalls *bool    // nil: the server's default
}

// EventKind says what an Event tells.
type EventKind int

// The kinds, and the fields that are set.
const (
	Retry         EventKind = iota + 1 // Text: why, for people; After: the pause before the next try
	Text                               // Text
	Reasoning                          // Text
	ToolCallStart                      // Index, ID, Name
	ToolArguments                      // Index, Text
	Finish                             // FinishReason, Usage
)

// Event is one piece of an answer.
type Event struct {
	Kind         EventKind
	Text         string
	Index        int    // which tool call of this answer, from 0
	ID, Name     string // of the tool call
	After        time.Duration
	FinishReason FinishReason
	Usage        Usage
}

// FinishReason says why a model stopped.
type FinishReason string

// The reasons. A filter of the model's server is an error, CodeRefused, and
// no reason.
const (
	FinishStop      FinishReason = "stop"
	FinishLength    FinishReason = "length"     // MaxTokens or the window; the last call may be cut
	FinishToolCalls FinishReason = "tool_calls" // there are calls, whatever the server named it
	FinishRefusal   FinishReason = "refusal"    // the text is the model's refusal
)

// Usage counts tokens as the server reported them; zero if it did not.
type Usage struct {
	InputTokens       int64 // with those from the cache
	CachedInputTokens int64
	OutputTokens      int64 // with reasoning
}

// The codes of Stream's and Registry.Get's errors.
const (
	CodeUnreachable   = "model-unreachable"    // no connection
	CodeTimeout       = "model-timeout"        // no answer, or it stopped coming
	CodeRateLimited   = "model-rate-limited"   // 429 for longer than retries wait, or a used-up quota
	CodeAuth          = "model-auth"           // key missing, wrong or without the right
	CodeNotFound      = "model-not-found"      // the server or the registry does not know the model
	CodeContextLength = "model-context-length" // the request does not fit the window
	CodeRefused       = "model-refused"        // a filter of the server stopped request or answer
	CodeRejected      = "model-rejected"       // the server does not accept the request for another reason
	CodeUnavailable   = "model-unavailable"    // the server answers with its own failure
	CodeBadAnswer     = "model-bad-answer"     // what came is no Chat Completions answer
	CodeCut           = "model-cut"            // the answer broke off
	CodeNone          = "model-none"           // no model is set up at all
)

// Answer is a whole answer, gathered from events.
type Answer struct {
	Text         string
	Reasoning    string
	ToolCalls    []ToolCall
	FinishReason FinishReason
	Usage        Usage
}

// Add takes the next event.
func (a *Answer) Add(ev Event) {
	switch ev.Kind {
	case Retry:
	case Text:
		a.Text += ev.Text
	case Reasoning:
		a.Reasoning += ev.Text
	case ToolCallStart:
		a.ToolCalls = append(a.ToolCalls, ToolCall{ID: ev.ID, Name: ev.Name})
	case ToolArguments:
		a.ToolCalls[ev.Index].Arguments += ev.Text
	case Finish:
		a.FinishReason, a.Usage = ev.FinishReason, ev.Usage
	}
}
