package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/httpapi"
)

func TestProbes(t *testing.T) {
	fl, err := fleet.New(t.Context(), newDriver(t), nil, fleet.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = fl.Close() })
	var broken error
	api := httpapi.New(fl, httpapi.Options{Token: "secret-secret-secret", Ready: func() error { return broken }})
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
		r.Host = "10.1.2.3:8000" // as a kubelet asks
		api.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	want := func(path string, status int, text string) {
		t.Helper()
		if got, body := get(path); got != status || !strings.Contains(body, text) {
			t.Errorf("%s: %d %s, want %d with %s", path, got, body, status, text)
		}
	}
	want("/healthz", 200, "ok")
	want("/readyz", 200, "ok")
	broken = errdefs.New(errdefs.ErrUnavailable, "store-failed", "The database does not answer.")
	want("/readyz", 503, "store-failed")
	want("/healthz", 200, "ok")
	broken = nil
	api.Drain()
	want("/readyz", 503, "server-stopping")
	want("/healthz", 200, "ok")
}
