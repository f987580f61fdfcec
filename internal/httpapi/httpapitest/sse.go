package httpapitest

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strconv"
	"testing"
)

// sseStream is a stream of server-sent events on the client's side.
type sseStream struct {
	status   int
	header   http.Header
	body     io.ReadCloser
	r        *bufio.Reader
	comments int
}

func (s *Server) sse(t testing.TB, method, path string, body io.Reader, headers ...header) *sseStream {
	t.Helper()
	resp := s.open(t, method, path, body, append(headers, header{"Accept", "text/event-stream"})...) //nolint:bodyclose // by close
	return &sseStream{status: resp.StatusCode, header: resp.Header, body: resp.Body, r: bufio.NewReader(resp.Body)}
}

func (s *sseStream) close() { _ = s.body.Close() }

// all reads to the end.
func (s *sseStream) all(t testing.TB) []sse {
	t.Helper()
	var list []sse
	for {
		e, err := nextSSE(s.r, &s.comments)
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatalf("after %d events: %v", len(list), err)
		}
		list = append(list, e)
	}
}

func number(n int) string { return strconv.Itoa(n) }
