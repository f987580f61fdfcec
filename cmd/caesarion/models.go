package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/llm"
)

// openModels makes the registry of the models that the settings name; without
// any, the one of the environment, or else those of this machine.
func openModels(cfg config.Server, log *slog.Logger) (*llm.Registry, error) {
	configured, source := cfg.Models, "config"
	if len(configured) == 0 {
		if m, ok := config.EnvironmentModel(); ok {
			configured, source = []config.Model{m}, config.EnvironmentSource
		}
	}
	transport := llm.NewTransport()
	var models []llm.Model
	for i := range configured {
		m := &configured[i]
		key, err := m.Key()
		if err != nil {
			return nil, err
		}
		known := llm.Known(cmp.Or(m.Model, m.Name))
		ep := llm.Endpoint{
			Info: llm.Info{
				Name: m.Name, Title: m.Title, Source: source, MaxOutputTokens: m.MaxOutputTokens,
				ContextTokens: cmp.Or(m.ContextTokens, known.ContextTokens), Vision: known.Vision,
			},
			BaseURL: m.BaseURL, Model: m.Model, Key: key.Reveal(), Headers: map[string]string{},
			Temperature: m.Temperature, Timeout: m.Timeout.Std(), Transport: transport,
		}
		if m.Vision != nil {
			ep.Info.Vision = *m.Vision
		}
		for name, value := range m.Headers {
			ep.Headers[name] = value.Reveal()
		}
		model, err := llm.NewChatCompletions(ep)
		if err != nil {
			return nil, err
		}
		models = append(models, model)
	}
	opts := llm.RegistryOptions{Default: cfg.DefaultModel, Logger: log}
	if cfg.DiscoverModels {
		// Asking ourselves for models would ask us for models.
		_, own, _ := net.SplitHostPort(cfg.Listen)
		opts.Discover = slices.DeleteFunc(llm.LocalServers(), func(s llm.LocalServer) bool { return strings.HasSuffix(s.BaseURL, ":"+own) })
	}
	return llm.NewRegistry(models, opts), nil
}

// modelNames lists the models that there are now.
func modelNames(ctx context.Context, models *llm.Registry) []string {
	var names []string
	for _, m := range models.Models(ctx) {
		names = append(names, m.Name)
	}
	return names
}

type modelCmd struct {
	Ls   modelLsCmd   `cmd:"" help:"List the language models."`
	Test modelTestCmd `cmd:"" help:"Ask a language model something, and see that it calls a tool."`
}

type modelLsCmd struct{}

// Help implements kong.HelpProvider.
func (modelLsCmd) Help() string {
	return "Reads the settings as serve does, and looks for model servers of this machine; docs/models.md says how to add a model.\n\nExamples:\n  caesarion model ls\n  caesarion model ls --json"
}

// Run lists the models.
func (modelLsCmd) Run(ctx context.Context, g *globals) error {
	registry, err := loadModels(g)
	if err != nil {
		return err
	}
	infos := registry.Models(ctx)
	if g.JSON {
		type line struct {
			Name          string `json:"name"`
			Title         string `json:"title"`
			Default       bool   `json:"default"`
			Vision        bool   `json:"vision"`
			ContextTokens int64  `json:"context_tokens"`
			Source        string `json:"source"`
		}
		lines := []line{}
		for _, i := range infos {
			lines = append(lines, line{i.Name, i.Title, i.Default, i.Vision, i.ContextTokens, i.Source})
		}
		return printJSON(g.Stdout, lines)
	}
	if len(infos) == 0 {
		fmt.Fprintln(g.Stderr, "There is no language model. "+llm.Hint)
		return nil
	}
	w := tabwriter.NewWriter(g.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tCONTEXT\tIMAGES\tSOURCE\t")
	for _, i := range infos {
		def, images := "", "no"
		if i.Default {
			def = "default"
		}
		if i.Vision {
			images = "yes"
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\n", i.Name, i.ContextTokens, images, i.Source, def)
	}
	return w.Flush()
}

type modelTestCmd struct {
	Name string `arg:"" optional:"" help:"The model (default: the default one)."`
}

// Help implements kong.HelpProvider.
func (modelTestCmd) Help() string {
	return "Examples:\n  caesarion model test\n  caesarion model test gpt-4.1"
}

// modelTestTimeout is long enough for a local model to be loaded.
const modelTestTimeout = 5 * time.Minute

// Run asks a model to call a tool.
func (c *modelTestCmd) Run(ctx context.Context, g *globals) error {
	registry, err := loadModels(g)
	if err != nil {
		return err
	}
	m, err := registry.Get(ctx, c.Name)
	if err != nil {
		return err
	}
	ctx, done := context.WithTimeout(ctx, modelTestTimeout)
	defer done()
	begun := time.Now()
	var first time.Duration
	var answer llm.Answer
	for ev, err := range m.Stream(ctx, llm.Request{
		Messages: []llm.Message{
			{Role: llm.System, Text: "You run Python by calling the tool python_interpreter."},
			{Role: llm.User, Text: "Compute 6*7 with Python. Call the tool, say nothing else."},
		},
		Tools: []llm.ToolSpec{{
			Name: "python_interpreter", Description: "Runs Python.",
			Parameters: json.RawMessage(`{"type":"object","properties":{"code":{"type":"string"}},"required":["code"]}`),
		}},
	}) {
		if err != nil {
			return err
		}
		if ev.Kind == llm.Retry {
			fmt.Fprintf(g.Stderr, "%s Trying again in %s.\n", ev.Text, ev.After.Round(time.Millisecond))
			continue
		}
		if first == 0 {
			first = time.Since(begun)
		}
		answer.Add(ev)
	}
	name := m.Info().Name
	fmt.Fprintf(g.Stdout, "%s answers: first piece after %s, all after %s; %d tokens in, %d out.\n", name,
		first.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond), answer.Usage.InputTokens, answer.Usage.OutputTokens)
	for _, call := range answer.ToolCalls {
		var args struct {
			Code string `json:"code"`
		}
		if err := json.Unmarshal([]byte(call.Arguments), &args); err == nil && call.Name == "python_interpreter" && args.Code != "" {
			fmt.Fprintf(g.Stdout, "It calls tools: %s\n", oneLine(args.Code))
			return nil
		}
	}
	return errdefs.New(errdefs.ErrUnsupported, "model-no-tools", "%s did not call the tool; it said %q", name, oneLine(answer.Text)).
		WithHint("Caesarion needs a model that calls tools")
}

// loadModels makes the registry as serve would.
func loadModels(g *globals) (*llm.Registry, error) {
	cfg, err := config.Load(g.Base)
	if err != nil {
		return nil, err
	}
	return openModels(cfg, newLogger(g.Stderr, g.LogLevel, g.LogFormat, slog.LevelWarn))
}
