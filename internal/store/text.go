package store

import (
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf8"
)

// Text of Postgres is valid UTF-8 without NUL; ours comes from people and from
// sandboxes and may be anything. What it can't hold is written as this
// character, which Unicode has set aside for the inner use of programs, and two
// digits for each byte. All other text stands as it is, fit for searches and
// for people who look into the database.
const escapeMark = "\uFDD0"

// toText gives a string as Postgres can keep it.
func toText(s string) string {
	if utf8.ValidString(s) && !strings.Contains(s, "\x00") && !strings.Contains(s, escapeMark) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		part := s[i : i+size]
		i += size
		if r != 0 && part != escapeMark && (r != utf8.RuneError || size > 1) {
			b.WriteString(part)
			continue
		}
		for j := range len(part) {
			b.WriteString(escapeMark)
			b.WriteString(hex.EncodeToString([]byte{part[j]}))
		}
	}
	return b.String()
}

// fromText gives the string that toText was given.
func fromText(s string) string {
	first, rest, found := strings.Cut(s, escapeMark)
	if !found {
		return s
	}
	out := []byte(first)
	for found {
		var part string
		part, rest, found = strings.Cut(rest, escapeMark)
		if len(part) >= 2 {
			if c, err := hex.DecodeString(part[:2]); err == nil {
				out = append(append(out, c...), part[2:]...)
				continue
			}
		}
		out = append(append(out, escapeMark...), part...) // not written by us
	}
	return string(out)
}

// textArgs gives the values of a query as Postgres can keep them.
func textArgs(args []any) []any {
	cloned := false
	for i, a := range args {
		var changed any
		switch v := a.(type) {
		case string:
			t := toText(v)
			if t == v {
				continue
			}
			changed = t
		case []string:
			list := make([]string, len(v))
			for j := range v {
				list[j] = toText(v[j])
			}
			changed = list
		default:
			continue
		}
		if !cloned { // the caller may use them again
			args, cloned = slices.Clone(args), true
		}
		args[i] = changed
	}
	return args
}

// readText changes back the strings that were just scanned.
func readText(dest []any) {
	for _, d := range dest {
		if s, ok := d.(*string); ok {
			*s = fromText(*s)
		}
	}
}
