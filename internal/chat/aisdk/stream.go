package aisdk

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/session"
)

// Protocol is how a client wants to be told.
type Protocol string

// The protocols, as the query parameter names them.
const (
	UI   Protocol = "ui"   // UI message stream, ai 5 and later
	Data Protocol = "data" // data stream, ai 4
)

// python is the tool whose calls are cells.
const python = "python_interpreter"

// Preliminary outputs are sent whole each time, so they are rare and small;
// what is printed meanwhile goes out as transient data.
const (
	preliminaryEvery = 400 * time.Millisecond
	preliminaryBytes = 256 << 10
)

// encoder writes parts in one of the protocols.
type encoder interface {
	start(messageID string, meta any)
	startStep(messageID string)
	finishStep(calls bool)
	textStart(id string)
	textDelta(id, text string)
	textEnd(id string)
	reasoningStart(id string)
	reasoningDelta(id, text string)
	reasoningEnd(id string)
	toolStart(id, name string)
	toolDelta(id, text string)
	toolInput(id, name string, input json.RawMessage)
	execution(id string, data any)              // transient
	preliminary(id string, output func() any)   // of a tool that runs
	toolOutput(id, name string, in, output any) // its end
	toolFailed(id, name string, in any, text string)
	abort(reason string)
	fail(text string)
	finish(reason string, usage v1.TokenUsage, meta any)
	keepAlive()
	bytes() []byte
}

// Stream tells a client of one turn.
type Stream struct {
	enc  encoder
	turn v1.Turn
	meta map[string]any
	now  func() time.Time

	view  *session.View // the turn's items, for their outputs
	parts []*part       // in order
	done  bool

	step      bool      // one is open
	stepCalls bool      // it has calls
	stepEnd   time.Time // when the first of its calls ended; zero: none has
}

// part is one item of the turn, as far as it was told.
type part struct {
	id, kind, tool string
	createdAt      time.Time

	text, reasoning         int // bytes told
	textOpen, reasoningOpen bool
	code                    strings.Builder // told as arguments
	codeOpen                bool
	input                   json.RawMessage // complete
	over                    bool
	last                    time.Time // of the last preliminary output
}

// NewStream makes the stream of a turn. Its message has the turn's id.
func NewStream(p Protocol, sessionID string, turn v1.Turn) *Stream {
	s := &Stream{turn: turn, now: time.Now, view: session.NewView(v1.SessionDetail{})}
	s.meta = map[string]any{"sessionId": sessionID, "turnId": turn.ID, "model": turn.Model}
	if p == Data {
		s.enc = &dataEncoder{}
	} else {
		s.enc = &uiEncoder{}
	}
	s.enc.start(turn.ID, s.meta)
	return s
}

// Bytes gives what is to be written, and forgets it.
func (s *Stream) Bytes() []byte { return s.enc.bytes() }

// Done says that all has been told.
func (s *Stream) Done() bool { return s.done }

// KeepAlive adds what keeps proxies awake and clients ignore.
func (s *Stream) KeepAlive() { s.enc.keepAlive() }

// Sync takes the state of a session: what of the turn was not told yet is
// told. It begins a stream, and mends one that missed events.
func (s *Stream) Sync(d v1.SessionDetail) {
	var own []v1.Item
	for _, it := range d.Items {
		if it.TurnID == s.turn.ID {
			own = append(own, it)
		}
	}
	s.view = session.NewView(v1.SessionDetail{Session: d.Session, Items: own})
	for _, it := range own {
		s.sync(it)
	}
	if t := d.Turn; t == nil || t.ID != s.turn.ID {
		// It ended. How is no longer told apart; the items say what they say.
		if s.turn.Status == "" || s.turn.Status == "running" {
			s.turn.Status = "ok"
		}
		s.end(s.turn)
	}
}

