package llmtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Script is what a server plays.
type Script struct {
	// Models are what /models lists; requests may name any other.
	Models          []string   `yaml:"models"`
	TokensPerSecond float64    `yaml:"tokens_per_second"` // 0: as fast as it goes
	Key             string     `yaml:"key"`               // requests must have it; "": none needed
	Refuses         []string   `yaml:"refuses"`           // fields of requests that get a 400, such as stream_options
	Scenarios       []Scenario `yaml:"scenarios"`         // the first that matches plays
}

// Scenario is one conversation.
type Scenario struct {
	Name            string  `yaml:"name"`
	Say             string  `yaml:"say"`   // an example of what to say
	Match           string  `yaml:"match"` // regular expression for the person's last message
	Model           string  `yaml:"model"` // only for requests to this model
	TokensPerSecond float64 `yaml:"tokens_per_second"`
	Steps           []Step  `yaml:"steps"`
	// Loop plays the last step again and again; otherwise a request behind the
	// last step gets a sentence that says so.
	Loop bool `yaml:"loop"`

	match *regexp.Regexp
}

// Step answers one request. What it says comes in the order reasoning, text,
// refusal, calls.
type Step struct {
	Expect    string `yaml:"expect"` // regular expression for the last tool's answer, or else a 400
	Reasoning string `yaml:"reasoning"`
	Text      string `yaml:"text"`
	Refusal   string `yaml:"refusal"`
	Calls     []Call `yaml:"calls"`
	Usage     *Usage `yaml:"usage"`  // default: estimated
	Finish    string `yaml:"finish"` // default: stop or tool_calls
	Faults    `yaml:",inline"`
	expect    *regexp.Regexp
}

// Call is a tool call.
type Call struct {
	ID        string    `yaml:"id"` // default: made up; "none": sent without
	Name      string    `yaml:"name"`
	Arguments yaml.Node `yaml:"arguments"` // a map, or text that is sent as it is, also if it is no JSON

	arguments string
}

// Usage is what the server counts.
type Usage struct {
	Input  int64 `yaml:"input"`
	Cached int64 `yaml:"cached"`
	Output int64 `yaml:"output"`
}

// Faults is how a server differs from OpenAI's, or fails.
type Faults struct {
	Pause           time.Duration `yaml:"pause"` // before the first byte
	Drip            time.Duration `yaml:"drip"`  // between pieces, instead of tokens_per_second
	Split           int           `yaml:"split"` // characters of a piece; default: words
	Status          int           `yaml:"status"`
	Times           int           `yaml:"times"`       // how often Status is answered before the rest plays; 0: always
	RetryAfter      string        `yaml:"retry_after"` // header of that
	Error           *Failure      `yaml:"error"`       // with Status its body, otherwise sent behind what the step says
	Cut             bool          `yaml:"cut"`         // the connection breaks behind what the step says
	Hang            bool          `yaml:"hang"`        // silence behind what the step says, until the client leaves
	NoDone          bool          `yaml:"no_done"`
	NoIndex         bool          `yaml:"no_index"`
	NoStream        bool          `yaml:"no_stream"` // one JSON document, although a stream was asked for
	WholeArguments  bool          `yaml:"whole_arguments"`
	ObjectArguments bool          `yaml:"object_arguments"`
	EarlyUsage      bool          `yaml:"early_usage"`     // with the last piece, not behind it
	ReasoningField  string        `yaml:"reasoning_field"` // default reasoning_content
	Comments        bool          `yaml:"comments"`
	Obfuscation     bool          `yaml:"obfuscation"`
	Tight           bool          `yaml:"tight"` // no blank line between events
	Raw             string        `yaml:"raw"`   // the whole body instead
}

// Failure is an error as the protocol has it.
type Failure struct {
	Message string `yaml:"message" json:"message"`
	Type    string `yaml:"type"    json:"type,omitempty"`
	Code    string `yaml:"code"    json:"code,omitempty"`
	Param   string `yaml:"param"   json:"param,omitempty"`
}

// Parse reads a script. Unknown keys are errors.
func Parse(text []byte) (*Script, error) {
	var s Script
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&s); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("llmtest: %w", err)
	}
	if len(s.Scenarios) == 0 {
		return nil, errors.New("llmtest: the script has no scenarios")
	}
	if len(s.Models) == 0 {
		s.Models = []string{"scripted"}
	}
	for i := range s.Scenarios {
		if err := s.Scenarios[i].prepare(); err != nil {
			return nil, fmt.Errorf("llmtest: scenario %d %q: %w", i+1, s.Scenarios[i].Name, err)
		}
	}
	return &s, nil
}

// Load reads a script from a file.
func Load(path string) (*Script, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("llmtest: %w", err)
	}
	s, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func (c *Scenario) prepare() (err error) {
	if c.match, err = regexp.Compile(c.Match); err != nil {
		return err
	}
	if len(c.Steps) == 0 {
		return errors.New("it has no steps")
	}
	for i := range c.Steps {
		st := &c.Steps[i]
		if st.expect, err = regexp.Compile(st.Expect); err != nil {
			return err
		}
		for j := range st.Calls {
			if err := st.Calls[j].prepare(); err != nil {
				return fmt.Errorf("step %d, call %d: %w", i+1, j+1, err)
			}
		}
	}
	return nil
}

func (c *Call) prepare() error {
	if c.Arguments.Kind == yaml.ScalarNode {
		c.arguments = c.Arguments.Value
		return nil
	}
	value := map[string]any{}
	if err := c.Arguments.Decode(&value); err != nil {
		return err
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(value)
	c.arguments = strings.TrimSuffix(b.String(), "\n")
	return err
}

// list says what the script can play, as Markdown.
func (s *Script) list() string {
	var b strings.Builder
	for _, c := range s.Scenarios {
		if c.Say != "" {
			fmt.Fprintf(&b, "- **%s**: “%s”\n", c.Name, c.Say)
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}
