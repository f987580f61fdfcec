package chat

import (
	_ "embed"
	"fmt"
	"io"
	"strings"
	"text/template"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

//go:embed prompt.tmpl
var defaultPrompt string

// PromptData is what a template of the system prompt can use.
type PromptData struct {
	Date          string // today, as 23 November 2026
	Model         string // name of the model
	Vision        bool   // the model sees images
	Network       string // what sandboxes may reach: packages, list or open; empty: nothing
	PythonVersion string // 3.13
	ToolTimeout   string // longest run of a cell, as "5 minutes"
	Weather       bool   // get_current_weather is there
	Tools         []string
}

// parsePrompt checks a template by using it, so that a mistake shows at the
// start of the server and not in the first conversation.
func parsePrompt(text string) (*template.Template, error) {
	if strings.TrimSpace(text) == "" {
		text = defaultPrompt
	}
	t, err := template.New("system prompt").Option("missingkey=error").Parse(text)
	if err == nil {
		for network, flag := range map[string]bool{"": false, "packages": true, "list": true, "open": true} {
			if err = t.Execute(io.Discard, PromptData{Vision: flag, Network: network, Weather: flag, Tools: []string{toolPython}}); err != nil {
				break
			}
		}
	}
	if err != nil {
		return nil, errdefs.New(errdefs.ErrInvalid, "system-prompt-invalid", "The template of the system prompt is not valid: %s.", strings.TrimPrefix(err.Error(), "template: ")).
			WithHint("it is a Go text/template with the fields .Date, .Model, .Vision, .Network, .Weather, .PythonVersion, .ToolTimeout and .Tools").WithCause(err)
	}
	return t, nil
}

func (s *Service) systemPrompt(model string, vision bool) (string, error) {
	var b strings.Builder
	err := s.prompt.Execute(&b, PromptData{
		Date: s.opts.now().Format("2 January 2006"), Model: model, Vision: vision, Network: s.opts.Network, Weather: s.opts.WeatherURL != NoWeather,
		PythonVersion: s.opts.PythonVersion, ToolTimeout: durationText(s.opts.ToolTimeout),
		Tools: s.toolNames(),
	})
	if err != nil {
		return "", fmt.Errorf("chat: system prompt: %w", err)
	}
	return strings.TrimSpace(b.String()), nil
}

func durationText(d time.Duration) string {
	if d >= 2*time.Minute && d%time.Minute == 0 {
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}