// Add takes the next event of the session's log.
func (s *Stream) Add(rec event.Record) error {
	if s.done {
		return nil
	}
	var l session.Line
	if err := json.Unmarshal(rec.Line, &l); err != nil {
		return fmt.Errorf("aisdk: event: %w", err)
	}
	switch l.Type {
	case event.TurnFinished:
		var t v1.Turn
		if err := json.Unmarshal(l.Data, &t); err != nil {
			return fmt.Errorf("aisdk: event: %w", err)
		}
		if t.ID == s.turn.ID {
			s.end(t)
		}
		return nil
	case event.ItemAdded:
		var d struct {
			Item v1.Item `json:"item"`
		}
		if err := json.Unmarshal(l.Data, &d); err != nil {
			return fmt.Errorf("aisdk: event: %w", err)
		}
		if d.Item.TurnID != s.turn.ID {
			return nil
		}
		if err := s.view.Apply(rec.Line); err != nil {
			return err
		}
		s.sync(d.Item)
		return nil
	}
	p := s.find(l.ItemID)
	if p == nil {
		return nil
	}
	if err := s.view.Apply(rec.Line); err != nil {
		return err
	}
	if p.over {
		return nil // a person ran it again
	}
	switch l.Type {
	case event.ItemDelta:
		var d struct {
			Field  string `json:"field"`
			Append string `json:"append"`
		}
		if err := json.Unmarshal(l.Data, &d); err != nil {
			return fmt.Errorf("aisdk: event: %w", err)
		}
		s.delta(p, d.Field, d.Append)
	case event.ItemChanged:
		s.sync(s.item(p))
	case event.ExecutionQueued, event.ExecutionStarted:
		s.enc.execution(p.id, map[string]any{"type": string(l.Type)[len("execution."):]})
	case event.OutputStream:
		var d event.Stream
		if json.Unmarshal(l.Data, &d) == nil {
			s.enc.execution(p.id, map[string]any{"type": "stream", "name": d.Name, "text": d.Text})
			s.preliminary(p, false)
		}
	case event.OutputDisplay, event.OutputResult, event.OutputUpdate, event.OutputClear, event.OutputError:
		s.preliminary(p, true)
	case event.InputRequested:
		s.enc.execution(p.id, map[string]any{"type": "input", "prompt": s.item(p).Input})
	case event.ExecutionFinished:
		s.sync(s.item(p))
	}
	return nil
}

func (s *Stream) find(id string) *part {
	for _, p := range slices.Backward(s.parts) {
		if p.id == id {
			return p
		}
	}
	return nil
}

func (s *Stream) item(p *part) v1.Item {
	for _, it := range s.view.Items() {
		if it.ID == p.id {
			return it
		}
	}
	return v1.Item{ID: p.id, Kind: p.kind, Status: "stopped"}
}

// open begins the part of an item, and the step that it belongs to: all calls
// of one answer of the model are there before the first of them ends, so what
// comes after that is another answer.
func (s *Stream) open(it v1.Item) *part {
	if p := s.find(it.ID); p != nil {
		return p
	}
	if s.step && !s.stepEnd.IsZero() && (it.CreatedAt.IsZero() || !it.CreatedAt.Before(s.stepEnd)) {
		s.closeStep()
	}
	if !s.step {
		s.enc.startStep(s.turn.ID)
		s.step = true
	}
	p := &part{id: it.ID, kind: it.Kind, createdAt: it.CreatedAt}
	s.parts = append(s.parts, p)
	if it.Tool != nil {
		p.tool = it.Tool.Name
		s.stepCalls = true
		s.enc.toolStart(p.id, p.tool)
	}
	return p
}

func (s *Stream) closeStep() {
	for _, p := range s.parts {
		s.closeText(p)
	}
	s.enc.finishStep(s.stepCalls)
	s.step, s.stepCalls, s.stepEnd = false, false, time.Time{}
}

func (s *Stream) closeText(p *part) {
	if p.reasoningOpen {
		s.enc.reasoningEnd(p.id + "-reasoning")
		p.reasoningOpen = false
	}
	if p.textOpen {
		s.enc.textEnd(p.id)
		p.textOpen = false
	}
}

// delta tells what was added to an item.
func (s *Stream) delta(p *part, field, text string) {
	if text == "" {
		return
	}
	switch field {
	case "reasoning":
		if !p.reasoningOpen {
			s.enc.reasoningStart(p.id + "-reasoning")
			p.reasoningOpen = true
		}
		s.enc.reasoningDelta(p.id+"-reasoning", text)
		p.reasoning += len(text)
	case "text":
		if p.reasoningOpen {
			s.enc.reasoningEnd(p.id + "-reasoning")
			p.reasoningOpen = false
		}
		if !p.textOpen {
			s.enc.textStart(p.id)
			p.textOpen = true
		}
		s.enc.textDelta(p.id, text)
		p.text += len(text)
	case "code":
		if p.input != nil {
			return
		}
		if !p.codeOpen {
			s.enc.toolDelta(p.id, `{"code":"`)
			p.codeOpen = true
		}
		s.enc.toolDelta(p.id, jsonInside(text))
		p.code.WriteString(text)
	}
}

