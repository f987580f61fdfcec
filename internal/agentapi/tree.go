package agentapi

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// MaxTree bounds a recursive listing; what is beyond is left out, and said to be.
const MaxTree = 50_000

// maxTreeBody bounds a recursive listing on the wire; maxTableBody one page of
// a table: 1000 rows of 100 columns of 300 characters would not fit, and the
// agent gives fewer rows then.
const (
	maxTreeBody  = 32 << 20
	maxTableBody = 16 << 20
)

// TreeRequest asks for all that is below some folders.
type TreeRequest struct {
	Paths []string // one that does not exist gives no entries
	Skip  []string // names that are left out with all that is below them
	Limit int      // entries; default and most MaxTree
}

// Tree is all that is below some folders, each folder before what is in it.
type Tree struct {
	Entries   []TreeEntry `json:"entries"`
	Truncated bool        `json:"truncated,omitempty"`
}

// TreeEntry is a file as a recursive listing has it. Links are not followed.
type TreeEntry struct {
	Path          string   `json:"path"`                   // absolute; bytes that are no UTF-8 appear as U+FFFD
	Escaped       string   `json:"escaped_path,omitempty"` // the path percent-encoded, if it is not UTF-8
	Type          FileType `json:"type"`
	SizeBytes     int64    `json:"size_bytes,omitempty"` // of files
	Mode          uint32   `json:"mode"`                 // permission bits
	ModifiedNanos int64    `json:"modified_ns"`          // since 1970
	Target        string   `json:"target,omitempty"`     // of a symlink
}

// PackRequest asks for the bytes of many files at once.
type PackRequest struct {
	Paths []string `json:"paths"` // percent-encoded
}

// UnpackFailure is a file that could not be written.
type UnpackFailure struct {
	Path   string `json:"path"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

// Unpacked is what became of an archive that was unpacked. More failures than
// are listed are counted.
type Unpacked struct {
	Entries  int             `json:"entries"`
	Failed   int             `json:"failed,omitempty"`
	Failures []UnpackFailure `json:"failures,omitempty"`
}

// TableRequest asks for a page of a file that has rows and columns: CSV, TSV,
// JSON lines, Parquet, XLSX.
type TableRequest struct {
	Path       string `json:"path"`
	Sheet      string `json:"sheet,omitempty"`
	Offset     int64  `json:"offset"`
	Limit      int64  `json:"limit"`
	Sort       string `json:"sort,omitempty"` // name of a column
	Descending bool   `json:"descending,omitempty"`
}

// Tree lists folders with all they hold.
func (c *Client) Tree(ctx context.Context, req TreeRequest) (Tree, error) {
	q := url.Values{"path": req.Paths, "skip": req.Skip}
	if req.Limit > 0 {
		q.Set("limit", strconv.Itoa(req.Limit))
	}
	return call[Tree](ctx, c, http.MethodGet, "/files/tree?"+q.Encode(), nil, maxTreeBody, callTimeout)
}

// Pack opens the bytes of many files as one tar archive. The name of an entry
// is the number of its path in the request; files that are gone or can't be
// read are left out. A body that ends in an error is not whole.
func (c *Client) Pack(ctx context.Context, req PackRequest) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(callTimeout, func() { cancel(errTimeout) })
	resp, err := c.send(ctx, http.MethodPost, "/files/pack", req)
	if !timer.Stop() && err == nil {
		_ = resp.Body.Close()
		err = errTimeout
	}
	if err != nil {
		cancel(nil)
		return nil, err
	}
	return &contentBody{ReadCloser: resp.Body, cancel: cancel}, nil
}

// Unpack writes the folders, files and links of a tar archive whose names are
// absolute paths, with their modes and times. What is there is replaced. A
// file that can't be written is told of and does not stop the others; an
// archive that ends in the middle leaves whole files only.
func (c *Client) Unpack(ctx context.Context, archive io.Reader) (Unpacked, error) {
	req, err := c.request(ctx, http.MethodPut, "/files/unpack", archive)
	if err != nil {
		return Unpacked{}, err
	}
	req.ContentLength = -1
	resp, err := c.roundTrip(req)
	if err != nil {
		return Unpacked{}, err
	}
	return decode[Unpacked](ctx, resp, maxSmallBody)
}

// Table gives a page of a file with rows and columns, as the kernel program
// writes it: JSON that is foreign.
func (c *Client) Table(ctx context.Context, req TableRequest) (json.RawMessage, error) {
	return call[json.RawMessage](ctx, c, http.MethodPost, "/files/table", req, maxTableBody, 2*callTimeout)
}

// RawPath gives the path with the bytes it has on disk.
func (e TreeEntry) RawPath() string {
	if e.Escaped == "" {
		return e.Path
	}
	if raw, err := url.PathUnescape(e.Escaped); err == nil {
		return raw
	}
	return e.Path
}
