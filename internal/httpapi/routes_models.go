package httpapi

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/llm"
)

func (a *API) modelRoutes() {
	models := a.opts.Models
	if models == nil {
		models = llm.NewRegistry(nil, llm.RegistryOptions{})
	}
	register(a, huma.Operation{
		OperationID: "list-models", Method: http.MethodGet, Path: "/v1/models", Tags: []string{tagServer},
		Summary:     "List the language models",
		Description: "In the order that people should see them. With none, hint says in one line how to add one; without a model a session is a notebook.",
	}, func(ctx context.Context, _ *struct{}) (*answer[v1.ModelList], error) {
		list := v1.ModelList{Models: []v1.Model{}}
		for _, m := range models.Models(ctx) {
			list.Models = append(list.Models, v1.Model{
				Name: m.Name, Title: m.Title, Default: m.Default, Vision: m.Vision, ContextTokens: m.ContextTokens, Source: m.Source,
			})
		}
		if len(list.Models) == 0 {
			list.Hint = llm.Hint
		}
		return &answer[v1.ModelList]{list}, nil
	})
}
