package config

import (
	"fmt"
	"net/textproto"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"gopkg.in/yaml.v3"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Model is a language model behind an OpenAI-compatible server.
type Model struct {
	Name            string            `yaml:"name"`                        // what sessions name it by
	Title           string            `yaml:"title,omitempty"`             // for people; default: the name
	BaseURL         string            `yaml:"base_url,omitempty"`          // default: https://api.openai.com/v1
	Model           string            `yaml:"model,omitempty"`             // the server's name of it; default: the name
	APIKeyEnv       string            `yaml:"api_key_env,omitempty"`       // environment variable that holds the key
	APIKeyFile      string            `yaml:"api_key_file,omitempty"`      // file that holds the key
	APIKey          Secret            `yaml:"api_key,omitempty"`           // the key itself; a file others can't read is better
	ContextTokens   int64             `yaml:"context_tokens,omitempty"`    // default: the model's own, if we know it, or 32768
	MaxOutputTokens int64             `yaml:"max_output_tokens,omitempty"` // of one answer; default: the server's own limit
	Vision          *bool             `yaml:"vision,omitempty"`            // it sees images; default: as far as we know it
	Temperature     *float64          `yaml:"temperature,omitempty"`       // default: the server's own
	Headers         map[string]Secret `yaml:"headers,omitempty"`           // sent with each request
	Timeout         Duration          `yaml:"timeout,omitempty"`           // longest silence; default: 2m
}

// OpenAIBaseURL is where a model is asked that names no base_url.
const OpenAIBaseURL = "https://api.openai.com/v1"

const (
	modelsKey  = "models"
	maxModels  = 200
	maxKeySize = 64 << 10
)

// EnvironmentSource is the environment variable whose presence gives a model
// where the file lists none.
const EnvironmentSource = "OPENAI_API_KEY"

// EnvironmentModel gives the model that OPENAI_API_KEY stands for, as the
// OpenAI SDKs have it: with OPENAI_BASE_URL and OPENAI_MODEL beside it.
func EnvironmentModel() (Model, bool) {
	if strings.TrimSpace(os.Getenv(EnvironmentSource)) == "" {
		return Model{}, false
	}
	m := Model{Name: os.Getenv("OPENAI_MODEL"), BaseURL: os.Getenv("OPENAI_BASE_URL"), APIKeyEnv: EnvironmentSource}
	if m.Name == "" {
		m.Name = "gpt-4.1"
	}
	if m.BaseURL == "" {
		m.BaseURL = OpenAIBaseURL
	}
	return m, true
}

// Key reads the model's key; "" means that it needs none.
func (m *Model) Key() (Secret, error) {
	from, text := "api_key", m.APIKey.Reveal()
	switch {
	case m.APIKeyEnv != "":
		from, text = "environment variable "+m.APIKeyEnv, os.Getenv(m.APIKeyEnv)
	case m.APIKeyFile != "":
		from = "api_key_file " + m.APIKeyFile
		info, err := os.Stat(m.APIKeyFile)
		if err == nil && info.Size() > maxKeySize {
			err = fmt.Errorf("larger than %s, which is no key", Bytes(maxKeySize))
		}
		var content []byte
		if err == nil {
			content, err = os.ReadFile(m.APIKeyFile)
		}
		if err != nil {
			return "", fmt.Errorf("config: model %q: api_key_file: %w", m.Name, err)
		}
		text = string(content)
	case text == "":
		return "", nil
	}
	text = strings.TrimSpace(text)
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errdefs.New(errdefs.ErrInvalid, CodeInvalid, "model %q: %s holds no usable key", m.Name, from).
			WithHint("a key has printable ASCII characters without spaces; a model that needs none has none of the api_key settings")
	}
	return Secret(text), nil
}

