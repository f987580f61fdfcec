package config_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
)

const modelsFile = `
default_model: local
discover_models: false
chat_max_rounds: 5
chat_round_timeout: 90s
upload_extensions: [csv, txt]
upload_max_bytes: 10MiB
weather_base_url: none
models:
  - name: gpt-4.1
    api_key_env: MY_KEY
  - name: local
    title: Qwen
    base_url: http://127.0.0.1:9000/v1
    model: qwen3
    context_tokens: 40960
    max_output_tokens: 4096
    vision: true
    temperature: 0.2
    timeout: 10m
    headers: {X-Team: "blue"}
`

func TestModelsOfTheFile(t *testing.T) {
	srv, err := config.Load(config.Base{Config: write(t, modelsFile)})
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Model{
		{Name: "gpt-4.1", BaseURL: config.OpenAIBaseURL, APIKeyEnv: "MY_KEY"},
		{
			Name: "local", Title: "Qwen", BaseURL: "http://127.0.0.1:9000/v1", Model: "qwen3", ContextTokens: 40960, MaxOutputTokens: 4096,
			Vision: new(true), Temperature: new(0.2), Timeout: config.Seconds(600), Headers: map[string]config.Secret{"X-Team": "blue"},
		},
	}
	if diff := cmp.Diff(want, srv.Models); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if srv.DefaultModel != "local" || srv.DiscoverModels || srv.ChatMaxRounds != 5 || srv.ChatRoundTimeout != config.Seconds(90) ||
		len(srv.UploadExtensions) != 2 || srv.UploadMaxBytes != 10<<20 || srv.WeatherBaseURL != config.NoWeather {
		t.Errorf("got %+v", srv)
	}
}

func TestMistakesInModels(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"unknown key", "models:\n  - name: a\n    apikey: secret-value\n", []string{":3:", `"apikey"`, "api_key_file"}},
		{"no name", "models: [{model: a}]", []string{"models[0].name", "printable"}},
		{"two of a name", "models: [{name: a}, {name: a}]", []string{"models[1].name", `"a"`, "another"}},
		{"an address that is none", "models: [{name: a, base_url: 'localhost:11434'}]", []string{"models[0].base_url", "https://"}},
		{"a password in the address", "models: [{name: a, base_url: 'https://u:secret-value@x/v1'}]", []string{"models[0].base_url", "password"}},
		{"two keys", "models: [{name: a, api_key: secret-value, api_key_env: B}]", []string{"models[0]", "keep one"}},
		{"a printed key", "models: [{name: a, api_key: '[redacted]'}]", []string{"api_key", "leave secrets out"}},
		{"a tiny window", "models: [{name: a, context_tokens: 10}]", []string{"context_tokens", "1024"}},
		{"a word where a number belongs", "models: [{name: a, context_tokens: many}]", []string{"models[0]", "many"}},
		{"too hot", "models: [{name: a, temperature: 3}]", []string{"temperature", "0 to 2"}},
		{"no number at all", "models: [{name: a, temperature: .nan}]", []string{"temperature"}},
		{"a timeout without unit", "models: [{name: a, timeout: 30}]", []string{"models[0]", `"30"`, "300s"}},
		{"a header's name", "models: [{name: a, headers: {'a b': secret-value}}]", []string{"headers", "a b"}},
		{"a header's value", "models: [{name: a, headers: {A: \"secret-value\\n\"}}]", []string{"headers.A"}},
		{"a default that is none", "default_model: b\nmodels: [{name: a}]", []string{"default_model", `"b"`}},
		{"a map", "models: {a: {}}", []string{"models"}},
		{"no rounds", "chat_max_rounds: 0", []string{"chat_max_rounds", "1 to 1000"}},
		{"a weather of nowhere", "weather_base_url: rain", []string{"weather_base_url", "none"}},
		{"an extension with a path", "upload_extensions: [a/b]", []string{"upload_extensions", "tar.gz"}},
		{"a prompt that is not there", "chat_system_prompt_file: /nowhere/at/all", []string{"chat_system_prompt_file", "file"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, tt.text, tt.want)
		})
	}
}