// sync tells what of an item was not told yet.
func (s *Stream) sync(it v1.Item) {
	if it.Kind == "user" {
		return
	}
	p := s.open(it)
	if p.over {
		return
	}
	if it.Tool == nil {
		s.syncText(p, it)
		return
	}
	if p.tool == python {
		s.syncCell(p, it)
		return
	}
	s.input(p, it.Tool.Arguments)
	switch {
	case it.Tool.Error != "":
		p.over = true
		s.enc.toolFailed(p.id, p.tool, p.input, it.Tool.Error)
	case len(it.Tool.Result) > 0:
		p.over = true
		s.enc.toolOutput(p.id, p.tool, p.input, it.Tool.Result)
	case finished(it.Status):
		p.over = true
		s.enc.toolFailed(p.id, p.tool, p.input, "Aborted by the user.")
	}
	s.callEnded(p, it)
}

func (s *Stream) syncText(p *part, it v1.Item) {
	if len(it.Reasoning) > p.reasoning {
		s.delta(p, "reasoning", it.Reasoning[p.reasoning:])
	}
	if len(it.Text) > p.text {
		s.delta(p, "text", it.Text[p.text:])
	}
	if finished(it.Status) {
		s.closeText(p)
		p.over = true
	}
}

func (s *Stream) syncCell(p *part, it v1.Item) {
	if p.input == nil {
		if told := p.code.String(); len(it.Code) > len(told) && strings.HasPrefix(it.Code, told) {
			s.delta(p, "code", it.Code[len(told):])
		}
		if it.Status == "writing" && len(it.Tool.Arguments) == 0 {
			return
		}
		if p.codeOpen {
			s.enc.toolDelta(p.id, `"}`)
		}
		args, _ := json.Marshal(map[string]string{"code": it.Code}) // a string
		s.input(p, args)
	}
	if !finished(it.Status) {
		return
	}
	p.over = true
	s.enc.toolOutput(p.id, p.tool, p.input, cellOutput(it))
	s.callEnded(p, it)
}

func (s *Stream) input(p *part, args json.RawMessage) {
	if p.input != nil {
		return
	}
	if len(args) == 0 || !json.Valid(args) {
		args = json.RawMessage("{}")
	}
	p.input = args
	s.enc.toolInput(p.id, p.tool, args)
}

// callEnded notes when a call ended.
func (s *Stream) callEnded(p *part, it v1.Item) {
	if !p.over {
		return
	}
	at := it.UpdatedAt
	if it.FinishedAt != nil {
		at = *it.FinishedAt
	}
	if at.IsZero() {
		at = it.CreatedAt
	}
	if s.stepEnd.IsZero() || at.Before(s.stepEnd) {
		s.stepEnd = at
	}
}

// preliminary tells the outputs so far, now and then.
func (s *Stream) preliminary(p *part, soon bool) {
	every := preliminaryEvery
	if soon {
		every /= 4 // what is shown matters more than what is printed
	}
	now := s.now()
	if p.input == nil || now.Sub(p.last) < every {
		return
	}
	p.last = now
	s.enc.preliminary(p.id, func() any { return cellOutput(s.item(p)) })
}

// end tells how the turn ended.
func (s *Stream) end(t v1.Turn) {
	if s.done {
		return
	}
	for _, p := range s.parts {
		if p.over || p.tool == "" {
			continue
		}
		// Calls that never came to anything: every call gets an end.
		it := s.item(p)
		if !finished(it.Status) {
			it.Status = "stopped"
		}
		if it.Tool == nil {
			it.Tool = &v1.ToolCall{Name: p.tool}
		}
		s.sync(it)
	}
	if s.step {
		s.closeStep()
	}
	s.meta["status"], s.meta["usage"] = t.Status, usageMeta(t.Usage)
	if t.Code != "" {
		s.meta["code"] = t.Code
	}
	if t.Message != "" {
		s.meta["message"] = t.Message
	}
	switch t.Status {
	case "stopped":
		s.enc.abort("stopped")
		s.enc.finish("other", t.Usage, s.meta)
	case "error", "cut":
		text := t.Message
		if text == "" {
			text = "The model's answer broke off."
		}
		s.enc.fail(text)
		s.enc.finish("error", t.Usage, s.meta)
	case "limit":
		s.enc.finish("length", t.Usage, s.meta)
	default:
		s.enc.finish("stop", t.Usage, s.meta)
	}
	s.done = true
}

// Fail ends the stream with a failure of the server.
func (s *Stream) Fail(text string) {
	t := s.turn
	t.Status, t.Message = "error", text
	s.end(t)
}

func usageMeta(u v1.TokenUsage) map[string]int64 {
	return map[string]int64{
		"inputTokens": u.InputTokens, "outputTokens": u.OutputTokens, "totalTokens": u.InputTokens + u.OutputTokens,
		"cachedInputTokens": u.CachedInputTokens,
	}
}

func finished(status string) bool {
	switch status {
	case "", "writing", "queued", "running":
		return false
	}
	return true
}
