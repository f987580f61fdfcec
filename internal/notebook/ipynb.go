package notebook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// document is a notebook of nbformat 4.5.
type document struct {
	Cells         []cell   `json:"cells"`
	Metadata      metadata `json:"metadata"`
	NBFormat      int      `json:"nbformat"`
	NBFormatMinor int      `json:"nbformat_minor"`
}

type metadata struct {
	Kernelspec   *kernelspec   `json:"kernelspec,omitempty"`
	LanguageInfo *languageInfo `json:"language_info,omitempty"`
	Title        string        `json:"title,omitempty"`
	Caesarion    *origin       `json:"caesarion,omitempty"`
}

type kernelspec struct {
	DisplayName string `json:"display_name"`
	Language    string `json:"language"`
	Name        string `json:"name"`
}

type languageInfo struct {
	Name          string `json:"name"`
	FileExtension string `json:"file_extension,omitempty"`
	MimeType      string `json:"mimetype,omitempty"`
}

// origin marks a notebook as ours.
type origin struct {
	Version int `json:"version"`
}

// cell is a cell as it is written. Pointers tell the fields that code cells
// must have from those that others must not.
type cell struct {
	Type           string       `json:"cell_type"`
	ID             string       `json:"id"`
	Metadata       cellMetadata `json:"metadata"`
	ExecutionCount *count       `json:"execution_count,omitempty"`
	Source         []string     `json:"source"`
	Outputs        *[]any       `json:"outputs,omitempty"`
}

// count is an execution count: null for 0.
type count int

func (c count) MarshalJSON() ([]byte, error) {
	if c <= 0 {
		return []byte("null"), nil
	}
	return json.Marshal(int(c))
}

type cellMetadata struct {
	Jupyter   *hidden `json:"jupyter,omitempty"`
	Caesarion *ours   `json:"caesarion,omitempty"`
}

// hidden is what JupyterLab folds.
type hidden struct {
	SourceHidden  bool `json:"source_hidden,omitempty"`
	OutputsHidden bool `json:"outputs_hidden,omitempty"`
}

// ours is what a cell of Jupyter has no place for.
type ours struct {
	Kind       string       `json:"kind,omitempty"`
	Text       *string      `json:"text,omitempty"` // of an item whose source is only a view of it
	Reasoning  string       `json:"reasoning,omitempty"`
	Files      []string     `json:"files,omitempty"`
	Model      string       `json:"model,omitempty"`
	Tool       *v1.ToolCall `json:"tool,omitempty"`
	Status     string       `json:"status,omitempty"`
	Reason     string       `json:"reason,omitempty"`
	Message    string       `json:"message,omitempty"`
	DurationMS float64      `json:"duration_ms,omitempty"`
}

