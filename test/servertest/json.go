package servertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// Open sends a request with the token, for routes that the client does not
// know. The caller closes the body.
func (s *Server) Open(ctx context.Context, method, path string, body io.Reader, headers ...[2]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.URL()+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.Token)
	for _, h := range headers {
		req.Header.Set(h[0], h[1])
	}
	return http.DefaultClient.Do(req)
}

// JSON sends in, unless nil, and reads the answer into out, unless nil. A
// failure that the server explains is a *v1.Problem.
func (s *Server) JSON(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	resp, err := s.Open(ctx, method, path, body, [2]string{"Content-Type", v1.MediaJSON})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		var p v1.Problem
		if err := json.Unmarshal(text, &p); err != nil {
			return errors.Join(fmt.Errorf("%s %s: %s: %.300s", method, path, resp.Status, text), err)
		}
		return &p
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}
