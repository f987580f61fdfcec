package notebook

import (
	"regexp"
	"slices"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// exportPython writes the percent format: cells between "# %%" lines, all else
// as comments. The file compiles: what only IPython understands, and cells
// that are no Python, are comments, too.
func exportPython(s v1.Session, items []v1.Item) []byte {
	var body strings.Builder
	var future []string
	for i := range items {
		it := &items[i]
		if it.Kind == kindCell {
			code, imports := plainCode(it)
			future = append(future, imports...)
			body.WriteString("\n# %%\n" + code + "\n")
			continue
		}
		body.WriteString("\n# %% [markdown]\n")
		switch it.Kind {
		case kindUser:
			body.WriteString(comment(quoteText(it.Text)))
		case kindTool:
			body.WriteString(comment(toolText(it)))
		default:
			body.WriteString(comment(it.Text))
		}
		body.WriteString("\n")
	}
	var b strings.Builder
	title := oneLine(s.Title, maxTitle)
	if title == "" {
		title = "Notebook"
	}
	// A title with "coding:" in it would else name the encoding (PEP 263).
	b.WriteString("# -*- coding: utf-8 -*-\n# " + title + "\n")
	slices.Sort(future)
	for _, line := range slices.Compact(future) { // Python wants them first
		b.WriteString("\n" + line + "\n")
	}
	b.WriteString(body.String())
	return []byte(b.String())
}

// comment makes every line of a text a comment.
func comment(text string) string {
	parts := strings.Split(pythonLines(text), "\n")
	for i, l := range parts {
		parts[i] = strings.TrimRight("# "+l, " \t")
	}
	return strings.Join(parts, "\n")
}

// pythonLines makes what Python takes for the end of a line "\n": a lone \r
// would end a comment. NUL and byte order marks are in no source.
func pythonLines(text string) string {
	text = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\x00", "", "\uFEFF", "").Replace(text)
	return strings.ToValidUTF8(text, "\uFFFD")
}

// plainCode gives the code of a cell as plain Python, and its imports from
// __future__, which belong to the top of the file.
func plainCode(it *v1.Item) (code string, future []string) {
	source := strings.TrimRight(pythonLines(it.Code), "\n")
	for _, o := range it.Outputs {
		if o.Type == "error" && slices.Contains([]string{"SyntaxError", "IndentationError", "TabError"}, o.ErrorName) {
			return "# not valid Python:\n" + comment(source), nil
		}
	}
	first := strings.TrimSpace(source)
	if name, ok := strings.CutPrefix(first, "%%"); ok {
		name, _, _ = strings.Cut(name, "\n")
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		if !slices.Contains([]string{"time", "timeit", "capture", "prun"}, name) { // their body is Python
			return comment(source), nil
		}
		head, rest, _ := strings.Cut(source[strings.Index(source, "%%"):], "\n")
		source = "# " + head + "\n" + rest
	}
	statements, plain := splitStatements(source)
	if !plain {
		return "# not plain Python:\n" + comment(source), nil
	}
	var out []string
	inAsync := false
	for _, st := range statements {
		indent := st[:len(st)-len(strings.TrimLeft(st, " \t"))]
		text := strings.TrimSpace(st)
		if indent == "" && text != "" && !strings.HasPrefix(text, "#") {
			inAsync = asyncDef.MatchString(text)
		}
		switch {
		case indent == "" && futureImport.MatchString(text):
			future = append(future, text)
		case strings.HasPrefix(text, "from __future__"):
			return "# belongs to the beginning of a file:\n" + comment(source), nil
		case isMagic(text):
			// pass keeps a block that would be empty without the line.
			if indent != "" {
				out = append(out, indent+"pass")
			}
			out = append(out, indentComment(indent, text))
		case awaits.MatchString(text) && !inAsync && !strings.HasPrefix(text, "#"):
			return "# only IPython awaits outside of functions:\n" + comment(source), nil
		default:
			out = append(out, st)
		}
	}
	return strings.Join(out, "\n"), future
}

func indentComment(indent, text string) string {
	parts := strings.Split(comment(text), "\n")
	return indent + strings.Join(parts, "\n"+indent)
}

var (
	futureImport = regexp.MustCompile(`^from\s+__future__\s+import\s+[\w ,()]+$`)
	asyncDef     = regexp.MustCompile(`^(async\s+def\b|class\b|def\b|@)`)
	awaits       = regexp.MustCompile(`(^|[^\w.])(await\s|async\s+(for|with)\b)`)
	assigned     = regexp.MustCompile(`^[\w\s,.\[\]'"()*]+=\s*[%!]`)
	help         = regexp.MustCompile(`^[%\w.*\[\]'"]*[\w\])*]\?{1,2}$|^\?{1,2}\s*[%\w.*]`)
)

// isMagic tells statements that only IPython understands: %magic, !shell,
// x = !shell, help? and the calls without parentheses that begin with / , ;.
func isMagic(text string) bool {
	if text == "" {
		return false
	}
	return strings.ContainsRune("%!?/,;", rune(text[0])) || assigned.MatchString(text) || help.MatchString(text)
}

// splitStatements splits Python into logical lines: what is inside of
// brackets, strings of three quotes, or behind a backslash goes on. plain is
// false if something is open at the end, or stands where Python has no such
// character, as in "if x: !ls".
func splitStatements(source string) (statements []string, plain bool) {
	start, depth := 0, 0
	quote := "" // that ends the string we are in
	atStart := true
	magic := false // quotes and brackets of a shell line mean nothing to us
	for i := 0; i < len(source); i++ {
		rest := source[i:]
		switch c := source[i]; {
		case quote != "":
			switch {
			case c == '\\':
				i++
			case strings.HasPrefix(rest, quote):
				i += len(quote) - 1
				quote = ""
			case c == '\n' && len(quote) == 1:
				return nil, false
			}
		case c == '\n':
			if depth == 0 {
				statements = append(statements, source[start:i])
				start, atStart, magic = i+1, true, false
			}
		case c == '\\' && i+1 < len(source) && source[i+1] == '\n':
			i++
		case magic:
		case atStart && c != ' ' && c != '\t':
			atStart = false
			line, _, _ := strings.Cut(rest, "\n")
			if magic = isMagic(strings.TrimSpace(line)); !magic {
				i--
			}
		case c == '#':
			if end := strings.IndexByte(rest, '\n'); end >= 0 {
				i += end - 1
			} else {
				i = len(source)
			}
		case c == '"' || c == '\'':
			quote = string(c)
			if triple := strings.Repeat(quote, 3); strings.HasPrefix(rest, triple) {
				quote = triple
				i += 2
			}
		case c == '?' || c == '$' || c == '`' || c == '!' && !strings.HasPrefix(rest, "!="):
			return nil, false
		case c == '(' || c == '[' || c == '{':
			depth++
		case c == ')' || c == ']' || c == '}':
			depth--
			if depth < 0 {
				return nil, false
			}
		}
	}
	if quote != "" || depth > 0 || strings.HasSuffix(source, "\\") {
		return nil, false
	}
	return append(statements, source[start:]), true
}
