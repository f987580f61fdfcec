package chat

import (
	"encoding/json"
	"slices"

	"github.com/caesarion/caesarion/internal/llm"
)

// The tools' names, as the original has them.
const (
	toolPython  = "python_interpreter"
	toolWeather = "get_current_weather"
	toolFiles   = "list_files"
)

// NoWeather as Options.WeatherURL takes the tool away.
const NoWeather = "none"

// tools gives the tools that are offered to a model.
func (s *Service) tools() []llm.ToolSpec {
	if s.opts.WeatherURL != NoWeather {
		return toolSpecs
	}
	return slices.DeleteFunc(slices.Clone(toolSpecs), func(t llm.ToolSpec) bool { return t.Name == toolWeather })
}

func (s *Service) toolNames() []string {
	var names []string
	for _, t := range s.tools() {
		names = append(names, t.Name)
	}
	return names
}

var toolSpecs = []llm.ToolSpec{
	{
		Name:        toolPython,
		Description: "Runs Python in the conversation's sandbox. State (variables, imports, files) is kept between calls. The user sees code and outputs as a notebook; you get the outputs shortened. End with an expression or print what you need to know.",
		Parameters: json.RawMessage(`{"type":"object","properties":{"code":{"type":"string","description":"Python source to run, as one cell. IPython's %magics and !commands work."}},` +
			`"required":["code"],"additionalProperties":false}`),
	},
	{
		Name:        toolWeather,
		Description: "Gets the current weather and the forecast at a place. The user sees it as a card.",
		Parameters: json.RawMessage(`{"type":"object","properties":{"latitude":{"type":"number","description":"Degrees north"},"longitude":{"type":"number","description":"Degrees east"}},` +
			`"required":["latitude","longitude"],"additionalProperties":false}`),
	},
	{
		Name:        toolFiles,
		Description: "Lists the files of the sandbox with their sizes: what the user uploaded (/uploaded_files) and what is in the working directory (/workspace).",
		Parameters:  json.RawMessage(`{"type":"object","properties":{"path":{"type":"string","description":"Folder to list; default: both folders"}},"additionalProperties":false}`),
	},
}
