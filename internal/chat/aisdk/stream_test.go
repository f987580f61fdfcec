package aisdk

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
)

// logger writes events as a session does.
type logger struct {
	seq int64
	at  time.Time
}

func (l *logger) event(typ event.Type, item string, data any) event.Record {
	l.seq++
	l.at = l.at.Add(time.Second)
	raw, err := json.Marshal(data)
	if err != nil {
		panic(err) // a test's own value
	}
	line, err := json.Marshal(map[string]any{"seq": l.seq, "time": l.at, "type": typ, "item_id": item, "data": json.RawMessage(raw)})
	if err != nil {
		panic(err)
	}
	return event.Record{Seq: l.seq, Type: typ, Line: line}
}

func (l *logger) add(item v1.Item) event.Record {
	item.TurnID, item.CreatedAt, item.UpdatedAt = "trn_1", l.at, l.at
	return l.event(event.ItemAdded, item.ID, map[string]any{"item": item, "after": ""})
}

// The types that ai 5 knows and their required fields.
var known = map[string][]string{
	"start": {"messageId"}, "start-step": nil, "finish-step": nil, "text-start": {"id"}, "text-delta": {"id", "delta"}, "text-end": {"id"},
	"reasoning-start": {"id"}, "reasoning-delta": {"id", "delta"}, "reasoning-end": {"id"}, "tool-input-start": {"toolCallId", "toolName"},
	"tool-input-delta": {"toolCallId", "inputTextDelta"}, "tool-input-available": {"toolCallId", "toolName", "input"}, "tool-output-available": {"toolCallId", "output"},
	"tool-output-error": {"toolCallId", "errorText"}, "data-execution": {"data"}, "error": {"errorText"}, "abort": nil, "finish": {"finishReason"},
}

