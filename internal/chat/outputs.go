package chat

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/llm"
)

// What a model gets of a cell's outputs, in characters (some 3 to 4 make a
// token). Larger ones push the conversation out of the window and cost the
// operator money with each further round; smaller ones make the model print
// the same thing again.
const (
	streamHead    = 6_000  // of text from one stream: what most printed tables and summaries need
	streamTail    = 3_000  // its end, where results and errors stand
	plainLimit    = 4_000  // of the plain text of one value
	traceLimit    = 4_000  // of one traceback
	resultHead    = 14_000 // of the whole result
	resultTail    = 4_000
	maxImageBytes = 4 << 20 // one image; servers refuse more than 5 to 20 MB
	maxImages     = 4       // per cell: a loop over plots is not a question about each
)

// What stands for the things that a model does not get.
const (
	noteImage  = "[image shown to the user]"
	noteRich   = "[%s shown to the user]"
	noteSilent = "[no output]"
)

// result is what a model gets of one cell.
type result struct {
	text   string
	images []llm.Image
}

// cellResult makes the result of a cell that ended.
func cellResult(it v1.Item, vision bool) result {
	var r result
	var parts []string
	for _, o := range it.Outputs {
		if s := r.output(o, vision); s != "" {
			parts = append(parts, strings.TrimRight(s, "\n"))
		}
	}
	r.text = headTail(strings.Join(parts, "\n"), resultHead, resultTail)
	parts = parts[:0]
	if r.text != "" {
		parts = append(parts, r.text)
	}
	if note := statusNote(it); note != "" {
		parts = append(parts, note)
	} else if r.text == "" {
		parts = append(parts, noteSilent)
	}
	if it.DroppedBytes > 0 {
		note := fmt.Sprintf("[%s of output were left out", sizeText(it.DroppedBytes))
		if it.OutputFile != "" {
			note += "; all of it is in " + it.OutputFile
		}
		parts = append(parts, note+"]")
	}
	if note := changesNote(it.Changes); note != "" {
		parts = append(parts, note)
	}
	r.text = strings.Join(parts, "\n")
	return r
}

func (r *result) output(o v1.Output, vision bool) string {
	switch o.Type {
	case "stream":
		text := headTail(plainText(o.Text), streamHead, streamTail)
		if o.Name == "stderr" && strings.TrimSpace(text) != "" {
			return "[stderr]\n" + text
		}
		return text
	case "error":
		return traceback(o)
	case "display_data", "execute_result":
		return r.display(o, vision)
	}
	return ""
}

// display picks of the representations of one value the one that says most
// for least. HTML is never it: it is markup for browsers.
func (r *result) display(o v1.Output, vision bool) string {
	plain := textOf(o.Data["text/plain"])
	if raw, ok := o.Data[tableMIME]; ok {
		if text, ok := tableText(raw, plain); ok {
			return text
		}
	}
	for _, mime := range []string{"image/png", "image/jpeg"} {
		raw, ok := o.Data[mime]
		if !ok {
			if _, cut := o.Refs[mime]; cut {
				return noteImage
			}
			continue
		}
		if vision && r.addImage(mime, raw) {
			return fmt.Sprintf("[image %d, shown to the user and to you]", len(r.images))
		}
		return noteImage
	}
	if o.Data["image/svg+xml"] != nil || o.Refs["image/svg+xml"].Bytes > 0 {
		return noteImage
	}
	if text := textOf(o.Data["text/markdown"]); text != "" {
		return headTail(plainText(text), plainLimit, plainLimit/4)
	}
	kind := richKind(o)
	if plain == "" || kind != "" && strings.HasPrefix(plain, "<") {
		// <IPython.core.display.HTML object> tells less than the note.
		if kind == "" {
			return ""
		}
		return fmt.Sprintf(noteRich, kind)
	}
	return headTail(plainText(plain), plainLimit, plainLimit/4)
}

func richKind(o v1.Output) string {
	kind := ""
	types := slices.AppendSeq(slices.Collect(maps.Keys(o.Data)), maps.Keys(o.Refs)) // large ones are there by name only
	for _, mime := range types {
		switch {
		case strings.Contains(mime, "plotly"), strings.Contains(mime, "vega"):
			return "interactive chart"
		case strings.HasPrefix(mime, "audio/"):
			return "audio"
		case strings.HasPrefix(mime, "video/"):
			return "video"
		case mime == "text/html" || mime == "text/latex" || mime == "application/javascript":
			kind = strings.ToUpper(mime[strings.IndexByte(mime, '/')+1:])
		case mime != "text/plain" && kind == "":
			kind = mime
		}
	}
	return kind
}

