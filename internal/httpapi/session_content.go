package httpapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/workspace"
)

// sniffed is how many first bytes say what a file is.
const sniffed = 512

// inlineTypes are what the page may show as it is: media whose decoders run
// nothing. SVG, HTML and PDF are not among them.
var inlineTypes = map[string]string{
	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
	".mp3": "audio/mpeg", ".wav": "audio/wav", ".oga": "audio/ogg", ".ogg": "audio/ogg", ".opus": "audio/ogg", ".flac": "audio/flac",
	".m4a": "audio/mp4", ".aac": "audio/aac", ".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".ogv": "video/ogg", ".mov": "video/quicktime",
	".txt": plainText, ".text": plainText, ".log": plainText, ".md": plainText, ".csv": plainText, ".tsv": plainText, ".json": plainText, ".jsonl": plainText,
	".ndjson": plainText, ".ipynb": plainText, ".py": plainText, ".r": plainText, ".sql": plainText, ".toml": plainText, ".yaml": plainText, ".yml": plainText,
	".ini": plainText, ".cfg": plainText, ".tex": plainText, ".rst": plainText, ".sh": plainText,
}

const plainText = "text/plain; charset=utf-8"

// inlineType gives the type a file may be shown as, "" if it may not: its name
// and its first bytes have to agree.
func inlineType(name string, head []byte) string {
	media := inlineTypes[strings.ToLower(path.Ext(name))]
	found := http.DetectContentType(head)
	switch {
	case media == "":
		return ""
	case media == plainText:
		if bytes.IndexByte(head, 0) >= 0 || !validStart(head) {
			return ""
		}
	case strings.HasPrefix(media, "image/"):
		if found != media {
			return ""
		}
	case strings.HasPrefix(found, "text/"): // sound and film are not told apart that well, but this they are not
		return ""
	}
	return media
}

// validStart reports whether bytes are UTF-8, the last character of which may
// be cut.
func validStart(head []byte) bool {
	for range utf8.UTFMax {
		if utf8.Valid(head) {
			return true
		}
		if len(head) < sniffed-utf8.UTFMax {
			return false
		}
		head = head[:len(head)-1]
	}
	return false
}

// setForeign says how a browser has to take bytes that come from a sandbox.
func setForeign(h http.Header, disposition, media string) {
	h.Set("Content-Type", media)
	h.Set("Content-Disposition", disposition)
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "private, no-cache")
}

// shown gives the disposition and type of a file.
func shown(name, media string) (disposition, contentType string) {
	if media == "" {
		return attachment(name), "application/octet-stream"
	}
	return "inline" + strings.TrimPrefix(attachment(name), "attachment"), media
}

// keepSoon has the files of a sandbox kept, in the background, if it is a
// session's.
func (a *API) keepSoon(ctx context.Context, sb *fleet.Sandbox) {
	id := sb.View().Session
	if a.opts.Sessions == nil || id == "" {
		return
	}
	if s, err := a.opts.Sessions.Get(ctx, id); err == nil {
		s.SyncFiles()
	}
}

func isForm(r *http.Request) bool {
	media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return media == "multipart/form-data"
}

func errForm() error {
	return errdefs.New(errdefs.ErrInvalid, "media-type-unknown", "The body must be the file's bytes, not a form.").
		WithHint("With curl use -T FILE or --data-binary @FILE.")
}

func (a *API) readSessionFile(ctx context.Context, in *sessionContentInput) (*huma.StreamResponse, error) {
	_, sb, err := a.sessionFiles(ctx, in.SessionID)
	if err != nil {
		return nil, err
	}
	if sb != nil {
		out, err := a.readLiveFile(ctx, in, sb)
		if err = sb.Explain(err); !gone(err) {
			return out, err
		}
	}
	kept, err := a.opts.Files.Open(ctx, in.SessionID, in.Path)
	if err != nil {
		return nil, err
	}
	media := ""
	if in.Inline {
		head := make([]byte, sniffed)
		n, err := kept.ReadAt(head, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			_ = kept.Close() // read only
			return nil, err
		}
		media = inlineType(kept.Name, head[:n])
	}
	return stream(func() {
		defer kept.Close()
		serveKept(in, kept, media)
	}), nil
}

// serveKept answers with kept bytes, or the part of them that was asked for.
func serveKept(in *sessionContentInput, kept *workspace.Kept, media string) {
	disposition, media := shown(kept.Name, media)
	setForeign(in.w.Header(), disposition, media)
	in.w.Header().Set("Etag", kept.ETag)
	http.ServeContent(&rangeProblem{ResponseWriter: in.w, r: in.r}, in.r, "", kept.ModifiedAt, kept)
}

// rangeProblem turns ServeContent's plain 416 into a problem.
type rangeProblem struct {
	http.ResponseWriter
	r       *http.Request
	refused bool
}

func (w *rangeProblem) WriteHeader(status int) {
	if status != http.StatusRequestedRangeNotSatisfiable {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.refused = true
	w.Header().Del("Content-Disposition")
	writeProblem(w.ResponseWriter, w.r, errdefs.New(errdefs.ErrInvalid, "invalid-range", "The file does not have the bytes that were asked for.").WithHint("Ask for its size by HEAD first; the file may have changed."))
}

func (w *rangeProblem) Write(p []byte) (int, error) {
	if w.refused {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

func (w *rangeProblem) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// readLiveFile answers with the bytes of a file in a sandbox.
func (a *API) readLiveFile(ctx context.Context, in *sessionContentInput, sb *fleet.Sandbox) (*huma.StreamResponse, error) {
	name := path.Base(path.Clean("/" + in.Path))
	media := ""
	if in.Inline && inlineTypes[strings.ToLower(path.Ext(name))] != "" {
		head, err := readHead(ctx, sb, in.Path)
		if err != nil {
			return nil, err
		}
		media = inlineType(name, head)
	}
	done := sb.Use()
	byteRange := in.r.Header.Get("Range")
	c, err := sb.Agent().Download(ctx, in.Path, byteRange)
	if err == nil && byteRange != "" && !rangeValid(in.r.Header.Get("If-Range"), c.Header) {
		_ = c.Body.Close() // read only
		c, err = sb.Agent().Download(ctx, in.Path, "")
	}
	if err != nil {
		done()
		return nil, err
	}
	return stream(func() {
		defer done()
		disposition, media := shown(name, media)
		a.sendContentAs(in.w, in.r, c, disposition, media)
	}), nil
}

// readHead reads the first bytes of a file in a sandbox.
func readHead(ctx context.Context, sb *fleet.Sandbox, name string) ([]byte, error) {
	c, err := sb.Agent().Download(ctx, name, "bytes=0-511")
	if e, ok := errors.AsType[*errdefs.Error](err); ok && e.Code == "invalid-range" {
		return nil, nil // it is empty
	}
	if err != nil {
		return nil, err
	}
	defer c.Body.Close()
	return io.ReadAll(io.LimitReader(c.Body, sniffed))
}
