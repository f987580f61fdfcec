package llm

import "strings"

// known are the windows of common models, by the beginning of their names;
// longer beginnings first. It spares people settings, and the settings have
// the last word.
var known = []struct {
	prefix string
	info   Info
}{
	{"gpt-4.1", Info{ContextTokens: 1_047_576, Vision: true}},
	{"gpt-4o", Info{ContextTokens: 128_000, Vision: true}},
	{"gpt-4-turbo", Info{ContextTokens: 128_000, Vision: true}},
	{"gpt-4", Info{ContextTokens: 8_192}},
	{"gpt-5", Info{ContextTokens: 400_000, Vision: true}},
	{"o3-mini", Info{ContextTokens: 200_000}},
	{"o3", Info{ContextTokens: 200_000, Vision: true}},
	{"o4-mini", Info{ContextTokens: 200_000, Vision: true}},
	{"claude-", Info{ContextTokens: 200_000, Vision: true}},
	{"gemini-", Info{ContextTokens: 1_048_576, Vision: true}},
	{"deepseek-chat", Info{ContextTokens: 64_000}},
	{"deepseek-reasoner", Info{ContextTokens: 64_000}},
}

// Known gives ContextTokens and Vision of a model by its server's name for it,
// also behind a maker's name as in openai/gpt-4.1. Zero: not known.
func Known(model string) Info {
	model = strings.ToLower(model[strings.LastIndexByte(model, '/')+1:])
	for _, k := range known {
		if strings.HasPrefix(model, k.prefix) {
			return k.info
		}
	}
	return Info{}
}
