package httpapi

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/session"
	"github.com/caesarion/caesarion/internal/workspace"
)

// SessionFilePath is the part of an input that names a file of a session.
type SessionFilePath struct {
	SessionPath
	Path string `query:"path" required:"true" maxLength:"16384" doc:"Absolute, or relative to /workspace; URL-encoded UTF-8" example:"/workspace/data.csv"`
}

type sessionContentInput struct {
	SessionFilePath
	Raw
	Inline bool `query:"inline" doc:"Let the page show it, if it is of a type that can't do harm: PNG, JPEG, GIF, WebP, plain text, audio, video"`
}

type sessionUploadInput struct {
	SessionFilePath
	Raw
	Overwrite    bool   `query:"overwrite" doc:"Replace a file of that name"`
	ContentRange string `header:"Content-Range" doc:"bytes FIRST-LAST/TOTAL of a part; bytes */TOTAL with no body completes an upload whose bytes are all there"`
	UploadID     string `header:"Upload-Id" doc:"The client's own random name of this upload, the same for all parts"`
}

// errNoFiles is the answer of a server that keeps none.
func errNoFiles() error {
	return errdefs.New(errdefs.ErrUnsupported, "files-off", "This server keeps no files of sessions.").
		WithHint("Use the files of the session's sandbox.")
}