func TestKeysOfModels(t *testing.T) {
	t.Setenv("MY_KEY", " sk-environment\n")
	t.Setenv("EMPTY", "")
	dir := t.TempDir()
	for name, content := range map[string]string{"good": "sk-file\n", "empty": "\n", "spaces": "a secret phrase"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name  string
		model config.Model
		want  config.Secret
		bad   bool
	}{
		{"none", config.Model{}, "", false},
		{"the setting itself", config.Model{APIKey: "sk-inline"}, "sk-inline", false},
		{"the environment", config.Model{APIKeyEnv: "MY_KEY"}, "sk-environment", false},
		{"an empty environment", config.Model{APIKeyEnv: "EMPTY"}, "", true},
		{"a file", config.Model{APIKeyFile: filepath.Join(dir, "good")}, "sk-file", false},
		{"an empty file", config.Model{APIKeyFile: filepath.Join(dir, "empty")}, "", true},
		{"a file with something else", config.Model{APIKeyFile: filepath.Join(dir, "spaces")}, "", true},
		{"a file that is not there", config.Model{APIKeyFile: filepath.Join(dir, "none")}, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.model.Key()
			if got != tt.want || (err != nil) != tt.bad {
				t.Errorf("got %q, %v", got.Reveal(), err)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the message shows the content: %v", err)
			}
			if err != nil && !errors.Is(err, errdefs.ErrInvalid) && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the kind of %v", err)
			}
		})
	}
}

func TestEnvironmentModel(t *testing.T) {
	for _, name := range []string{"OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"} {
		t.Setenv(name, "")
	}
	if m, ok := config.EnvironmentModel(); ok {
		t.Errorf("without a key there is %+v", m)
	}
	t.Setenv("OPENAI_API_KEY", "sk-environment")
	m, ok := config.EnvironmentModel()
	if !ok || m.Name != "gpt-4.1" || m.BaseURL != config.OpenAIBaseURL {
		t.Errorf("got %+v", m)
	}
	if key, err := m.Key(); key != "sk-environment" || err != nil {
		t.Errorf("key: %v, %v", key.Reveal(), err)
	}
	t.Setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
	t.Setenv("OPENAI_MODEL", "other")
	if m, _ := config.EnvironmentModel(); m.Name != "other" || m.BaseURL != "http://127.0.0.1:1/v1" {
		t.Errorf("got %+v", m)
	}
}

func TestPrintedModelsHaveNoSecrets(t *testing.T) {
	srv, err := config.Load(config.Base{Config: write(t, strings.Replace(modelsFile, "api_key_env: MY_KEY", "api_key: sk-secret-value", 1))})
	if err != nil {
		t.Fatal(err)
	}
	srv.Models[1].Headers["X-Key"] = "hdr-secret-value"
	var out bytes.Buffer
	if err := config.Print(&out, config.Base{LogLevel: "info", LogFormat: "text"}, srv); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&out, "%v %+v %#v", srv, srv, srv.Models)
	if strings.Contains(out.String(), "secret-value") {
		t.Errorf("a secret shows in %s", out.String())
	}
	if !strings.Contains(out.String(), "api_key: '[redacted]'") {
		t.Errorf("the print does not say that there is a key:\n%s", out.String())
	}
}

func TestPrintedModelsReadBack(t *testing.T) {
	srv, err := config.Load(config.Base{Config: write(t, strings.Replace(modelsFile, `headers: {X-Team: "blue"}`, "", 1))})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := config.Print(&out, config.Base{LogLevel: "info", LogFormat: "text"}, srv); err != nil {
		t.Fatal(err)
	}
	again, err := config.Load(config.Base{Config: write(t, out.String())})
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	if diff := cmp.Diff(srv, again); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
