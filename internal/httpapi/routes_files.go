package httpapi

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// FilePath is the part of an input that names a file.
type FilePath struct {
	SandboxPath
	Path string `query:"path" required:"true" maxLength:"16384" doc:"Absolute, or relative to /workspace; URL-encoded UTF-8" example:"/workspace/data.csv"`
}

type contentInput struct {
	FilePath
	Raw
}

func viewFile(f agentapi.File) v1.File {
	out := v1.File{
		Name: f.Name, Path: f.Path, Escaped: f.Escaped, Type: string(f.Type), SizeBytes: f.SizeBytes, Mode: f.Mode,
		ModifiedAt: f.ModifiedAt, Target: f.Target, Truncated: f.Truncated,
	}
	if f.Entries != nil {
		out.Entries = make([]v1.File, len(f.Entries))
		for i, e := range f.Entries {
			out.Entries[i] = viewFile(e)
		}
	}
	return out
}

func (a *API) fileRoutes() {
	tags := []string{tagFiles}
	const base = "/v1/sandboxes/{sandbox_id}/files"
	register(a, huma.Operation{
		OperationID: "stat-file", Method: http.MethodGet, Path: base, Tags: tags,
		Summary: "Describe a file, or list a folder", Description: "Failures, here and wherever a path is named: 400 `invalid-path`, `name-too-long`, `path-too-long`, `not-a-directory`; 403 `path-escapes` (outside the folders that can be reached, by `..` or a link), `permission-denied`; 404 `file-not-found`.",
	}, func(ctx context.Context, in *FilePath) (*answer[v1.File], error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		defer s.Use()()
		f, err := s.Agent().Stat(ctx, in.Path)
		return &answer[v1.File]{viewFile(f)}, s.Explain(err)
	})
	register(a, huma.Operation{
		OperationID: "delete-file", Method: http.MethodDelete, Path: base, Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Delete a file, or a folder with all it holds",
	}, func(ctx context.Context, in *FilePath) (*struct{}, error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		defer s.Use()()
		return nil, s.Explain(s.Agent().Remove(ctx, in.Path))
	})
	register(a, huma.Operation{
		OperationID: "make-folder", Method: http.MethodPost, Path: base + "/mkdir", Tags: tags,
		Summary: "Make a folder and its parents", Description: "One that exists is a success.",
	}, func(ctx context.Context, in *struct {
		SandboxPath
		Body v1.MakeFolder
	},
	) (*answer[v1.File], error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		defer s.Use()()
		f, err := s.Agent().Mkdir(ctx, in.Body.Path)
		return &answer[v1.File]{viewFile(f)}, s.Explain(err)
	})
	register(a, huma.Operation{
		OperationID: "move-file", Method: http.MethodPost, Path: base + "/move", Tags: tags,
		Summary: "Rename a file or folder, also across folders", Description: "Failures: 404 `file-not-found`; 409 `file-exists`.",
	}, func(ctx context.Context, in *struct {
		SandboxPath
		Body v1.MoveFile
	},
	) (*answer[v1.File], error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		defer s.Use()()
		f, err := s.Agent().Move(ctx, agentapi.MoveRequest(in.Body))
		return &answer[v1.File]{viewFile(f)}, s.Explain(err)
	})
	a.contentRoutes(base, tags)
}

func (a *API) contentRoutes(base string, tags []string) {
	register(a, huma.Operation{
		OperationID: "read-file", Method: http.MethodGet, Path: base + "/content", Tags: tags,
		Summary: "Download a file", Description: "Any size; Range, If-Range and If-None-Match are honoured. The bytes come as application/octet-stream and as an attachment: nothing of a sandbox is ever shown as a page of this server.",
		Responses: bytesResponses("The bytes", "application/octet-stream"),
	}, a.readFile)
	register(a, huma.Operation{
		OperationID: "head-file", Method: http.MethodHead, Path: base + "/content", Tags: tags,
		Summary: "Size and date of a file", Responses: map[string]*huma.Response{"200": {Description: "As GET, without the bytes"}},
	}, a.readFile)
	register(a, huma.Operation{
		OperationID: "write-file", Method: http.MethodPut, Path: base + "/content", Tags: tags,
		Summary: "Upload a file", Description: "The body is the bytes, of any size and type. All of it is written or nothing: an upload that is cut half-way leaves the file as it was. Folders on the way are made. Failures: 400 `upload-incomplete`, `is-a-directory`; 507 `disk-full`.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}},
	}, a.writeFile)
	register(a, huma.Operation{
		OperationID: "archive-folder", Method: http.MethodGet, Path: base + "/archive", Tags: tags,
		Summary: "Download a folder as zip", Description: "Made while it is read, so its size is not known before. A connection that ends without the last chunk means that the archive is not whole.",
		Responses: bytesResponses("The archive", "application/zip"),
	}, func(ctx context.Context, in *contentInput) (*huma.StreamResponse, error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		done := s.Use()
		c, err := s.Agent().Archive(ctx, in.Path)
		if err != nil {
			done()
			return nil, s.Explain(err)
		}
		return stream(func() {
			defer done()
			name := path.Base(path.Clean("/" + in.Path))
			if name == "/" {
				name = "files"
			}
			a.sendContent(in.w, in.r, c, name+".zip", "application/zip")
		}), nil
	})
}

