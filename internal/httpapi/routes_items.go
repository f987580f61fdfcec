package httpapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// itemRoutes has what people do with the list of a session.
func (a *API) itemRoutes(tags []string, path string) {
	register(a, huma.Operation{
		OperationID: "create-item", Method: http.MethodPost, Path: path + "/items", Tags: tags, DefaultStatus: http.StatusCreated, MaxBodyBytes: maxExecBody,
		Summary: "Add a cell or a note",
	}, func(ctx context.Context, in *struct {
		SessionPath
		Body v1.CreateItem
	},
	) (*created[v1.Item], error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		item, err := s.AddItem(in.Body)
		return &created[v1.Item]{"/v1/sessions/" + in.SessionID + "/items/" + item.ID, item}, err
	})
	register(a, huma.Operation{
		OperationID: "update-item", Method: http.MethodPatch, Path: path + "/items/{item_id}", Tags: tags, MaxBodyBytes: maxExecBody,
		Summary: "Change a cell or a note, or move an item", Description: "Failures: 404 `item-not-found`; 409 `item-writing`, `kind-fixed`.",
	}, func(ctx context.Context, in *struct {
		ItemPath
		Body v1.UpdateItem
	},
	) (*answer[v1.Item], error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		item, err := s.UpdateItem(in.ItemID, in.Body)
		return &answer[v1.Item]{item}, err
	})
	register(a, huma.Operation{
		OperationID: "delete-item", Method: http.MethodDelete, Path: path + "/items/{item_id}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Take an item out of the list", Description: "What follows it stays. It can be restored. Failures: 409 `item-busy`.",
	}, func(ctx context.Context, in *ItemPath) (*struct{}, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		return nil, s.RemoveItem(in.ItemID)
	})
	register(a, huma.Operation{
		OperationID: "restore-item", Method: http.MethodPost, Path: path + "/items/{item_id}/restore", Tags: tags,
		Summary: "Undo the deletion of an item",
	}, func(ctx context.Context, in *ItemPath) (*answer[v1.Item], error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		item, err := s.RestoreItem(in.ItemID)
		return &answer[v1.Item]{item}, err
	})
	register(a, huma.Operation{
		OperationID: "clear-item", Method: http.MethodPost, Path: path + "/items/{item_id}/clear", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Clear the outputs of a cell",
	}, func(ctx context.Context, in *ItemPath) (*struct{}, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		return nil, s.Clear(in.ItemID)
	})
	register(a, huma.Operation{
		OperationID: "clear-session", Method: http.MethodPost, Path: path + "/clear", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Clear the outputs of all cells that don't run",
	}, func(ctx context.Context, in *SessionPath) (*struct{}, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		return nil, s.Clear("")
	})
	register(a, huma.Operation{
		OperationID: "select-item", Method: http.MethodPost, Path: path + "/select", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Choose an alternative", Description: "What follows it is shown. Failures: 409 `turn-running`.",
	}, func(ctx context.Context, in *struct {
		SessionPath
		Body v1.SelectItem
	},
	) (*struct{}, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		return nil, s.Select(in.Body.Item)
	})
	a.outputRoutes(tags, path)
}

