package httpapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity"
)

func (a *API) seedUpload(w http.ResponseWriter, r *http.Request) {
	s, err := a.seedSandbox(r.Context(), r.PathValue("sandbox_id"))
	if err != nil {
		writeDetail(w, r, err)
		return
	}
	a.seedReceive(w, r, s)
}

func (a *API) seedSessionUpload(w http.ResponseWriter, r *http.Request) {
	session, ok := r.URL.Query()["session_id"]
	if !ok {
		write422(w, fieldError{Type: "missing", Loc: []any{"query", "session_id"}, Msg: "Field required"})
		return
	}
	s, ok := a.seedBySession(r.Context(), session[0])
	if !ok {
		writeSeed(w, http.StatusNotFound, detail{"No active sandbox for this session"})
		return
	}
	a.seedReceive(w, r, s)
}

// seedReceive passes the part named "file" on to the sandbox while it arrives.
func (a *API) seedReceive(w http.ResponseWriter, r *http.Request, s *fleet.Sandbox) {
	part, err := filePart(r)
	if err != nil {
		writeDetail(w, r, err)
		return
	}
	if part == nil {
		write422(w, fieldError{Type: "missing", Loc: []any{"body", "file"}, Msg: "Field required"})
		return
	}
	name, err := uploadName(part)
	if err != nil {
		writeDetail(w, r, err)
		return
	}
	if err := a.mayUpload(r.Context(), name); err != nil {
		writeDetail(w, r, err)
		return
	}
	defer s.Use()()
	body := &bodyReader{r: a.limitedReader(identity.From(r.Context()).Owner(), part)}
	f, err := s.Agent().Upload(r.Context(), agentapi.UploadsDir+"/"+name, body, -1)
	if err != nil {
		err = s.Explain(body.explain(err))
		p := problemFor(r.Context(), err)
		if p.Status == http.StatusInternalServerError {
			writeSeed(w, p.Status, detail{"File upload failed: " + p.Detail})
			return
		}
		writeDetail(w, r, err)
		return
	}
	a.keepSoon(r.Context(), s)
	writeSeed(w, http.StatusOK, struct {
		Message  string `json:"message"`
		Filename string `json:"filename"`
		Size     int64  `json:"size"`
		Path     string `json:"path"`
	}{"File '" + name + "' uploaded to sandbox", name, f.SizeBytes, agentapi.UploadsDir + "/" + name})
}

// filePart finds the part named "file", nil if there is none.
func filePart(r *http.Request) (*multipart.Part, error) {
	mr, err := r.MultipartReader()
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // not a form: it has no such part, as FastAPI says
	}
	for {
		part, err := mr.NextRawPart()
		if errors.Is(err, io.EOF) {
			return nil, nil //nolint:nilnil // see above
		}
		if err != nil {
			return nil, errdefs.New(errdefs.ErrInvalid, "invalid-form", "There was an error parsing the body").WithCause(err)
		}
		if part.FormName() == "file" {
			return part, nil
		}
	}
}

