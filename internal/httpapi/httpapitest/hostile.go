package httpapitest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// operation is a route as the OpenAPI describes it.
type operation struct {
	method, path string
	query        []string
	json         bool // it takes a JSON body
}

// operations gives every operation below a path.
func operations(t *testing.T, s *Server, below string) []operation {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name string `yaml:"name"`
				In   string `yaml:"in"`
			} `yaml:"parameters"`
			RequestBody struct {
				Content map[string]any `yaml:"content"`
			} `yaml:"requestBody"`
		} `yaml:"paths"`
	}
	if err := yaml.Unmarshal(s.API.OpenAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	var list []operation
	for path, methods := range doc.Paths {
		if !strings.HasPrefix(path, below) {
			continue
		}
		for method, op := range methods {
			o := operation{method: strings.ToUpper(method), path: path, json: op.RequestBody.Content[v1.MediaJSON] != nil}
			for _, p := range op.Parameters {
				if p.In == "query" {
					o.query = append(o.query, p.Name)
				}
			}
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b operation) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return list
}

// probe sends a request that may be nonsense and checks that the answer, if it
// is a failure, is one that its sender can act on. Streams are not read.
func (s *Server) probe(t *testing.T, method, path, body string, headers ...header) (status int, code string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.at(method, path)+path, strings.NewReader(body))
	if err != nil {
		t.Fatalf("%s %q: %v", method, path, err)
	}
	req.Header.Set("Authorization", "Bearer "+Token)
	if body != "" {
		req.Header.Set("Content-Type", v1.MediaJSON)
	}
	for _, h := range headers {
		req.Header.Set(h[0], h[1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("%s %.200s: no answer: %v", method, path, err)
		return 0, ""
	}
	defer resp.Body.Close()
	if resp.StatusCode < 400 {
		return resp.StatusCode, ""
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		t.Errorf("%s %.200s: %v", method, path, err)
	}
	about := fmt.Sprintf("%s %.200s with %.100q: %d %.400s", method, path, body, resp.StatusCode, text)
	if resp.StatusCode == http.StatusInternalServerError {
		t.Error(about)
	}
	if method == http.MethodHead || !strings.HasPrefix(path, "/v1/") {
		return resp.StatusCode, ""
	}
	var p v1.Problem
	if json.Unmarshal(text, &p) != nil || p.Code == "" || p.Detail == "" || p.Code == "internal" || resp.Header.Get("Content-Type") != v1.MediaProblem {
		t.Errorf("no whole problem: %s", about)
	}
	if p.Hint == "" && p.Code != "invalid-request" { // which names the fields
		t.Errorf("what to do about it? %s", about)
	}
	if len(text) > 8<<10 {
		t.Errorf("a problem of %d bytes: %.300s", len(text), about)
	}
	return resp.StatusCode, p.Code
}

// hostileValues are what no honest client sends as a name, a path or a number.
var hostileValues = []string{
	"..", "../../etc/passwd", "/etc/shadow", "%00", "a%00b", "%ff%fe", "%2e%2e%2f", "-1", "0", "99999999999999999999999", "9223372036854775807",
	"NaN", "1e309", "true", "'%22;--", "%F0%9F%92%A9", "%0a%0dX-Injected:%201", strings.Repeat("x", 5000), "%7B%22a%22:1%7D", "itm_%3Cscript%3E",
}

// hostileBodies are what no honest client sends as JSON.
var hostileBodies = []string{
	"", "{", "null", "[]", "1", `"x"`, "nonsense", "{}{}", "\xff\xfe{}", `{"\ud800":1}`, `{"unknown":1}`, strings.Repeat("[", 200_000), strings.Repeat(`{"a":`, 100_000),
	`{"kind":"cell","code":1}`, `{"kind":"cell","code":"\u0000"}`, `{"kind":"cell","after":"itm_none"}`, `{"kind":"none"}`, `{"kind":"user","text":"x"}`,
	`{"items":[]}`, `{"items":["itm_none"]}`, `{"items":"x"}`, `{"items":[null]}`, `{"items":["` + strings.Repeat("x", 1<<20) + `"]}`, `{"items":["a"],"code":{"b":1}}`,
	`{"text":1}`, `{"text":""}`, `{"text":"\ud800"}`, `{"text":"x","files":["../../etc/passwd","\u0000"]}`, `{"text":"x","model":"none"}`, `{"text":"x","replaces":"itm_none"}`,
	`{"title":1}`, `{"title":"` + strings.Repeat("x", 300) + `"}`, `{"title":"\u0000\u001b[31m"}`, `{"pinned":"yes"}`, `{"model":1}`, `{"template":"../x"}`,
	`{"path":"../../etc/x"}`, `{"path":"\u0000"}`, `{"path":""}`, `{"path":1}`, `{"from":"..","to":"/etc/x"}`, `{"from":"/workspace","to":"/workspace/a"}`,
	`{"value":1}`, `{"item":""}`, `{"item":"itm_none"}`, `{"code":"x","cursor_pos":-5}`, `{"code":"x","cursor_pos":1e400}`, `{"code":"x","detail_level":99}`,
}

// tooLarge gives more than any body of /v1 that is not a file may have. It is
// made where it is needed: a variable of the package would make every process
// of the test binaries larger, sandboxes included.
func tooLarge() string { return `{"text":"` + strings.Repeat("x", 70<<20) + `"}` }

// startsSomething tells what would start a sandbox, which takes long.
func startsSomething(op operation) bool {
	return strings.HasSuffix(op.path, "/sandbox") || strings.HasSuffix(op.path, "/sandbox/reset") || strings.HasSuffix(op.path, "/kernel/restart") ||
		strings.HasSuffix(op.path, "complete") || strings.HasSuffix(op.path, "/inspect")
}

// squareTime is less than what grows with the square takes for millions of
// values, which is hours, and more than anything else does on a busy machine.
const squareTime = time.Minute

var hostileTests = []test{
	{"hostile: whatever a session's routes are asked, the answer is one to act on", func(t *testing.T, s *Server, _ string) {
		mine, other := s.newSession(t, v1.CreateSession{}), s.newSession(t, v1.CreateSession{})
		item, foreign := s.cell(t, mine, "1"), s.cell(t, other, "2")
		fill := func(path, session, item, rest string) string {
			return strings.NewReplacer("{session_id}", session, "{item_id}", item, "{index}", rest, "{message_id}", rest, "{chat_id}", rest).Replace(path)
		}
		large := tooLarge()
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		n := 0
		for _, op := range append(operations(t, s, "/v1/sessions"), operations(t, s, "/api/chat")...) {
			ask := func(session, item, rest, query, body string, headers ...header) (int, string) {
				n++
				return s.probe(t, op.method, fill(op.path, session, item, rest)+query, body, headers...)
			}
			// Ids that are nobody's, or no ids at all.
			if strings.Contains(op.path, "{session_id}") {
				body := ""
				if op.json {
					body = "{}"
				}
				for _, id := range append([]string{"ses_none", foreign}, hostileValues...) {
					if status, code := ask(id, item, "0", "?path=x", body); (status < 400 || status > 499) && code != "model-none" {
						t.Errorf("%s %s in the session %.40q: %d %s", op.method, op.path, id, status, code)
					}
				}
			}
			if strings.Contains(op.path, "{item_id}") {
				for _, id := range append([]string{"itm_none", foreign, mine}, hostileValues...) {
					if status, code := ask(mine, id, "0", "", ""); (status < 400 || status > 499) && code != "model-none" {
						t.Errorf("%s %s of the item %.40q: %d %s", op.method, op.path, id, status, code)
					}
				}
			}
			if startsSomething(op) || op.method == http.MethodDelete && !strings.Contains(op.path, "/files") && !strings.Contains(op.path, "/queue") {
				continue
			}
			for _, v := range hostileValues {
				ask(mine, item, v, "", "")
				for _, name := range op.query {
					ask(mine, item, "0", "?"+name+"="+v, "")
				}
			}
			if op.json || op.path == "/v1/sessions/import" || op.method == http.MethodPost {
				for _, body := range hostileBodies {
					ask(mine, item, "0", "", body)
				}
			}
			if op.json {
				if status, code := ask(mine, item, "0", "", large); status != http.StatusRequestEntityTooLarge {
					t.Errorf("%s %s with 70 MiB: %d %s", op.method, op.path, status, code)
				}
			}
			for _, h := range []header{
				{"Last-Event-ID", "-1"},
				{"Last-Event-ID", "99999999999999999999"},
				{"Last-Event-ID", "\xff"},
				{"Range", "bytes=9-1"},
				{"Range", "bytes=-"},
				{"Range", "lines=1-2"},
				{"Range", "bytes=99999999999999999999-"},
				{"Range", "bytes=" + strings.Repeat("0-1,", 2000) + "0-1"},
				{"Content-Range", "bytes 5-1/9"},
				{"Content-Range", "bytes 0-9/-1"},
				{"Upload-Id", "../x"},
				{"Upload-Id", strings.Repeat("x", 3000)},
				{"Accept", "text/html;q=x,,;"},
				{"Content-Type", "multipart/form-data"},
				{"If-Range", "x"},
			} {
				ask(mine, item, "0", "?path=/workspace/x", "", h)
			}
		}
		var after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&after)
		t.Logf("%d requests", n)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 { //nolint:gosec // sizes of memory
			t.Errorf("%d MiB more in use", grown>>20)
		}
		if d := s.detail(t, mine); !slices.ContainsFunc(d.Items, func(it v1.Item) bool { return it.ID == item }) {
			t.Errorf("the item is gone: %+v", d.Items)
		}
		if d := s.detail(t, other); len(d.Items) != 1 || d.Items[0].ID != foreign || d.Items[0].Code != "2" {
			t.Errorf("another session was changed: %+v", d.Items)
		}
	}},
	{"hostile: a search finds what was typed, and is never a language", func(t *testing.T, s *Server, _ string) {
		id := s.newSession(t, v1.CreateSession{Title: `50% "off" (a*b) NEAR/3 x_y`})
		for _, query := range []string{
			`"`, `""`, `"""`, `*`, `a*`, `^a`, `NEAR`, `NEAR(a b)`, `a NEAR/3 b`, `(`, `)`, `((((`, `a AND`, `OR`, `NOT a`, `text:a`, `{text}: a`, `-a`, `+`, `a + b`, `%`, `_`, `\`, `'; DROP TABLE sessions; --`,
			"\x00", "a\x00b", "\xff\xfe", "\u202e", "💥", strings.Repeat("a", 10_000), strings.Repeat("a ", 5000), strings.Repeat(`"`, 3000), strings.Repeat("(", 3000), "ab", "a b c d",
		} {
			start := time.Now()
			if status, _ := s.probe(t, "GET", "/v1/sessions?query="+url.QueryEscape(query), ""); status != 200 && status != 400 && status != 422 {
				t.Errorf("search %.40q: %d", query, status)
			}
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("search %.40q took %s", query, d)
			}
		}
		for _, query := range []string{`50%`, `"off"`, `(a*b)`, `NEAR/3`, `x_y`} {
			list := into[v1.SessionList](t, s.do(t, "GET", "/v1/sessions?query="+url.QueryEscape(query), nil), 200)
			if !slices.ContainsFunc(list.Sessions, func(v v1.Session) bool { return v.ID == id }) {
				t.Errorf("search %q does not find the title", query)
			}
		}
	}},
	{"hostile: chats of millions of values", func(t *testing.T, s *Server, _ string) {
		for name, body := range map[string]string{
			"messages":     `{"id":"x","messages":[` + strings.Repeat("{},", 20_000_000) + `{}]}`,
			"parts":        `{"id":"x","messages":[{"id":"1","role":"user","parts":[` + strings.Repeat("[],", 20_000_000) + `{}]}]}`,
			"few mistakes": `{"session_id":"x","messages":[` + strings.Repeat(`{"role":5,"content":7},`, 200_000) + `{}]}`,
		} {
			start := time.Now()
			a := s.do(t, "POST", "/api/chat", strings.NewReader(body), header{"Content-Type", "application/json"})
			if a.Status < 400 || a.Status > 499 || len(a.Body) > 1<<20 {
				t.Errorf("%s: %d, %d bytes: %.300s", name, a.Status, len(a.Body), a.Body)
			}
			if d := time.Since(start); d > squareTime {
				t.Errorf("%s took %s", name, d)
			}
		}
	}},
	{"hostile: notebooks that are none", func(t *testing.T, s *Server, _ string) {
		cells := func(n int, cell string) string {
			return `{"nbformat":4,"nbformat_minor":5,"metadata":{},"cells":[` + strings.TrimSuffix(strings.Repeat(cell+",", n), ",") + `]}`
		}
		const cell = `{"cell_type":"code","source":"1","metadata":{},"outputs":[],"execution_count":null}`
		for name, tt := range map[string]struct {
			body   string
			status int // 0: any but a failure of the server
		}{
			"deep arrays":              {strings.Repeat("[", 1_000_000), 400},
			"deep metadata":            {`{"nbformat":4,"metadata":{"x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `},"cells":[]}`, 0},
			"deeper than JSON may be":  {`{"nbformat":4,"metadata":{"x":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `},"cells":[]}`, 400},
			"deep output":              {cells(1, `{"cell_type":"code","source":"","metadata":{},"outputs":[{"output_type":"display_data","data":{"application/json":`+strings.Repeat("[", 9000)+strings.Repeat("]", 9000)+`},"metadata":{}}]}`), 0},
			"100,000 cells":            {cells(100_000, cell), 413},
			"cells that are numbers":   {cells(3, "1"), 400},
			"cells that are null":      {cells(3, "null"), 0},
			"cells that are an object": {`{"nbformat":4,"cells":{"a":1}}`, 400},
			"wrong types":              {`{"nbformat":"4","cells":[]}`, 400},
			"sources of numbers":       {cells(1, `{"cell_type":"code","source":[1,2],"outputs":"x"}`), 400},
			"outputs of nonsense":      {cells(1, `{"cell_type":"code","source":"1","outputs":[1,null,"x",{},{"output_type":"none"},{"output_type":"stream","text":{}},{"output_type":"error","traceback":5},{"output_type":"display_data","data":[]}]}`), 0},
			"a type of cell":           {cells(1, `{"cell_type":"../x","source":"1"}`), 0},
			"NUL in a source":          {cells(1, `{"cell_type":"code","source":"a\u0000b"}`), 0},
			"half a surrogate":         {cells(1, `{"cell_type":"markdown","source":"\ud800"}`), 0},
			"no UTF-8":                 {cells(1, "{\"cell_type\":\"markdown\",\"source\":\"\xff\xfe\"}"), 0},
			"a source of 5 MiB":        {cells(1, `{"cell_type":"code","source":"`+strings.Repeat("x", 5<<20)+`"}`), 413},
			"20 million cells":         {cells(20_000_000, "{}"), 413},
			"20 million outputs":       {cells(1, `{"cell_type":"code","source":"","outputs":[`+strings.Repeat("{},", 20_000_000)+`{}]}`), 413},
			"20 million lines":         {cells(1, `{"cell_type":"code","source":[`+strings.Repeat(`"",`, 20_000_000)+`""]}`), 413},
			"7 million types":          {cells(1, `{"cell_type":"code","outputs":[{"output_type":"display_data","data":{`+strings.Repeat(`"a":"",`, 7_000_000)+`"b":1}}]}`), 413},
			"20 million sheets":        {`{"nbformat":3,"worksheets":[` + strings.Repeat("{},", 20_000_000) + `{}]}`, 413},
			"70 MiB":                   {cells(1, `{"cell_type":"code","source":"`+strings.Repeat("x", 70<<20)+`"}`), 413},
			"nbformat 9":               {`{"nbformat":9,"cells":[]}`, 400},
			"nbformat -1":              {`{"nbformat":-1,"cells":[]}`, 400},
			"another language":         {`{"nbformat":4,"metadata":{"kernelspec":{"language":"R"}},"cells":[]}`, 400},
			"an empty file":            {"", 400},
			"hostile metadata":         {cells(1, `{"cell_type":"code","source":"1","metadata":{"caesarion":{"kind":"user","id":"itm_x","status":"running","turn_id":"../x","files":[1],"tool":{"name":5}},"jupyter":7,"collapsed":"x"}}`), 0},
		} {
			t.Run(name, func(t *testing.T) {
				start := time.Now()
				a := s.do(t, "POST", "/v1/sessions/import?title=x", bytes.NewReader([]byte(tt.body)), header{"Content-Type", "application/json"})
				if tt.status != 0 && a.Status != tt.status {
					t.Errorf("%d, want %d: %.400s", a.Status, tt.status, a.Body)
				}
				if d := time.Since(start); d > squareTime {
					t.Errorf("took %s", d)
				}
				if a.Status >= 400 {
					var p v1.Problem
					if a.Status >= 500 || json.Unmarshal(a.Body, &p) != nil || p.Code == "" || p.Detail == "" || p.Hint == "" || len(a.Body) > 8<<10 {
						t.Errorf("%d %.500s", a.Status, a.Body)
					}
					return
				}
				id := into[v1.Session](t, a, 201).ID
				for _, path := range []string{"", "/export?format=ipynb", "/export?format=py", "/export?format=md"} {
					if got := s.do(t, "GET", "/v1/sessions/"+id+path, nil); got.Status != 200 {
						t.Errorf("%s: %d %.300s", path, got.Status, got.Body)
					}
				}
				for _, it := range s.detail(t, id).Items {
					if it.Status == "running" || it.Status == "queued" || it.Status == "writing" {
						t.Errorf("a file says that something runs: %+v", it)
					}
				}
				s.send(t, "DELETE", "/v1/sessions/"+id, nil)
			})
		}
	}},
}