func (a *API) readFile(ctx context.Context, in *contentInput) (*huma.StreamResponse, error) {
	s, err := a.sandbox(ctx, in.SandboxID)
	if err != nil {
		return nil, err
	}
	done := s.Use()
	byteRange := in.r.Header.Get("Range")
	c, err := s.Agent().Download(ctx, in.Path, byteRange)
	if err == nil && byteRange != "" && !rangeValid(in.r.Header.Get("If-Range"), c.Header) {
		_ = c.Body.Close() // read only
		c, err = s.Agent().Download(ctx, in.Path, "")
	}
	if err != nil {
		done()
		return nil, s.Explain(err)
	}
	return stream(func() {
		defer done()
		a.sendContent(in.w, in.r, c, path.Base(path.Clean("/"+in.Path)), "application/octet-stream")
	}), nil
}

// rangeValid tells whether a partial answer fits the version the client has.
func rangeValid(ifRange string, have http.Header) bool {
	return ifRange == "" || ifRange == have.Get("Etag") || ifRange == have.Get("Last-Modified")
}

// Blocks are large since each costs a system call on both sides; pooled, the
// memory is that of the transfers at one time.
const copyBlock = 256 << 10

var copyBlocks = sync.Pool{New: func() any { b := make([]byte, copyBlock); return &b }}

// onlyReader and onlyWriter keep io.CopyBuffer from the shortcuts of net/http,
// whose blocks are smaller.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

func (a *API) sendContent(w http.ResponseWriter, r *http.Request, c *agentapi.Content, name, mediaType string) {
	a.sendContentAs(w, r, c, attachment(name), mediaType)
}

func (a *API) sendContentAs(w http.ResponseWriter, r *http.Request, c *agentapi.Content, disposition, mediaType string) {
	defer func() { _ = c.Body.Close() }() // read only
	h := w.Header()
	maps.Copy(h, c.Header)
	if etag := h.Get("Etag"); etag != "" && c.Status == http.StatusOK && r.Header.Get("If-None-Match") == etag {
		h.Del("Content-Length")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	setForeign(h, disposition, mediaType)
	if c.Size >= 0 {
		h.Set("Content-Length", strconv.FormatInt(c.Size, 10))
	}
	w.WriteHeader(c.Status)
	if r.Method == http.MethodHead {
		return
	}
	block := copyBlocks.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer copyBlocks.Put(block)
	if _, err := io.CopyBuffer(onlyWriter{w}, onlyReader{c.Body}, *block); err != nil {
		// The answer must not look whole. Cutting the connection is all that is
		// left to say so.
		panic(http.ErrAbortHandler)
	}
}

func (a *API) writeFile(ctx context.Context, in *contentInput) (*answer[v1.File], error) {
	s, err := a.sandbox(ctx, in.SandboxID)
	if err != nil {
		return nil, err
	}
	defer s.Use()()
	if isForm(in.r) {
		return nil, errForm()
	}
	body := &bodyReader{r: in.r.Body}
	f, err := s.Agent().Upload(ctx, in.Path, body, in.r.ContentLength)
	if err != nil {
		return nil, s.Explain(body.explain(err))
	}
	return &answer[v1.File]{viewFile(f)}, nil
}

// bodyReader remembers why an upload's body could not be read: that and a
// sandbox that failed both end the call to the agent with an error.
type bodyReader struct {
	r   io.Reader
	mu  sync.Mutex // the transport may still read when the call has returned
	err error      // guarded by mu
}

func (b *bodyReader) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.mu.Lock()
		b.err = err
		b.mu.Unlock()
	}
	return n, err
}

func (b *bodyReader) explain(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		return err
	}
	if refused := tooLarge(b.err, nil); refused != nil {
		return refused
	}
	return errdefs.New(errdefs.ErrInvalid, "upload-incomplete", "The upload ended before all of it had arrived; nothing was written.").WithHint("Send it again.").WithCause(b.err)
}

// attachment makes a Content-Disposition for any name: the quoted form has
// only characters that can't end it, the other form has the exact name
// (RFC 6266, RFC 8187).
func attachment(name string) string {
	var plain, exact strings.Builder
	for _, r := range name {
		if r < 0x20 || r == 0x7f || r == '"' || r == '\\' || r == '%' || r > 0x7e {
			plain.WriteByte('_')
		} else {
			plain.WriteRune(r)
		}
	}
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$&+-.^_`|~", c) >= 0 {
			exact.WriteByte(c)
		} else {
			exact.WriteByte('%')
			exact.WriteByte("0123456789ABCDEF"[c>>4])
			exact.WriteByte("0123456789ABCDEF"[c&15])
		}
	}
	return `attachment; filename="` + plain.String() + `"; filename*=UTF-8''` + exact.String()
}
