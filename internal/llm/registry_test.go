package llm_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/llm/llmtest"
)

func TestConfiguredModels(t *testing.T) {
	a := model(t, llm.Endpoint{BaseURL: "http://a.example", Info: llm.Info{Name: "a", Source: "config"}})
	b := model(t, llm.Endpoint{BaseURL: "http://b.example", Info: llm.Info{Name: "b", Title: "B", ContextTokens: 100_000}})
	for _, tt := range []struct{ def, want string }{{"", "a"}, {"b", "b"}, {"gone", "a"}} {
		r := llm.NewRegistry([]llm.Model{a, b}, llm.RegistryOptions{Default: tt.def, Discover: llm.LocalServers()})
		if got := r.Default(t.Context()); got != tt.want {
			t.Errorf("default %q, want %q", got, tt.want)
		}
		want := []llm.Info{
			{Name: "a", Title: "a", Source: "config", ContextTokens: 32768, Default: tt.want == "a"},
			{Name: "b", Title: "B", ContextTokens: 100_000, Default: tt.want == "b"},
		}
		if diff := cmp.Diff(want, r.Models(t.Context())); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
		if m, err := r.Get(t.Context(), ""); err != nil || m.Info().Name != tt.want {
			t.Errorf("got %v, %v", m, err)
		}
		if m, err := r.Get(t.Context(), "b"); err != nil || m.Info().Name != "b" {
			t.Errorf("got %v, %v", m, err)
		}
		if r.Hint(t.Context()) != "" {
			t.Error("a hint although there are models")
		}
		_, err := r.Get(t.Context(), "c\n")
		if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != llm.CodeNotFound || !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("got %v", err)
		}
	}
}

func TestNoModels(t *testing.T) {
	r := llm.NewRegistry(nil, llm.RegistryOptions{Default: "x"})
	_, err := r.Get(t.Context(), "")
	if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != llm.CodeNone || e.Hint == "" {
		t.Errorf("got %v", err)
	}
	if r.Default(t.Context()) != "" || len(r.Models(t.Context())) != 0 || r.Hint(t.Context()) == "" {
		t.Error("there is something where nothing is")
	}
}

// local plays a server of this machine; what it answers may change.
func local(t *testing.T, answers map[string]string) (llm.LocalServer, *atomic.Pointer[map[string]string], *atomic.Int64) {
	t.Helper()
	var now atomic.Pointer[map[string]string]
	now.Store(&answers)
	var asked atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		text, ok := (*now.Load())[r.URL.Path]
		switch {
		case text == "hang":
			<-r.Context().Done()
		case !ok:
			http.NotFound(w, r)
		default:
			_, _ = w.Write([]byte(text))
		}
	}))
	t.Cleanup(srv.Close)
	return llm.LocalServer{BaseURL: srv.URL}, &now, &asked
}

