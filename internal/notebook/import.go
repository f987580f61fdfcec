package notebook

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/jsonsize"
)

// Bounds of notebooks from outside. What is above them is no notebook that a
// page could show.
const (
	MaxBytes      = 64 << 20
	maxCells      = 5000
	maxOutputs    = 1000    // of one cell
	maxText       = 4 << 20 // of one cell's source
	maxField      = 64 << 10
	maxFiles      = 100
	maxEntries    = 300_000   // fields of cells, their outputs and lines of source, all together
	maxLines      = 2_000_000 // those, and lines of output
	maxTitle      = 200
	maxAttachment = 2 << 20 // base64, of one picture
)

// fileDocument is a notebook as it is read: nbformat 4, and what 3 had
// otherwise.
type fileDocument struct {
	Cells      []fileCell `json:"cells"`
	Worksheets []struct {
		Cells []fileCell `json:"cells"`
	} `json:"worksheets"`
	Metadata struct {
		Kernelspec struct {
			Language string `json:"language"`
		} `json:"kernelspec"`
		LanguageInfo struct {
			Name string `json:"name"`
		} `json:"language_info"`
		Title     json.RawMessage `json:"title"`
		Name      json.RawMessage `json:"name"` // nbformat 3
		Caesarion json.RawMessage `json:"caesarion"`
	} `json:"metadata"`
	NBFormat int `json:"nbformat"`
}

type fileCell struct {
	Type           string                                `json:"cell_type"`
	Source         json.RawMessage                       `json:"source"`
	ExecutionCount json.RawMessage                       `json:"execution_count"`
	Outputs        []json.RawMessage                     `json:"outputs"`
	Attachments    map[string]map[string]json.RawMessage `json:"attachments"`
	Metadata       struct {
		Jupyter   json.RawMessage `json:"jupyter"`
		Collapsed json.RawMessage `json:"collapsed"`
		Caesarion json.RawMessage `json:"caesarion"`
	} `json:"metadata"`

	// nbformat 3
	Input        json.RawMessage `json:"input"`
	PromptNumber json.RawMessage `json:"prompt_number"`
	Language     string          `json:"language"`
	Level        int             `json:"level"`
}

// Import reads a notebook. The items have no ids, times or turns: whoever
// stores them gives those. The title is empty if the notebook has none.
func Import(r io.Reader) (title string, items []v1.Item, err error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return "", nil, err
	}
	if len(text) > MaxBytes {
		return "", nil, tooLarge("the notebook", "%d MiB", MaxBytes>>20)
	}
	// In cells → cell → source, or worksheets → sheet → cells → cell; and in
	// cells → cell → outputs → output → data → lines.
	if n := jsonsize.Count(text); n.UpTo(4) > maxEntries || n.UpTo(7) > maxLines {
		if !json.Valid(text) {
			return "", nil, noNotebook("it is a file with the ending .ipynb, as Jupyter writes it")
		}
		return "", nil, tooLarge("the notebook", "%d cells and lines", maxEntries)
	}
	var doc fileDocument
	if err := json.Unmarshal(text, &doc); err != nil {
		hint := "it is a file with the ending .ipynb, as Jupyter writes it"
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			hint = fmt.Sprintf("its field %s is not what a notebook has there", e.Field)
		}
		return "", nil, noNotebook(hint).WithCause(err)
	}
	if err := doc.check(); err != nil {
		return "", nil, err
	}
	cells := doc.Cells
	for _, w := range doc.Worksheets {
		cells = append(cells, w.Cells...)
	}
	if len(cells) > maxCells {
		return "", nil, tooLarge("the notebook", "%d cells", maxCells)
	}
	items = make([]v1.Item, 0, len(cells))
	for i := range cells {
		it, err := cells[i].item(doc.NBFormat)
		if err != nil {
			return "", nil, fmt.Errorf("cell %d: %w", i+1, err)
		}
		items = append(items, it)
	}
	return doc.title(items), items, nil
}

func noNotebook(hint string) *errdefs.Error {
	return errdefs.New(errdefs.ErrInvalid, CodeInvalid, "This is no Jupyter notebook.").WithHint("%s", hint)
}

