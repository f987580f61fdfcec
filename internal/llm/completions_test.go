package llm_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/llm/llmtest"
)

func faults(t *testing.T) *llmtest.Server {
	t.Helper()
	text, err := os.ReadFile("llmtest/testdata/faults.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return llmtest.Start(t, string(text))
}

func model(t *testing.T, ep llm.Endpoint) llm.Model {
	t.Helper()
	if ep.Info.Name == "" {
		ep.Info.Name = "scripted"
	}
	if ep.Transport == nil {
		transport := llm.NewTransport()
		ep.Transport = transport
		t.Cleanup(transport.CloseIdleConnections)
	}
	m, err := llm.NewChatCompletions(ep)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func ask(text string) llm.Request {
	return llm.Request{
		Messages: []llm.Message{{Role: llm.System, Text: "Be brief."}, {Role: llm.User, Text: text}},
		Tools:    []llm.ToolSpec{{Name: "f", Parameters: json.RawMessage(`{"type":"object"}`)}},
	}
}

func call(name, args string) llm.ToolCall { return llm.ToolCall{Name: name, Arguments: args} }

func TestAnswersOfAllSortsOfServers(t *testing.T) {
	srv := faults(t)
	m := model(t, llm.Endpoint{BaseURL: srv.URL})
	x1, y2 := call("f", `{"x":1}`), call("g", `{"y":2}`)
	tests := map[string]llm.Answer{
		"text":              {Text: "Hello **Wörld** 🎉, x < 1 & y\n", FinishReason: llm.FinishStop, Usage: llm.Usage{InputTokens: 11, CachedInputTokens: 5, OutputTokens: 7}},
		"no text":           {FinishReason: llm.FinishStop},
		"thought":           {Reasoning: "First I think.", Text: "Then I speak.", FinishReason: llm.FinishStop},
		"thought elsewhere": {Reasoning: "First I think.", Text: "Then I speak.", FinishReason: llm.FinishStop},
		"split":             {Text: "I run it.", ToolCalls: []llm.ToolCall{call("python_interpreter", `{"code":"print('日本 🎉 \"x\" \\\\ ')\n"}`)}, FinishReason: llm.FinishToolCalls},
		"two calls":         {ToolCalls: []llm.ToolCall{x1, call("g", `{"y":[2,3]}`)}, FinishReason: llm.FinishToolCalls},
		"no index":          {ToolCalls: []llm.ToolCall{x1, call("g", `{}`)}, FinishReason: llm.FinishToolCalls},
		"no index, no ids":  {ToolCalls: []llm.ToolCall{x1, y2}, FinishReason: llm.FinishToolCalls},
		"no ids":            {ToolCalls: []llm.ToolCall{x1, call("f", `{"x":2}`)}, FinishReason: llm.FinishToolCalls},
		"same ids":          {ToolCalls: []llm.ToolCall{x1, call("f", `{"x":2}`)}, FinishReason: llm.FinishToolCalls},
		"whole arguments":   {ToolCalls: []llm.ToolCall{x1, y2}, FinishReason: llm.FinishToolCalls},
		"object arguments":  {ToolCalls: []llm.ToolCall{x1}, FinishReason: llm.FinishToolCalls},
		"no arguments":      {ToolCalls: []llm.ToolCall{call("f", ""), call("g", "")}, FinishReason: llm.FinishToolCalls},
		"broken arguments":  {ToolCalls: []llm.ToolCall{call("python_interpreter", `{"code": "print(1)`)}, FinishReason: llm.FinishToolCalls},
		"early usage":       {Text: "Hi.", FinishReason: llm.FinishStop, Usage: llm.Usage{InputTokens: 3, OutputTokens: 2}},
		"no done":           {Text: "Hi.", FinishReason: llm.FinishStop},
		"noise":             {Text: "Hello there.", FinishReason: llm.FinishStop},
		"tight":             {Text: "Hello there.", FinishReason: llm.FinishStop},
		"no stream":         {Text: "Whole.", ToolCalls: []llm.ToolCall{x1}, FinishReason: llm.FinishToolCalls},
		"length":            {Text: "And so", FinishReason: llm.FinishLength},
		"refusal":           {Text: "I can't help with that.", FinishReason: llm.FinishRefusal},
		"parts":             {Reasoning: "Hm.", Text: "Yes.", FinishReason: llm.FinishStop},
		"once":              {Text: "Now.", FinishReason: llm.FinishStop},
		"thrice":            {Text: "Now.", FinishReason: llm.FinishStop},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := llmtest.Check(t, m.Stream(t.Context(), ask(name)))
			if err != nil {
				t.Fatal(err)
			}
			ignore := []cmp.Option{cmpopts.IgnoreFields(llm.ToolCall{}, "ID")}
			if want.Usage == (llm.Usage{}) {
				ignore = append(ignore, cmpopts.IgnoreFields(llm.Answer{}, "Usage"))
			}
			if diff := cmp.Diff(want, got, ignore...); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestFailuresHaveACodeAndSayWhatToDo(t *testing.T) {
	srv := faults(t)
	m := model(t, llm.Endpoint{BaseURL: srv.URL, Timeout: 200 * time.Millisecond})
	tests := []struct {
		name, code string
		kind       error
		before     string // text that came
		says       string
		requests   int
	}{
		{"filter", llm.CodeRefused, errdefs.ErrInvalid, "Well", "filter", 1},
		{"cut", llm.CodeCut, errdefs.ErrUnavailable, "In the middle", "continue", 1},
		{"ends early", llm.CodeCut, errdefs.ErrUnavailable, "x", "middle", 1},
		{"hang", llm.CodeTimeout, errdefs.ErrUnavailable, "Then", "200ms", 1},
		{"silent", llm.CodeTimeout, errdefs.ErrUnavailable, "", "did not answer", 1},
		{"midway", llm.CodeUnavailable, errdefs.ErrUnavailable, "Then", "overloaded", 1},
		{"midway limit", llm.CodeRateLimited, errdefs.ErrExhausted, "Then", "Slow down", 1},
		{"garbage", llm.CodeBadAnswer, errdefs.ErrUnavailable, "", "JSON", 1},
		{"page", llm.CodeBadAnswer, errdefs.ErrUnavailable, "", "web page", 1},
		{"nothing", llm.CodeBadAnswer, errdefs.ErrUnavailable, "", "nothing", 1},
		{"always", llm.CodeUnavailable, errdefs.ErrUnavailable, "", "try again", 4},
		{"later", llm.CodeRateLimited, errdefs.ErrExhausted, "", "1h0m0s", 1},
		{"quota", llm.CodeRateLimited, errdefs.ErrExhausted, "", "billing", 1},
		{"too long", llm.CodeContextLength, errdefs.ErrTooLarge, "", "8192", 1},
		{"too long for llama", llm.CodeContextLength, errdefs.ErrTooLarge, "", "context", 1},
		{"no model", llm.CodeNotFound, errdefs.ErrNotFound, "", "scripted", 1},
		{"forbidden", llm.CodeAuth, errdefs.ErrUnavailable, "", "Country", 1},
		{"filtered request", llm.CodeRefused, errdefs.ErrInvalid, "", "other words", 1},
		{"odd", llm.CodeRejected, errdefs.ErrInvalid, "", "messages[3]: no [31m such thing", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := len(srv.Requests())
			got, err := llmtest.Check(t, m.Stream(t.Context(), ask(tt.name)))
			e, ok := errors.AsType[*errdefs.Error](err)
			if !ok || e.Code != tt.code || !errors.Is(err, tt.kind) {
				t.Fatalf("got %v, want %s", err, tt.code)
			}
			if got.Text != tt.before {
				t.Errorf("before it came %q, want %q", got.Text, tt.before)
			}
			if e.Hint == "" || !strings.Contains(e.Msg+e.Hint, tt.says) {
				t.Errorf("%q (%q) does not say %q", e.Msg, e.Hint, tt.says)
			}
			if n := len(srv.Requests()) - before; n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	srv := httptest.NewServer(nil)
	srv.Close()
	m := model(t, llm.Endpoint{BaseURL: srv.URL})
	retries := 0
	var last error
	for ev, err := range m.Stream(t.Context(), ask("x")) {
		if ev.Kind == llm.Retry {
			if retries++; retries == 1 && ev.After > time.Second {
				t.Errorf("first pause %s", ev.After)
			}
		}
		last = err
	}
	if e, ok := errors.AsType[*errdefs.Error](last); !ok || e.Code != llm.CodeUnreachable || retries != 3 {
		t.Errorf("got %v after %d retries", last, retries)
	}
}

func TestStoppingIsImmediate(t *testing.T) {
	srv := faults(t)
	cause := errors.New("the person pressed stop")
	for _, name := range []string{"hang", "silent", "later"} {
		t.Run(name, func(t *testing.T) {
			m := model(t, llm.Endpoint{BaseURL: srv.URL})
			if name == "later" { // stop while it waits to ask again
				m = model(t, llm.Endpoint{BaseURL: waits(t, "20")})
			}
			ctx, cancel := context.WithCancelCause(t.Context())
			var begun time.Time
			go func() {
				time.Sleep(50 * time.Millisecond)
				begun = time.Now()
				cancel(cause)
			}()
			_, err := llmtest.Check(t, m.Stream(ctx, ask(name)))
			if !errors.Is(err, cause) {
				t.Errorf("got %v", err)
			}
			if d := time.Since(begun); d > time.Second {
				t.Errorf("it took %s", d)
			}
		})
	}
}

// waits answers 429 with a Retry-After.
func waits(t *testing.T, after string) string {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", after)
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestLeavingTheLoopEndsTheRequest(t *testing.T) {
	left := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(left)
	}))
	defer srv.Close()
	for range model(t, llm.Endpoint{BaseURL: srv.URL}).Stream(t.Context(), ask("x")) {
		break
	}
	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("the server still waits")
	}
}

func TestAnOpenEndAfterTheLastWord(t *testing.T) {
	srv := faults(t)
	got, err := llmtest.Check(t, model(t, llm.Endpoint{BaseURL: srv.URL, Timeout: 100 * time.Millisecond}).Stream(t.Context(), ask("open end")))
	if err != nil || got.Text != "x" || got.FinishReason != llm.FinishStop {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestRetryAfterIsFollowed(t *testing.T) {
	for name, header := range map[string]func() (string, string){
		"seconds":      func() (string, string) { return "Retry-After", "7" },
		"milliseconds": func() (string, string) { return "Retry-After-Ms", "7000" },
		"a date": func() (string, string) {
			return "Retry-After", time.Now().Add(7 * time.Second).UTC().Format(http.TimeFormat)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				m := model(t, llm.Endpoint{BaseURL: "http://model.example/v1", Transport: tripper(func(*http.Request) *http.Response {
					if tries++; tries == 1 {
						rec := httptest.NewRecorder()
						rec.Header().Set(header())
						rec.WriteHeader(http.StatusTooManyRequests)
						return rec.Result()
					}
					rec := httptest.NewRecorder()
					_, _ = rec.WriteString(`{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}`)
					return rec.Result()
				})})
				begun := time.Now()
				got, err := llmtest.Check(t, m.Stream(t.Context(), ask("x")))
				if err != nil || got.Text != "hi" {
					t.Fatalf("got %+v, %v", got, err)
				}
				if d := time.Since(begun); d < 6*time.Second || d > 7*time.Second {
					t.Errorf("asked again after %s", d)
				}
			})
		})
	}
}

type tripper func(*http.Request) *http.Response

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r), nil }