// uploadName gives the file name of a part. A name that is not one plain name
// is refused and not mended: the caller would look for it in vain.
func uploadName(part *multipart.Part) (string, error) {
	// Part.FileName would cut a path to its last element.
	_, params, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
	if err != nil {
		return "", errdefs.New(errdefs.ErrInvalid, "invalid-file-name", "The file name can't be read.").WithCause(err)
	}
	name := params["filename"]
	bad := func(why string) (string, error) {
		return "", errdefs.New(errdefs.ErrInvalid, "invalid-file-name", "Invalid file name: %s.", why)
	}
	switch {
	case name == "":
		return bad("it is empty")
	case name == "." || name == "..":
		return bad("'.' and '..' are folders")
	case strings.ContainsRune(name, 0):
		return bad("it has a NUL character")
	case strings.ContainsAny(name, `/\`):
		return bad("it has a slash; send the name without folders")
	case !utf8.ValidString(name):
		return bad("it is not UTF-8")
	case len(name) > 255:
		return bad("it has more than 255 bytes")
	}
	return name, nil
}

// seedFiles lists the upload folder the way "ls -la" looks. No shell runs: the
// text is made from the agent's list.
func (a *API) seedFiles(w http.ResponseWriter, r *http.Request) {
	s, err := a.seedSandbox(r.Context(), r.PathValue("sandbox_id"))
	if err != nil {
		writeDetail(w, r, err)
		return
	}
	defer s.Use()()
	dir, err := s.Agent().Stat(r.Context(), agentapi.UploadsDir)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		writeDetail(w, r, s.Explain(err))
		return
	}
	writeSeed(w, http.StatusOK, struct {
		Files string `json:"files"`
	}{listing(dir)})
}

func listing(dir agentapi.File) string {
	var b strings.Builder
	blocks, width := int64(0), 1
	for _, f := range dir.Entries {
		blocks += (f.SizeBytes + 4095) / 4096 * 4
		width = max(width, len(fmt.Sprint(f.SizeBytes)))
	}
	fmt.Fprintf(&b, "total %d\n", blocks)
	for _, f := range dir.Entries {
		name := strings.Map(func(r rune) rune {
			if r < 0x20 || r == 0x7f {
				return '?' // as ls on a terminal: one file is one line
			}
			return r
		}, f.Name)
		if f.Target != "" {
			name += " -> " + f.Target
		}
		fmt.Fprintf(&b, "%s 1 user user %*d %s %s\n", f.Mode, width, f.SizeBytes, f.ModifiedAt.UTC().Format("Jan _2 15:04"), name)
	}
	return b.String()
}

// seedState has the sessions that are being initialised.
type seedState struct {
	mu      sync.Mutex
	pending map[string]*pendingSession
}

type pendingSession struct {
	done chan struct{}
	name string
	err  error // read after done, as name
}

func (st *seedState) init() { st.pending = map[string]*pendingSession{} }

const (
	maxSessionID  = 128
	createTimeout = 2 * time.Minute
)

func (a *API) seedInitialize(w http.ResponseWriter, r *http.Request) {
	session := r.PathValue("session_id")
	name, exists, err := a.seedSession(r, session)
	switch {
	case err != nil:
		p := problemFor(r.Context(), err)
		writeSeed(w, http.StatusOK, struct {
			Status    string `json:"status"`
			SessionID string `json:"session_id"`
			Error     string `json:"error"`
			Message   string `json:"message"`
		}{"failed", session, p.Detail, "Sandbox initialization failed, will create on first code execution"})
	case exists:
		writeSeed(w, http.StatusOK, struct {
			Status    string `json:"status"`
			SessionID string `json:"session_id"`
			SandboxID string `json:"sandbox_id"`
		}{"exists", session, name})
	default:
		writeSeed(w, http.StatusOK, struct {
			Status    string `json:"status"`
			SessionID string `json:"session_id"`
			SandboxID string `json:"sandbox_id"`
			Message   string `json:"message"`
		}{"created", session, name, "Sandbox environment initialized successfully"})
	}
}

// seedSession finds or makes the sandbox of a session. Of several calls at
// once, one makes it and the others find it.
func (a *API) seedSession(r *http.Request, name string) (seedID string, exists bool, err error) {
	if a.opts.Sessions == nil {
		return a.seedOwnSession(r, name)
	}
	s, err := a.named(r.Context(), name, true)
	if err != nil {
		return "", false, err
	}
	if sb, ok := s.LiveSandbox(); ok {
		return sb.View().SeedID, true, nil
	}
	mine, err := s.MakeSandbox(r.Context())
	if err != nil {
		return "", false, err
	}
	return mine.Sandbox.View().SeedID, !mine.Made, nil
}

// seedBySession finds the living sandbox of a session.
func (a *API) seedBySession(ctx context.Context, name string) (*fleet.Sandbox, bool) {
	if a.opts.Sessions == nil {
		s, ok := a.fleet.BySession(ownSession(ctx, name))
		return s, ok && identity.From(ctx).Owns(s.Owner())
	}
	s, err := a.named(ctx, name, false)
	if err != nil {
		return nil, false
	}
	return s.LiveSandbox()
}

// ownSession gives a client's name of a session as its sandbox has it: everybody
// has names of his own.
func ownSession(ctx context.Context, name string) string {
	if o := identity.From(ctx).Owner(); o != (identity.Owner{}) {
		return o.Org + "/" + o.User + "/" + name
	}
	return name
}

// seedOwnSession is seedSession where no sessions are kept.
func (a *API) seedOwnSession(r *http.Request, session string) (name string, exists bool, err error) {
	if session == "" || len(session) > maxSessionID || !utf8.ValidString(session) || strings.ContainsFunc(session, func(c rune) bool { return c < 0x20 || c == 0x7f }) {
		return "", false, errdefs.New(errdefs.ErrInvalid, "invalid-session", "A session id has 1 to %d printable characters.", maxSessionID)
	}
	session = ownSession(r.Context(), session)
	a.seeds.mu.Lock()
	if s, ok := a.fleet.BySession(session); ok && identity.From(r.Context()).Owns(s.Owner()) {
		a.seeds.mu.Unlock()
		return s.View().SeedID, true, nil
	}
	if p, ok := a.seeds.pending[session]; ok {
		a.seeds.mu.Unlock()
		select {
		case <-p.done:
			return p.name, true, p.err
		case <-r.Context().Done():
			return "", false, r.Context().Err()
		}
	}
	p := &pendingSession{done: make(chan struct{})}
	a.seeds.pending[session] = p
	a.seeds.mu.Unlock()
	defer func() {
		p.name, p.err = name, err
		a.seeds.mu.Lock()
		delete(a.seeds.pending, session)
		a.seeds.mu.Unlock()
		close(p.done)
	}()
	// Others may wait for it: it is made even if this caller leaves.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), createTimeout)
	defer cancel()
	s, err := a.create(ctx, fleet.CreateRequest{Session: session})
	if err != nil {
		return "", false, err
	}
	return s.View().SeedID, false, nil
}
