package notebook

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// Bounds of what a document shows of an output; more is no longer read.
const (
	maxShownText  = 32 << 10
	maxShownImage = 512 << 10 // base64
	maxShownRows  = 30
)

const tableType = "application/vnd.caesarion.table+json"

func exportMarkdown(s v1.Session, items []v1.Item) []byte {
	title := oneLine(s.Title, maxTitle)
	if title == "" {
		title = "Notebook"
	}
	blocks := []string{"# " + title}
	add := func(text string) {
		if text = strings.Trim(text, "\n"); strings.TrimSpace(text) != "" {
			blocks = append(blocks, text)
		}
	}
	for i := range items {
		it := &items[i]
		switch it.Kind {
		case kindUser:
			add(quoteText(it.Text))
			if len(it.Files) > 0 {
				add("Files: " + inlineCode(strings.Join(it.Files, ", ")))
			}
		case kindTool:
			add(toolText(it))
		case kindCell:
			if it.Code != "" {
				add(fence(it.Code, "python"))
			}
			for j := range it.Outputs {
				add(outputText(&it.Outputs[j]))
			}
			if it.Message != "" {
				add("*" + strings.ReplaceAll(oneLine(it.Message, 500), "*", `\*`) + "*")
			}
		default:
			add(it.Text)
		}
	}
	return []byte(strings.ToValidUTF8(strings.Join(blocks, "\n\n"), "\uFFFD") + "\n")
}

// toolText shows a call of the model as Markdown.
func toolText(it *v1.Item) string {
	if it.Tool == nil {
		return it.Text
	}
	call := inlineCode(it.Tool.Name + "(" + string(it.Tool.Arguments) + ")")
	switch {
	case it.Tool.Error != "":
		return call + "\n\n" + fence(clip(it.Tool.Error), "text")
	case len(it.Tool.Result) > 0:
		return call + "\n\n" + fence(clip(string(it.Tool.Result)), "json")
	default:
		return call
	}
}

// inlineCode makes code of one line, whatever backticks it has.
func inlineCode(text string) string {
	text = oneLine(text, 2000)
	ticks := strings.Repeat("`", longest(text, '`')+1)
	if len(ticks) > 1 {
		return ticks + " " + text + " " + ticks
	}
	return ticks + text + ticks
}

// fence makes a block of code that nothing inside can end.
func fence(text, language string) string {
	ticks := strings.Repeat("`", max(3, longest(text, '`')+1))
	return ticks + language + "\n" + strings.TrimRight(text, "\n") + "\n" + ticks
}

// longest counts the longest run of a character.
func longest(text string, c rune) int {
	most, run := 0, 0
	for _, r := range text {
		if r != c {
			run = 0
			continue
		}
		run++
		most = max(most, run)
	}
	return most
}

// clip keeps head and tail of a long text.
func clip(text string) string {
	if len(text) <= maxShownText {
		return text
	}
	half := maxShownText / 2
	return strings.ToValidUTF8(text[:half], "") + fmt.Sprintf("\n… %d characters left out …\n", len(text)-2*half) + strings.ToValidUTF8(text[len(text)-half:], "")
}

// ansi matches the escapes of terminals: colours, cursors and titles.
var ansi = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(\x07|\x1b\\\\)?|\x1b[@-Z\\\\^_]")

// terminalText is what stays on a terminal: no colours, and of lines that were
// written over, such as progress bars, the last state.
func terminalText(text string) string {
	text = ansi.ReplaceAllString(strings.ReplaceAll(text, "\r\n", "\n"), "")
	parts := strings.Split(text, "\n")
	for i, l := range parts {
		l = strings.TrimRight(l, "\r")
		parts[i] = l[strings.LastIndexByte(l, '\r')+1:]
	}
	return strings.Join(parts, "\n")
}

// outputText shows an output by the best of its forms that Markdown has.
func outputText(o *v1.Output) string {
	switch o.Type {
	case "stream":
		text := terminalText(o.Text)
		if strings.TrimSpace(text) == "" {
			return ""
		}
		return fence(clip(text), "text")
	case "error":
		text := terminalText(strings.Join(o.Traceback, "\n"))
		if strings.TrimSpace(text) == "" {
			text = o.ErrorName + ": " + o.ErrorValue
		}
		return fence(clip(text), "text")
	}
	for _, typ := range []string{"image/png", "image/jpeg", "image/webp", "image/gif"} {
		if data, ok := multiline(o.Data[typ]); ok && o.Data[typ] != nil {
			if data = strings.Join(strings.Fields(data), ""); len(data) > maxShownImage || !isBase64(data) {
				return fmt.Sprintf("*(a picture, %s of %d KiB, is left out)*", typ, len(data)*3/4>>10)
			}
			return "![output](data:" + typ + ";base64," + data + ")"
		}
	}
	if table := tableText(o.Data[tableType]); table != "" {
		return table
	}
	for _, typ := range []string{"text/markdown", "text/latex"} {
		if text, ok := multiline(o.Data[typ]); ok && o.Data[typ] != nil {
			return clip(text)
		}
	}
	if text, ok := multiline(o.Data["text/plain"]); ok && o.Data["text/plain"] != nil {
		return fence(clip(terminalText(text)), "text")
	}
	if raw := o.Data["application/json"]; raw != nil {
		return fence(clip(string(raw)), "json")
	}
	return ""
}

// tableText shows a data frame as a table of Markdown; "" if it is none.
func tableText(raw json.RawMessage) string {
	var t v1.Table
	if raw == nil || json.Unmarshal(raw, &t) != nil || len(t.Columns) == 0 {
		return ""
	}
	indexed := len(t.Index) > 0
	var b strings.Builder
	if indexed {
		b.WriteString("| ")
	}
	for _, c := range t.Columns {
		b.WriteString("| " + tableCell(c.Name) + " ")
	}
	b.WriteString("|\n")
	if indexed {
		b.WriteString("|---")
	}
	for _, c := range t.Columns {
		if strings.HasPrefix(c.Type, "int") || strings.HasPrefix(c.Type, "float") || strings.HasPrefix(c.Type, "uint") {
			b.WriteString("|---:")
		} else {
			b.WriteString("|---")
		}
	}
	b.WriteString("|\n")
	shown := t.Rows[:min(len(t.Rows), maxShownRows)]
	for i, row := range shown {
		if indexed {
			label := ""
			if i < len(t.Index) {
				label = plainCell(t.Index[i])
			}
			b.WriteString("| " + label + " ")
		}
		for j := range t.Columns {
			value := ""
			if j < len(row) {
				value = plainCell(row[j])
			}
			b.WriteString("| " + value + " ")
		}
		b.WriteString("|\n")
	}
	if t.TotalRows > int64(len(shown)) {
		fmt.Fprintf(&b, "\n*%d of %d rows*\n", len(shown), t.TotalRows)
	}
	return b.String()
}

func plainCell(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		text = string(raw)
	}
	if string(raw) == "null" {
		return ""
	}
	return tableCell(text)
}

func tableCell(text string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;").Replace(oneLine(text, 200))
}
