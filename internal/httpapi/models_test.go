package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/httpapi"
	"github.com/caesarion/caesarion/internal/llm"
)

func listModels(t *testing.T, models *llm.Registry) (v1.ModelList, string) {
	t.Helper()
	api := httpapi.New(nil, httpapi.Options{AuthNone: true, Models: models})
	rec := httptest.NewRecorder()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1/v1/models", nil)
	r.RemoteAddr = "127.0.0.1:1"
	api.ServeHTTP(rec, r)
	if rec.Code != http.StatusOK {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	var list v1.ModelList
	if err := json.Unmarshal(rec.Body.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	return list, rec.Body.String()
}

func TestModels(t *testing.T) {
	const key = "sk-secret-0123456789"
	var models []llm.Model
	for _, name := range []string{"a", "b"} {
		m, err := llm.NewChatCompletions(llm.Endpoint{
			Info: llm.Info{Name: name, Source: "config", ContextTokens: 8192, Vision: name == "b"}, BaseURL: "https://models.example/v1",
			Key: key, Headers: map[string]string{"X-Key": key},
		})
		if err != nil {
			t.Fatal(err)
		}
		models = append(models, m)
	}
	got, text := listModels(t, llm.NewRegistry(models, llm.RegistryOptions{Default: "b"}))
	want := v1.ModelList{Models: []v1.Model{
		{Name: "a", Title: "a", Source: "config", ContextTokens: 8192},
		{Name: "b", Title: "b", Source: "config", ContextTokens: 8192, Vision: true, Default: true},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if strings.Contains(text, "secret") || strings.Contains(text, "models.example") {
		t.Errorf("it shows what it should not: %s", text)
	}
}

func TestNoModelsGiveAHint(t *testing.T) {
	for _, r := range []*llm.Registry{nil, llm.NewRegistry(nil, llm.RegistryOptions{})} {
		got, text := listModels(t, r)
		if len(got.Models) != 0 || got.Hint == "" || !strings.Contains(text, `"models":[]`) {
			t.Errorf("got %s", text)
		}
	}
}
