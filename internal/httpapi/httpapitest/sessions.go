package httpapitest

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/session"
)

// newSession makes a session that is deleted after the test.
func (s *Server) newSession(t testing.TB, in v1.CreateSession) string {
	t.Helper()
	a := s.send(t, "POST", "/v1/sessions", in)
	out := into[v1.Session](t, a, 201)
	if got, want := a.Header.Get("Location"), "/v1/sessions/"+out.ID; got != want {
		t.Errorf("Location = %q, want %q", got, want)
	}
	t.Cleanup(func() { s.send(t, "DELETE", "/v1/sessions/"+out.ID, nil) })
	return out.ID
}

func (s *Server) detail(t testing.TB, id string) v1.SessionDetail {
	t.Helper()
	return into[v1.SessionDetail](t, s.do(t, "GET", "/v1/sessions/"+id, nil), 200)
}

// awaitItem gives an item once ready holds.
func (s *Server) awaitItem(t testing.TB, id, item string, ready func(v1.Item) bool) v1.Item {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		for _, it := range s.detail(t, id).Items {
			if it.ID == item && ready(it) {
				return it
			}
		}
		if time.Now().After(end) {
			t.Fatalf("item never got there: %+v", s.detail(t, id))
		}
	}
}

func (s *Server) cell(t testing.TB, id, code string) string {
	t.Helper()
	return into[v1.Item](t, s.send(t, "POST", "/v1/sessions/"+id+"/items", v1.CreateItem{Kind: "cell", Code: code}), 201).ID
}

func ended(it v1.Item) bool { return it.Status != "queued" && it.Status != "running" }

