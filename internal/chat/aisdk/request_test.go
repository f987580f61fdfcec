package aisdk

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/caesarion/caesarion/api/v1"
)

func TestParseRequest(t *testing.T) {
	for name, tt := range map[string]struct {
		in   string
		want Request
	}{
		"ai 4": {
			`{"id":"x","session_id":"s","messages":[{"role":"user","content":"Hi","experimental_attachments":[{"name":"../a.csv","contentType":"text/csv","url":"data:text/csv,a%2Cb"}]}]}`,
			Request{Protocol: Data, ClientID: "s", History: true, Messages: []Message{{Role: "user", Text: "Hi", Files: []File{{"a.csv", "text/csv", []byte("a,b")}}}}},
		},
		"ai 5": {
			`{"id":"c","trigger":"regenerate-message","messages":[{"id":"m","role":"user","parts":[{"type":"text","text":"Hi"},{"type":"data-x","data":1},{"type":"file","mediaType":"image/png","url":"data:image/png;base64,QUJD"}]}]}`,
			Request{Protocol: UI, ClientID: "c", History: true, Regenerate: true, Messages: []Message{{ID: "m", Role: "user", Text: "Hi", Files: []File{{"attachment-1.png", "image/png", []byte("ABC")}}}}},
		},
		"one message": {
			`{"id":"c","model":"m","message":{"role":"user","parts":[{"type":"text","text":"a"},{"type":"file","mediaType":"image/png","filename":"p","url":"https://example.org/p.png"}]}}`,
			Request{Protocol: UI, ClientID: "c", Model: "m", Messages: []Message{{Role: "user", Text: "a\n\n[Attachment: p https://example.org/p.png]"}}},
		},
		"a tool": {
			`{"id":"c","messages":[{"role":"assistant","parts":[{"type":"text","text":"a"},{"type":"tool-f","toolCallId":"1","state":"output-available","input":{"x":1},"output":[2]},{"type":"dynamic-tool","toolName":"g","toolCallId":"2","errorText":"no"}]}]}`,
			Request{Protocol: UI, ClientID: "c", History: true, Messages: []Message{{Role: "assistant", Text: "a", Calls: []Call{
				{After: 1, ID: "1", Name: "f", Input: json.RawMessage(`{"x":1}`), Output: json.RawMessage("[2]")}, {After: 1, ID: "2", Name: "g", Error: "no"},
			}}}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseRequest([]byte(tt.in), "")
			if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
				t.Errorf("%v %s", err, diff)
			}
		})
	}
	for in, want := range map[string]string{
		`{`: "JSON", `[]`: "dictionary", `{}`: "Field required", `{"messages":{}}`: "list", `{"messages":[1]}`: "dictionary",
		`{"messages":[{"role":1,"content":"x"}]}`: "string", `{"messages":[{"content":null,"role":"user"}]}`: "string",
		`{"messages":[{"role":"user","content":"x","toolInvocations":[{"state":"result"}]}]}`: "Field required",
	} {
		_, err := ParseRequest([]byte(in), "")
		if bad, ok := errors.AsType[*ValidationError](err); !ok || !strings.Contains(bad.Error(), want) || bad.Protocol != Data {
			t.Errorf("%s: %v", in, err)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(`{"id":"c","messages":[{"role":"user","parts":[{"type":"file","url":"data:;base64,=="}]}]}`)
	f.Add(`{"session_id":"s","messages":[{"role":"user","content":"x"}]}`)
	f.Fuzz(func(t *testing.T, in string) {
		req, err := ParseRequest([]byte(in), "")
		if err != nil {
			_ = err.Error()
			return
		}
		for _, m := range req.Messages {
			for _, file := range m.Files {
				if strings.ContainsAny(file.Name, "/\x00") || file.Name == "" || file.Name == ".." || len(file.Name) > 200 {
					t.Errorf("file name %q", file.Name)
				}
			}
		}
		_, _ = Align(nil, req)
	})
}

func users(texts ...string) []Message {
	var list []Message
	for _, s := range texts {
		if len(list) > 0 {
			list = append(list, Message{Role: "assistant", Text: "answer"})
		}
		list = append(list, Message{Role: "user", Text: s})
	}
	return list
}

func TestAlign(t *testing.T) {
	thread := []v1.Item{
		{ID: "u1", Kind: "user", Text: "one"},
		{ID: "a1", Kind: "assistant", Text: "answer"},
		{ID: "u2", Kind: "user", Text: "two"},
		{ID: "a2", Kind: "assistant", Text: "answer"},
	}
	for name, tt := range map[string]struct {
		thread []v1.Item
		req    Request
		want   Step
		text   string
	}{
		"append":              {thread, Request{History: true, Messages: users("one", "two", "three")}, Step{}, "three"},
		"append, short form":  {thread, Request{Messages: users("three")}, Step{}, "three"},
		"edit the last":       {thread, Request{History: true, Messages: users("one", "2")}, Step{Replaces: "u2"}, "2"},
		"edit the first":      {thread, Request{History: true, Messages: users("1")}, Step{Replaces: "u1"}, "1"},
		"again, as ai 4":      {thread, Request{History: true, Messages: users("one", "two")}, Step{Regenerate: "u2"}, ""},
		"again":               {thread, Request{History: true, Regenerate: true, Messages: users("one", "two")}, Step{Regenerate: "u2"}, ""},
		"again, an early one": {thread, Request{History: true, Regenerate: true, Messages: users("one")}, Step{Regenerate: "u1"}, ""},
		"again, short form":   {thread, Request{Regenerate: true, Messages: users("two")}, Step{Regenerate: "u2"}, ""},
		"a cut history":       {thread, Request{History: true, Messages: users("two", "three")}, Step{}, "three"},
		"the first":           {nil, Request{History: true, Messages: users("one")}, Step{}, "one"},
		"regenerated unknown": {nil, Request{History: true, Regenerate: true, Messages: users("one")}, Step{}, "one"},
		"unknown history": {nil, Request{History: true, Messages: users("one", "two")}, Step{Import: []v1.Item{
			{Kind: "user", Text: "one", Status: "idle"}, {Kind: "assistant", Text: "answer", TurnID: "message-b", Status: "ok"},
		}}, "two"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Align(tt.thread, tt.req)
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			if got.Message != nil {
				text = got.Message.Text
			}
			got.Message = nil
			if diff := cmp.Diff(tt.want, got); diff != "" || text != tt.text {
				t.Errorf("%q %s", text, diff)
			}
		})
	}
	for _, req := range []Request{{}, {Messages: []Message{{Role: "assistant", Text: "x"}}}, {Messages: users(" ")}} {
		if _, err := Align(thread, req); !errors.Is(err, ErrNoMessage) {
			t.Errorf("%+v: %v", req, err)
		}
	}
}
