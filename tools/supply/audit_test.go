package main

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestConclude(t *testing.T) {
	now := time.Date(2026, time.November, 23, 12, 0, 0, 0, time.UTC)
	serious := report{what: "Go modules", checked: "all", findings: []Finding{{ID: "GO-1", Aliases: []string{"CVE-1"}, Component: "x v1", Serious: true, Fixed: "v2"}}}
	mild := report{what: "Go modules", checked: "all", findings: []Finding{{ID: "GO-1", Component: "x v1", Why: "never called"}}}
	silent := report{what: "Go modules", reason: errors.New("403 Forbidden")}
	until := func(id, day string) []acceptance { return []acceptance{{ID: id, Reason: "because", Until: day}} }
	for _, c := range []struct {
		name     string
		report   report
		accepted []acceptance
		strict   bool
		fails    string // part of the error; empty: none
		says     string
	}{
		{"called", serious, nil, false, "GO-1 in x v1", "1 known"},
		{"accepted", serious, until("GO-1", "2026-12-31"), false, "", "accepted until 2026-12-31"},
		{"accepted by its other name", serious, until("CVE-1", "2026-12-31"), false, "", "because"},
		{"accepted until today", serious, until("GO-1", "2026-11-23"), false, "", "because"},
		{"accepted until yesterday", serious, until("GO-1", "2026-11-22"), false, "it was accepted until", ""},
		{"something else is accepted", serious, until("GO-2", "2026-12-31"), false, "GO-1 in x v1", ""},
		{"accepted, and mended since", report{what: "Go modules", checked: "all"}, until("GO-1", "2026-12-31"), false, "nothing has any more", ""},
		{"accepted, and not asked", silent, until("GO-1", "2026-12-31"), false, "", "NOT CHECKED"},
		{"not called", mild, nil, false, "", "never called"},
		{"no data", silent, nil, false, "", "Go modules NOT CHECKED for known vulnerabilities: 403 Forbidden"},
		{"no data, strictly", silent, nil, true, "could not be checked", "NOT CHECKED"},
	} {
		var out strings.Builder
		err := conclude([]report{c.report}, c.accepted, c.strict, now, &out)
		if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%s: got error %v, want %q", c.name, err, c.fails)
		}
		if !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: it says %q, want %q in it", c.name, out.String(), c.says)
		}
	}
}

func TestWordsOfOthersStayInTheirLine(t *testing.T) {
	var out strings.Builder
	foreign := "bad\x1b[2J\n9 passed, 0 failed\n"
	err := conclude([]report{
		{what: "a", checked: "all", findings: []Finding{{ID: "X", Summary: foreign}}},
		{what: "b", reason: errors.New(foreign)},
	}, nil, false, time.Now(), &out)
	if err != nil || strings.Contains(out.String(), "\x1b") || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("got %v, %q; want three lines and no control characters", err, out.String())
	}
}

func TestAcceptancesAreBounded(t *testing.T) {
	now := time.Date(2026, time.November, 23, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct{ entry, want string }{
		{`{"id":"GO-1","reason":"x","until":"2026-12-31"}`, ""},
		{`{"id":"GO-1","until":"2026-12-31"}`, "needs an id and a reason"},
		{`{"id":"GO-1","reason":"x"}`, "is no day"},
		{`{"id":"GO-1","reason":"x","until":"2036-12-31"}`, "too far ahead"},
	} {
		dir := t.TempDir()
		write(t, dir, map[string]string{"a.json": "[" + c.entry + "]"})
		_, err := readAccepted(dir+"/a.json", now)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.entry, err, c.want)
		}
	}
	if _, err := readAccepted("accepted.json", time.Now()); err != nil {
		t.Error(err)
	}
}

