package chat

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// argumentsError is what the model is told when its arguments can't be read. It
// says how they must look, since that is what a model can act on.
type argumentsError struct{ text string }

func (e *argumentsError) Error() string { return e.text }

func badArguments(format string, args ...any) error {
	return &argumentsError{fmt.Sprintf(format, args...)}
}

// parseCode gives the code of a call of python_interpreter. cut says that the
// model's answer ended before its end: then only whole arguments are taken,
// since half a program must not run.
func parseCode(raw string, cut bool) (string, error) {
	code, err := findCode(raw, cut, 0)
	if err != nil {
		return "", err
	}
	// Many models end with a newline, which would stand in the cell as an empty line.
	code = strings.TrimRight(unfence(code), "\n")
	if strings.TrimSpace(code) == "" {
		return "", badArguments("The code is empty. Call python_interpreter with {\"code\": \"…\"}, the code being a JSON string.")
	}
	if strings.ContainsRune(code, 0) {
		return "", badArguments("The code has a NUL character, which Python source can't have.")
	}
	return code, nil
}

func findCode(raw string, cut bool, depth int) (string, error) {
	text := strings.TrimSpace(raw)
	if text == "" {
		return "", nil
	}
	var value any
	if err := json.Unmarshal([]byte(text), &value); err == nil {
		switch v := value.(type) {
		case map[string]any:
			return codeOf(v)
		case string:
			if depth == 0 && strings.HasPrefix(strings.TrimSpace(v), "{") {
				// Arguments that were encoded twice, unless it is a dict.
				if code, err := findCode(v, cut, depth+1); err == nil {
					return code, nil
				}
			}
			return v, nil
		}
		return text, nil // a number, a list: Python as it stands
	}
	if cut {
		return "", badArguments("The arguments were cut off before their end, because the answer got too long. Nothing was run. Write less code at once, in several calls.")
	}
	if text[0] != '{' {
		return text, nil
	}
	p := &tolerant{text: text}
	value, err := p.parse()
	object, ok := value.(map[string]any)
	if err == nil && ok && !p.ambiguous {
		return codeOf(object)
	}
	if code, ok := greedyCode(text); ok {
		return code, nil
	}
	if err == nil && ok {
		if code, err := codeOf(object); err == nil {
			return code, nil
		}
	}
	return "", badArguments("The arguments are not valid JSON. Nothing was run. Call python_interpreter with {\"code\": \"…\"}: newlines as \\n, quotation marks in the code as \\\".")
}

// codeOf takes the code from the object, also under another name when there
// is only one text it could be.
func codeOf(object map[string]any) (string, error) {
	switch v := object["code"].(type) {
	case string:
		return v, nil
	case []any: // lines, as a notebook file has them
		var b strings.Builder
		for _, line := range v {
			s, ok := line.(string)
			if !ok {
				return "", badArguments("The argument \"code\" must be one string.")
			}
			b.WriteString(strings.TrimSuffix(s, "\n"))
			b.WriteByte('\n')
		}
		return b.String(), nil
	}
	texts := []string{}
	for _, v := range object {
		if s, ok := v.(string); ok {
			texts = append(texts, s)
		}
	}
	if len(texts) == 1 {
		return texts[0], nil
	}
	names := slices.Sorted(maps.Keys(object))
	return "", badArguments("The argument \"code\" is missing (there is: %s). Call python_interpreter with {\"code\": \"…\"}.", strings.Join(names, ", "))
}

// greedyCode reads {"code":"…"} whose text has quotation marks that should
// have been escaped: it goes to the last one.
func greedyCode(text string) (string, bool) {
	rest, ok := strings.CutPrefix(text, "{")
	if !ok {
		return "", false
	}
	rest = strings.TrimSpace(rest)
	if len(rest) < 2 {
		return "", false
	}
	rest, ok = strings.CutPrefix(rest[1:], "code")
	if !ok || len(rest) < 1 {
		return "", false
	}
	rest, ok = strings.CutPrefix(strings.TrimSpace(rest[1:]), ":")
	rest = strings.TrimSpace(rest)
	if !ok || rest == "" || rest[0] != '"' && rest[0] != '\'' {
		return "", false
	}
	quote := rest[:1]
	rest = strings.TrimRight(rest[1:], " \t\r\n},")
	rest = strings.TrimSuffix(rest, quote)
	return unescape(rest), true
}

// unescape reads the escapes of a JSON string, and leaves alone what is none.
func unescape(s string) string {
	d := codeStream{state: streamCode} // no quote: goes to the end
	_ = d.Write(s)
	d.flushHigh()
	d.out.Write(d.escape)
	return d.out.String()
}

