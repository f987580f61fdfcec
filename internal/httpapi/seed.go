package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity"
)

// The original's API, at the root and under /api. Paths, keys, their order and
// the texts of its failures are the original's; docs/compatibility.md lists
// what differs.

func isSeedPath(path string) bool {
	path = strings.TrimPrefix(path, "/api")
	return path == "/" || path == "/execute" || path == "/sandboxes" ||
		strings.HasPrefix(path, "/sandboxes/") || strings.HasPrefix(path, "/sessions/")
}

func (a *API) seedRoutes() {
	tags := []string{tagOriginal}
	for _, m := range []string{http.MethodGet, http.MethodPost} {
		a.plain(huma.Operation{
			OperationID: "seed-root-" + strings.ToLower(m), Method: m, Path: "/", Tags: tags, Security: []map[string][]string{},
			Summary: "Whether the API answers; needs no token",
		}, func(w http.ResponseWriter, _ *http.Request) {
			writeSeed(w, http.StatusOK, struct {
				Status  string `json:"status"`
				Service string `json:"service"`
			}{"healthy", "api"})
		})
	}
	code := jsonBody(`{"code":"print(1 + 1)"}`)
	file := &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"multipart/form-data": {Schema: &huma.Schema{
		Type: "object", Required: []string{"file"}, Properties: map[string]*huma.Schema{"file": {Type: "string", Format: "binary"}},
	}}}}
	id := []*huma.Param{{Name: "sandbox_id", In: "path", Required: true, Schema: &huma.Schema{Type: "string"}, Example: "sandbox-1a2b3c4d"}}
	session := []*huma.Param{{Name: "session_id", In: "query", Required: true, Schema: &huma.Schema{Type: "string"}}}
	for _, r := range []struct {
		id, method, path, summary string
		params                    []*huma.Param
		body                      *huma.RequestBody
		handler                   http.HandlerFunc
	}{
		{"list-sandboxes", http.MethodGet, "/sandboxes", "List sandboxes", nil, nil, a.seedList},
		{"create-sandbox", http.MethodPost, "/sandboxes", "Create a sandbox", nil, jsonBody(`{"lang":"python"}`), a.seedCreate},
		{"get-sandbox", http.MethodGet, "/sandboxes/{sandbox_id}", "Get a sandbox", id, nil, a.seedGet},
		{"delete-sandbox", http.MethodDelete, "/sandboxes/{sandbox_id}", "Delete a sandbox", id, nil, a.seedDelete},
		{"execute", http.MethodPost, "/sandboxes/{sandbox_id}/execute", "Run code; NDJSON of nbformat-like records", id, code, a.seedExecute},
		{"upload", http.MethodPost, "/sandboxes/{sandbox_id}/upload", "Upload a file to /uploaded_files", id, file, a.seedUpload},
		{"files", http.MethodGet, "/sandboxes/{sandbox_id}/files", "List /uploaded_files as text", id, nil, a.seedFiles},
		{"upload-by-session", http.MethodPost, "/sandboxes/upload", "Upload a file to the sandbox of a session", session, file, a.seedSessionUpload},
		{"execute-here", http.MethodPost, "/execute", "Refused: code runs in sandboxes only", nil, code, a.seedExecuteHere},
	} {
		for _, prefix := range []string{"", "/api"} {
			opID := "seed-" + r.id
			if prefix != "" {
				opID = "seed-api-" + r.id
			}
			a.plain(huma.Operation{
				OperationID: opID, Method: r.method, Path: prefix + r.path, Tags: tags,
				Summary: r.summary, Parameters: r.params, RequestBody: r.body,
			}, r.handler)
		}
	}
	a.plain(huma.Operation{
		OperationID: "seed-api-initialize-session", Method: http.MethodPost, Path: "/api/sessions/{session_id}/initialize", Tags: tags,
		Summary:    "Give a session its sandbox",
		Parameters: []*huma.Param{{Name: "session_id", In: "path", Required: true, Schema: &huma.Schema{Type: "string"}}},
	}, a.seedInitialize)
}

func jsonBody(example string) *huma.RequestBody {
	return &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{v1.MediaJSON: {
		Schema: &huma.Schema{Type: "object"}, Example: json.RawMessage(example),
	}}}
}

// writeSeed answers as FastAPI does: compact JSON without a newline.
func writeSeed(w http.ResponseWriter, status int, v any) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // plain structs and strings
	w.Header().Set("Content-Type", v1.MediaJSON)
	w.WriteHeader(status)
	_, _ = w.Write(bytes.TrimSuffix(buf.Bytes(), []byte("\n"))) // the client may have left
}

type detail struct {
	Detail any `json:"detail"`
}

// The original's own words for failures that it has too.
var seedDetails = map[string]string{
	"sandbox-not-found":   "Sandbox not found",
	"sandbox-gone":        "Sandbox not found",
	"sandbox-unreachable": "Sandbox not ready",
	"sandbox-timeout":     "Pod startup timeout",
	"route-not-found":     "Not Found",
	"method-not-allowed":  "Method Not Allowed",
}

var seedStatus = map[string]int{
	"sandbox-gone":        http.StatusNotFound,
	"sandbox-unreachable": http.StatusServiceUnavailable,
	"host-not-allowed":    http.StatusMisdirectedRequest,
}

// writeDetail answers with an error in FastAPI's shape.
func writeDetail(w http.ResponseWriter, r *http.Request, err error) {
	p := problemFor(r.Context(), err)
	maps.Copy(w.Header(), p.header)
	status, text := p.Status, p.Detail
	if s, ok := seedStatus[p.Code]; ok {
		status = s
	}
	if t, ok := seedDetails[p.Code]; ok {
		text = t
	}
	writeSeed(w, status, detail{text})
}