func (r *result) addImage(mime string, raw json.RawMessage) bool {
	text := strings.Join(strings.Fields(textOf(raw)), "")
	if len(r.images) >= maxImages || base64.StdEncoding.DecodedLen(len(text)) > maxImageBytes {
		return false
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(data) == 0 {
		return false
	}
	r.images = append(r.images, llm.Image{MediaType: mime, Data: data})
	return true
}

// textOf reads a value of a mime bundle: a string, or lines.
func textOf(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	var lines []string
	_ = json.Unmarshal(raw, &lines) // anything else has no text
	return strings.Join(lines, "")
}

// traceback keeps the frames of the user's own code, and of libraries the one
// that raised.
func traceback(o v1.Output) string {
	head := strings.TrimRight(o.ErrorName+": "+plainText(o.ErrorValue), ": ")
	var kept []string
	hidden := 0
	var last string // the library frame just left out
	flush := func() {
		if hidden > 0 {
			if hidden > 1 {
				kept = append(kept, fmt.Sprintf("[… %d frames of libraries …]", hidden-1))
			}
			kept = append(kept, firstLine(last))
		}
		hidden = 0
	}
	for _, entry := range o.Traceback {
		text := strings.Trim(plainText(entry), "\n")
		if isRule(text) || strings.Contains(text, "Traceback (most recent call last)") {
			continue
		}
		if isLibraryFrame(text) {
			hidden++
			last = text
			continue
		}
		flush()
		kept = append(kept, text)
	}
	flush()
	text := strings.TrimSpace(strings.Join(kept, "\n"))
	if !strings.Contains(text, short(o.ErrorName, 200)) || text == "" {
		text = strings.TrimSpace(text + "\n" + head)
	}
	return headTail(text, traceLimit/2, traceLimit/2)
}

func isRule(s string) bool { return strings.Trim(s, "-") == "" }

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// isLibraryFrame says whether an entry of IPython's traceback is a frame of
// code that is not the user's. Cells are "Cell In[n]"; the user's own modules
// are where files are kept.
func isLibraryFrame(entry string) bool {
	path, ok := strings.CutPrefix(strings.TrimLeft(firstLine(entry), " "), "File ")
	if !ok {
		return false
	}
	for _, own := range []string{"/workspace/", "/uploaded_files/", "/tmp/", "~/", "<ipython-input", "./"} {
		if strings.HasPrefix(path, own) {
			return strings.Contains(path, "/site-packages/") || strings.Contains(path, "/dist-packages/") || strings.Contains(path, "/lib/python3")
		}
	}
	return true
}

// statusNote says how a cell ended, when it did not just end.
func statusNote(it v1.Item) string {
	msg := strings.TrimSpace(it.Message)
	if msg != "" {
		msg = " " + msg
	}
	switch it.Status {
	case "interrupted":
		return "[The user interrupted this cell." + msg + "]"
	case "timeout":
		return fmt.Sprintf("[Stopped after %.0f s: out of time.%s]", it.DurationMS/1000, msg)
	case "killed":
		return strings.TrimRight(fmt.Sprintf("[The kernel was killed (%s).%s Variables are gone; files are kept.", it.Reason, msg), " ") + "]"
	case "aborted":
		return "[This cell did not run." + msg + "]"
	case "stopped":
		return "[Aborted by the user before it ran.]"
	case "cut":
		return "[The server restarted while this ran.]"
	case "queued", "running":
		return "[This cell is still running.]"
	case "error":
		if !hasError(it.Outputs) {
			return "[This cell failed." + msg + "]"
		}
	}
	return ""
}

func hasError(outs []v1.Output) bool {
	return slices.ContainsFunc(outs, func(o v1.Output) bool { return o.Type == "error" })
}

// maxChanges bounds the files that are named: unpacking an archive changes
// thousands.
const maxChanges = 12

func changesNote(changes []v1.FileChange) string {
	if len(changes) == 0 {
		return ""
	}
	var names []string
	for _, c := range changes[:min(len(changes), maxChanges)] {
		s := c.Change + " " + c.Path
		if c.Change != "deleted" {
			s += " (" + sizeText(c.SizeBytes) + ")"
		}
		names = append(names, s)
	}
	if n := len(changes) - len(names); n > 0 {
		names = append(names, fmt.Sprintf("and %d more", n))
	}
	return "[Files: " + strings.Join(names, ", ") + "]"
}
