// Package jsonsize tells how much there is in a JSON document before it is
// decoded.
//
// A bound of the bytes does not bound the memory: 64 MiB of "{}," become
// gigabytes of structs. Whoever decodes documents from outside into lists and
// maps counts their entries first.
package jsonsize

import "bytes"

// Entries has, for each depth, how many values lists and objects of that depth
// have together. The document itself is an entry of depth 0; the fields of the
// object that it is are of depth 1. What is deeper counts as the last depth.
type Entries [16]int

// Count counts the entries of a document. Of what is no JSON it counts
// something, which is not less than a decoder gets before it says so.
func Count(text []byte) Entries {
	n := Entries{1}
	depth := 0
	at := func() *int { return &n[min(depth, len(n)-1)] }
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			end := stringEnd(text[i+1:])
			if end < 0 {
				return n
			}
			i += 1 + end
		case '{', '[':
			depth++
			*at()++ // an empty one counts, too: it takes as much
		case '}', ']':
			depth = max(depth-1, 0)
		case ',':
			*at()++
		}
	}
	return n
}

// stringEnd gives the place of the quote that ends a string; -1: there is none.
func stringEnd(text []byte) int {
	for from := 0; ; {
		i := bytes.IndexByte(text[from:], '"')
		if i < 0 {
			return -1
		}
		i += from
		slashes := 0
		for slashes < i && text[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i
		}
		from = i + 1
	}
}

// UpTo gives the entries down to a depth.
func (n Entries) UpTo(depth int) int {
	sum := 0
	for _, k := range n[:min(depth+1, len(n))] {
		sum += k
	}
	return sum
}

// All gives all entries.
func (n Entries) All() int { return n.UpTo(len(n) - 1) }