// chunks reads a UI message stream and checks the rules of its clients.
func chunks(t *testing.T, raw []byte) []string {
	t.Helper()
	var list []string
	open, tools, done := map[string]bool{}, map[string]bool{}, false
	for block := range strings.SplitSeq(strings.TrimSuffix(string(raw), "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(block, "data: ")
		if !ok {
			if !strings.HasPrefix(block, ": ") {
				t.Errorf("a block that is no event: %q", block)
			}
			continue
		}
		if data == "[DONE]" {
			done = true
			continue
		}
		var c map[string]any
		if err := json.Unmarshal([]byte(data), &c); err != nil || done {
			t.Fatalf("%s: %v, after the end: %v", data, err, done)
		}
		typ, _ := c["type"].(string)
		fields, ok := known[typ]
		if !ok {
			t.Errorf("chunk of type %q", typ)
		}
		for _, f := range fields {
			if _, ok := c[f]; !ok {
				t.Errorf("%s without %s: %s", typ, f, data)
			}
		}
		id, _ := c["id"].(string)
		tool, _ := c["toolCallId"].(string)
		switch typ {
		case "text-start", "reasoning-start":
			open[id] = true
		case "text-delta", "reasoning-delta", "text-end", "reasoning-end":
			if !open[id] {
				t.Errorf("%s of %q, which is not open", typ, id)
			}
			if strings.HasSuffix(typ, "-end") {
				delete(open, id)
			}
		case "finish-step":
			if len(open) > 0 {
				t.Errorf("open at the end of a step: %v", open)
			}
		case "tool-input-start":
			tools[tool] = true
		case "tool-input-delta", "tool-input-available", "tool-output-available", "tool-output-error":
			if !tools[tool] {
				t.Errorf("%s of %q, which did not begin", typ, tool)
			}
		}
		if strings.HasPrefix(typ, "tool-") && typ != "tool-input-delta" && c["providerExecuted"] != true {
			t.Errorf("%s without providerExecuted", data)
		}
		if typ == "tool-output-available" && c["preliminary"] == true {
			typ = "preliminary"
			if len(data) > preliminaryBytes+1000 {
				t.Errorf("a preliminary output of %d bytes", len(data))
			}
		}
		list = append(list, typ)
	}
	return list
}

func twoSteps(l *logger) []event.Record {
	code := "print(1)"
	call := v1.ToolCall{ID: "c1", Name: python}
	full := call
	full.Arguments = json.RawMessage(`{"code":"print(1)"}`)
	return []event.Record{
		l.event(event.TurnStarted, "", v1.Turn{ID: "trn_1", Status: "running"}),
		l.add(v1.Item{ID: "i1", Kind: "assistant", Status: "writing"}),
		l.event(event.ItemDelta, "i1", map[string]string{"field": "reasoning", "append": "Hm."}),
		l.event(event.ItemDelta, "i1", map[string]string{"field": "text", "append": "I \"look\"\u2028"}),
		l.event(event.ItemChanged, "i1", map[string]any{"status": "ok"}),
		l.add(v1.Item{ID: "i2", Kind: "cell", Status: "writing", Tool: &call}),
		l.event(event.ItemDelta, "i2", map[string]string{"field": "code", "append": code[:4]}),
		l.event(event.ItemDelta, "i2", map[string]string{"field": "code", "append": code[4:]}),
		l.event(event.ItemChanged, "i2", map[string]any{"code": code, "tool": full}),
		l.event(event.ItemChanged, "i2", map[string]any{"status": "queued", "outputs": []any{}}),
		l.event(event.ExecutionStarted, "i2", map[string]any{}),
		l.event(event.OutputStream, "i2", event.Stream{Name: "stdout", Text: "1\n"}),
		l.event(event.ExecutionFinished, "i2", event.Finished{Status: "ok", ExecutionCount: 1}),
		l.add(v1.Item{ID: "i3", Kind: "assistant", Status: "writing"}),
		l.event(event.ItemDelta, "i3", map[string]string{"field": "text", "append": "Done."}),
		l.event(event.ItemChanged, "i3", map[string]any{"status": "ok"}),
		l.event(event.TurnFinished, "", v1.Turn{ID: "trn_1", Status: "ok", Usage: v1.TokenUsage{InputTokens: 5, OutputTokens: 2}}),
	}
}

func tell(t *testing.T, p Protocol, records []event.Record) []byte {
	t.Helper()
	s := NewStream(p, "ses_1", v1.Turn{ID: "trn_1"})
	var all []byte
	for _, rec := range records {
		if err := s.Add(rec); err != nil {
			t.Fatal(err)
		}
		all = append(all, s.Bytes()...)
	}
	if !s.Done() {
		t.Error("the stream is not over")
	}
	return all
}

func TestUIStream(t *testing.T) {
	l := &logger{at: time.Unix(1_700_000_000, 0).UTC()}
	raw := tell(t, UI, twoSteps(l))
	got := strings.Join(chunks(t, raw), " ")
	want := "start start-step reasoning-start reasoning-delta reasoning-end text-start text-delta text-end " +
		"tool-input-start tool-input-delta tool-input-delta tool-input-delta tool-input-delta tool-input-available data-execution data-execution preliminary tool-output-available finish-step " +
		"start-step text-start text-delta text-end finish-step finish"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !bytes.HasSuffix(raw, []byte("data: [DONE]\n\n")) || !bytes.Contains(raw, []byte(`"usage":{"cachedInputTokens":0,"inputTokens":5,"outputTokens":2,"totalTokens":7}`)) {
		t.Errorf("the end is %s", raw[max(0, len(raw)-400):])
	}
}

// However a turn ends and wherever it is cut, what was begun is ended.
func TestUIStreamEnds(t *testing.T) {
	for _, status := range []string{"ok", "stopped", "error", "limit", "cut"} {
		for n := 1; n < 17; n++ {
			l := &logger{at: time.Unix(1_700_000_000, 0).UTC()}
			records := append(twoSteps(l)[:n:n], l.event(event.TurnFinished, "", v1.Turn{ID: "trn_1", Status: status, Message: "Why."}))
			got := chunks(t, tell(t, UI, records))
			if got[len(got)-1] != "finish" {
				t.Errorf("%s after %d: %v", status, n, got)
			}
			dataLines(t, tell(t, Data, records))
		}
	}
}

// One that joins in the middle is told all, in the same rules.
func TestSync(t *testing.T) {
	l := &logger{at: time.Unix(1_700_000_000, 0).UTC()}
	records := twoSteps(l)
	s := NewStream(UI, "ses_1", v1.Turn{ID: "trn_1"})
	turn := v1.Turn{ID: "trn_1", Status: "running"}
	cell := v1.Item{ID: "i2", Kind: "cell", TurnID: "trn_1", Status: "running", Code: "print(1)", CreatedAt: l.at, Tool: &v1.ToolCall{ID: "c1", Name: python, Arguments: json.RawMessage(`{"code":"print(1)"}`)}}
	s.Sync(v1.SessionDetail{Session: v1.Session{Turn: &turn}, Items: []v1.Item{
		{ID: "i0", Kind: "user", Text: "Go"}, {ID: "i1", Kind: "assistant", TurnID: "trn_1", Status: "ok", Text: "I look"}, cell,
	}})
	all := s.Bytes()
	for _, rec := range records[11:] {
		if err := s.Add(rec); err != nil {
			t.Fatal(err)
		}
		all = append(all, s.Bytes()...)
	}
	got := strings.Join(chunks(t, all), " ")
	if !strings.HasPrefix(got, "start start-step text-start text-delta text-end tool-input-start tool-input-delta") || !strings.HasSuffix(got, "text-end finish-step finish") || !s.Done() {
		t.Errorf("got %s", got)
	}
}

// Outputs are told whole only while they are small.
func TestPreliminaryIsBounded(t *testing.T) {
	l := &logger{at: time.Unix(1_700_000_000, 0).UTC()}
	records := twoSteps(l)[:11]
	for range 40 {
		records = append(records, l.event(event.OutputStream, "i2", event.Stream{Name: "stdout", Text: strings.Repeat("x", 10_000) + "\n"}))
	}
	s := NewStream(UI, "ses_1", v1.Turn{ID: "trn_1"})
	clock := time.Unix(0, 0)
	s.now = func() time.Time { clock = clock.Add(time.Second); return clock }
	for _, rec := range records {
		if err := s.Add(rec); err != nil {
			t.Fatal(err)
		}
	}
	n := strings.Count(strings.Join(chunks(t, s.Bytes()), " "), "preliminary")
	if n < 20 || n > 26 {
		t.Errorf("%d preliminary outputs", n)
	}
}

// dataLines reads a data stream and checks the rules of its clients.
func dataLines(t *testing.T, raw []byte) string {
	t.Helper()
	var codes strings.Builder
	for line := range strings.Lines(string(raw)) {
		if line == "\n" {
			continue
		}
		code, data, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if !ok || len(code) != 1 || !strings.Contains("0abcdefg39", code) || !json.Valid([]byte(data)) || !strings.HasSuffix(line, "\n") {
			t.Errorf("line %q", line)
		}
		if data == "null" || (code == "0" || code == "g" || code == "3") && data[0] != '"' {
			t.Errorf("line %q has no text", line)
		}
		codes.WriteString(code)
	}
	return codes.String()
}

func TestDataStream(t *testing.T) {
	l := &logger{at: time.Unix(1_700_000_000, 0).UTC()}
	raw := tell(t, Data, twoSteps(l))
	if got, want := dataLines(t, raw), "fg0bcccc9aef0ed"; got != want {
		t.Errorf("got %s, want %s\n%s", got, want, raw)
	}
	if want := fmt.Sprintf("d:%s\n", `{"finishReason":"stop","usage":{"promptTokens":5,"completionTokens":2}}`); !strings.HasSuffix(string(raw), want) {
		t.Errorf("it ends with %s", raw[max(0, len(raw)-200):])
	}
}
