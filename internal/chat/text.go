package chat

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// plainText gives what a terminal would show in the end: without colours and
// other escapes, and of a line that was written over and over (a progress bar)
// only what stood there last.
func plainText(s string) string {
	if !strings.ContainsAny(s, "\x1b\r\b\a\x00\x0b\x0c\x7f") {
		return s
	}
	s = stripANSI(s)
	var out strings.Builder
	out.Grow(len(s))
	for line := range strings.SplitAfterSeq(s, "\n") {
		body, hasEnd := strings.CutSuffix(line, "\n")
		body = strings.TrimRight(body, "\r")
		if i := strings.LastIndexByte(body, '\r'); i >= 0 {
			body = overwrite(body)
		}
		if strings.ContainsRune(body, '\b') {
			body = backspace(body)
		}
		out.WriteString(strings.Map(printable, body))
		if hasEnd {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

// overwrite gives the last thing on the line that was not just blanks.
func overwrite(line string) string {
	for {
		i := strings.LastIndexByte(line, '\r')
		if last := line[i+1:]; i < 0 || strings.TrimSpace(last) != "" {
			return last
		}
		line = line[:i]
	}
}

func backspace(line string) string {
	out := make([]rune, 0, len(line))
	for _, r := range line {
		if r != '\b' {
			out = append(out, r)
		} else if len(out) > 0 {
			out = out[:len(out)-1]
		}
	}
	return string(out)
}

func printable(r rune) rune {
	if r < ' ' && r != '\t' && r != '\n' || r == 0x7f {
		return -1
	}
	return r
}

// stripANSI takes away escape sequences (ECMA-48: CSI, strings such as OSC,
// and the two-byte ones).
func stripANSI(s string) string {
	i := strings.IndexByte(s, '\x1b')
	if i < 0 {
		return s
	}
	var out strings.Builder
	out.Grow(len(s))
	for i >= 0 {
		out.WriteString(s[:i])
		s = s[i+1:]
		if s == "" {
			break
		}
		switch c := s[0]; {
		case c == '[': // parameters, then one final byte
			n := 1
			for n < len(s) && s[n] >= 0x20 && s[n] < 0x40 {
				n++
			}
			s = s[min(n+1, len(s)):]
		case strings.IndexByte("]PX^_", c) >= 0: // up to BEL or ESC \
			end := strings.IndexAny(s, "\a\x1b")
			switch {
			case end < 0:
				s = ""
			case s[end] == '\a':
				s = s[end+1:]
			default:
				s = strings.TrimPrefix(s[end+1:], "\\")
			}
		case c >= 0x20 && c < 0x30: // intermediate bytes, then one
			s = s[min(2, len(s)):]
		default:
			s = s[1:]
		}
		i = strings.IndexByte(s, '\x1b')
	}
	out.WriteString(s)
	return out.String()
}

// headTail keeps the beginning and the end of a text that is longer than both
// together, at line ends where one is near, and says in between what is gone.
func headTail(s string, head, tail int) string {
	// What the note takes is not worth saving.
	const slack = 120
	if len(s) <= head+tail+slack {
		return s
	}
	a, b := cutAt(s, head), len(s)-tail
	for b < len(s) && !utf8.RuneStart(s[b]) {
		b++
	}
	if i := strings.LastIndexByte(s[:a], '\n'); i > a-head/4 {
		a = i + 1
	}
	if i := strings.IndexByte(s[b:], '\n'); i >= 0 && i < tail/4 {
		b += i + 1
	}
	gone := s[a:b]
	note := fmt.Sprintf("[… %d characters left out …]\n", utf8.RuneCountInString(gone))
	if lines := strings.Count(gone, "\n"); lines > 1 {
		note = fmt.Sprintf("[… %d lines left out …]\n", lines)
	}
	if a > 0 && s[a-1] != '\n' {
		note = "\n" + note
	}
	return s[:a] + note + s[b:]
}

// cutAt gives the largest length up to n that does not cut a character.
func cutAt(s string, n int) int {
	if n >= len(s) {
		return len(s)
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return n
}

// short keeps the beginning of a text, on one line.
func short(s string, n int) string {
	s = strings.Join(strings.Fields(s), " ")
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return s[:cutAt(s, runeOffset(s, n-1))] + "…"
}

func runeOffset(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// sizeText gives a size as people write it.
func sizeText(n int64) string {
	switch {
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1000_000:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	case n < 1000_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}

// mentionsTools says whether a server's refusal is about tools.
func mentionsTools(s string) bool {
	s = strings.ToLower(s)
	return strings.Contains(s, "tool") || strings.Contains(s, "function call") || strings.Contains(s, "--jinja")
}
