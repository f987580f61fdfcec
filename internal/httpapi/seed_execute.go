package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
)

func (a *API) seedExecute(w http.ResponseWriter, r *http.Request) {
	code, raw, ok := seedField(w, r, "code", maxExecBody)
	if !ok {
		return
	}
	if strings.TrimSpace(code) == "" {
		writeSeed(w, http.StatusBadRequest, detail{"Code cannot be empty."})
		return
	}
	s, err := a.seedSandbox(r.Context(), r.PathValue("sandbox_id"))
	if err == nil {
		err = checkCode(code, mended(code, raw))
	}
	if err != nil {
		writeDetail(w, r, err)
		return
	}
	e, _, err := s.Execute(r.Context(), fleet.ExecuteRequest{Code: code})
	if err != nil {
		writeDetail(w, r, s.Explain(err))
		return
	}
	note(r.Context(), slog.String("execution_id", e.ID))
	w.Header().Set("Content-Type", v1.MediaNDJSON)
	w.Header().Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	a.streamSeed(w, r, e)
}

// streamSeed writes the original's records. As there, the stream ends with the
// execution or right after its first error.
func (a *API) streamSeed(w http.ResponseWriter, r *http.Request, e *fleet.Execution) {
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(a.draining, func() { cancel(errDraining) })()
	out := &streamWriter{w: w, rc: http.NewResponseController(w), buf: make([]byte, 0, 4<<10)}
	src := e.Reader(0, false)
	for {
		batch, err := src.Next(ctx)
		var gap *event.GapError
		switch {
		case errors.As(err, &gap):
			src.Skip(gap.Oldest)
			continue
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			// The original's records have no way to say "to be continued".
			panic(http.ErrAbortHandler)
		}
		end := false
		for _, rec := range batch {
			if out.buf, end = appendSeed(out.buf, rec); end {
				break
			}
			if len(out.buf) >= streamBuffer && out.write() != nil {
				return
			}
		}
		if out.flush() != nil || end {
			return
		}
	}
}

// appendSeed adds the record of one event, if it has one, and reports whether
// it is the last.
func appendSeed(buf []byte, rec event.Record) ([]byte, bool) {
	var ev event.Event
	_ = json.Unmarshal(rec.Line, &ev) // checked when it came, as is its data
	switch rec.Type {
	case event.OutputStream:
		var d event.Stream
		_ = json.Unmarshal(ev.Data, &d)
		return appendSeedStream(buf, d.Name, d.Text), false
	case event.OutputTruncated:
		var d event.Truncated
		_ = json.Unmarshal(ev.Data, &d)
		text := fmt.Sprintf("[output beyond %d bytes is left out]\n", d.LimitBytes)
		if d.File != "" {
			text = fmt.Sprintf("[output beyond %d bytes is left out; all of it is in %s]\n", d.LimitBytes, d.File)
		}
		return appendSeedStream(buf, "stderr", text), false
	case event.OutputDisplay, event.OutputResult:
		var d event.Display
		_ = json.Unmarshal(ev.Data, &d)
		if rec.Type == event.OutputResult {
			buf = append(buf, `{"output_type": "execute_result", "execution_count": `...)
			if d.ExecutionCount != nil {
				buf = fmt.Appendf(buf, "%d", *d.ExecutionCount)
			} else {
				buf = append(buf, "null"...)
			}
		} else {
			buf = append(buf, `{"output_type": "display_data"`...)
		}
		buf = appendPython(append(buf, `, "data": `...), d.Data)
		if len(d.Metadata) == 0 {
			d.Metadata = json.RawMessage("{}")
		}
		buf = appendPython(append(buf, `, "metadata": `...), d.Metadata)
		return append(buf, "}\n"...), false
	case event.OutputError:
		var d event.Error
		_ = json.Unmarshal(ev.Data, &d)
		return appendSeedError(buf, d), true
	case event.ExecutionFinished:
		var d event.Finished
		_ = json.Unmarshal(ev.Data, &d)
		if d.Status == event.StatusOK || d.Status == event.StatusError {
			return buf, true
		}
		// The original's stream just ended when the kernel died. That the code
		// was stopped, and why, is worth one record more.
		name := "ExecutionError"
		if d.Status == event.StatusTimeout {
			name = "TimeoutError"
		}
		msg := d.Message
		if msg == "" {
			msg = strings.TrimSpace(fmt.Sprintf("The execution was stopped: %s %s", d.Status, d.Reason))
			if d.Status == event.StatusTimeout {
				msg = fmt.Sprintf("Execution timed out after %s", time.Duration(d.DurationMS)*time.Millisecond)
			}
		}
		return appendSeedError(buf, event.Error{Name: name, Value: msg, Traceback: []string{name + ": " + msg}}), true
	}
	return buf, false
}

func appendSeedStream(buf []byte, name, text string) []byte {
	buf = appendPythonString(append(buf, `{"output_type": "stream", "name": `...), name)
	buf = appendPythonString(append(buf, `, "text": `...), text)
	return append(buf, "}\n"...)
}

func appendSeedError(buf []byte, d event.Error) []byte {
	buf = appendPythonString(append(buf, `{"output_type": "error", "ename": `...), d.Name)
	buf = appendPythonString(append(buf, `, "evalue": `...), d.Value)
	buf = append(buf, `, "traceback": [`...)
	for i, line := range d.Traceback {
		if i > 0 {
			buf = append(buf, ", "...)
		}
		buf = appendPythonString(buf, line)
	}
	return append(buf, "]}\n"...)
}

// appendPython writes valid JSON as Python's json.dumps would write the value:
// ", " and ": " between things, everything beyond ASCII escaped.
func appendPython(buf []byte, raw json.RawMessage) []byte {
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; c {
		case ' ', '\t', '\r', '\n':
		case ',', ':':
			buf = append(buf, c, ' ')
		case '"':
			end := i + 1
			for end < len(raw) && raw[end] != '"' {
				if raw[end] == '\\' {
					end++
				}
				end++
			}
			end = min(end+1, len(raw))
			var s string
			_ = json.Unmarshal(raw[i:end], &s) // a string of valid JSON
			buf = appendPythonString(buf, s)
			i = end - 1
		default:
			buf = append(buf, c)
		}
	}
	return buf
}

const hexDigits = "0123456789abcdef"

func appendPythonString(buf []byte, s string) []byte {
	buf = append(buf, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c <= '~' && c != '"' && c != '\\' {
			i++
			continue
		}
		buf = append(buf, s[start:i]...)
		size := 1
		switch c {
		case '"', '\\':
			buf = append(buf, '\\', c)
		case '\n':
			buf = append(buf, `\n`...)
		case '\r':
			buf = append(buf, `\r`...)
		case '\t':
			buf = append(buf, `\t`...)
		case '\b':
			buf = append(buf, `\b`...)
		case '\f':
			buf = append(buf, `\f`...)
		default:
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			if r > 0xffff {
				r -= 0x10000
				buf = appendU(buf, 0xd800+r>>10)
				r = 0xdc00 + r&0x3ff
			}
			buf = appendU(buf, r)
		}
		i += size
		start = i
	}
	buf = append(buf, s[start:]...)
	return append(buf, '"')
}

func appendU(buf []byte, r rune) []byte {
	return append(buf, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
