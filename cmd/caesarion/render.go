package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/event"
)

// renderer shows the outputs of executions in a terminal or pipe.
type renderer struct {
	out, err io.Writer
	color    bool                   // errors keep their colours
	dir      string                 // where pictures go; "" leaves them out
	label    func(count int) string // before a result; nil for none

	saved    int
	unsaved  int  // pictures that were left out
	openLine bool // the last stream output did not end its line
}

// Show prints one output event; others are nothing to it.
func (r *renderer) Show(ev event.Event) error {
	switch ev.Type {
	case event.OutputStream:
		var s event.Stream
		if err := json.Unmarshal(ev.Data, &s); err != nil {
			return fmt.Errorf("%s: %w", ev.Type, err)
		}
		w := r.out
		if s.Name == "stderr" {
			w = r.err
		}
		if s.Text != "" {
			r.openLine = !strings.HasSuffix(s.Text, "\n")
		}
		_, err := io.WriteString(w, s.Text)
		return err
	case event.OutputResult, event.OutputDisplay, event.OutputUpdate:
		var d event.Display
		if err := json.Unmarshal(ev.Data, &d); err != nil {
			return fmt.Errorf("%s: %w", ev.Type, err)
		}
		return r.display(d)
	case event.OutputError:
		var e event.Error
		if err := json.Unmarshal(ev.Data, &e); err != nil {
			return fmt.Errorf("%s: %w", ev.Type, err)
		}
		return r.trace(e)
	case client.StreamGap:
		r.freshLine()
		_, err := fmt.Fprintln(r.err, "[some output was lost: it came faster than it could be read]")
		return err
	case event.OutputTruncated:
		var t event.Truncated
		if err := json.Unmarshal(ev.Data, &t); err != nil {
			return fmt.Errorf("%s: %w", ev.Type, err)
		}
		r.freshLine()
		where := ""
		if t.File != "" {
			where = "; all of it is in the sandbox's " + oneLine(t.File)
		}
		_, err := fmt.Fprintf(r.err, "[output beyond %s is left out%s]\n", sizeText(t.LimitBytes), where)
		return err
	}
	return nil
}

// freshLine ends a line that stream output left open.
func (r *renderer) freshLine() {
	if r.openLine {
		fmt.Fprintln(r.out)
		r.openLine = false
	}
}

func (r *renderer) trace(e event.Error) error {
	r.freshLine()
	text := strings.Join(e.Traceback, "\n")
	if text == "" {
		text = e.Name + ": " + e.Value
	}
	if !r.color {
		text = ansi.ReplaceAllString(text, "")
	}
	_, err := fmt.Fprintln(r.err, strings.TrimRight(text, "\n"))
	return err
}

var ansi = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

// pictures are the forms worth a file, best first. What is text is stored as
// a JSON string, except for the last two, which are JSON themselves.
var pictures = []struct {
	mime, extension string
	binary          bool
}{
	{"image/png", "png", true},
	{"image/jpeg", "jpg", true},
	{"image/webp", "webp", true},
	{"image/gif", "gif", true},
	{"application/pdf", "pdf", true},
	{"image/svg+xml", "svg", false},
	{"text/html", "html", false},
	{"application/vnd.plotly.v1+json", "plotly.json", false},
	{"application/vnd.vegalite.v6+json", "vl.json", false},
	{"application/vnd.vegalite.v5+json", "vl.json", false},
}

// placeholder matches what Python shows of an object that has nothing to say
// as text: <Figure size 640x480 with 1 Axes>, <IPython.core.display.HTML object>.
var placeholder = regexp.MustCompile(`^<[^\n]*>$|^alt\.\w*Chart\(|^Figure\(`)

func (r *renderer) display(d event.Display) error {
	var bundle map[string]json.RawMessage
	if err := json.Unmarshal(d.Data, &bundle); err != nil {
		return fmt.Errorf("display data: %w", err)
	}
	text := bundleText(bundle)
	empty := text == "" || placeholder.MatchString(strings.TrimSpace(text))
	for _, p := range pictures {
		raw, ok := bundle[p.mime]
		if !ok || p.mime == "text/html" && !empty { // a table's text says the same
			continue
		}
		if r.dir == "" {
			r.unsaved++
			if empty { // a few libraries write pages there
				text, _, _ = strings.Cut(text, "\n")
			}
			break
		}
		name, err := r.save(p.extension, raw, p.binary)
		if err != nil {
			return err
		}
		r.freshLine()
		_, err = fmt.Fprintln(r.out, name)
		return err
	}
	if text == "" {
		return nil
	}
	r.freshLine()
	if r.label != nil && d.ExecutionCount != nil {
		label := r.label(*d.ExecutionCount)
		if strings.Contains(text, "\n") { // so that tables stay aligned
			label += "\n"
		}
		text = label + text
	}
	_, err := fmt.Fprintln(r.out, strings.TrimRight(text, "\n"))
	return err
}

// bundleText gives the text to show of a mime bundle. The plain text of a
// Markdown, LaTeX or JSON object only names its class.
func bundleText(bundle map[string]json.RawMessage) string {
	plain := jsonText(bundle["text/plain"])
	if plain != "" && !strings.HasPrefix(plain, "<IPython.core.display.") {
		return plain
	}
	for _, mime := range []string{"text/markdown", "text/latex"} {
		if text := jsonText(bundle[mime]); text != "" {
			return text
		}
	}
	if raw, ok := bundle["application/json"]; ok {
		return string(raw)
	}
	return plain
}

// jsonText reads text as nbformat has it: a string, or a list of lines.
func jsonText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var lines []string
	if json.Unmarshal(raw, &lines) == nil {
		return strings.Join(lines, "")
	}
	return ""
}

// save writes a picture under the next free number and gives its path.
func (r *renderer) save(extension string, raw json.RawMessage, binary bool) (string, error) {
	content := []byte(jsonText(raw))
	if len(content) == 0 { // JSON itself
		content = raw
	}
	if binary {
		// Python breaks base64 into lines.
		decoded, err := base64.StdEncoding.DecodeString(strings.NewReplacer("\n", "", "\r", "").Replace(string(content)))
		if err != nil {
			return "", fmt.Errorf("a picture is not base64: %w", err)
		}
		content = decoded
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return "", err
	}
	r.saved++
	name := filepath.Join(r.dir, fmt.Sprintf("output-%02d.%s", r.saved, extension))
	return name, os.WriteFile(name, content, 0o644)
}