func TestFieldsThatAServerRefusesAreLeftOut(t *testing.T) {
	srv := llmtest.Start(t, "refuses: [stream_options, max_tokens, parallel_tool_calls, temperature]\nscenarios: [{steps: [{text: Hi.}]}]")
	m := model(t, llm.Endpoint{BaseURL: srv.URL, Temperature: new(0.5)})
	req := ask("x")
	req.MaxTokens, req.ParallelToolCalls = 100, new(false)
	for range 2 {
		if _, err := llmtest.Check(t, m.Stream(t.Context(), req)); err != nil {
			t.Fatal(err)
		}
	}
	var sent map[string]any
	requests := srv.Requests() // only those that were taken
	if err := json.Unmarshal(requests[1].Raw, &sent); err != nil {
		t.Fatal(err)
	}
	if len(requests) != 2 || sent["max_completion_tokens"] != 100.0 || sent["stream_options"] != nil || sent["temperature"] != nil {
		t.Errorf("%d requests, the last: %v", len(requests), sent)
	}
}

func TestWhatIsSent(t *testing.T) {
	srv := llmtest.Start(t, "key: sk-test\nscenarios: [{steps: [{text: Hi.}, {text: Hi.}]}]")
	history := []llm.Message{
		{Role: llm.System, Text: "S"},
		{Role: llm.User, Text: "Q", Images: []llm.Image{{MediaType: "image/png", Data: []byte("png")}}},
		{Role: llm.Assistant, ToolCalls: []llm.ToolCall{{ID: "a", Name: "f", Arguments: `{"x":`}, {ID: "b", Name: "f", Arguments: `{"x":1}`}}},
		{Role: llm.Tool, ToolCallID: "a", Text: "bad JSON"},
		{Role: llm.Tool, ToolCallID: "b", Text: "1"},
	}
	for _, vision := range []bool{true, false} {
		m := model(t, llm.Endpoint{
			Info: llm.Info{Name: "mine", Vision: vision}, Model: "theirs", BaseURL: srv.URL + "/", Key: "sk-test",
			Headers: map[string]string{"X-Team": "blue"}, Temperature: new(0.25),
		})
		if _, err := llmtest.Check(t, m.Stream(t.Context(), llm.Request{Messages: history, Tools: ask("").Tools, NoTools: true})); err != nil {
			t.Fatal(err)
		}
		got := srv.Requests()[len(srv.Requests())-1]
		images := `"Q"`
		if vision {
			images = `[{"type":"text","text":"Q"},{"type":"image_url","image_url":{"url":"data:image/png;base64,cG5n"}}]`
		}
		want := `{"model":"theirs","messages":[{"role":"system","content":"S"},{"role":"user","content":` + images + `},` +
			`{"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},` +
			`{"id":"b","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}}]},` +
			`{"role":"tool","content":"bad JSON","tool_call_id":"a"},{"role":"tool","content":"1","tool_call_id":"b"}],` +
			`"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"none","temperature":0.25,"stream":true,"stream_options":{"include_usage":true}}`
		if diff := cmp.Diff(want, string(got.Raw)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if got.Header.Get("X-Team") != "blue" {
			t.Error("a header of the settings is missing")
		}
	}
}

func TestTheKeyShowsNowhere(t *testing.T) {
	const key, header = "sk-secret-0123456789", "hdr-secret-0123456789"
	var seen strings.Builder
	hostile := map[string]http.HandlerFunc{
		"refuses the key and repeats it": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":{"message":"Incorrect API key provided: %s"}}`, r.Header.Get("Authorization"))
		},
		"repeats headers in another error": func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"error":{"message":"what is %s and %s?"}}`, r.Header.Get("Authorization"), r.Header.Get("X-Key"))
		},
		"repeats it in the stream": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "data: {\"error\":{\"message\":\"your key %s\"}}\n\n", r.Header.Get("Authorization"))
		},
		"repeats it as broken JSON": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "data: %s\n\n", r.Header.Get("Authorization"))
		},
		"redirects to another host": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://thief.example/?"+r.Header.Get("X-Key"), http.StatusTemporaryRedirect)
		},
		"redirects within itself": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/other", http.StatusTemporaryRedirect)
		},
	}
	for name, handler := range hostile {
		t.Run(name, func(t *testing.T) {
			requests := 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests++
				handler(w, r)
			}))
			defer srv.Close()
			ep := llm.Endpoint{BaseURL: srv.URL, Key: key, Headers: map[string]string{"X-Key": header}, Info: llm.Info{Name: "m"}}
			m := model(t, ep)
			_, err := llmtest.Check(t, m.Stream(t.Context(), ask("x")))
			if err == nil || requests != 1 {
				t.Errorf("got %v after %d requests", err, requests)
			}
			log := slog.New(slog.NewJSONHandler(&seen, nil))
			log.Info("asked", "err", err, "model", m.Info(), "endpoint", ep)
			fmt.Fprintf(&seen, "%v %+v %#v %v %+v %#v %s", err, err, err, ep, ep, ep, &ep)
		})
	}
	for _, secret := range []string{key, header} {
		if strings.Contains(seen.String(), secret) {
			t.Errorf("%s shows in %s", secret, seen.String())
		}
	}
}

func TestHugeAnswersAreRefused(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		line := strings.Repeat("x", 1<<20)
		fmt.Fprint(w, "data: ")
		for r.Context().Err() == nil {
			if _, err := fmt.Fprint(w, line); err != nil {
				return
			}
		}
	}))
	defer srv.Close()
	_, err := llmtest.Check(t, model(t, llm.Endpoint{BaseURL: srv.URL}).Stream(t.Context(), ask("x")))
	if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != llm.CodeBadAnswer {
		t.Errorf("got %v", err)
	}
}

// Whatever a server sends, what comes of it keeps the contract.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"", "data: [DONE]\n\n", "{}", `{"choices":[{"message":{"content":"x"}}]}`, ": ping\r\n\r\ndata: {\"choices\":[]}\r\n\r\n",
		`data: {"choices":[{"delta":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{"}},{"id":"a","function":{"arguments":"}"}}]}}]}` + "\n\n",
		`data: {"choices":[{"delta":{"tool_calls":[{"index":7,"function":{"name":"f"}},{"index":-1,"id":"b","function":{"arguments":{}}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":-1}}` + "\n",
		`data: {"error":{"message":[1],"code":429}}`, "data: 1\ndata: 2\n\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m := model(t, llm.Endpoint{BaseURL: "http://model.example", Transport: tripper(func(*http.Request) *http.Response {
			rec := httptest.NewRecorder()
			_, _ = rec.Write(body)
			return rec.Result()
		})})
		_, err := llmtest.Check(t, m.Stream(t.Context(), llm.Request{}))
		if e, ok := errors.AsType[*errdefs.Error](err); err != nil && (!ok || !strings.HasPrefix(e.Code, "model-") || e.Hint == "") {
			t.Errorf("%v", err)
		}
	})
}

func TestBadBaseURLs(t *testing.T) {
	for _, address := range []string{"", "api.example.org", "ftp://x/v1", "http://", "https://user:pass@x/v1", "http://%zz"} {
		if _, err := llm.NewChatCompletions(llm.Endpoint{BaseURL: address}); !errors.Is(err, errdefs.ErrInvalid) || strings.Contains(err.Error(), "pass@") {
			t.Errorf("%q: %v", address, err)
		}
	}
}
