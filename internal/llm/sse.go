package llm

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Bounds of what a server may send. A server that calls a tool sends its
// arguments in one piece, so a line may be long.
const (
	maxLine   = 8 << 20
	maxAnswer = 64 << 20 // of one answer, with all its frames
)

var errTooLong = errors.New("more than this program accepts")

// sseReader reads the data of server-sent events, tolerantly: events may come
// without the blank line between them, and the end of the body ends the last
// event. Lines end with \n or \r\n; nobody sends a lone \r.
//
// Source: HTML standard §9.2.6.
type sseReader struct {
	r    *bufio.Reader
	left int // bytes that may still come
}

func newSSEReader(r io.Reader) *sseReader {
	return &sseReader{r: bufio.NewReaderSize(r, 32<<10), left: maxAnswer}
}

// next gives the data of the next event that has any, or io.EOF.
func (s *sseReader) next() ([]byte, error) {
	var data []byte
	have := false
	for {
		// Servers that leave out the blank line would glue two documents
		// together: one that is whole is an event by itself.
		if have && s.dataFollows() && json.Valid(data) {
			return data, nil
		}
		line, err := s.line()
		if err != nil {
			if errors.Is(err, io.EOF) && have {
				return data, nil
			}
			return nil, err
		}
		if len(line) == 0 {
			if have {
				return data, nil
			}
			continue
		}
		value, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok { // a comment, another field, or none of our business
			continue
		}
		value = bytes.TrimPrefix(value, []byte(" "))
		if have {
			data = append(data, '\n')
		}
		data, have = append(data, value...), true
		if len(data) > maxLine {
			return nil, fmt.Errorf("an event of the stream: %w", errTooLong)
		}
	}
}

// dataFollows tells whether more data is there already; it does not wait.
func (s *sseReader) dataFollows() bool {
	if s.r.Buffered() < len("data:") {
		return false
	}
	head, err := s.r.Peek(len("data:"))
	return err == nil && string(head) == "data:"
}

// line reads one line without its end.
func (s *sseReader) line() ([]byte, error) {
	var line []byte
	for {
		piece, err := s.r.ReadSlice('\n')
		s.left -= len(piece)
		line = append(line, piece...)
		switch {
		case len(line) > maxLine || s.left < 0:
			return nil, fmt.Errorf("a line of the stream: %w", errTooLong)
		case err == nil:
			return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, nil
		default:
			return nil, err
		}
	}
}
