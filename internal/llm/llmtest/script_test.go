package llmtest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/llm/llmtest"
)

func TestMistakesInScripts(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"nothing", "", "no scenarios"},
		{"unknown key", "scenarios: [{steps: [{txt: Hi}]}]", "txt"},
		{"no steps", "scenarios: [{name: a}]", `1 "a"`},
		{"a bad pattern", "scenarios: [{match: '(', steps: [{}]}]", "missing closing"},
		{"a bad expectation", "scenarios: [{steps: [{expect: '('}]}]", "missing closing"},
		{"arguments that are a list", "scenarios: [{steps: [{calls: [{name: f, arguments: [1]}]}]}]", "step 1, call 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := llmtest.Parse([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// recorder takes what Start would tell a test.
type recorder struct {
	*testing.T
	errors []string
}

func (r *recorder) Errorf(format string, _ ...any) { r.errors = append(r.errors, format) }

func TestExpectationsAreChecked(t *testing.T) {
	rec := &recorder{T: t}
	t.Run("requests", func(t *testing.T) {
		rec.T = t
		srv := llmtest.Start(rec, "scenarios: [{match: ^go$, steps: [{calls: [{name: f, arguments: {}}]}, {expect: ^good$, text: Fine.}]}]")
		m, err := llm.NewChatCompletions(llm.Endpoint{BaseURL: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		history := func(result, question string) []llm.Message {
			return []llm.Message{
				{Role: llm.User, Text: question},
				{Role: llm.Assistant, ToolCalls: []llm.ToolCall{{ID: "1", Name: "f", Arguments: "{}"}}},
				{Role: llm.Tool, ToolCallID: "1", Text: result},
				{Role: llm.User, Text: "This is what it showed.", Images: []llm.Image{{MediaType: "image/png"}}},
			}
		}
		for i, messages := range [][]llm.Message{history("good", "go")[:3], history("bad", "go"), history("good", "other"), history("good", "go")[:2], history("good", "go")[2:3]} {
			a, err := llmtest.Check(t, m.Stream(t.Context(), llm.Request{Messages: messages}))
			if (err == nil) != (i == 0) || i == 0 && a.Text != "Fine." {
				t.Errorf("request %d: %+v, %v", i, a, err)
			}
		}
	})
	if len(rec.errors) != 4 {
		t.Errorf("%d problems told, want 4: %q", len(rec.errors), rec.errors)
	}
}

// Every scenario of the demonstration plays, and the words that it says it
// listens to choose it.
func TestDemo(t *testing.T) {
	script, err := llmtest.Load("../../../examples/scripted/demo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	srv := llmtest.NewServer(script)
	url := serve(t, srv)
	m, err := llm.NewChatCompletions(llm.Endpoint{BaseURL: url, Info: llm.Info{Name: "scripted"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range script.Scenarios {
		script.Scenarios[i].TokensPerSecond = 1e6
		for j := range script.Scenarios[i].Steps {
			script.Scenarios[i].Steps[j].Drip = 0
		}
	}
	for _, c := range script.Scenarios {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			question := c.Say
			if question == "" {
				question = "Hello?"
			}
			messages := []llm.Message{{Role: llm.User, Text: question}}
			for range len(c.Steps) {
				a, err := llmtest.Check(t, m.Stream(t.Context(), llm.Request{Messages: messages}))
				if err != nil && c.Name != "cut" {
					t.Fatal(err)
				}
				messages = append(messages, llm.Message{Role: llm.Assistant, Text: a.Text, ToolCalls: a.ToolCalls})
				for _, call := range a.ToolCalls {
					if !json.Valid([]byte(call.Arguments)) && c.Name != "broken" {
						t.Errorf("arguments %s", call.Arguments)
					}
					messages = append(messages, llm.Message{Role: llm.Tool, ToolCallID: call.ID, Text: "ValueError"})
				}
				if strings.Contains(a.Text, "{{") || len(a.Text+a.Reasoning) == 0 && len(a.ToolCalls) == 0 {
					t.Errorf("it says %q", a.Text)
				}
			}
			played := 0
			for _, r := range srv.Requests() {
				if r.Messages[0].Text() == question && r.Scenario == c.Name {
					played++
				}
			}
			if played < len(c.Steps) {
				t.Errorf("%q plays another scenario", question)
			}
		})
	}
}

func TestForecast(t *testing.T) {
	script, err := llmtest.Parse([]byte("key: k\nscenarios: [{steps: [{}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	url := serve(t, llmtest.NewServer(script))
	for query, want := range map[string]int{"latitude=52.5&longitude=13.4": 200, "latitude=152&longitude=1": 400, "": 400} {
		resp, err := http.Get(url + "/forecast?" + query)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var body struct {
			Hourly struct {
				Time        []string  `json:"time"`
				Temperature []float64 `json:"temperature_2m"`
			} `json:"hourly"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&body); err != nil || resp.StatusCode != want {
			t.Errorf("%s: %d, %v", query, resp.StatusCode, err)
		}
		if want == 200 && (len(body.Hourly.Time) != 168 || len(body.Hourly.Temperature) != 168) {
			t.Errorf("%d hours", len(body.Hourly.Time))
		}
	}
}
