package httpapi

import (
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// probeRoutes are what an orchestrator asks: whether to restart this server,
// and whether to send it requests.
func (a *API) probeRoutes() {
	a.plain(huma.Operation{
		OperationID: "live", Method: http.MethodGet, Path: "/healthz", Tags: []string{tagServer},
		Summary: "Whether this server is alive; needs no token", Security: []map[string][]string{},
	}, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n")) // the client may have left
	})
	a.plain(huma.Operation{
		OperationID: "ready", Method: http.MethodGet, Path: "/readyz", Tags: []string{tagServer},
		Summary:     "Whether this server takes requests; needs no token",
		Description: "503 while it stops, and while it can't reach what it needs.",
		Security:    []map[string][]string{},
		Responses:   map[string]*huma.Response{"200": {Description: "It does"}, "503": {Description: "It does not; the code says why"}},
	}, func(w http.ResponseWriter, r *http.Request) {
		if err := a.ready(); err != nil {
			a.fail(w, r, err)
			return
		}
		_, _ = w.Write([]byte("ok\n"))
	})
}

func (a *API) ready() error {
	if a.draining.Err() != nil {
		return errdefs.New(errdefs.ErrUnavailable, "server-stopping", "The server is stopping.").WithHint("Try again in a few seconds.")
	}
	if a.opts.Ready == nil {
		return nil
	}
	return a.opts.Ready()
}
