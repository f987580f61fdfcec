package notebook

import (
	"strings"
	"unicode"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// The formats of Export.
const (
	IPYNB    = "ipynb"
	Python   = "py"
	Markdown = "md"
)

// The codes of errors.
const (
	CodeFormat   = "export-format"
	CodeInvalid  = "notebook-invalid"
	CodeTooLarge = "notebook-too-large"
	CodeVersion  = "notebook-version"
	CodeLanguage = "notebook-language"
)

// The kinds of items, as api/v1 has them.
const (
	kindUser      = "user"
	kindAssistant = "assistant"
	kindCell      = "cell"
	kindNote      = "note"
	kindTool      = "tool"
)

// Export writes a session as a file of a format: ipynb, py or md.
func Export(format string, s v1.Session, items []v1.Item) (body []byte, mediaType, filename string, err error) {
	switch format {
	case IPYNB:
		body, err = exportIPYNB(s, items)
		mediaType = "application/x-ipynb+json"
	case Python:
		body = exportPython(s, items)
		mediaType = "text/x-python; charset=utf-8"
	case Markdown:
		body = exportMarkdown(s, items)
		mediaType = "text/markdown; charset=utf-8"
	default:
		return nil, "", "", errdefs.New(errdefs.ErrInvalid, CodeFormat, "Sessions can't be exported as %.50q.", format).
			WithHint("allowed are ipynb, py and md")
	}
	return body, mediaType, fileName(s.Title) + "." + format, err
}

// maxFileName is short enough for every file system, with room for "(2)".
const maxFileName = 80

// fileName makes a title the name of a file: nothing that a shell, a header or
// a file system would take for something else.
func fileName(title string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case strings.ContainsRune(`/\:*?"<>|%`+"`$';&", r), unicode.IsControl(r), r == unicode.ReplacementChar, !unicode.IsPrint(r) && !unicode.IsSpace(r):
			return ' '
		default:
			return r
		}
	}, strings.ToValidUTF8(title, " "))
	name = strings.Join(strings.Fields(name), " ")
	if runes := []rune(name); len(runes) > maxFileName {
		name = string(runes[:maxFileName])
	}
	name = strings.Trim(name, " .-")
	if name == "" {
		return "notebook"
	}
	return name
}

// lines splits a text as nbformat does: each line with its end, the last one
// without unless the text ends so.
func lines(text string) []string {
	parts := strings.SplitAfter(text, "\n")
	if parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1]
	}
	return parts
}
