package agentapi

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"
)

// Content is the bytes of a file or an archive on their way out of a sandbox.
type Content struct {
	Status int         // 200, 206 or 304
	Header http.Header // only what whitelisted names: the rest an agent says is dropped
	Size   int64       // of Body, -1 if unknown
	Body   io.ReadCloser
}

// The content type is not among them: what a sandbox says of its bytes must
// not decide how a browser treats them.
var whitelisted = []string{"Accept-Ranges", "Content-Range", "Content-Length", "Last-Modified", "Etag"}

func filesPath(endpoint, path string) string {
	return endpoint + "?path=" + url.QueryEscape(path)
}

// Stat describes a file, or a folder with its entries.
func (c *Client) Stat(ctx context.Context, path string) (File, error) {
	return call[File](ctx, c, http.MethodGet, filesPath("/files", path), nil, maxListBody, callTimeout)
}

// Mkdir makes a folder and those above it. One that exists is a success.
func (c *Client) Mkdir(ctx context.Context, path string) (File, error) {
	return call[File](ctx, c, http.MethodPost, "/files/mkdir", PathRequest{Path: path}, maxListBody, callTimeout)
}

// Move renames a file or folder.
func (c *Client) Move(ctx context.Context, move MoveRequest) (File, error) {
	return call[File](ctx, c, http.MethodPost, "/files/move", move, maxListBody, fileTimeout)
}

// Remove deletes a file, or a folder with all it holds.
func (c *Client) Remove(ctx context.Context, path string) error {
	return c.do(ctx, http.MethodDelete, filesPath("/files", path), nil, fileTimeout)
}

// Upload writes a file: all of it or, if anything goes wrong, nothing. Size is
// -1 if it is not known; a known size that body does not have is an error.
func (c *Client) Upload(ctx context.Context, path string, body io.Reader, size int64) (File, error) {
	req, err := c.request(ctx, http.MethodPut, filesPath("/files/content", path), body)
	if err != nil {
		return File{}, err
	}
	req.ContentLength = size
	if size == 0 {
		req.Body = http.NoBody // else net/http would read from body to guess
	}
	resp, err := c.roundTrip(req)
	if err != nil {
		return File{}, err
	}
	return decode[File](ctx, resp, maxSmallBody)
}

// Download opens a file's bytes. Range is an HTTP Range header, or empty.
func (c *Client) Download(ctx context.Context, path, byteRange string) (*Content, error) {
	return c.content(ctx, filesPath("/files/content", path), byteRange)
}

// Archive opens a folder as a zip archive, made while it is read. A body that
// ends in an error is not a whole archive.
func (c *Client) Archive(ctx context.Context, path string) (*Content, error) {
	return c.content(ctx, filesPath("/files/archive", path), "")
}

func (c *Client) content(ctx context.Context, path, byteRange string) (*Content, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := c.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	if byteRange != "" {
		req.Header.Set("Range", byteRange)
	}
	timer := time.AfterFunc(callTimeout, func() { cancel(errTimeout) })
	resp, err := c.roundTrip(req)
	if !timer.Stop() && err == nil {
		_ = resp.Body.Close()
		err = errTimeout
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	out := &Content{
		Status: resp.StatusCode, Header: make(http.Header, len(whitelisted)), Size: resp.ContentLength,
		Body: &contentBody{ReadCloser: resp.Body, cancel: cancel},
	}
	for _, name := range whitelisted {
		if v := resp.Header.Get(name); v != "" {
			out.Header.Set(name, v)
		}
	}
	return out, nil
}

type contentBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (b *contentBody) Close() error {
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
