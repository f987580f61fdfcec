package kerneltest

import (
	"bytes"
	"strings"
)

// archive is a txtar file: a comment, then files that begin with "-- name --". Written out here
// because the format is twenty lines and its usual module is not among the project's.
type archive struct {
	comment []byte
	files   []archiveFile
}

type archiveFile struct {
	name string
	data []byte
}

func parseArchive(body []byte) archive {
	var a archive
	current := &a.comment
	for line := range bytes.Lines(body) {
		marker := strings.TrimSpace(string(line))
		if name, ok := strings.CutPrefix(marker, "-- "); ok {
			if name, ok = strings.CutSuffix(name, " --"); ok {
				a.files = append(a.files, archiveFile{name: strings.TrimSpace(name)})
				current = &a.files[len(a.files)-1].data
				continue
			}
		}
		*current = append(*current, line...)
	}
	return a
}

func (a archive) format() []byte {
	out := bytes.Clone(a.comment)
	for _, f := range a.files {
		out = append(append(append(out, "-- "...), f.name...), " --\n"...)
		out = append(out, f.data...)
		if len(f.data) > 0 && f.data[len(f.data)-1] != '\n' {
			out = append(out, '\n')
		}
	}
	return out
}