// sessionFiles finds a session for a route of its files, and its sandbox if it
// has one: then the files are there, else what is kept of them.
func (a *API) sessionFiles(ctx context.Context, id string) (*session.Session, *fleet.Sandbox, error) {
	s, err := a.session(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	if a.opts.Files == nil {
		return nil, nil, errNoFiles()
	}
	return s, liveSandbox(s), nil
}

// liveSandbox gives a session's sandbox, nil if there is none now. It starts
// none.
func liveSandbox(s *session.Session) *fleet.Sandbox {
	sb, ok := s.LiveSandbox()
	if !ok {
		return nil
	}
	select {
	case <-sb.Ended():
		return nil
	default:
		return sb
	}
}

// gone reports whether a call failed because the sandbox ended meanwhile: what
// is kept is the answer then.
func gone(err error) bool {
	_, ok := errors.AsType[*fleet.GoneError](err)
	return ok
}

func (a *API) sessionFileRoutes() {
	tags := []string{tagSessions}
	const base = "/v1/sessions/{session_id}/files"
	register(a, huma.Operation{
		OperationID: "stat-session-file", Method: http.MethodGet, Path: base, Tags: tags,
		Summary: "Describe a file of a session, or list a folder", Description: "From the sandbox if there is one, else from what is kept: what is below /workspace and /uploaded_files outlives sandboxes, except files that are too large (kept: false; notice says so for all). Failures as of a sandbox's files.",
	}, func(ctx context.Context, in *SessionFilePath) (*answer[v1.File], error) {
		_, sb, err := a.sessionFiles(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		if sb != nil && session.Awake(sb) { // looking wakes none
			defer sb.Use()()
			found, err := sb.Agent().Stat(ctx, in.Path)
			if err = sb.Explain(err); err == nil {
				f := viewFile(found)
				return &answer[v1.File]{f}, a.opts.Files.Mark(ctx, in.SessionID, &f)
			} else if !gone(err) {
				return nil, err
			}
		}
		f, err := a.opts.Files.Stat(ctx, in.SessionID, in.Path)
		return &answer[v1.File]{f}, err
	})
	register(a, huma.Operation{
		OperationID: "delete-session-file", Method: http.MethodDelete, Path: base, Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Delete a file of a session, or a folder with all it holds", Description: "For a day it can be had back by POST …/files/restore, unless it was too large to be kept.",
	}, func(ctx context.Context, in *SessionFilePath) (*struct{}, error) {
		s, sb, err := a.sessionFiles(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		changes, err := a.opts.Files.Delete(ctx, in.SessionID, in.Path, sb)
		s.FilesChanged(changes)
		return nil, err
	})
	register(a, huma.Operation{
		OperationID: "restore-session-file", Method: http.MethodPost, Path: base + "/restore", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Undo the deletion of a file or folder", Description: "Failures: 404 `not-in-bin`; 409 `file-exists`.",
	}, func(ctx context.Context, in *SessionFilePath) (*struct{}, error) {
		s, sb, err := a.sessionFiles(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		changes, err := a.opts.Files.Undelete(ctx, in.SessionID, in.Path, sb)
		s.FilesChanged(changes)
		return nil, err
	})
	register(a, huma.Operation{
		OperationID: "make-session-folder", Method: http.MethodPost, Path: base + "/mkdir", Tags: tags,
		Summary: "Make a folder and its parents in a session", Description: "One that exists is a success.",
	}, func(ctx context.Context, in *struct {
		SessionPath
		Body v1.MakeFolder
	},
	) (*answer[v1.File], error) {
		s, sb, err := a.sessionFiles(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		f, changes, err := a.opts.Files.Mkdir(ctx, in.SessionID, in.Body.Path, sb)
		s.FilesChanged(changes)
		return &answer[v1.File]{f}, err
	})
	register(a, huma.Operation{
		OperationID: "move-session-file", Method: http.MethodPost, Path: base + "/move", Tags: tags,
		Summary: "Rename a file or folder of a session, also across folders", Description: "Failures: 404 `file-not-found`; 409 `file-exists`.",
	}, func(ctx context.Context, in *struct {
		SessionPath
		Body v1.MoveFile
	},
	) (*answer[v1.File], error) {
		s, sb, err := a.sessionFiles(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		f, changes, err := a.opts.Files.Move(ctx, in.SessionID, in.Body, sb)
		s.FilesChanged(changes)
		return &answer[v1.File]{f}, err
	})
	a.sessionContentRoutes(base, tags)
}

func (a *API) sessionContentRoutes(base string, tags []string) {
	const about = "Range is honoured. The bytes come as an attachment and as application/octet-stream, unless inline is set and both the name and the first bytes say that it is a type that can't do harm; never as a page of this server. Failures: 404 `file-not-kept`."
	register(a, huma.Operation{
		OperationID: "read-session-file", Method: http.MethodGet, Path: base + "/content", Tags: tags,
		Summary: "Download a file of a session", Description: about, Responses: bytesResponses("The bytes", "application/octet-stream"),
	}, a.readSessionFile)
	register(a, huma.Operation{
		OperationID: "head-session-file", Method: http.MethodHead, Path: base + "/content", Tags: tags,
		Summary: "Size and date of a file of a session", Responses: map[string]*huma.Response{"200": {Description: "As GET, without the bytes"}},
	}, a.readSessionFile)
	register(a, huma.Operation{
		OperationID: "write-session-file", Method: http.MethodPut, Path: base + "/content", Tags: tags,
		Summary: "Upload a file into a session, whole or in parts",
		Description: "A name without a folder goes to /uploaded_files. With an Upload-Id what has arrived stays for a day, also when the connection is cut: HEAD …/files/upload tells how much, and the next part goes on from there. " +
			"The file is the session's when all of it is there; in its sandbox too, at once or when there is one.\n\n" +
			"Failures: 400 `upload-incomplete`, `upload-id-missing`, `content-range`; 403 `upload-extension`; 409 `file-exists` (the hint has a free name), `upload-offset` (Range says what is there), `upload-changed`, `upload-busy`; 413 `upload-too-large`, `session-full`; 429 `too-many-uploads`.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}},
		Responses: map[string]*huma.Response{
			"201":     {Description: "All of it is there", Content: map[string]*huma.MediaType{v1.MediaJSON: {Schema: a.huma.OpenAPI().Components.Schemas.Schema(typeFor[v1.File](), true, "")}}},
			"308":     {Description: "A part is there, and more is to come", Headers: map[string]*huma.Header{"Range": {Description: "What is there", Schema: &huma.Schema{Type: "string"}}}},
			"default": problemResponse(),
		},
	}, a.writeSessionFile)
	register(a, huma.Operation{
		OperationID: "head-session-upload", Method: http.MethodHead, Path: base + "/upload", Tags: tags,
		Summary: "How much of an unfinished upload is there", Description: "Range: bytes=0-N, absent as long as there is nothing; Upload-Length is what it will have. 404 if there is no such upload, or it is complete.",
		Responses: map[string]*huma.Response{"200": {Description: "It is unfinished"}},
	}, func(ctx context.Context, in *sessionUploadInput) (*huma.StreamResponse, error) {
		if _, _, err := a.sessionFiles(ctx, in.SessionID); err != nil {
			return nil, err
		}
		p, err := a.opts.Files.Uploaded(in.SessionID, in.Path, in.UploadID)
		if err != nil {
			return nil, err
		}
		return stream(func() {
			setProgress(in.w.Header(), p)
			in.w.WriteHeader(http.StatusOK)
		}), nil
	})
	register(a, huma.Operation{
		OperationID: "archive-session-folder", Method: http.MethodGet, Path: base + "/archive", Tags: tags,
		Summary: "Download a folder of a session as zip", Description: "Made while it is read. A connection that ends without the last chunk means that the archive is not whole.",
		Responses: bytesResponses("The archive", "application/zip"),
	}, a.archiveSession)
}

func (a *API) archiveSession(ctx context.Context, in *sessionContentInput) (*huma.StreamResponse, error) {
	_, sb, err := a.sessionFiles(ctx, in.SessionID)
	if err != nil {
		return nil, err
	}
	name := path.Base(path.Clean("/"+in.Path)) + ".zip"
	if name == "/.zip" {
		name = "files.zip"
	}
	if sb != nil {
		done := sb.Use()
		c, err := sb.Agent().Archive(ctx, in.Path)
		if err = sb.Explain(err); err == nil {
			return stream(func() {
				defer done()
				a.sendContent(in.w, in.r, c, name, "application/zip")
			}), nil
		}
		done()
		if !gone(err) {
			return nil, err
		}
	}
	write, err := a.opts.Files.Archive(ctx, in.SessionID, in.Path)
	if err != nil {
		return nil, err
	}
	return stream(func() {
		setForeign(in.w.Header(), attachment(name), "application/zip")
		if err := write(in.w); err != nil {
			panic(http.ErrAbortHandler) // it must not look whole
		}
	}), nil
}

func setProgress(h http.Header, p workspace.Progress) {
	if p.Offset > 0 {
		h.Set("Range", "bytes=0-"+strconv.FormatInt(p.Offset-1, 10))
	}
	h.Set("Upload-Offset", strconv.FormatInt(p.Offset, 10))
	h.Set("Upload-Length", strconv.FormatInt(p.Total, 10))
}

var contentRange = regexp.MustCompile(`^bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})$`)

// uploadPart reads what a request says of its part.
func uploadPart(in *sessionUploadInput) (workspace.Part, error) {
	p := workspace.Part{Path: in.Path, ID: in.UploadID, Length: in.r.ContentLength, Total: in.r.ContentLength, Overwrite: in.Overwrite}
	if in.ContentRange == "" {
		return p, nil
	}
	bad := func(why string) (workspace.Part, error) {
		return p, errdefs.New(errdefs.ErrInvalid, "content-range", "The Content-Range header is not right: %s.", why).
			WithHint("Send bytes FIRST-LAST/TOTAL, LAST being the number of the last byte.")
	}
	m := contentRange.FindStringSubmatch(in.ContentRange)
	if m == nil {
		return bad("it can't be read")
	}
	p.Total, _ = strconv.ParseInt(m[3], 10, 64) // digits, and few
	if m[1] == "" {
		// The place does not matter, as no bytes come.
		if in.r.ContentLength != 0 {
			return bad("bytes */TOTAL comes without a body")
		}
		p.Start, p.Length = 0, 0
		return p, nil
	}
	first, _ := strconv.ParseInt(m[1], 10, 64)
	last, _ := strconv.ParseInt(m[2], 10, 64)
	p.Start, p.Length = first, last-first+1
	switch {
	case last < first || last >= p.Total:
		return bad("the part is not within the file")
	case in.r.ContentLength >= 0 && in.r.ContentLength != p.Length:
		return bad("the body has another length")
	}
	return p, nil
}

// A client that sends nothing for so long is gone, and its upload can be gone
// on with.
const uploadStall = time.Minute

// steadyReader ends when nothing comes for some time.
type steadyReader struct {
	r    io.Reader
	ctrl *http.ResponseController
}

func (s *steadyReader) Read(p []byte) (int, error) {
	_ = s.ctrl.SetReadDeadline(time.Now().Add(uploadStall)) // no connection in some tests
	return s.r.Read(p)
}

func (a *API) writeSessionFile(ctx context.Context, in *sessionUploadInput) (*huma.StreamResponse, error) {
	s, _, err := a.sessionFiles(ctx, in.SessionID)
	if err != nil {
		return nil, err
	}
	if isForm(in.r) {
		return nil, errForm()
	}
	part, err := uploadPart(in)
	if err != nil {
		return nil, err
	}
	ctrl := http.NewResponseController(in.w)
	part.Body = &steadyReader{in.r.Body, ctrl}
	p, changes, err := a.opts.Files.Upload(ctx, in.SessionID, part, func() *fleet.Sandbox { return liveSandbox(s) })
	_ = ctrl.SetReadDeadline(time.Time{}) // see register
	err = tooLarge(err, err)
	if at, ok := errors.AsType[*workspace.OffsetError](err); ok {
		problem := newProblem(at)
		setProgress(problem.header, at.Progress)
		return nil, problem
	}
	if err != nil {
		return nil, err
	}
	s.FilesChanged(changes)
	return stream(func() {
		if p.File != nil {
			writeJSON(in.w, http.StatusCreated, p.File)
			return
		}
		setProgress(in.w.Header(), p)
		in.w.WriteHeader(http.StatusPermanentRedirect) // "resume incomplete": it has no Location
	}), nil
}
