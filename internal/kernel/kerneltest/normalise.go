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
	{regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]"), ""},                                       // colours
	{regexp.MustCompile(`0x[0-9a-f]{6,}`), "0xADDRESS"},                                      // objects
	{regexp.MustCompile(`\b[0-9a-f]{32}\b`), "ID32"},                                         // uuid4().hex
	{regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`), "UUID"},                // uuid4()
	{regexp.MustCompile(`(/[^\s:,'"<>]*)+/(ipykernel_[0-9]+/[0-9]+\.py)`), "CELL"},           // ipykernel's files
	{regexp.MustCompile(`(/[^\s:,'"<>]*)+/(caesarion_[0-9]+/[0-9]+\.py)`), "CELL"},           // ours
	{regexp.MustCompile(`\([0-9]+\.py, line`), "(CELL, line"},                                // both, in a SyntaxError
	{regexp.MustCompile(`(?m)^[ |]*[~^]+ *\n`), ""},                                          // marks in Python's tracebacks, by version
	{regexp.MustCompile(`(/[^\s:,'"<>]*)+/(?:site|dist)-packages/([^:\s]+):[0-9]+:`), "$2:"}, // warnings
	{regexp.MustCompile(`_IncompleteInputError`), "SyntaxError"},                             // since Python 3.13
	{regexp.MustCompile(`(recursion depth exceeded)[a-zA-Z ]*`), "$1"},
	{regexp.MustCompile(`\bT_[0-9a-f]{5}`), "T_ID"},                                                            // pandas' styles
	{regexp.MustCompile(`File (/[^\s:,'"<>]*)+/([^/\s:]+\.py):[0-9]+`), "File $2"},                             // libraries
	{regexp.MustCompile(`"(/[^\s:,'"<>]*)+/([^/\s:]+\.py)", line [0-9]+`), `"$2"`},                             // the same, Python's form
	{regexp.MustCompile(`[0-9.]+ (n|\x{b5}|\x{3bc}|m)?s ± [0-9.]+ (n|\x{b5}|\x{3bc}|m)?s per loop.*`), "TIME"}, // %timeit
	{regexp.MustCompile(`(CPU times|Wall time): .*`), "$1: TIME"},                                              // %time
	{regexp.MustCompile(`\bfrm_[0-9a-f]{16}_([0-9]+)`), "FRAME_$1"},                                            // ids of tables
}

// Texts longer than this are cut: they come from libraries, and their beginning tells enough.
const maxText = 600

// Normalise turns messages into events: step by step, without what differs from run to run, without
// the statuses, whose order Run relies on anyhow, and with replies at the end of their step, because
// they come on another socket of ipykernel. Text of one stream is joined until something else
// comes, stdout before stderr: ipykernel keeps no order between the two.
func Normalise(received []Received) []Event {
	var events []Event
	last := 0
	for _, m := range received {
		last = max(last, m.Step)
	}
	for step := range last + 1 {
		n := normaliser{step: step, streams: map[string]*strings.Builder{}}
		for _, m := range received {
			if m.Step == step {
				n.add(m)
			}
		}
		n.flush()
		events = append(append(events, n.events...), n.replies...)
	}
	return events
}

// normaliser works on the messages of one step.
type normaliser struct {
	step            int
	streams         map[string]*strings.Builder
	events, replies []Event
}

func (n *normaliser) flush() {
	for _, name := range []string{"stdout", "stderr"} {
		if text := n.streams[name]; text != nil {
			content := map[string]any{"name": name, "text": cleanText(text.String())}
			n.events = append(n.events, Event{Step: n.step, Type: "stream", Content: content})
		}
	}
	clear(n.streams)
}

func (n *normaliser) add(m Received) {
	if m.Type == "status" || m.Type == "iopub_welcome" || m.Type == "debug_event" {
		return
	}
	var content map[string]any
	if err := json.Unmarshal(m.Content, &content); err != nil {
		content = map[string]any{"malformed": string(m.Content)}
	}
	if m.Type == "stream" {
		name, _ := content["name"].(string)
		if n.streams[name] == nil {
			n.streams[name] = new(strings.Builder)
		}
		text, _ := content["text"].(string)
		n.streams[name].WriteString(text)
		return
	}
	e := Event{Step: n.step, Type: m.Type, Content: cleanContent(m.Type, content)}
	if strings.HasSuffix(m.Type, "_reply") {
		n.replies = append(n.replies, e)
		return
	}
	n.flush()
	n.events = append(n.events, e)
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
	case "variables_reply":
		list, _ := content["variables"].([]any)
		for _, v := range list {
			if v, ok := v.(map[string]any); ok {
				delete(v, "size_bytes") // by version of Python
			}
		}
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