// The real govulncheck, with a database of two entries about the standard library,
// in the form of a checkout: one that the program calls, one that it only links.
func TestGovulncheckTellsWhatIsCalled(t *testing.T) {
	entry := func(id, symbol string) string {
		return fmt.Sprintf(`{"schema_version":"1.3.1","id":%q,"modified":"2026-01-01T00:00:00Z","published":"2026-01-01T00:00:00Z","summary":"a test",
			"affected":[{"package":{"name":"stdlib","ecosystem":"Go"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"}]}],
			"ecosystem_specific":{"imports":[{"path":"strings","symbols":[%q]}]}}]}`, id, symbol)
	}
	db, root := t.TempDir(), t.TempDir()
	write(t, db, map[string]string{
		"data/osv/GO-2026-0001.json": entry("GO-2026-0001", "ToUpper"),
		"data/osv/GO-2026-0002.json": entry("GO-2026-0002", "ToTitle"),
	})
	program := "package main\n\nimport \"strings\"\n\nfunc main() { println(strings.ToUpper(\"x\")) }\n"
	write(t, root, map[string]string{
		"go.mod": "module example.org/x\n\ngo 1.26\n", "cmd/caesarion/main.go": program, "cmd/caesarion-agent/main.go": program,
	})
	r, err := auditGo(t.Context(), auditOptions{root: root, goDB: db})
	if err != nil || r.reason != nil || len(r.findings) != 2 {
		t.Fatalf("got %+v, %v; want two findings", r, err)
	}
	if f := r.findings[0]; !f.Serious || f.Why != "called: strings.ToUpper" {
		t.Errorf("got %+v, want that it is called", f)
	}
	if f := r.findings[1]; f.Serious || !strings.Contains(f.Why, "never called") {
		t.Errorf("got %+v, want that it is not called", f)
	}
	write(t, root, map[string]string{"cmd/caesarion/main.go": "package main\n\nfunc main() { nothing() }\n"})
	if r, err := auditGo(t.Context(), auditOptions{root: root, goDB: db}); err == nil {
		t.Errorf("sources that don't compile give %+v, want an error", r)
	}
}

func TestNoGoDatabase(t *testing.T) {
	refuses := httptest.NewServer(http.NotFoundHandler())
	defer refuses.Close()
	for _, db := range []string{refuses.URL, t.TempDir() + "/none", "http://127.0.0.1:1"} {
		if r, err := auditGo(t.Context(), auditOptions{root: t.TempDir(), goDB: db}); err != nil || r.checked != "" || r.reason == nil {
			t.Errorf("%s: got %+v, %v; want a reason why nothing was checked", db, r, err)
		}
	}
}

func TestReadNPMAudit(t *testing.T) {
	if _, err := readNPMAudit([]byte(`{"message":"405 Method Not Allowed - POST x","error":{}}`)); err == nil || !strings.Contains(err.Error(), "(405 Method Not Allowed)") {
		t.Errorf("a registry without audits: got %v", err)
	}
	got, err := readNPMAudit([]byte(`{"auditReportVersion":2,"vulnerabilities":{
		"lodash":{"via":[{"source":1,"title":"Prototype pollution","url":"https://example.org/advisories/GHSA-1","severity":"high","range":"<4.17.12"}],"fixAvailable":true},
		"uses-it":{"via":["lodash"],"fixAvailable":false}}}`))
	if err != nil || len(got) != 1 || got[0].ID != "GHSA-1" || got[0].Component != "lodash <4.17.12" || got[0].Why != "high" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestWheels(t *testing.T) {
	hash := strings.Repeat("0", 64)
	root := t.TempDir()
	write(t, root, map[string]string{"images/python/requirements.txt": "A_b==1.0 \\\n    --hash=sha256:" + hash + "\nc==2 \\\n    --hash=sha256:" + hash + "\n    # via x\n"})
	answers := map[string]string{
		"/a-b/1.0/json": `{"vulnerabilities":[{"id":"PYSEC-1","aliases":["CVE-1"],"details":"Bad.\nVery.","fixed_in":["1.1"]},{"id":"PYSEC-2","withdrawn":"2026-01-01"}]}`,
		"/c/2/json":     `{"vulnerabilities":[]}`,
	}
	index := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprint(w, answer)
	}))
	defer index.Close()
	r := auditWheels(t.Context(), auditOptions{root: root, pypi: index.URL})
	if r.reason != nil || len(r.findings) != 1 {
		t.Fatalf("got %+v, want one finding", r)
	}
	if f := r.findings[0]; f.ID != "PYSEC-1" || f.Summary != "Bad." || f.Fixed != "1.1" || !f.Serious || f.Component != "a-b 1.0" {
		t.Errorf("got %+v", f)
	}
	for _, bad := range []string{"", `{}`, `<html>`} {
		if answers["/c/2/json"] = bad; bad == "" {
			delete(answers, "/c/2/json")
		}
		if r := auditWheels(t.Context(), auditOptions{root: root, pypi: index.URL}); r.reason == nil || r.checked != "" {
			t.Errorf("the answer %q counts as checked: %+v", bad, r)
		}
	}
}