// outputRoutes gives outputs whole, for looking at and for saving.
func (a *API) outputRoutes(tags []string, path string) {
	register(a, huma.Operation{
		OperationID: "get-item-output", Method: http.MethodGet, Path: path + "/items/{item_id}/outputs/{index}", Tags: tags,
		Summary:     "Get one value of an output whole",
		Description: "Binary types as their bytes; SVG and HTML as plain text, since a browser must not run them here. Failures: 404 `item-not-found`, `output-not-found`.",
		Responses:   bytesResponses("The value", "application/octet-stream"),
	}, func(ctx context.Context, in *struct {
		ItemPath
		Raw
		Index int    `path:"index" minimum:"0"`
		Mime  string `query:"mime" maxLength:"255" doc:"Which value; default: the text of a stream, or the first there is"`
	},
	) (*huma.StreamResponse, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		item, err := s.Item(ctx, in.ItemID)
		if err != nil {
			return nil, err
		}
		if in.Index >= len(item.Outputs) {
			return nil, errNoOutput()
		}
		body, media, err := outputValue(item.Outputs[in.Index], in.Mime)
		if err != nil {
			return nil, err
		}
		return stream(func() { writeAttachment(in.w, in.r, body, media, outputName(item, in.Index, media, in.Mime)) }), nil
	})
	register(a, huma.Operation{
		OperationID: "get-item-text", Method: http.MethodGet, Path: path + "/items/{item_id}/output", Tags: tags,
		Summary:   "Get all text that a cell wrote",
		Responses: bytesResponses("The text", "text/plain"),
	}, func(ctx context.Context, in *struct {
		ItemPath
		Raw
	},
	) (*huma.StreamResponse, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		item, err := s.Item(ctx, in.ItemID)
		if err != nil {
			return nil, err
		}
		return stream(func() {
			writeAttachment(in.w, in.r, []byte(outputText(item)), "text/plain; charset=utf-8", "output.txt")
		}), nil
	})
}

func errNoOutput() error {
	return errdefs.New(errdefs.ErrNotFound, "output-not-found", "The cell has no such output.").
		WithHint("It may have run again since.")
}

// outputValue gives one value of an output as bytes with its media type.
func outputValue(out v1.Output, media string) ([]byte, string, error) {
	switch out.Type {
	case "stream":
		return []byte(out.Text), "text/plain; charset=utf-8", nil
	case "error":
		return []byte(strings.Join(out.Traceback, "\n")), "text/plain; charset=utf-8", nil
	}
	if media == "" {
		for k := range out.Data {
			if media == "" || k < media {
				media = k
			}
		}
	}
	raw, ok := out.Data[media]
	if !ok {
		return nil, "", errNoOutput()
	}
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return raw, v1.MediaJSON, nil // JSON types hold their value itself
	}
	switch {
	case media == "image/svg+xml", strings.HasPrefix(media, "text/"), strings.Contains(media, "javascript"), strings.Contains(media, "html"):
		return []byte(text), "text/plain; charset=utf-8", nil
	case strings.HasPrefix(media, "image/"), strings.HasPrefix(media, "audio/"), strings.HasPrefix(media, "video/"), media == "application/pdf":
		if bin, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), "")); err == nil {
			return bin, media, nil
		}
	}
	return []byte(text), "text/plain; charset=utf-8", nil
}

func outputName(item v1.Item, index int, media, asked string) string {
	name := "output-" + strconv.Itoa(index+1)
	if item.ExecutionCount > 0 {
		name = "cell-" + strconv.Itoa(item.ExecutionCount) + "-" + name
	}
	if asked == "image/svg+xml" {
		return name + ".svg"
	}
	if asked == "text/html" {
		return name + ".html"
	}
	base, _, _ := strings.Cut(media, ";")
	switch base {
	case "text/plain":
		return name + ".txt"
	case v1.MediaJSON:
		return name + ".json"
	case "image/jpeg":
		return name + ".jpg"
	}
	_, sub, _ := strings.Cut(base, "/")
	sub, _, _ = strings.Cut(sub, "+")
	return name + "." + sub
}

// outputText gives what a cell wrote, as a terminal would show it without
// colours.
func outputText(item v1.Item) string {
	var b strings.Builder
	for _, out := range item.Outputs {
		switch out.Type {
		case "stream":
			b.WriteString(out.Text)
			continue
		case "error":
			b.WriteString(strings.Join(out.Traceback, "\n"))
		default:
			var text string
			if json.Unmarshal(out.Data["text/plain"], &text) != nil {
				continue
			}
			b.WriteString(text)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// writeAttachment answers with bytes that a browser saves or an <img> shows,
// but never runs.
func writeAttachment(w http.ResponseWriter, r *http.Request, body []byte, media, name string) {
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "private, no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client may have left
	}
}