// fieldError is one entry of FastAPI's validation errors, keys in its order.
type fieldError struct {
	Type  string `json:"type"`
	Loc   []any  `json:"loc"`
	Msg   string `json:"msg"`
	Input any    `json:"input"`
	Ctx   any    `json:"ctx,omitempty"`
}

func write422(w http.ResponseWriter, e fieldError) {
	writeSeed(w, http.StatusUnprocessableEntity, detail{[]fieldError{e}})
}

// seedField reads a body that is an object with one string, and answers as
// FastAPI does if it is not.
func seedField(w http.ResponseWriter, r *http.Request, name string, most int64) (string, []byte, bool) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if err != nil {
		err = errCodeTooLarge()
		if name != "code" {
			err = errdefs.New(errdefs.ErrTooLarge, "body-too-large", "The request body is too large.")
		}
		writeDetail(w, r, err)
		return "", nil, false
	}
	if len(bytes.TrimSpace(raw)) == 0 {
		write422(w, fieldError{Type: "missing", Loc: []any{"body"}, Msg: "Field required"})
		return "", nil, false
	}
	var body any
	if err := json.Unmarshal(raw, &body); err != nil {
		at := 0
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			at = int(syntax.Offset)
		}
		write422(w, fieldError{
			Type: "json_invalid", Loc: []any{"body", at}, Msg: "JSON decode error",
			Input: map[string]any{}, Ctx: map[string]string{"error": "Expecting value"},
		})
		return "", nil, false
	}
	object, ok := body.(map[string]any)
	if !ok {
		write422(w, fieldError{
			Type: "model_attributes_type", Loc: []any{"body"},
			Msg: "Input should be a valid dictionary or object to extract fields from", Input: body,
		})
		return "", nil, false
	}
	v, ok := object[name]
	if !ok {
		write422(w, fieldError{Type: "missing", Loc: []any{"body", name}, Msg: "Field required", Input: body})
		return "", nil, false
	}
	s, ok := v.(string)
	if !ok {
		write422(w, fieldError{Type: "string_type", Loc: []any{"body", name}, Msg: "Input should be a valid string", Input: v})
		return "", nil, false
	}
	return s, raw, true
}

// seedSandbox finds a sandbox by its name in the original's API, or by its own.
func (a *API) seedSandbox(ctx context.Context, name string) (*fleet.Sandbox, error) {
	note(ctx, slog.String("sandbox_id", name))
	if s, ok := a.fleet.BySeedID(name); ok {
		if !identity.From(ctx).Owns(s.Owner()) {
			return nil, fleet.NotFound(name)
		}
		return s, nil
	}
	return a.sandbox(ctx, name)
}

// seedEntry is the original's sandbox object in a list.
type seedEntry struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
	Ready  bool   `json:"ready"`
}

// seedObject is the same by id: it has ip in between.
type seedObject struct {
	ID     string  `json:"id"`
	Name   string  `json:"name"`
	Status string  `json:"status"`
	IP     *string `json:"ip"` // always null: sandboxes have no address
	Ready  bool    `json:"ready"`
}

func (a *API) seedList(w http.ResponseWriter, r *http.Request) {
	views, err := a.everywhere(r.Context())
	if err != nil {
		writeDetail(w, r, err)
		return
	}
	list := struct {
		Sandboxes []seedEntry `json:"sandboxes"`
	}{[]seedEntry{}}
	for _, v := range views {
		list.Sandboxes = append(list.Sandboxes, seedEntry{v.SeedID, v.SeedID, "Running", v.KernelID != ""})
	}
	writeSeed(w, http.StatusOK, list)
}

func (a *API) seedCreate(w http.ResponseWriter, r *http.Request) {
	lang, _, ok := seedField(w, r, "lang", maxBody)
	if !ok {
		return
	}
	if !strings.EqualFold(lang, "python") {
		writeSeed(w, http.StatusBadRequest, detail{"Only Python sandboxes are supported."})
		return
	}
	s, err := a.create(r.Context(), fleet.CreateRequest{})
	if err != nil {
		writeDetail(w, r, err)
		return
	}
	name := s.View().SeedID
	writeSeed(w, http.StatusOK, struct {
		ID     string `json:"id"`
		Name   string `json:"name"`
		Status string `json:"status"`
	}{name, name, "creating"})
}

func (a *API) seedGet(w http.ResponseWriter, r *http.Request) {
	s, err := a.seedSandbox(r.Context(), r.PathValue("sandbox_id"))
	if err != nil {
		writeDetail(w, r, err)
		return
	}
	v := s.View()
	writeSeed(w, http.StatusOK, seedObject{v.SeedID, v.SeedID, "Running", nil, v.KernelID != ""})
}

func (a *API) seedDelete(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("sandbox_id")
	s, err := a.seedSandbox(r.Context(), name)
	if err == nil {
		err = s.Delete(r.Context())
	}
	if err != nil {
		writeDetail(w, r, err)
		return
	}
	writeSeed(w, http.StatusOK, struct {
		Message string `json:"message"`
	}{"Sandbox " + name + " deleted"})
}

// seedExecuteHere answers what the original's image took inside a sandbox.
func (a *API) seedExecuteHere(w http.ResponseWriter, r *http.Request) {
	code, _, ok := seedField(w, r, "code", maxExecBody)
	switch {
	case !ok:
	case strings.TrimSpace(code) == "":
		writeSeed(w, http.StatusBadRequest, detail{"Missing 'code' field"})
	default:
		writeSeed(w, http.StatusNotFound, detail{"This is not a sandbox. Use POST /sandboxes/{id}/execute."})
	}
}
