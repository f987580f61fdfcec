package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	v1 "github.com/caesarion/caesarion/api/v1"
)

func pathQuery(path string) url.Values { return url.Values{"path": {path}} }

// Stat gives a file, or a folder with its entries.
func (c *Client) Stat(ctx context.Context, sandbox, path string) (v1.File, error) {
	var f v1.File
	return f, c.call(ctx, http.MethodGet, segments("sandboxes", sandbox, "files"), pathQuery(path), nil, &f)
}

// Upload writes a file, all of it or nothing. size is -1 when it is not known.
func (c *Client) Upload(ctx context.Context, sandbox, path string, content io.Reader, size int64) (v1.File, error) {
	var f v1.File
	// The wrapper keeps net/http from closing what belongs to the caller.
	req, err := c.request(ctx, http.MethodPut, segments("sandboxes", sandbox, "files", "content"), pathQuery(path), io.NopCloser(content))
	if err != nil {
		return f, err
	}
	req.ContentLength = size
	if size == 0 {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Accept", v1.MediaJSON)
	resp, err := c.do(req)
	if err != nil {
		return f, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswerBytes)).Decode(&f); err != nil {
		return f, fmt.Errorf("client: answer of upload: %w", err)
	}
	return f, nil
}

// Download opens a file for reading and gives its size, -1 when the server
// does not say. The caller closes it.
func (c *Client) Download(ctx context.Context, sandbox, path string) (io.ReadCloser, int64, error) {
	return c.open(ctx, segments("sandboxes", sandbox, "files", "content"), path)
}

// Archive opens a folder, packed as zip while it is read. The caller closes it.
func (c *Client) Archive(ctx context.Context, sandbox, path string) (io.ReadCloser, error) {
	body, _, err := c.open(ctx, segments("sandboxes", sandbox, "files", "archive"), path)
	return body, err
}

func (c *Client) open(ctx context.Context, endpoint, path string) (io.ReadCloser, int64, error) {
	req, err := c.request(ctx, http.MethodGet, endpoint, pathQuery(path), nil)
	if err != nil {
		return nil, 0, err
	}
	// Files come as they are; without this net/http would ask for gzip and
	// lose the length.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := c.do(req)
	if err != nil {
		return nil, 0, err
	}
	return resp.Body, resp.ContentLength, nil
}

// MakeFolder makes a folder and its parents.
func (c *Client) MakeFolder(ctx context.Context, sandbox, path string) (v1.File, error) {
	var f v1.File
	return f, c.call(ctx, http.MethodPost, segments("sandboxes", sandbox, "files", "mkdir"), nil, v1.MakeFolder{Path: path}, &f)
}

// Remove deletes a file, or a folder with all it holds.
func (c *Client) Remove(ctx context.Context, sandbox, path string) error {
	return c.call(ctx, http.MethodDelete, segments("sandboxes", sandbox, "files"), pathQuery(path), nil, nil)
}