func exportIPYNB(s v1.Session, items []v1.Item) ([]byte, error) {
	doc := document{
		Cells: make([]cell, 0, len(items)),
		Metadata: metadata{
			Kernelspec:   &kernelspec{DisplayName: "Python 3", Language: "python", Name: "python3"},
			LanguageInfo: &languageInfo{Name: "python", FileExtension: ".py", MimeType: "text/x-python"},
			Title:        s.Title,
			Caesarion:    &origin{Version: 1},
		},
		NBFormat: 4, NBFormatMinor: 5,
	}
	ids := map[string]bool{}
	for i := range items {
		c := cellOf(&items[i])
		c.ID = cellID(items[i].ID, i, ids)
		doc.Cells = append(doc.Cells, c)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ") // as Jupyter writes it, so that diffs are small
	if err := enc.Encode(doc); err != nil {
		return nil, fmt.Errorf("notebook: export: %w", err)
	}
	return b.Bytes(), nil
}

var validID = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// cellID gives a cell the item's id, if a notebook may have it.
func cellID(id string, i int, taken map[string]bool) string {
	for n := i; !validID.MatchString(id) || taken[id]; n++ {
		id = fmt.Sprintf("cell-%d", n)
	}
	taken[id] = true
	return id
}

func cellOf(it *v1.Item) cell {
	extra := &ours{
		Kind: it.Kind, Reasoning: it.Reasoning, Files: it.Files, Model: it.Model, Tool: validTool(it.Tool),
		Reason: it.Reason, Message: it.Message, DurationMS: it.DurationMS,
	}
	if it.Status != "idle" {
		extra.Status = it.Status
	}
	c := cell{Type: "markdown", Metadata: cellMetadata{Caesarion: extra}}
	switch it.Kind {
	case kindCell:
		c.Type, c.Source = "code", lines(it.Code)
		n := count(it.ExecutionCount)
		outputs := make([]any, 0, len(it.Outputs))
		for i := range it.Outputs {
			outputs = append(outputs, outputOf(&it.Outputs[i]))
		}
		c.ExecutionCount, c.Outputs = &n, &outputs
	case kindUser: // as a quotation, or readers could not tell who speaks
		c.Source = lines(quoteText(it.Text))
	case kindTool:
		text := it.Text
		extra.Text = &text
		c.Source = lines(toolText(it))
	default:
		c.Source = lines(it.Text)
	}
	if it.CodeHidden || it.OutputsHidden {
		c.Metadata.Jupyter = &hidden{SourceHidden: it.CodeHidden, OutputsHidden: it.OutputsHidden}
	}
	return c
}

// validTool is the call without what is no JSON, which nothing could write.
func validTool(t *v1.ToolCall) *v1.ToolCall {
	if t == nil {
		return nil
	}
	call := *t
	if !json.Valid(call.Arguments) {
		call.Arguments = nil
	}
	if !json.Valid(call.Result) {
		call.Result = nil
	}
	return &call
}

func quoteText(text string) string {
	if text == "" {
		return ""
	}
	parts := strings.Split(text, "\n")
	for i, l := range parts {
		if l == "" {
			parts[i] = ">"
		} else {
			parts[i] = "> " + l
		}
	}
	return strings.Join(parts, "\n")
}

// unquoteText undoes quoteText. A text that somebody edited keeps the lines
// that are not quoted as they are.
func unquoteText(text string) string {
	parts := strings.Split(text, "\n")
	for i, l := range parts {
		rest, ok := strings.CutPrefix(l, ">")
		if ok {
			parts[i] = strings.TrimPrefix(rest, " ")
		}
	}
	return strings.Join(parts, "\n")
}

// The outputs of nbformat 4.5; fields that must be there have no omitempty.
type (
	streamOutput struct {
		Name string   `json:"name"`
		Type string   `json:"output_type"`
		Text []string `json:"text"`
	}
	displayOutput struct {
		Data     map[string]any  `json:"data"`
		Metadata json.RawMessage `json:"metadata"`
		Type     string          `json:"output_type"`
	}
	resultOutput struct {
		Data           map[string]any  `json:"data"`
		ExecutionCount *count          `json:"execution_count"`
		Metadata       json.RawMessage `json:"metadata"`
		Type           string          `json:"output_type"`
	}
	errorOutput struct {
		Name      string   `json:"ename"`
		Value     string   `json:"evalue"`
		Type      string   `json:"output_type"`
		Traceback []string `json:"traceback"`
	}
)

func outputOf(o *v1.Output) any {
	switch o.Type {
	case "stream":
		name := o.Name
		if name != "stderr" {
			name = "stdout"
		}
		return streamOutput{Name: name, Type: "stream", Text: lines(o.Text)}
	case "error":
		return errorOutput{Name: o.ErrorName, Value: o.ErrorValue, Type: "error", Traceback: append([]string{}, o.Traceback...)}
	}
	data := map[string]any{}
	for _, mime := range slices.Sorted(maps.Keys(o.Data)) {
		if raw := o.Data[mime]; json.Valid(raw) {
			data[mime] = mimeValue(mime, raw)
		}
	}
	meta := o.Metadata
	if !isObject(meta) {
		meta = json.RawMessage("{}")
	}
	if o.Type == "execute_result" {
		n := count(0)
		if o.ExecutionCount != nil {
			n = count(*o.ExecutionCount)
		}
		return resultOutput{Data: data, ExecutionCount: &n, Metadata: meta, Type: o.Type}
	}
	return displayOutput{Data: data, Metadata: meta, Type: "display_data"}
}

// isJSONType tells the mime types whose values may be any JSON; those of all
// others are text.
func isJSONType(mime string) bool {
	rest, ok := strings.CutPrefix(mime, "application/")
	return ok && (rest == "json" || strings.HasSuffix(rest, "+json"))
}

// mimeValue gives a value as a notebook has it: text in lines, binaries as one
// line, JSON as it is.
func mimeValue(mime string, raw json.RawMessage) any {
	if isJSONType(mime) {
		return raw
	}
	text, ok := multiline(raw)
	switch {
	case !ok: // an object where text belongs
		return []string{string(raw)}
	case strings.HasPrefix(mime, "text/"), mime == "image/svg+xml", mime == "application/javascript":
		return lines(text)
	default:
		return text
	}
}

// multiline reads text that may be a list of its lines.
func multiline(raw json.RawMessage) (string, bool) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text, string(raw) != "null"
	}
	var parts []string
	if json.Unmarshal(raw, &parts) == nil {
		return strings.Join(parts, ""), true
	}
	return "", false
}

func isObject(raw json.RawMessage) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) > 0 && raw[0] == '{' && json.Valid(raw)
}
