package kerneltest

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"strings"
)

//go:embed testdata/*.txtar
var testdata embed.FS

// Options says how a step is run.
type Options struct {
	Content        map[string]any `json:"content,omitempty"`            // merged into the request's content
	Input          []string       `json:"input,omitempty"`              // answers to input_request, in order; sets allow_stdin
	InterruptAfter int            `json:"interrupt_after_ms,omitempty"` // interrupt this long after the request was sent
	Wait           int            `json:"wait_ms,omitempty"`            // collect late messages for so long after the end
	NoWait         bool           `json:"no_wait,omitempty"`            // send the next step without waiting for this one's end
}

// Step is one request of a case.
type Step struct {
	Type    string         `json:"type"` // Jupyter's msg_type
	Channel string         `json:"channel"`
	Content map[string]any `json:"content"`
	Options Options        `json:"options"`
}

// Case is one file of the corpus.
type Case struct {
	Name      string  `json:"name"`
	Doc       string  `json:"doc"` // what it shows
	Steps     []Step  `json:"steps"`
	Want      []Event `json:"-"`
	IPykernel []Event `json:"-"` // nil if ipykernel does the same
	Reason    string  `json:"-"` // why it does not
	Alone     string  `json:"-"` // why ipykernel is not asked at all
}

// Event is a normalised message.
type Event struct {
	Step    int            `json:"step"` // 1 is the first; 0 if the message has another parent
	Type    string         `json:"type"`
	Content map[string]any `json:"content"`
}

// Cases reads the corpus.
func Cases() ([]Case, error) {
	names, err := fs.Glob(testdata, "testdata/*.txtar")
	if err != nil {
		return nil, err
	}
	var cases []Case
	for _, name := range names {
		body, err := testdata.ReadFile(name)
		if err != nil {
			return nil, err
		}
		c, err := Parse(strings.TrimSuffix(path.Base(name), ".txtar"), body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// Parse reads one file of the corpus.
func Parse(name string, body []byte) (Case, error) {
	a := parseArchive(body)
	c := Case{Name: name, Doc: strings.TrimSpace(string(a.comment))}
	options := map[string]Options{}
	for _, f := range a.files {
		if number, ok := strings.CutSuffix(f.name, ".options.json"); ok {
			var o Options
			if err := json.Unmarshal(f.data, &o); err != nil {
				return c, fmt.Errorf("%s: %w", f.name, err)
			}
			options[number] = o
		}
	}
	for _, f := range a.files {
		base, ext, _ := strings.Cut(f.name, ".")
		var err error
		switch {
		case f.name == "want.jsonl":
			c.Want, err = parseEvents(f.data)
		case f.name == "ipykernel.jsonl":
			c.IPykernel, err = parseEvents(f.data)
		case f.name == "difference.txt":
			c.Reason = strings.TrimSpace(string(f.data))
		case f.name == "alone.txt":
			c.Alone = strings.TrimSpace(string(f.data))
		case ext == "options.json":
		case ext == "py":
			o := options[base]
			content := map[string]any{
				"code": strings.TrimSuffix(string(f.data), "\n"), "silent": false, "store_history": true,
				"user_expressions": map[string]any{}, "allow_stdin": len(o.Input) > 0, "stop_on_error": true,
			}
			maps.Copy(content, o.Content)
			c.Steps = append(c.Steps, Step{Type: "execute_request", Channel: "shell", Content: content, Options: o})
		case ext == "json":
			s := Step{Channel: "shell", Options: options[base]}
			err = json.Unmarshal(f.data, &s)
			c.Steps = append(c.Steps, s)
		default:
			err = fmt.Errorf("unknown file")
		}
		if err != nil {
			return c, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	if len(c.Steps) == 0 {
		return c, fmt.Errorf("no steps")
	}
	return c, nil
}

func parseEvents(data []byte) ([]Event, error) {
	events := []Event{}
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}

// Format gives events as they stand in want.jsonl.
func Format(events []Event) string {
	var out strings.Builder
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	for _, e := range events {
		if err := enc.Encode(e); err != nil {
			panic(err) // it was decoded from JSON
		}
	}
	return out.String()
}

// Rewrite gives the text of a case with other expectations: for tests with -update.
func Rewrite(body []byte, file string, events []Event) []byte {
	a := parseArchive(body)
	kept := a.files[:0]
	for _, f := range a.files {
		if f.name != file {
			kept = append(kept, f)
		}
	}
	a.files = kept
	if events != nil {
		a.files = append(a.files, archiveFile{name: file, data: []byte(Format(events))})
	}
	return a.format()
}
