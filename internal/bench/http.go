package bench

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

// call makes a call that internal/client has no method for.
func (c *Caesarion) call(ctx context.Context, method, path string, in, out any) error {
	return callJSON(ctx, c.HTTP, method, c.Client.URL()+path, "Bearer "+c.Token, in, out)
}

// callJSON calls a JSON API, ours or a peer's. An answer other than 2xx is an
// error: a *v1.Problem where it is one.
func callJSON(ctx context.Context, client *http.Client, method, url, authorization string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", v1.MediaJSON)
	}
	req.Header.Set("Authorization", authorization)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		p := &v1.Problem{}
		if json.Unmarshal(b, p) == nil && p.Code != "" {
			p.Status = resp.StatusCode
			return p
		}
		return fmt.Errorf("%s %s: %s: %.200s", method, url, resp.Status, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// unsupported gives why a server can't do a thing at all, "" when err has
// another cause.
func unsupported(err error) string {
	p, ok := errors.AsType[*v1.Problem](err)
	switch {
	case !ok:
		return ""
	case p.Status == http.StatusNotImplemented:
		return p.Detail
	case (p.Status == http.StatusNotFound || p.Status == http.StatusMethodNotAllowed) && p.Code != "sandbox-not-found":
		return "this server has no such call"
	default:
		return ""
	}
}
