package aisdk

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Request is what a client asks, in either protocol.
type Request struct {
	Protocol   Protocol
	ClientID   string // chat id, or the original's session_id; may be empty
	Model      string // extra field that an application may send
	Regenerate bool   // the last answer again
	History    bool   // Messages is the whole conversation, not only its last message
	Messages   []Message
}

// Message is one message of a client's history.
type Message struct {
	ID    string
	Role  string
	Text  string
	Files []File // attachments that came as data
	Calls []Call // of the assistant, in order
}

// File is an attachment.
type File struct {
	Name      string
	MediaType string
	Data      []byte
}

// Call is a tool call with its result, as a client kept it.
type Call struct {
	After  int // bytes of Text before it
	ID     string
	Name   string
	Input  json.RawMessage
	Output json.RawMessage // null or absent: it failed
	Error  string
}

// FieldError is one entry of FastAPI's validation errors, keys in its order.
type FieldError struct {
	Type  string `json:"type"`
	Loc   []any  `json:"loc"`
	Msg   string `json:"msg"`
	Input any    `json:"input"`
}

// ValidationError is a request that does not have the shape of its protocol.
type ValidationError struct {
	Protocol Protocol
	Fields   []FieldError
}

func (e *ValidationError) Error() string {
	f := e.Fields[0]
	var loc strings.Builder
	for _, p := range f.Loc {
		fmt.Fprintf(&loc, ".%v", p)
	}
	return fmt.Sprintf("%s: %s", strings.TrimPrefix(loc.String(), ".body."), f.Msg)
}

// ParseRequest reads a request; protocol is what the query says, or empty: then
// its shape tells. Messages of ai 4 have their text in "content", those of
// later ones in "parts" alone.
func ParseRequest(raw []byte, protocol Protocol) (Request, error) {
	var body any
	if err := json.Unmarshal(raw, &body); err != nil {
		at := 0
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			at = int(syntax.Offset)
		}
		return Request{}, invalid(protocol, "json_invalid", []any{"body", at}, "JSON decode error", map[string]any{})
	}
	object, ok := body.(map[string]any)
	if !ok {
		return Request{}, invalid(protocol, "model_attributes_type", []any{"body"}, "Input should be a valid dictionary or object to extract fields from", body)
	}
	p := parser{req: Request{Protocol: protocol, History: true}}
	list, loc := object["messages"], []any{"body", "messages"}
	if one, ok := object["message"]; ok && list == nil {
		list, loc, p.req.History = []any{one}, []any{"body", "message"}, false
	}
	if p.req.Protocol != UI && p.req.Protocol != Data {
		p.req.Protocol = shape(list)
	}
	if list == nil {
		return Request{}, invalid(p.req.Protocol, "missing", []any{"body", "messages"}, "Field required", object)
	}
	messages, ok := list.([]any)
	if !ok {
		return Request{}, invalid(p.req.Protocol, "list_type", loc, "Input should be a valid list", list)
	}
	for i, m := range messages {
		p.message(m, append(slices.Clip(loc), i))
	}
	if len(p.fields) > 0 {
		return Request{}, &ValidationError{p.req.Protocol, p.fields}
	}
	p.req.Model = text(object["model"])
	p.req.Regenerate = text(object["trigger"]) == "regenerate-message"
	if p.req.ClientID = text(object["session_id"]); p.req.ClientID == "" && p.req.Protocol == UI {
		p.req.ClientID = text(object["id"])
	}
	return p.req, nil
}

func invalid(p Protocol, typ string, loc []any, msg string, input any) error {
	if p == "" {
		p = Data
	}
	return &ValidationError{p, []FieldError{{typ, loc, msg, input}}}
}