func TestLocalServersAreFound(t *testing.T) {
	ollama, _, asked := local(t, map[string]string{
		"/api/tags": `{"models":[{"name":"qwen3:8b","details":{"families":["qwen3"]}},{"name":"llava:latest"},{"name":"nomic-embed-text","details":{"families":["nomic-bert"]}},{"name":"bad\nname"},{"name":""}]}`,
		"/api/ps":   `{"models":[{"name":"qwen3:8b","context_length":16384}]}`,
		"/api/show": `{"capabilities":["completion","vision"]}`,
	})
	ollama.Kind = llm.Ollama
	llama, _, _ := local(t, map[string]string{
		"/v1/models": `{"object":"list","data":[{"id":"/models/Qwen3-8B.gguf","owned_by":"llamacpp","meta":{"n_ctx_train":40960}}]}`,
		"/props":     `{"default_generation_settings":{"n_ctx":8192},"modalities":{"vision":false}}`,
	})
	llama.Kind = llm.LlamaCPP
	r := llm.NewRegistry(nil, llm.RegistryOptions{Discover: []llm.LocalServer{ollama, llama}})
	want := []llm.Info{
		{Name: "qwen3:8b", Title: "qwen3:8b", Source: "Ollama", ContextTokens: 16384, Vision: true, Default: true},
		{Name: "llava:latest", Title: "llava", Source: "Ollama", ContextTokens: 4096, Vision: true},
		{Name: "/models/Qwen3-8B.gguf", Title: "Qwen3-8B", Source: "llama.cpp", ContextTokens: 8192},
	}
	if diff := cmp.Diff(want, r.Models(t.Context())); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	before := asked.Load()
	first, err := r.Get(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if second, _ := r.Get(t.Context(), "qwen3:8b"); second != first {
		t.Error("the same model is another one each time")
	}
	if asked.Load() != before {
		t.Error("it looked again at once")
	}
	r.CloseIdle()
}

func TestOtherProgramsAreNotModelServers(t *testing.T) {
	for name, answers := range map[string]map[string]string{
		"nothing of the kind":   {"/": "hello"},
		"a page for everything": {"/api/tags": "<html>", "/v1/models": "<html>"},
		"some other server":     {"/v1/models": `{"object":"list","data":[{"id":"x","owned_by":"someone"}]}`, "/api/tags": `{"models":[]}`},
		"one that hangs":        {"/v1/models": "hang", "/api/tags": "hang"},
		"the wrong JSON":        {"/v1/models": `[]`, "/api/tags": `{"models":{"a":1}}`},
	} {
		t.Run(name, func(t *testing.T) {
			a, _, _ := local(t, answers)
			b := a
			a.Kind, b.Kind = llm.Ollama, llm.LlamaCPP
			r := llm.NewRegistry(nil, llm.RegistryOptions{Discover: []llm.LocalServer{a, b}})
			begun := time.Now()
			if got := r.Models(t.Context()); len(got) != 0 {
				t.Errorf("got %+v", got)
			}
			if d := time.Since(begun); d > 2*time.Second {
				t.Errorf("it took %s", d)
			}
			if r.Hint(t.Context()) == "" {
				t.Error("no hint")
			}
			r.CloseIdle()
		})
	}
}

func TestAServerThatStartsLaterIsFound(t *testing.T) {
	s, now, asked := local(t, map[string]string{})
	s.Kind = llm.Ollama
	r := llm.NewRegistry(nil, llm.RegistryOptions{Discover: []llm.LocalServer{s}, ProbeAgain: time.Nanosecond})
	defer r.CloseIdle()
	if got := r.Models(t.Context()); len(got) != 0 {
		t.Fatalf("got %+v", got)
	}
	now.Store(&map[string]string{"/api/tags": `{"models":[{"name":"qwen3:8b"}]}`})
	if got := r.Default(t.Context()); got != "qwen3:8b" {
		t.Errorf("got %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := r.Models(ctx); len(got) > 1 {
		t.Errorf("got %+v", got)
	}
	now.Store(&map[string]string{})
	if got := r.Models(t.Context()); len(got) != 0 {
		t.Errorf("a server that ended still has %+v", got)
	}
	if asked.Load() < 3 {
		t.Errorf("asked %d times", asked.Load())
	}
}

// A model that was found answers.
func TestALocalModelAnswers(t *testing.T) {
	scripted := llmtest.NewServer(must(llmtest.Parse([]byte("scenarios: [{steps: [{text: Hi.}]}]"))))
	mux := http.NewServeMux()
	mux.Handle("/v1/", scripted)
	mux.HandleFunc("/api/tags", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"models":[{"name":"qwen3:8b"}]}`))
	})
	srv := httptest.NewServer(mux)
	defer srv.Close()
	r := llm.NewRegistry(nil, llm.RegistryOptions{Discover: []llm.LocalServer{{Kind: llm.Ollama, BaseURL: srv.URL}}})
	defer r.CloseIdle()
	m, err := r.Get(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := llmtest.Check(t, m.Stream(t.Context(), ask("x")))
	if err != nil || got.Text != "Hi." || scripted.Requests()[0].Model != "qwen3:8b" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestKnownModels(t *testing.T) {
	for name, want := range map[string]llm.Info{
		"gpt-4.1": {ContextTokens: 1_047_576, Vision: true}, "gpt-4.1-mini": {ContextTokens: 1_047_576, Vision: true},
		"openai/GPT-4o": {ContextTokens: 128_000, Vision: true}, "gpt-4": {ContextTokens: 8192}, "qwen3": {}, "": {},
	} {
		if got := llm.Known(name); got != want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
