package kerneltest

import (
	"encoding/json"
	"regexp"
	"strings"
)

// What differs between two runs, or between two kernels without being a difference to users.
var replacements = []struct {
	pattern *regexp.Regexp
	with    string
}{
	{regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]"), ""},                               // colours
	{regexp.MustCompile(`0x[0-9a-f]{6,}`), "0xADDRESS"},                              // objects
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "ID32"},                                 // uuid4().hex
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},        // uuid4()
	{regexp.MustCompile(`(/[^\s:,'"<>]*)+/(ipykernel_[0-9]+/[0-9]+\.py)`), "CELL"},   // ipykernel's files
	{regexp.MustCompile(`(/[^\s:,'"<>]*)+/(caesarion_[0-9]+/[0-9]+\.py)`), "CELL"},   // ours
	{regexp.MustCompile(`\([0-9]+\.py, line`), "(CELL, line"},                        // both, in a SyntaxError
	{regexp.MustCompile(`(?m)^ *[~^]+ *\n`), ""},                                     // marks in Python's tracebacks, by version
	{regexp.MustCompile(`\bT_[0-9a-f]{5}`), "T_ID"},                                  // pandas' styles
	{regexp.MustCompile(`File (/[^\s:,'"<>]*)+/([^/\s:]+\.py):[0-9]+`), "File $2"},   // libraries
	{regexp.MustCompile(`"(/[^\s:,'"<>]*)+/([^/\s:]+\.py)", line [0-9]+`), `"$2"`},   // the same, Python's form
	{regexp.MustCompile(`[0-9.]+ (n|µ|m)?s ± [0-9.]+ (n|µ|m)?s per loop.*`), "TIME"}, // %timeit
	{regexp.MustCompile(`(CPU times|Wall time): .*`), "$1: TIME"},                    // %time
}

// Texts longer than this are cut: they come from libraries, and their beginning tells enough.
const maxText = 600

// Normalise turns messages into events: without what differs from run to run, and without the
// statuses, whose order Run relies on anyhow. Text of one stream is joined until something else
// comes, stdout before stderr, because ipykernel keeps no order between the two.
func Normalise(received []Received) []Event {
	var events []Event
	streams := map[string]*strings.Builder{}
	step := 0
	flush := func() {
		for _, name := range []string{"stdout", "stderr"} {
			if text := streams[name]; text != nil {
				events = append(events, Event{Step: step, Type: "stream", Content: map[string]any{"name": name, "text": cleanText(text.String())}})
			}
		}
		clear(streams)
	}
	var replies []Event
	for _, m := range received {
		if m.Type == "status" || m.Type == "iopub_welcome" || m.Type == "debug_event" {
			continue
		}
		var content map[string]any
		if err := json.Unmarshal(m.Content, &content); err != nil {
			content = map[string]any{"malformed": string(m.Content)}
		}
		if m.Step != step {
			flush()
			step = m.Step
			// Replies come on another socket of ipykernel: they stand at the end of their step.
			events, replies = append(events, replies...), nil
		}
		if m.Type == "stream" {
			name, _ := content["name"].(string)
			if streams[name] == nil {
				streams[name] = new(strings.Builder)
			}
			text, _ := content["text"].(string)
			streams[name].WriteString(text)
			continue
		}
		e := Event{Step: m.Step, Type: m.Type, Content: cleanContent(m.Type, content)}
		if strings.HasSuffix(m.Type, "_reply") {
			replies = append(replies, e)
			continue
		}
		flush()
		events = append(events, e)
	}
	flush()
	return append(events, replies...)
}

func cleanContent(msgType string, content map[string]any) map[string]any {
	switch msgType {
	case "execute_reply":
		// The error message before it has them too; the others are ipyparallel's.
		for _, key := range []string{"traceback", "engine_info", "engine_uuid", "engine_id"} {
			delete(content, key)
		}
	case "kernel_info_reply":
		for _, key := range []string{"banner", "help_links", "implementation_version", "supported_features"} {
			delete(content, key)
		}
		if info, ok := content["language_info"].(map[string]any); ok {
			delete(info, "version")
		}
	case "complete_reply":
		if matches, ok := content["matches"].([]any); ok && len(matches) > 20 {
			content["matches"] = matches[:20]
		}
		delete(content, "metadata")
	case "error":
		if lines, ok := content["traceback"].([]any); ok {
			content["traceback"] = cleanTraceback(lines)
		}
	case "execute_result", "display_data", "update_display_data":
		if data, ok := content["data"].(map[string]any); ok {
			for mime := range data {
				if strings.HasPrefix(mime, "image/") && mime != "image/svg+xml" {
					data[mime] = "IMAGE"
				}
			}
		}
	}
	return cleanValue(content).(map[string]any)
}

func cleanValue(v any) any {
	switch v := v.(type) {
	case string:
		return cleanText(v)
	case []any:
		for i := range v {
			v[i] = cleanValue(v[i])
		}
	case map[string]any:
		for k, e := range v {
			v[k] = cleanValue(e)
		}
	}
	return v
}

func cleanText(s string) string {
	for _, r := range replacements {
		s = r.pattern.ReplaceAllString(s, r.with)
	}
	if runes := []rune(s); len(runes) > maxText {
		s = string(runes[:maxText]) + "…"
	}
	return s
}

// cleanTraceback leaves out the frames of the kernel itself, and of libraries all but the fact that
// there were some: their source changes with every version.
func cleanTraceback(lines []any) []any {
	var kept []any
	for _, line := range lines {
		text, _ := line.(string)
		if strings.Contains(text, "caesarion_kernel") || strings.Contains(text, "ipykernel/") {
			continue
		}
		if strings.HasPrefix(replacements[0].pattern.ReplaceAllString(text, ""), "File ") {
			if len(kept) > 0 && kept[len(kept)-1] == libraryFrames {
				continue
			}
			text = libraryFrames
		}
		kept = append(kept, text)
	}
	return kept
}

const libraryFrames = "File … of a library"