var sessionTests = []test{
	{"sessions: a cell runs, and two readers see the same", func(t *testing.T, s *Server, _ string) {
		id := s.newSession(t, v1.CreateSession{Title: "mine"})
		path := "/v1/sessions/" + id
		first, second := s.sse(t, "GET", path+"/events", nil), s.sse(t, "GET", path+"/events?after=1", nil)
		defer first.close()
		defer second.close()
		cell := s.cell(t, id, "print('hello')\n6 * 7")
		ran := into[struct{ Items []v1.Item }](t, s.send(t, "POST", path+"/run", v1.RunItems{Items: []string{cell}}), 202)
		if len(ran.Items) != 1 || ran.Items[0].Status != "queued" {
			t.Errorf("ran = %+v", ran)
		}
		read := func(r *sseStream) (types string, lines []string) {
			for {
				e, err := nextSSE(r.r, &r.comments)
				if err != nil {
					t.Fatal(err)
				}
				if e.id == "" {
					continue // a note
				}
				lines = append(lines, e.data)
				if types += e.typ + " "; e.typ == string(event.ExecutionFinished) {
					return types, lines
				}
			}
		}
		types, lines := read(first)
		for _, want := range []string{"session.changed item.added item.changed", "sandbox.changed", "execution.started", "output.stream output.execute_result execution.finished"} {
			if !strings.Contains(types, want) {
				t.Errorf("the events %s lack %s", types, want)
			}
		}
		_, again := read(second)
		if strings.Join(lines[1:], "\n") != strings.Join(again, "\n") {
			t.Errorf("two readers:\n%s\n%s", strings.Join(lines[1:], "\n"), strings.Join(again, "\n"))
		}
		it := s.awaitItem(t, id, cell, ended)
		if it.Status != "ok" || it.ExecutionCount == 0 || len(it.Outputs) != 2 {
			t.Errorf("item = %+v", it)
		}
		view := session.NewView(v1.SessionDetail{})
		for _, line := range lines {
			if err := view.Apply([]byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		if got := view.Items(); len(got) != 1 || got[0].Status != "ok" || got[0].Outputs[0].Text != "hello\n" {
			t.Errorf("folded = %+v", got)
		}
		ndjson := s.open(t, "GET", path+"/events", nil, header{"Accept", v1.MediaNDJSON})
		defer ndjson.Body.Close()
		var e event.Event
		if err := json.NewDecoder(ndjson.Body).Decode(&e); err != nil || e.Seq != 1 || e.Type != event.SessionChanged {
			t.Errorf("NDJSON begins with %+v, %v", e, err)
		}
	}},
	{"sessions: large outputs are fetched by themselves, and never as something a browser runs", func(t *testing.T, s *Server, _ string) {
		id := s.newSession(t, v1.CreateSession{})
		path := "/v1/sessions/" + id
		cell := s.cell(t, id, "from IPython.display import HTML, SVG, display\nprint('x' * 100_000)\ndisplay(HTML('<script>1</script>'))\n"+
			"display({'image/png': 'iVBORw0KGgo=', 'text/plain': 'p'}, raw=True)")
		into[struct{}](t, s.send(t, "POST", path+"/run", v1.RunItems{Items: []string{cell}}), 202)
		it := s.awaitItem(t, id, cell, ended)
		if ref := it.Outputs[0].Refs["text"]; ref.Bytes != 100_001 || len(it.Outputs[0].Text) > 70_000 {
			t.Errorf("refs = %+v, %d bytes", ref, len(it.Outputs[0].Text))
		}
		outs := path + "/items/" + cell + "/outputs/"
		for _, tt := range []struct{ at, media, want string }{
			{"0", "text/plain; charset=utf-8", strings.Repeat("x", 100_000) + "\n"},
			{"1?mime=text/html", "text/plain; charset=utf-8", "<script>1</script>"},
			{"2?mime=image/png", "image/png", "\x89PNG\r\n\x1a\n"},
		} {
			a := s.do(t, "GET", outs+tt.at, nil)
			if a.Status != 200 || string(a.Body) != tt.want || a.Header.Get("Content-Type") != tt.media ||
				!strings.HasPrefix(a.Header.Get("Content-Disposition"), "attachment") || a.Header.Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s: %d %v %.100q", tt.at, a.Status, a.Header, a.Body)
			}
		}
		wantProblem(t, s.do(t, "GET", outs+"9", nil), 404, "output-not-found")
		wantProblem(t, s.do(t, "GET", outs+"2?mime=a/b", nil), 404, "output-not-found")
		if a := s.do(t, "GET", path+"/items/"+cell+"/output", nil); a.Status != 200 || len(a.Body) < 100_000 {
			t.Errorf("all text: %d, %d bytes", a.Status, len(a.Body))
		}
	}},
	{"sessions: a list is written, moved, removed, restored and searched", func(t *testing.T, s *Server, _ string) {
		id := s.newSession(t, v1.CreateSession{Title: "zebrafinch"})
		path := "/v1/sessions/" + id
		a, b := s.cell(t, id, "a = 1"), s.cell(t, id, "b = 'quetzalcoatl'")
		into[v1.Item](t, s.send(t, "PATCH", path+"/items/"+b, map[string]any{"after": "", "code_hidden": true}), 200)
		if d := s.detail(t, id); d.Items[0].ID != b || !d.Items[0].CodeHidden {
			t.Errorf("moved = %+v", d.Items)
		}
		if got := s.send(t, "DELETE", path+"/items/"+a, nil); got.Status != 204 {
			t.Errorf("delete: %d %s", got.Status, got.Body)
		}
		wantProblem(t, s.send(t, "PATCH", path+"/items/"+a, v1.UpdateItem{Code: new("x")}), 404, "item-not-found")
		into[v1.Item](t, s.send(t, "POST", path+"/items/"+a+"/restore", nil), 200)
		if d := s.detail(t, id); len(d.Items) != 2 || d.Items[1].ID != a {
			t.Errorf("restored = %+v", d.Items)
		}
		for _, query := range []string{"zebraf", "quetzal"} {
			if list := into[v1.SessionList](t, s.do(t, "GET", "/v1/sessions?query="+query, nil), 200); len(list.Sessions) != 1 || list.Sessions[0].ID != id {
				t.Errorf("search %s = %+v", query, list)
			}
		}
		into[v1.Session](t, s.send(t, "PATCH", path, v1.UpdateSession{Title: new("renamed"), Pinned: new(true)}), 200)
		copied := into[v1.Session](t, s.send(t, "POST", path+"/duplicate", nil), 201)
		t.Cleanup(func() { s.send(t, "DELETE", "/v1/sessions/"+copied.ID, nil) })
		if copied.Title != "renamed (copy)" || copied.ItemCount != 2 || copied.Pinned {
			t.Errorf("copy = %+v", copied)
		}
		if got := s.send(t, "DELETE", path, nil); got.Status != 204 {
			t.Errorf("delete session: %d", got.Status)
		}
		wantProblem(t, s.send(t, "POST", path+"/run", v1.RunItems{Items: []string{"itm_none"}}), 404, "item-not-found")
		into[v1.Session](t, s.send(t, "POST", path+"/restore", nil), 200)
	}},
	{"sessions: who asks for help with code gets a sandbox", func(t *testing.T, s *Server, _ string) {
		path := "/v1/sessions/" + s.newSession(t, v1.CreateSession{})
		help := into[struct {
			Matches []string `json:"matches"`
		}](t, s.send(t, "POST", path+"/complete", v1.Complete{Code: "isinst"}), 200)
		if !slices.Contains(help.Matches, "isinstance") {
			t.Errorf("matches = %q, want isinstance among them", help.Matches)
		}
		if got := into[v1.SessionDetail](t, s.do(t, "GET", path, nil), 200).Sandbox.State; got != "ready" {
			t.Errorf("sandbox is %q, want ready", got)
		}
	}},
	{"sessions: mistakes are told apart", func(t *testing.T, s *Server, _ string) {
		id := s.newSession(t, v1.CreateSession{})
		path := "/v1/sessions/" + id
		wantProblem(t, s.do(t, "GET", "/v1/sessions/ses_none", nil), 404, "session-not-found")
		wantProblem(t, s.do(t, "GET", "/v1/sessions?cursor=x", nil), 400, "invalid-cursor")
		wantProblem(t, s.send(t, "POST", "/v1/sessions", v1.CreateSession{Template: "none"}), 400, "template-unknown")
		wantProblem(t, s.do(t, "GET", path+"/events", nil, header{"Last-Event-ID", "x"}), 400, "invalid-event-id")
		wantProblem(t, s.do(t, "GET", path+"/usage", nil), 409, "no-sandbox")
		cell := s.cell(t, id, "1")
		wantProblem(t, s.send(t, "POST", path+"/items/"+cell+"/input", v1.Input{Value: "x"}), 409, "no-input-requested")
		wantProblem(t, s.send(t, "POST", path+"/select", v1.SelectItem{Item: "itm_none"}), 404, "item-not-found")
		wantProblem(t, s.do(t, "POST", "/v1/sessions/import", bytes.NewReader([]byte("{}")), header{"Content-Type", "application/json"}), 400, "notebook-invalid")
	}},
	{"sessions: the kernel completes and is restarted; the sandbox is freed", func(t *testing.T, s *Server, _ string) {
		id := s.newSession(t, v1.CreateSession{})
		path := "/v1/sessions/" + id
		sb := into[v1.SessionSandbox](t, s.send(t, "POST", path+"/sandbox", nil), 202)
		if sb.State != "starting" && sb.State != "ready" {
			t.Errorf("sandbox = %+v", sb)
		}
		cell := s.cell(t, id, "elephant = 1")
		into[struct{}](t, s.send(t, "POST", path+"/run", v1.RunItems{Items: []string{cell}}), 202)
		s.awaitItem(t, id, cell, ended)
		reply := into[struct{ Matches []string }](t, s.send(t, "POST", path+"/complete", v1.Complete{Code: "eleph"}), 200)
		if len(reply.Matches) != 1 || reply.Matches[0] != "elephant" {
			t.Errorf("complete = %+v", reply)
		}
		if u := into[v1.Usage](t, s.do(t, "GET", path+"/usage", nil), 200); u.At.IsZero() {
			t.Errorf("usage = %+v", u)
		}
		if a := s.send(t, "POST", path+"/kernel/restart", nil); a.Status != 204 {
			t.Errorf("restart: %d %s", a.Status, a.Body)
		}
		if a := s.send(t, "DELETE", path+"/sandbox", nil); a.Status != 204 {
			t.Errorf("free: %d %s", a.Status, a.Body)
		}
		if d := s.detail(t, id); d.Sandbox.State != "none" || d.Sandbox.Reason != "deleted" {
			t.Errorf("sandbox = %+v", d.Sandbox)
		}
	}},
	{"sessions: a session of the original is one of ours", func(t *testing.T, s *Server, _ string) {
		name := "original-" + strings.ReplaceAll(t.Name(), "/", "-")[:40]
		first := into[struct {
			SandboxID string `json:"sandbox_id"`
		}](t, s.do(t, "POST", "/api/sessions/"+name+"/initialize", nil), 200)
		own, err := s.Sessions.ByClientID(t.Context(), name, false)
		if err != nil {
			t.Fatal(err)
		}
		sb, ok := own.LiveSandbox()
		if !ok || sb.View().SeedID != first.SandboxID {
			t.Errorf("its sandbox is %v, the original's %s", ok, first.SandboxID)
		}
		s.send(t, "DELETE", "/v1/sessions/"+own.ID(), nil)
	}},
}
