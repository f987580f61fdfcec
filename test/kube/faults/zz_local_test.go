package faults

import "testing"

func TestLocal(t *testing.T) {
	w := &world{service: "http://127.0.0.1:18777", token: "tttttttttttttttttttt"}
	a, b := w.inSession(t, counting), w.inSandbox(t, counting)
	a.wantMore(t, 3)
	b.wantMore(t, 3)
	browser.CloseIdleConnections()
	if err := w.wantAlive(t.Context(), b.box); err != nil {
		t.Log(err)
	}
	a.finish(t)
	b.finish(t)
	ans, err := w.try(t.Context(), w.service, "POST", "/api/sessions/xy/initialize", map[string]any{})
	t.Logf("%d %s %v", ans.status, ans.body, err)
}