// readModels decodes the models of a file.
func (f *File) readModels(text []byte) error {
	var doc struct {
		Models []yaml.Node `yaml:"models"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("config: %s: %s: %s", f.Path, modelsKey, yamlMessage(err))
	}
	for i, node := range doc.Models {
		m := Model{BaseURL: OpenAIBaseURL}
		if err := checkEntryKeys[Model](node, "model"); err != nil {
			return fmt.Errorf("config: %s:%w", f.Path, err)
		}
		if err := node.Decode(&m); err != nil {
			return fmt.Errorf("config: %s: %s[%d]: %s", f.Path, modelsKey, i, yamlMessage(err))
		}
		f.Models = append(f.Models, m)
	}
	return nil
}

// checkEntryKeys refuses keys that no field of T has.
func checkEntryKeys[T any](node yaml.Node, what string) error {
	var known []string
	for field := range reflect.TypeFor[T]().Fields() {
		key, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		known = append(known, key)
	}
	for i := 0; i+1 < len(node.Content) && node.Kind == yaml.MappingNode; i += 2 {
		if key := node.Content[i]; !slices.Contains(known, key.Value) {
			return fmt.Errorf("%d: unknown key %q of a %s; allowed are %s", key.Line, key.Value, what, strings.Join(known, ", "))
		}
	}
	return nil
}

func (s *Server) validateModels() error {
	if len(s.Models) > maxModels {
		return invalid(modelsKey, len(s.Models), fmt.Sprintf("at most %d", maxModels))
	}
	seen := map[string]bool{}
	for i := range s.Models {
		m := &s.Models[i]
		if seen[m.Name] {
			return invalid(fmt.Sprintf("%s[%d].name", modelsKey, i), m.Name, "another model has this name")
		}
		seen[m.Name] = true
		if err := m.validate(fmt.Sprintf("%s[%d]", modelsKey, i)); err != nil {
			return err
		}
	}
	if s.DefaultModel != "" && len(s.Models) > 0 && !seen[s.DefaultModel] {
		return invalid("default_model", s.DefaultModel, "name one of the models")
	}
	return nil
}

func (m *Model) validate(key string) error {
	keys := 0
	for _, set := range []bool{m.APIKey != "", m.APIKeyEnv != "", m.APIKeyFile != ""} {
		if set {
			keys++
		}
	}
	switch {
	case m.Name == "" || len(m.Name) > 200 || strings.TrimSpace(m.Name) != m.Name || !printable(m.Name):
		return invalid(key+".name", m.Name, "a name has up to 200 printable characters")
	case len(m.Title) > 200 || !printable(m.Title):
		return invalid(key+".title", m.Title, "a title has up to 200 printable characters")
	case !httpURL(m.BaseURL):
		return errdefs.New(errdefs.ErrInvalid, CodeInvalid, "%s.base_url: not a usable address", key).
			WithHint("write it as https://api.example.org/v1, without a user or password")
	case keys > 1:
		return errdefs.New(errdefs.ErrInvalid, CodeInvalid, "%s: more than one of api_key, api_key_env and api_key_file", key).
			WithHint("keep one")
	case m.APIKey == redacted:
		return errdefs.New(errdefs.ErrInvalid, CodeInvalid, "%s.api_key: it is %s", key, redacted).
			WithHint("printed settings leave secrets out; write the key, or name its file by api_key_file")
	case m.ContextTokens < 0 || m.ContextTokens > 0 && m.ContextTokens < 1024 || m.ContextTokens > 1<<30:
		return invalid(key+".context_tokens", m.ContextTokens, "at least 1024")
	case m.MaxOutputTokens < 0 || m.MaxOutputTokens > 1<<30:
		return invalid(key+".max_output_tokens", m.MaxOutputTokens, "a number of tokens, or 0 for the server's own limit")
	case m.Temperature != nil && !(*m.Temperature >= 0 && *m.Temperature <= 2): // so that NaN is none
		return invalid(key+".temperature", *m.Temperature, "allowed are 0 to 2")
	case m.Timeout != 0 && m.Timeout.Std() < minDuration:
		return invalid(key+".timeout", m.Timeout, fmt.Sprintf("at least %s", minDuration))
	}
	for name, value := range m.Headers {
		if textproto.CanonicalMIMEHeaderKey(name) == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
			return invalid(key+".headers", name, "a header's name has letters, digits and dashes")
		}
		if strings.ContainsFunc(value.Reveal(), func(r rune) bool { return r < ' ' || r > '~' }) || value == redacted {
			return errdefs.New(errdefs.ErrInvalid, CodeInvalid, "%s.headers.%s: its value can't be sent", key, name).
				WithHint("a value has printable ASCII characters")
		}
	}
	return nil
}

func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) })
}

// httpURL tells whether an address can be called. A user or password in it
// would show in logs.
func httpURL(address string) bool {
	u, err := url.Parse(address)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil
}
