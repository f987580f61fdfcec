package httpapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/workspace"
)

// A session goes out as a notebook and comes back as another session.
func TestNotebooksGoOutAndComeBack(t *testing.T) {
	r := newSessionRig(t, workspace.Options{})
	all := &sessionRig{t: t, base: strings.TrimSuffix(r.base, "/"+r.s.ID())}
	for _, item := range []v1.CreateItem{{Kind: "note", Text: "# Sums"}, {Kind: "cell", Code: "6 * 7"}} {
		if _, err := r.s.AddItem(item); err != nil {
			t.Fatal(err)
		}
	}
	cell := r.run("print('x')\n1 + 1")
	out := r.ask(http.MethodGet, "/export?format=ipynb", nil)
	r.want(out, http.StatusOK, "")
	if got := out.header.Get("Content-Disposition"); !strings.HasPrefix(got, "attachment") || !strings.Contains(got, ".ipynb") {
		t.Errorf("Content-Disposition: %s", got)
	}
	for _, format := range []string{"py", "md"} {
		a := r.ask(http.MethodGet, "/export?format="+format, nil)
		r.want(a, http.StatusOK, "")
		if !strings.Contains(string(a.body), "6 * 7") {
			t.Errorf("%s: %s", format, a.body)
		}
	}
	in := all.ask(http.MethodPost, "/import", strings.NewReader(string(out.body)), "Content-Type", "application/x-ipynb+json")
	r.want(in, http.StatusCreated, "")
	var made v1.Session
	if err := json.Unmarshal(in.body, &made); err != nil {
		t.Fatal(err)
	}
	detail := get[v1.SessionDetail](all, "/"+made.ID)
	if len(detail.Items) != 3 || detail.Items[0].Text != "# Sums" || detail.Items[1].Code != "6 * 7" {
		t.Fatalf("got %+v", detail.Items)
	}
	if got := detail.Items[2]; got.Code != cell.Code || len(got.Outputs) != len(cell.Outputs) || got.ExecutionCount != cell.ExecutionCount || got.ID == cell.ID {
		t.Errorf("got %+v, want %+v", got, cell)
	}
	r.want(all.ask(http.MethodPost, "/import", strings.NewReader(`{"nbformat":2,"cells":[]}`), "Content-Type", "application/x-ipynb+json"), http.StatusBadRequest, "notebook-version")
	r.want(all.ask(http.MethodPost, "/import", strings.NewReader(`no JSON`), "Content-Type", "application/octet-stream"), http.StatusBadRequest, "notebook-invalid")
	r.want(r.ask(http.MethodGet, "/export?format=pdf", nil), http.StatusUnprocessableEntity, "invalid-request")
}
