package llmtest

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// TB is the part of testing.TB that is needed here. The package is linked into
// the program, which should not have the whole of testing.
type TB interface {
	Helper()
	Cleanup(f func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// maxRequest bounds a request: long histories with pictures.
const maxRequest = 128 << 20

// maxRecorded is how many requests a server remembers.
const maxRecorded = 1000

// Server plays a script. It is an http.Handler for the paths of the protocol,
// with and without /v1 before them.
type Server struct {
	URL string // of a started server: its base URL, with /v1

	script *Script

	mu       sync.Mutex
	requests []Request
	faults   map[string]int // scenario and step → how often its status was answered
	problems []string
	next     int
}

// Request is one that a server got.
type Request struct {
	Model    string      `json:"model"`
	Messages []Message   `json:"messages"`
	Tools    []any       `json:"tools"`
	Header   http.Header `json:"-"`
	Raw      []byte      `json:"-"`
	Scenario string      `json:"-"` // that answered
	Step     int         `json:"-"` // of it, from 0

	tokens int64 // a guess
}

// Message is one of a request.
type Message struct {
	Role       string          `json:"role"`
	Content    json.RawMessage `json:"content"`
	ToolCallID string          `json:"tool_call_id"`
	ToolCalls  []struct {
		ID       string `json:"id"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

// Text gives the words of a message, without pictures.
func (m *Message) Text() string {
	text, _ := m.content()
	return text
}

// Images counts the pictures of a message.
func (m *Message) Images() int {
	_, images := m.content()
	return images
}

func (m *Message) content() (text string, images int) {
	if json.Unmarshal(m.Content, &text) == nil {
		return text, 0
	}
	var parts []struct{ Type, Text string }
	_ = json.Unmarshal(m.Content, &parts) // anything else is no words
	for _, p := range parts {
		text += p.Text
		if p.Type == "image_url" {
			images++
		}
	}
	return text, images
}

// NewServer makes a handler that plays a script.
func NewServer(script *Script) *Server {
	return &Server{script: script, faults: map[string]int{}}
}

// Start plays a script, given as YAML, on a free port of loopback until the
// test ends. Expectations that were not met fail the test.
func Start(tb TB, yaml string) *Server {
	tb.Helper()
	script, err := Parse([]byte(yaml))
	if err != nil {
		tb.Fatalf("%v", err)
	}
	s := NewServer(script)
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("llmtest: %v", err)
	}
	s.URL = "http://" + listener.Addr().String() + "/v1"
	srv := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(listener) }()
	tb.Cleanup(func() {
		_ = srv.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			tb.Errorf("llmtest: %v", err)
		}
		for _, p := range s.Problems() {
			tb.Errorf("llmtest: %s", p)
		}
	})
	return s
}

// Requests gives the requests so far, for tests to look at.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Problems gives the expectations that were not met and the requests that
// break the protocol.
func (s *Server) Problems() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems)
}

func (s *Server) problem(format string, args ...any) string {
	text := fmt.Sprintf(format, args...)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.problems) < maxRecorded {
		s.problems = append(s.problems, text)
	}
	return text
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasSuffix(r.URL.Path, "/forecast") { // another service, without keys
		forecast(w, r)
		return
	}
	if key := s.script.Key; key != "" {
		got := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		if subtle.ConstantTimeCompare([]byte(got), []byte(key)) != 1 {
			refuse(w, http.StatusUnauthorized, Failure{Message: "Incorrect API key provided: " + got, Code: "invalid_api_key"})
			return
		}
	}
	switch r.Method + " " + strings.TrimPrefix(r.URL.Path, "/v1") {
	case "GET /models":
		type model struct {
			ID      string `json:"id"`
			Object  string `json:"object"`
			OwnedBy string `json:"owned_by"`
		}
		list := []model{}
		for _, name := range s.script.Models {
			list = append(list, model{name, "model", "caesarion"})
		}
		answer(w, http.StatusOK, map[string]any{"object": "list", "data": list})
	case "POST /chat/completions":
		s.completions(w, r)
	default:
		refuse(w, http.StatusNotFound, Failure{Message: "no such path: " + r.Method + " " + r.URL.Path})
	}
}

func (s *Server) completions(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	var req Request
	if err == nil {
		err = json.Unmarshal(raw, &req)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, Failure{Message: "the body can't be read: " + err.Error()})
		return
	}
	req.Header, req.Raw, req.tokens = r.Header.Clone(), raw, int64(len(raw)/4)
	fields := map[string]json.RawMessage{}
	_ = json.Unmarshal(raw, &fields) // it is an object, as req was read
	for _, name := range s.script.Refuses {
		if _, ok := fields[name]; ok {
			refuse(w, http.StatusBadRequest, Failure{Message: "Unsupported parameter: '" + name + "'", Param: name, Code: "unsupported_parameter"})
			return
		}
	}
	if broken := checkHistory(req.Messages); broken != "" {
		refuse(w, http.StatusBadRequest, Failure{Message: s.problem("the history breaks the protocol: %s", broken)})
		return
	}
	question, result, rounds := turn(req.Messages)
	scenario := s.choose(req.Model, question)
	if scenario == nil {
		refuse(w, http.StatusBadRequest, Failure{Message: s.problem("no scenario for %q", question)})
		return
	}
	req.Scenario, req.Step = scenario.Name, rounds
	step := Step{Text: "The script “" + scenario.Name + "” is over."}
	if rounds < len(scenario.Steps) {
		step = scenario.Steps[rounds]
	} else if scenario.Loop {
		req.Step = len(scenario.Steps) - 1
		step = scenario.Steps[req.Step]
	}
	fault := s.record(req, step)
	if step.expect != nil && !step.expect.MatchString(result) {
		refuse(w, http.StatusBadRequest, Failure{Message: s.problem("scenario %q, step %d: the last tool's answer does not match %q: %.500q", scenario.Name, rounds, step.Expect, result)})
		return
	}
	step.Text = strings.ReplaceAll(step.Text, "{{scenarios}}", s.script.list())
	if !pause(r.Context(), step.Pause) {
		return
	}
	if fault {
		if step.RetryAfter != "" {
			w.Header().Set("Retry-After", step.RetryAfter)
		}
		failure := Failure{Message: http.StatusText(step.Status)}
		if step.Error != nil {
			failure = *step.Error
		}
		refuse(w, step.Status, failure)
		return
	}
	if step.Times > 0 { // the failure is over
		step.Error = nil
	}
	speed := scenario.TokensPerSecond
	if speed == 0 {
		speed = s.script.TokensPerSecond
	}
	if step.Drip == 0 && speed > 0 {
		step.Drip = time.Duration(float64(time.Second) / speed)
	}
	(&player{w: w, ctx: r.Context(), step: step, req: req, id: s.newID()}).play()
}

// record remembers a request and tells whether the step's status is answered.
func (s *Server) record(req Request, step Step) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.requests) == maxRecorded {
		s.requests = s.requests[1:]
	}
	s.requests = append(s.requests, req)
	if step.Status == 0 {
		return false
	}
	key := fmt.Sprintf("%s\x00%d", req.Scenario, req.Step)
	s.faults[key]++
	return step.Times == 0 || s.faults[key] <= step.Times
}

func (s *Server) newID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	return fmt.Sprintf("%06d", s.next)
}

func (s *Server) choose(model, question string) *Scenario {
	for i := range s.script.Scenarios {
		c := &s.script.Scenarios[i]
		if (c.Model == "" || c.Model == model) && c.match.MatchString(question) {
			return c
		}
	}
	return nil
}

// turn gives the person's last message, the last tool's answer since, and how
// many rounds of calls there were since. A message behind a tool's answer that
// has pictures shows the tool's pictures and is not the person's.
func turn(messages []Message) (question, result string, rounds int) {
	for i, m := range slices.Backward(messages) {
		switch m.Role {
		case "user":
			if i > 0 && messages[i-1].Role == "tool" && m.Images() > 0 {
				continue
			}
			return m.Text(), result, rounds
		case "tool":
			if result == "" {
				result = m.Text()
			}
		case "assistant":
			if len(m.ToolCalls) > 0 {
				rounds++
			}
		}
	}
	return "", result, rounds
}

// checkHistory says what real servers refuse: calls without answers, answers
// without calls, arguments that are no JSON.
func checkHistory(messages []Message) string {
	open := map[string]bool{}
	for i, m := range messages {
		if m.Role != "tool" && len(open) > 0 {
			return fmt.Sprintf("message %d: calls before it have no answer", i)
		}
		switch m.Role {
		case "system", "user", "developer":
		case "assistant":
			for _, c := range m.ToolCalls {
				if c.ID == "" || open[c.ID] || !json.Valid([]byte(c.Function.Arguments)) {
					return fmt.Sprintf("message %d: call %q has no id of its own, or arguments that are no JSON", i, c.ID)
				}
				open[c.ID] = true
			}
		case "tool":
			if !open[m.ToolCallID] {
				return fmt.Sprintf("message %d: it answers %q, which nobody called", i, m.ToolCallID)
			}
			delete(open, m.ToolCallID)
		default:
			return fmt.Sprintf("message %d: role %q", i, m.Role)
		}
	}
	if len(open) > 0 {
		return "calls at its end have no answer"
	}
	return ""
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body) // the client may have left
}

func refuse(w http.ResponseWriter, status int, f Failure) {
	answer(w, status, map[string]any{"error": f})
}

// pause waits and tells whether the client is still there.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