// unfence takes away the Markdown fence around code.
func unfence(code string) string {
	text := strings.TrimSpace(code)
	if !strings.HasPrefix(text, "```") || !strings.HasSuffix(text, "```") || len(text) < 6 {
		return code
	}
	first, rest, ok := strings.Cut(text, "\n")
	if !ok {
		return strings.Trim(text, "`")
	}
	switch strings.ToLower(strings.TrimSpace(strings.TrimPrefix(first, "```"))) {
	case "", "py", "python", "python3", "ipython":
		return strings.TrimSuffix(rest, "```")
	}
	return code
}

// parseObject gives the arguments of any other call, mended if need be, and
// their JSON.
func parseObject(raw string, cut bool) (map[string]any, error) {
	text := strings.TrimSpace(raw)
	if text == "" || text == "null" {
		return map[string]any{}, nil
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(text), &object); err == nil {
		return object, nil
	}
	var inner string
	if err := json.Unmarshal([]byte(text), &inner); err == nil {
		if err := json.Unmarshal([]byte(inner), &object); err == nil {
			return object, nil
		}
	}
	if cut {
		return nil, badArguments("The arguments were cut off before their end. Call the tool again.")
	}
	value, err := (&tolerant{text: text}).parse()
	if object, ok := value.(map[string]any); ok && err == nil {
		return object, nil
	}
	return nil, badArguments("The arguments are not a valid JSON object. Call the tool again.")
}

// tolerant reads JSON as models write it when they go wrong: single quotes,
// newlines in strings, keys without quotes, Python's True and None, commas
// before a closing bracket, an end that is missing.
type tolerant struct {
	text      string
	pos       int
	depth     int
	ambiguous bool // a quotation mark in a string was taken for part of it
}

const tolerantDepth = 32 // no tool takes anything nested; more is noise

var errTolerant = errors.New("chat: no JSON")

func (p *tolerant) parse() (any, error) {
	v, err := p.value()
	if err != nil {
		return nil, err
	}
	p.space()
	for p.pos < len(p.text) && strings.IndexByte("}];", p.text[p.pos]) >= 0 { // one too many
		p.pos++
		p.space()
	}
	if p.pos < len(p.text) {
		return nil, errTolerant
	}
	return v, nil
}

func (p *tolerant) space() {
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.pos]) >= 0 {
		p.pos++
	}
}

func (p *tolerant) value() (any, error) {
	p.space()
	if p.pos >= len(p.text) || p.depth > tolerantDepth {
		return nil, errTolerant
	}
	switch c := p.text[p.pos]; c {
	case '{':
		p.depth++
		defer func() { p.depth-- }()
		return p.object()
	case '[':
		p.depth++
		defer func() { p.depth-- }()
		return p.list()
	case '"', '\'':
		return p.str(c), nil
	}
	word := p.word()
	switch word {
	case "":
		return nil, errTolerant
	case "true", "True":
		return true, nil
	case "false", "False":
		return false, nil
	case "null", "None":
		return nil, nil
	}
	var n float64
	if err := json.Unmarshal([]byte(strings.TrimPrefix(word, "+")), &n); err != nil {
		return nil, errTolerant
	}
	return n, nil
}

// word reads up to what ends a value without quotes.
func (p *tolerant) word() string {
	start := p.pos
	for p.pos < len(p.text) && strings.IndexByte(" \t\r\n,:{}[]\"'", p.text[p.pos]) < 0 {
		p.pos++
	}
	return p.text[start:p.pos]
}

func (p *tolerant) object() (any, error) {
	object := map[string]any{}
	p.pos++
	for {
		p.space()
		if p.pos >= len(p.text) {
			return object, nil
		}
		switch c := p.text[p.pos]; c {
		case '}':
			p.pos++
			return object, nil
		case ',':
			p.pos++
			continue
		}
		var key string
		if c := p.text[p.pos]; c == '"' || c == '\'' {
			key = p.str(c)
		} else if key = p.word(); key == "" {
			return nil, errTolerant
		}
		p.space()
		if p.pos >= len(p.text) {
			return object, nil // a key, and then nothing
		}
		if p.text[p.pos] != ':' {
			return nil, errTolerant
		}
		p.pos++
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		object[key] = v
	}
}

func (p *tolerant) list() (any, error) {
	list := []any{}
	p.pos++
	for {
		p.space()
		if p.pos >= len(p.text) {
			return list, nil
		}
		switch p.text[p.pos] {
		case ']':
			p.pos++
			return list, nil
		case ',':
			p.pos++
			continue
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
}

// str reads a string. A quotation mark ends it only where something can
// follow; in the middle of text it is part of it.
func (p *tolerant) str(quote byte) string {
	p.pos++
	start := p.pos
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case '\\':
			p.pos++
		case quote:
			rest := strings.TrimLeft(p.text[p.pos+1:], " \t\r\n")
			if rest == "" || strings.IndexByte(",}]:", rest[0]) >= 0 {
				s := unescape(p.text[start:p.pos])
				p.pos++
				return s
			}
			p.ambiguous = true
		}
		p.pos++
	}
	p.pos = len(p.text)
	return unescape(p.text[start:])
}