func tooLarge(what, format string, args ...any) error {
	return errdefs.New(errdefs.ErrTooLarge, CodeTooLarge, "This is too large: %s may have at most %s.", what, fmt.Sprintf(format, args...)).
		WithHint("clear outputs or split it in Jupyter, and import it again")
}

func (d *fileDocument) check() error {
	switch {
	case d.NBFormat == 0 || d.Cells == nil && d.Worksheets == nil && d.NBFormat > 2:
		return noNotebook("it has a number nbformat and a list of cells")
	case d.NBFormat != 3 && d.NBFormat != 4:
		return errdefs.New(errdefs.ErrInvalid, CodeVersion, "Notebooks of format %d can't be read.", d.NBFormat).
			WithHint("open it in Jupyter and save it, which makes it format 4")
	}
	language := strings.ToLower(d.Metadata.Kernelspec.Language)
	if language == "" {
		language = strings.ToLower(d.Metadata.LanguageInfo.Name)
	}
	if language != "" && !strings.Contains(language, "python") {
		return errdefs.New(errdefs.ErrInvalid, CodeLanguage, "This is a notebook in %.50q; sandboxes run Python.", language).
			WithHint("a notebook in Python can be imported")
	}
	return nil
}

// title gives the notebook's own title, or its first heading.
func (d *fileDocument) title(items []v1.Item) string {
	for _, raw := range []json.RawMessage{d.Metadata.Title, d.Metadata.Name} {
		if text, ok := multiline(raw); ok {
			if title := oneLine(text, maxTitle); title != "" {
				return title
			}
		}
	}
	if d.Metadata.Caesarion != nil { // it had none
		return ""
	}
	for i := range items {
		for line := range strings.Lines(items[i].Text) {
			if heading, ok := strings.CutPrefix(line, "# "); ok {
				return oneLine(strings.Trim(heading, "# \n"), maxTitle)
			}
		}
	}
	return ""
}

func oneLine(text string, most int) string {
	text = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, text)), " ")
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most])
	}
	return text
}

func (c *fileCell) item(format int) (v1.Item, error) {
	raw := c.Source
	if c.Type == "code" && format == 3 {
		raw = c.Input
	}
	source, ok := multiline(raw)
	if !ok && len(raw) > 0 && string(raw) != "null" {
		return v1.Item{}, errdefs.New(errdefs.ErrInvalid, CodeInvalid, "The source of a cell is no text.").WithHint("save the notebook in Jupyter again")
	}
	if len(source) > maxText {
		return v1.Item{}, tooLarge("the source of a cell", "%d MiB", maxText>>20)
	}
	source = strings.ReplaceAll(source, "\x00", "")
	switch c.Type {
	case "code":
		return c.code(source, format)
	case "heading": // nbformat 3
		return v1.Item{Kind: kindNote, Status: "idle", Text: strings.Repeat("#", min(max(c.Level, 1), 6)) + " " + source}, nil
	case "markdown", "html": // html is nbformat 3, and Markdown has room for it
		return c.text(c.attach(source)), nil
	default: // raw, and what others may have
		if strings.TrimSpace(source) == "" {
			return v1.Item{Kind: kindNote, Status: "idle"}, nil
		}
		return v1.Item{Kind: kindNote, Status: "idle", Text: fence(source, "")}, nil
	}
}

// text makes the item of a Markdown cell: what it was with us, or a note.
func (c *fileCell) text(source string) v1.Item {
	var extra ours
	if json.Unmarshal(c.Metadata.Caesarion, &extra) != nil {
		extra = ours{}
	}
	extra.tidy()
	it := v1.Item{Kind: kindNote, Status: "idle", Text: source}
	switch extra.Kind {
	case kindUser:
		it.Kind, it.Text, it.Files = kindUser, unquoteText(source), extra.Files
	case kindAssistant:
		it.Kind, it.Reasoning, it.Model = kindAssistant, extra.Reasoning, extra.Model
	case kindTool:
		if extra.Tool == nil {
			return it
		}
		it.Kind, it.Tool, it.Text, it.Model = kindTool, extra.Tool, "", extra.Model
		if extra.Text != nil {
			it.Text = *extra.Text
		}
	default:
		return it
	}
	it.Status, it.Reason, it.Message = extra.Status, extra.Reason, extra.Message
	return it
}

