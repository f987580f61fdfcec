package aisdk

import (
	"encoding/json"
	"errors"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// Step is what a request means for the session's thread, which is the truth:
// clients send their whole history with each request, but it is the server's
// copy that the model gets.
type Step struct {
	Message    *Message // to send; nil: Regenerate
	Replaces   string   // the user's item that Message takes the place of
	Regenerate string   // the user's item to answer again
	Import     []v1.Item
}

// ErrNoMessage is a request in which nobody asks anything.
var ErrNoMessage = errors.New("there is no message of the user")

// Align finds out what a client wants by comparing what it thinks was said
// with the thread:
//
//	the same, and one message more         append it
//	the same, and another message there    edit: that one becomes another branch
//	the same, and the last one is answered  regenerate (ai 4 has no other way to say so)
//	nothing here yet, but a history there  import it, and append
//	anything else (say, a history cut at its beginning)  append the last message
func Align(thread []v1.Item, req Request) (Step, error) {
	var said []*Message
	for i := range req.Messages {
		if req.Messages[i].Role == "user" {
			said = append(said, &req.Messages[i])
		}
	}
	var users []v1.Item
	for _, it := range thread {
		if it.Kind == "user" {
			users = append(users, it)
		}
	}
	if req.Regenerate && len(users) > 0 {
		if n := len(said); req.History && n > 0 && n <= len(users) && same(users[n-1], said[n-1]) {
			return Step{Regenerate: users[n-1].ID}, nil
		}
		return Step{Regenerate: users[len(users)-1].ID}, nil
	}
	if len(said) == 0 {
		return Step{}, ErrNoMessage
	}
	last := said[len(said)-1]
	if strings.TrimSpace(last.Text) == "" && len(last.Files) == 0 {
		return Step{}, ErrNoMessage
	}
	step := Step{Message: last}
	if !req.History {
		return step, nil
	}
	before := said[:len(said)-1]
	if len(thread) == 0 {
		step.Import = items(req.Messages, last)
		return step, nil
	}
	if len(before) >= len(users) {
		return step, nil
	}
	for i, m := range before {
		if !same(users[i], m) {
			return step, nil
		}
	}
	at := users[len(before)]
	if same(at, last) && len(last.Files) == len(at.Files) {
		return Step{Regenerate: at.ID}, nil
	}
	step.Replaces = at.ID
	return step, nil
}

func same(it v1.Item, m *Message) bool {
	return strings.TrimSpace(it.Text) == strings.TrimSpace(m.Text)
}

// items makes items of a client's history, up to the message until.
func items(messages []Message, until *Message) []v1.Item {
	var list []v1.Item
	turn := ""
	for i := range messages {
		m := &messages[i]
		if m == until {
			break
		}
		switch m.Role {
		case "user":
			list = append(list, v1.Item{Kind: "user", Text: m.Text, Status: "idle"})
			turn = ""
		case "assistant":
			if turn == "" {
				turn = "message-" + m.ID + string(rune('a'+i%26))
			}
			at := 0
			for _, c := range m.Calls {
				list = appendText(list, m.Text[at:c.After], turn)
				at = c.After
				list = append(list, itemOf(c, turn))
			}
			list = appendText(list, m.Text[at:], turn)
		}
	}
	return list
}

func appendText(list []v1.Item, text, turn string) []v1.Item {
	if text = strings.TrimSpace(text); text == "" {
		return list
	}
	return append(list, v1.Item{Kind: "assistant", Text: text, TurnID: turn, Status: "ok"})
}

func itemOf(c Call, turn string) v1.Item {
	it := v1.Item{Kind: "tool", TurnID: turn, Status: "ok", Tool: &v1.ToolCall{ID: c.ID, Name: c.Name, Arguments: c.Input, Error: c.Error}}
	if c.Name != python {
		it.Tool.Result = c.Output
		return it
	}
	it.Kind = "cell"
	var in struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(c.Input, &in) // what is no code is an empty cell
	it.Code = in.Code
	var out Execution
	if json.Unmarshal(c.Output, &out) != nil {
		it.Status = "stopped"
		return it
	}
	it.ExecutionCount, it.DurationMS, it.Status = out.ExecutionCount, out.DurationMS, out.Status
	for _, o := range out.Outputs {
		switch o.Type {
		case "stream", "display_data", "execute_result", "error":
			it.Outputs = append(it.Outputs, o)
			if o.Type == "error" && it.Status == "" {
				it.Status = "error"
			}
		}
	}
	if it.Status == "" {
		it.Status = "ok"
	}
	return it
}
