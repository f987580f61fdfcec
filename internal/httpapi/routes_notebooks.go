package httpapi

import (
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/notebook"
)

// maxNotebook bounds a notebook that is imported; with its pictures, a large
// one has some 20 MiB.
const maxNotebook = 64 << 20

// notebookRoutes turns sessions into notebooks and notebooks into sessions.
func (a *API) notebookRoutes(tags []string, path string) {
	register(a, huma.Operation{
		OperationID: "export-session", Method: http.MethodGet, Path: path + "/{session_id}/export", Tags: tags,
		Summary:   "Get a session as a notebook, a program or a text, with all outputs whole",
		Responses: bytesResponses("The file", "application/x-ipynb+json"),
	}, func(ctx context.Context, in *struct {
		SessionPath
		Raw
		Format string `query:"format" enum:"ipynb,py,md" default:"ipynb"`
	},
	) (*huma.StreamResponse, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		items, err := s.Items(ctx)
		if err != nil {
			return nil, err
		}
		body, media, name, err := notebook.Export(in.Format, s.View(), items)
		if err != nil {
			return nil, err
		}
		return stream(func() { writeAttachment(in.w, in.r, body, media, name) }), nil
	})
	register(a, huma.Operation{
		OperationID: "import-session", Method: http.MethodPost, Path: path + "/import", Tags: tags, DefaultStatus: http.StatusCreated,
		MaxBodyBytes: maxNotebook, SkipValidateBody: true,
		Summary: "Make a session of a notebook (.ipynb)", Description: "The body is the notebook. Failures: 400 with what is wrong with it; 413 `notebook-too-large`.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/x-ipynb+json": {Schema: &huma.Schema{Type: "string", Format: "binary"}}}},
	}, func(ctx context.Context, in *struct {
		Raw
		Title string `query:"title" maxLength:"200" doc:"Default: the notebook's own"`
	},
	) (*created[v1.Session], error) {
		svc, err := a.sessions()
		if err != nil {
			return nil, err
		}
		// One byte more than allowed shows that there is more.
		body := &io.LimitedReader{R: in.r.Body, N: maxNotebook + 1}
		title, items, err := notebook.Import(body)
		if body.N <= 0 {
			err = errdefs.New(errdefs.ErrTooLarge, "notebook-too-large", "The notebook is larger than %d MiB.", maxNotebook>>20).
				WithHint("Clear outputs with large pictures first.")
		}
		if err != nil {
			return nil, err
		}
		if in.Title != "" {
			title = in.Title
		}
		if runes := []rune(title); len(runes) > 200 {
			title = string(runes[:200])
		}
		s, err := svc.Import(ctx, v1.CreateSession{Title: title}, items)
		if err != nil {
			return nil, err
		}
		return &created[v1.Session]{path + "/" + s.ID(), s.View()}, nil
	})
}