// tidy bounds what a notebook says of our own fields: anybody can write it.
func (o *ours) tidy() {
	cut := func(text *string, most int) {
		*text = strings.ToValidUTF8((*text)[:min(len(*text), most)], "")
	}
	cut(&o.Reasoning, maxText)
	cut(&o.Message, maxField)
	for _, text := range []*string{&o.Model, &o.Reason} {
		*text = oneLine(*text, maxTitle)
	}
	if o.Text != nil {
		cut(o.Text, maxText)
	}
	o.Files = o.Files[:min(len(o.Files), maxFiles)]
	for i := range o.Files {
		cut(&o.Files[i], maxField)
	}
	switch o.Status {
	case "ok", "error", "interrupted", "timeout", "killed", "aborted", "stopped", "cut":
	case "running", "queued", "writing": // it does not run here
		o.Status = "cut"
	default:
		o.Status = "idle"
	}
	if o.DurationMS < 0 || o.DurationMS > 1e12 {
		o.DurationMS = 0
	}
	t := o.Tool
	if t == nil {
		return
	}
	cut(&t.Error, maxField)
	t.ID, t.Name = oneLine(t.ID, maxTitle), oneLine(t.Name, maxTitle)
	if len(t.Arguments) > maxText || !isObject(t.Arguments) {
		t.Arguments = nil
	}
	if len(t.Result) > maxText {
		t.Result = nil
	}
	t.Arguments, t.Result = compact(t.Arguments), compact(t.Result)
	if t.ID == "" || t.Name == "" {
		o.Tool = nil
	}
}

func (c *fileCell) code(source string, format int) (v1.Item, error) {
	it := v1.Item{Kind: kindCell, Status: "idle", Code: source}
	var extra ours
	if json.Unmarshal(c.Metadata.Caesarion, &extra) == nil {
		extra.tidy()
		it.Tool, it.Model, it.Status, it.Reason, it.Message, it.DurationMS = extra.Tool, extra.Model, extra.Status, extra.Reason, extra.Message, extra.DurationMS
	}
	var h hidden
	if json.Unmarshal(c.Metadata.Jupyter, &h) == nil {
		it.CodeHidden, it.OutputsHidden = h.SourceHidden, h.OutputsHidden
	}
	if string(c.Metadata.Collapsed) == "true" {
		it.OutputsHidden = true
	}
	number := c.ExecutionCount
	if format == 3 {
		number = c.PromptNumber
	}
	if json.Unmarshal(number, &it.ExecutionCount) != nil || it.ExecutionCount < 0 {
		it.ExecutionCount = 0
	}
	if len(c.Outputs) > maxOutputs {
		return v1.Item{}, tooLarge("a cell", "%d outputs", maxOutputs)
	}
	for _, raw := range c.Outputs {
		var o fileOutput
		if json.Unmarshal(raw, &o) != nil {
			continue // one bad output is no reason to refuse the rest
		}
		if out, ok := o.output(raw, format); ok {
			it.Outputs = append(it.Outputs, out)
		}
	}
	if it.Status == "idle" && (it.ExecutionCount > 0 || len(it.Outputs) > 0) {
		it.Status = "ok"
		if slices.ContainsFunc(it.Outputs, func(o v1.Output) bool { return o.Type == "error" }) {
			it.Status = "error"
		}
	}
	return it, nil
}

// attach puts the pictures that a Markdown cell carries into its text.
func (c *fileCell) attach(source string) string {
	for _, name := range slices.Sorted(maps.Keys(c.Attachments)) {
		if name == "" || !strings.Contains(source, "attachment:"+name) {
			continue
		}
		replacement := ""
		for _, typ := range slices.Sorted(maps.Keys(c.Attachments[name])) {
			data, ok := multiline(c.Attachments[name][typ])
			media, _, err := mime.ParseMediaType(typ)
			if !ok || err != nil || !strings.HasPrefix(media, "image/") {
				continue
			}
			data = strings.Join(strings.Fields(data), "")
			if len(data) <= maxAttachment && isBase64(data) && len(source)+len(data) <= maxText {
				replacement = "data:" + media + ";base64," + data
				break
			}
		}
		if replacement != "" {
			// Once: a text that names it a thousand times would grow by as much.
			source = strings.Replace(source, "attachment:"+name, replacement, 1)
		}
	}
	return source
}

func isBase64(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+/=-_", r))
	})
}
