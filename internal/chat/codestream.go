package chat

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// codeStream finds the code in the arguments of a call while they are still
// being written: {"code":"…, cut at any byte. What it gives is what a person
// sees appear in the cell; what runs is decided by parseCode once all is there.
//
// Arguments that are no JSON object are taken for the code itself, since some
// models write it so.
type codeStream struct {
	state  streamState
	quote  byte   // that ends the current string
	key    []byte // the key that is being read
	escape []byte // beginning of an escape, or of a character, that is not complete
	high   rune   // first half of a surrogate pair, waiting for the second
	depth  int    // of the value that is skipped
	out    strings.Builder
}

type streamState int

const (
	streamBegin  streamState = iota
	streamRaw                // the arguments are the code
	streamObject             // before a key
	streamKey                // in a key
	streamColon              // after a key
	streamValue              // before a value
	streamCode               // in the code
	streamSkip               // in another value, outside of strings
	streamSkipString
	streamEnd
)

// Write takes the next piece of the arguments and gives what it adds to the code.
func (s *codeStream) Write(piece string) string {
	s.out.Reset()
	for i := range len(piece) {
		s.next(piece[i])
	}
	return s.out.String()
}

func (s *codeStream) next(c byte) {
	switch s.state {
	case streamBegin:
		s.begin(c)
	case streamRaw:
		s.character(c)
	case streamObject:
		switch c {
		case '"', '\'':
			s.state, s.quote, s.key = streamKey, c, s.key[:0]
		case '}':
			s.state = streamEnd
		}
	case streamKey:
		if c == s.quote {
			s.state = streamColon
		} else if len(s.key) < len("code")+1 { // longer ones are not it, whatever follows
			s.key = append(s.key, c)
		}
	case streamColon:
		if c == ':' {
			s.state = streamValue
		}
	case streamValue:
		s.value(c)
	case streamCode:
		s.code(c)
	case streamSkip, streamSkipString:
		s.skip(c)
	case streamEnd:
	}
}

func (s *codeStream) begin(c byte) {
	switch c {
	case ' ', '\t', '\r', '\n':
	case '{':
		s.state = streamObject
	case '"':
		s.state, s.quote = streamCode, c
	case '`':
		// A fence: the mended code has none, and to show it for a moment is
		// worse than to show the code a moment later.
		s.state = streamEnd
	default:
		s.state = streamRaw
		s.character(c)
	}
}

func (s *codeStream) value(c byte) {
	isCode := string(s.key) == "code"
	switch c {
	case ' ', '\t', '\r', '\n':
	case '"', '\'':
		s.quote = c
		if s.state = streamSkipString; isCode {
			s.state = streamCode
		}
	case '{', '[':
		s.state, s.depth = streamSkip, 1
	default:
		s.state, s.depth = streamSkip, 0
	}
}

// skip passes over a value that is not the code.
func (s *codeStream) skip(c byte) {
	if s.state == streamSkipString {
		switch {
		case len(s.escape) > 0:
			s.escape = s.escape[:0]
		case c == '\\':
			s.escape = append(s.escape, c)
		case c == s.quote:
			s.state = streamSkip
		}
		return
	}
	switch c {
	case '"', '\'':
		s.state, s.quote = streamSkipString, c
	case '{', '[':
		s.depth++
	case '}', ']':
		if s.depth--; s.depth < 0 {
			s.state = streamEnd
		}
	case ',':
		if s.depth == 0 {
			s.state = streamObject
		}
	}
}

// code reads a JSON string. What is no valid escape stands for itself, as
// parseCode has it.
func (s *codeStream) code(c byte) {
	if len(s.escape) == 0 || s.escape[0] != '\\' {
		switch {
		case len(s.escape) > 0: // in a character of several bytes
			s.character(c)
		case c == '\\':
			s.escape = append(s.escape, c)
		case c == s.quote:
			s.flushHigh()
			s.state = streamEnd
		default:
			s.flushHigh()
			s.character(c)
		}
		return
	}
	s.escape = append(s.escape, c)
	if s.escape[1] == 'u' {
		switch {
		case len(s.escape) == 2:
			return
		case !isHex(c):
			literal := string(s.escape)
			s.escape = s.escape[:0]
			s.flushHigh()
			s.out.WriteString(literal)
			return
		case len(s.escape) < 6:
			return
		}
		r := hexRune(s.escape[2:])
		s.escape = s.escape[:0]
		s.unicode(r)
		return
	}
	s.escape = s.escape[:0]
	s.flushHigh()
	if r, ok := simpleEscape(c); ok {
		s.out.WriteByte(r)
		return
	}
	s.out.WriteByte('\\')
	s.character(c)
}

func (s *codeStream) unicode(r rune) {
	switch {
	case s.high != 0 && r >= 0xdc00 && r < 0xe000:
		s.out.WriteRune(utf16.DecodeRune(s.high, r))
		s.high = 0
	case r >= 0xd800 && r < 0xdc00:
		s.flushHigh()
		s.high = r
	default:
		s.flushHigh()
		s.out.WriteRune(r) // half of a pair becomes U+FFFD
	}
}

// flushHigh writes the first half of a pair whose second did not come.
func (s *codeStream) flushHigh() {
	if s.high != 0 {
		s.out.WriteRune(utf8.RuneError)
		s.high = 0
	}
}

// character passes bytes on, whole characters only.
func (s *codeStream) character(c byte) {
	if c < utf8.RuneSelf && len(s.escape) == 0 {
		s.out.WriteByte(c)
		return
	}
	s.escape = append(s.escape, c)
	if utf8.FullRune(s.escape) {
		r, size := utf8.DecodeRune(s.escape)
		rest := append([]byte(nil), s.escape[size:]...)
		s.escape = s.escape[:0]
		s.out.WriteRune(r)
		for _, b := range rest {
			s.next(b)
		}
	}
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func hexRune(digits []byte) rune {
	var r rune
	for _, c := range digits {
		r <<= 4
		switch {
		case c <= '9':
			r |= rune(c - '0')
		default:
			r |= rune(c|0x20-'a') + 10
		}
	}
	return r
}

func simpleEscape(c byte) (byte, bool) {
	switch c {
	case '"', '\\', '/', '\'':
		return c, true
	case 'n':
		return '\n', true
	case 't':
		return '\t', true
	case 'r':
		return '\r', true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	}
	return 0, false
}