func shape(list any) Protocol {
	messages, _ := list.([]any)
	for _, m := range messages {
		if o, ok := m.(map[string]any); ok {
			if _, ok := o["content"]; ok {
				return Data
			}
			if _, ok := o["parts"]; ok {
				return UI
			}
		}
	}
	return Data
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

// maxFields bounds the mistakes that are told of one request: each repeats what
// it is about.
const maxFields = 100

type parser struct {
	req    Request
	fields []FieldError
}

func (p *parser) fail(typ, msg string, input any, loc ...any) {
	if len(p.fields) < maxFields {
		p.fields = append(p.fields, FieldError{typ, loc, msg, input})
	}
}

func (p *parser) message(v any, loc []any) {
	at := func(more ...any) []any { return append(slices.Clip(loc), more...) }
	o, ok := v.(map[string]any)
	if !ok {
		p.fail("model_attributes_type", "Input should be a valid dictionary or object to extract fields from", v, loc...)
		return
	}
	m := Message{ID: text(o["id"]), Role: text(o["role"])}
	if role, ok := o["role"]; !ok {
		p.fail("missing", "Field required", o, at("role")...)
	} else if m.Role == "" {
		p.fail("string_type", "Input should be a valid string", role, at("role")...)
	}
	if p.req.Protocol == UI {
		parts, ok := o["parts"].([]any)
		if !ok {
			if s, isText := o["content"].(string); isText {
				parts = []any{map[string]any{"type": "text", "text": s}}
			} else {
				p.fail("list_type", "Input should be a valid list", o["parts"], at("parts")...)
			}
		}
		for _, part := range parts {
			m.part(part)
		}
	} else {
		p.v4(o, &m, at)
	}
	p.req.Messages = append(p.req.Messages, m)
}

func (p *parser) v4(o map[string]any, m *Message, at func(...any) []any) {
	content, ok := o["content"]
	if !ok {
		p.fail("missing", "Field required", o, at("content")...)
	} else if s, ok := content.(string); ok {
		m.add(s)
	} else {
		p.fail("string_type", "Input should be a valid string", content, at("content")...)
	}
	calls, _ := o["toolInvocations"].([]any)
	for i, c := range calls {
		call, ok := c.(map[string]any)
		if !ok {
			p.fail("model_attributes_type", "Input should be a valid dictionary or object to extract fields from", c, at("toolInvocations", i)...)
			continue
		}
		if _, ok := call["result"]; !ok && text(call["state"]) == "result" {
			p.fail("missing", "Field required", call, at("toolInvocations", i, "result")...)
		}
		// Calls came before the text that tells of them.
		m.Calls = append(m.Calls, Call{ID: text(call["toolCallId"]), Name: text(call["toolName"]), Input: raw(call["args"]), Output: raw(call["result"])})
	}
	attachments, _ := o["experimental_attachments"].([]any)
	for _, a := range attachments {
		if f, ok := a.(map[string]any); ok {
			m.file(text(f["name"]), text(f["contentType"]), text(f["url"]))
		}
	}
}

// part takes one part of a UI message. Parts that say nothing to a model are
// passed over.
func (m *Message) part(v any) {
	o, _ := v.(map[string]any)
	typ := text(o["type"])
	switch {
	case typ == "text":
		m.add(text(o["text"]))
	case typ == "file":
		m.file(text(o["filename"]), text(o["mediaType"]), text(o["url"]))
	case typ == "dynamic-tool", strings.HasPrefix(typ, "tool-"):
		name := strings.TrimPrefix(typ, "tool-")
		if typ == "dynamic-tool" {
			name = text(o["toolName"])
		}
		call := Call{After: len(m.Text), ID: text(o["toolCallId"]), Name: name, Input: raw(o["input"]), Output: raw(o["output"]), Error: text(o["errorText"])}
		m.Calls = append(m.Calls, call)
	}
}

func (m *Message) add(s string) {
	if m.Text != "" && s != "" {
		m.Text += "\n\n"
	}
	m.Text += s
}

// file takes an attachment. What is only linked to is named: this server
// fetches nothing on behalf of a client.
func (m *Message) file(name, mediaType, link string) {
	if data, typ, ok := dataURL(link); ok {
		if mediaType == "" {
			mediaType = typ
		}
		m.Files = append(m.Files, File{Name: fileName(name, mediaType, len(m.Files)), MediaType: mediaType, Data: data})
		return
	}
	if u, err := url.Parse(link); err == nil && (u.Scheme == "https" || u.Scheme == "http") {
		m.add("[Attachment: " + strings.TrimSpace(name+" "+link) + "]")
	}
}

func dataURL(s string) ([]byte, string, bool) {
	rest, ok := strings.CutPrefix(s, "data:")
	if !ok {
		return nil, "", false
	}
	head, body, ok := strings.Cut(rest, ",")
	if !ok {
		return nil, "", false
	}
	mediaType, encoding, _ := strings.Cut(head, ";")
	if strings.HasSuffix(";"+encoding, ";base64") {
		if plain, err := url.PathUnescape(body); err == nil {
			body = plain
		}
		body = strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(body), "=")
		data, err := base64.RawStdEncoding.DecodeString(body)
		return data, mediaType, err == nil
	}
	plain, err := url.PathUnescape(body)
	return []byte(plain), mediaType, err == nil
}

var extensions = map[string]string{
	"image/png": ".png", "image/jpeg": ".jpg", "image/gif": ".gif", "image/webp": ".webp", "text/csv": ".csv",
	"application/json": ".json", "application/pdf": ".pdf", "text/plain": ".txt", "text/markdown": ".md",
}

// fileName gives one plain name of at most 200 bytes.
func fileName(name, mediaType string, n int) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\\' {
			return '_'
		}
		return r
	}, strings.ToValidUTF8(name, "_"))
	if name = path.Base("/" + name); name == "/" || name == "." || name == ".." {
		name = fmt.Sprintf("attachment-%d%s", n+1, extensions[mediaType])
	}
	for len(name) > 200 {
		ext := path.Ext(name)
		if len(ext) > 20 {
			ext = ""
		}
		name = strings.ToValidUTF8(name[:200-len(ext)], "") + ext
	}
	return name
}

func raw(v any) json.RawMessage {
	if v == nil {
		return nil
	}
	return jsonOf(v)
}
