package httpapitest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"regexp"
	"strings"
	"testing"
	"time"
)

// exact checks an answer of the original's API byte for byte; ID stands for a
// sandbox's name there.
func exact(t testing.TB, a answer, status int, body string) {
	t.Helper()
	if a.Status != status || string(a.Body) != body {
		t.Errorf("answer = %d %s\nwant     %d %s", a.Status, a.Body, status, body)
	}
	if got := a.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("content type = %q", got)
	}
}

func (s *Server) seedCreate(t testing.TB) string {
	t.Helper()
	a := s.send(t, "POST", "/sandboxes", map[string]string{"lang": "Python"})
	var got struct{ ID string }
	_ = json.Unmarshal(a.Body, &got)
	if !regexp.MustCompile(`^sandbox-[0-9a-f]{8}$`).MatchString(got.ID) {
		t.Fatalf("create = %d %s", a.Status, a.Body)
	}
	exact(t, a, 200, `{"id":"`+got.ID+`","name":"`+got.ID+`","status":"creating"}`)
	t.Cleanup(func() { s.do(t, "DELETE", "/sandboxes/"+got.ID, nil) })
	return got.ID
}

// upload makes a form with one part.
func upload(field, disposition, body string) (io.Reader, header) {
	var buf bytes.Buffer
	w := multipart.NewWriter(&buf)
	part, _ := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {`form-data; name="` + field + `"; ` + disposition}, "Content-Type": {"text/plain"}})
	_, _ = io.WriteString(part, body)
	_ = w.Close()
	return &buf, header{"Content-Type", w.FormDataContentType()}
}

var seedTests = []test{
	{"original: health and root", func(t *testing.T, s *Server, _ string) {
		for _, m := range []string{"GET", "POST"} {
			exact(t, s.do(t, m, "/", nil), 200, `{"status":"healthy","service":"api"}`)
			for _, path := range []string{"/health", "/api/health"} {
				a := s.do(t, m, path, nil)
				if !regexp.MustCompile(`^\{"status":"healthy","timestamp":\d{10}\.\d+\}$`).Match(a.Body) {
					t.Errorf("%s %s = %s", m, path, a.Body)
				}
			}
		}
	}},
	{"original: a sandbox from creation to deletion, at the root and under /api", func(t *testing.T, s *Server, _ string) {
		id := s.seedCreate(t)
		for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			if a := s.do(t, "GET", "/sandboxes/"+id, nil); strings.Contains(string(a.Body), `"ready":true`) || time.Now().After(end) {
				break
			}
		}
		for _, prefix := range []string{"", "/api"} {
			exact(t, s.do(t, "GET", prefix+"/sandboxes/"+id, nil), 200, `{"id":"`+id+`","name":"`+id+`","status":"Running","ip":null,"ready":true}`)
			a := s.do(t, "GET", prefix+"/sandboxes", nil)
			if !strings.Contains(string(a.Body), `{"id":"`+id+`","name":"`+id+`","status":"Running","ready":true}`) || !strings.HasPrefix(string(a.Body), `{"sandboxes":[{`) {
				t.Errorf("list = %s", a.Body)
			}
		}
		exact(t, s.do(t, "DELETE", "/api/sandboxes/"+id, nil), 200, `{"message":"Sandbox `+id+` deleted"}`)
		for _, m := range [][2]string{{"GET", ""}, {"DELETE", ""}, {"GET", "/files"}} {
			exact(t, s.do(t, m[0], "/sandboxes/"+id+m[1], nil), 404, `{"detail":"Sandbox not found"}`)
		}
	}},
	{"original: NDJSON records, byte for byte", func(t *testing.T, s *Server, _ string) {
		id := s.seedCreate(t)
		for _, tt := range []struct{ code, want string }{
			{"print('é', 'x')", `{"output_type": "stream", "name": "stdout", "text": "\u00e9 x\n"}` + "\n"},
			{"import sys; print('😀\x01', file=sys.stderr)", `{"output_type": "stream", "name": "stderr", "text": "\ud83d\ude00\u0001\n"}` + "\n"},
			{
				"from IPython.display import display\ndisplay({'application/json': {'b': [1, 2.5, None], 'a': 'ü'}}, raw=True)",
				`{"output_type": "display_data", "data": {"application/json": {"b": [1, 2.5, null], "a": "\u00fc"}}, "metadata": {}}` + "\n",
			},
			{"x = 1", ""},
			{"", "400"},
			{" \n", "400"},
		} {
			a := s.send(t, "POST", "/sandboxes/"+id+"/execute", map[string]string{"code": tt.code})
			if tt.want == "400" {
				exact(t, a, 400, `{"detail":"Code cannot be empty."}`)
				continue
			}
			if a.Status != 200 || string(a.Body) != tt.want || a.Header.Get("Content-Type") != "application/x-ndjson" {
				t.Errorf("%q gives %d %s\nwant %s", tt.code, a.Status, a.Body, tt.want)
			}
		}
		a := s.send(t, "POST", "/api/sandboxes/"+id+"/execute", map[string]string{"code": "x + 1"})
		if !regexp.MustCompile(`^\{"output_type": "execute_result", "execution_count": \d+, "data": \{"text/plain": "2"\}, "metadata": \{\}\}\n$`).Match(a.Body) {
			t.Errorf("result = %s", a.Body)
		}
		a = s.send(t, "POST", "/sandboxes/"+id+"/execute", map[string]string{"code": "print(1)\n1/0\nprint(2)"})
		lines := strings.Split(strings.TrimSpace(string(a.Body)), "\n")
		if len(lines) != 2 || !strings.HasPrefix(lines[1], `{"output_type": "error", "ename": "ZeroDivisionError", "evalue": "division by zero", "traceback": ["`) {
			t.Errorf("error = %s", a.Body)
		}
		a = s.send(t, "POST", "/sandboxes/"+id+"/execute", map[string]string{"code": "import os; os._exit(1)"})
		if !strings.HasPrefix(string(a.Body), `{"output_type": "error", "ename": "ExecutionError", `) {
			t.Errorf("killed = %s", a.Body)
		}
	}},
	{"original: failures have FastAPI's shape", func(t *testing.T, s *Server, _ string) {
		js := header{"Content-Type", "application/json"}
		missing := `{"detail":[{"type":"missing","loc":["body","%s"],"msg":"Field required","input":%s}]}`
		exact(t, s.do(t, "POST", "/sandboxes", strings.NewReader(`{}`), js), 422, fmt.Sprintf(missing, "lang", "{}"))
		exact(t, s.do(t, "POST", "/sandboxes", strings.NewReader(`{"lang":1}`), js), 422, `{"detail":[{"type":"string_type","loc":["body","lang"],"msg":"Input should be a valid string","input":1}]}`)
		exact(t, s.do(t, "POST", "/sandboxes", nil), 422, `{"detail":[{"type":"missing","loc":["body"],"msg":"Field required","input":null}]}`)
		exact(t, s.do(t, "POST", "/sandboxes", strings.NewReader(`{"lang":"ruby"}`), js), 400, `{"detail":"Only Python sandboxes are supported."}`)
		if a := s.do(t, "POST", "/sandboxes", strings.NewReader(`{"lang":`), js); a.Status != 422 || !strings.HasPrefix(string(a.Body), `{"detail":[{"type":"json_invalid","loc":["body",`) {
			t.Errorf("broken JSON = %d %s", a.Status, a.Body)
		}
		exact(t, s.do(t, "POST", "/sandboxes/sandbox-00000000/execute", strings.NewReader(`{"code":"1"}`), js), 404, `{"detail":"Sandbox not found"}`)
		exact(t, s.do(t, "POST", "/sandboxes/sandbox-00000000/execute", strings.NewReader(`{"cod":"1"}`), js), 422, fmt.Sprintf(missing, "code", `{"cod":"1"}`))
		big := `{"code":"` + strings.Repeat("#", 10<<20) + `"}`
		if a := s.do(t, "POST", "/sandboxes/sandbox-00000000/execute", strings.NewReader(big), js); a.Status != 413 {
			t.Errorf("10 MB = %d %.200s", a.Status, a.Body)
		}
		exact(t, s.do(t, "POST", "/execute", strings.NewReader(`{"code":" "}`), js), 400, `{"detail":"Missing 'code' field"}`)
		exact(t, s.do(t, "POST", "/execute", strings.NewReader(`{"code":"1"}`), js), 404, `{"detail":"This is not a sandbox. Use POST /sandboxes/{id}/execute."}`)
		exact(t, s.do(t, "POST", "/api/sandboxes/upload", nil), 422, `{"detail":[{"type":"missing","loc":["query","session_id"],"msg":"Field required","input":null}]}`)
		exact(t, s.do(t, "POST", "/api/sandboxes/upload?session_id=nobody", nil), 404, `{"detail":"No active sandbox for this session"}`)
	}},
	{"original: uploads of every type are written under /uploaded_files", func(t *testing.T, s *Server, _ string) {
		id := s.seedCreate(t)
		for _, name := range []string{"data.csv", "picture.png", "noextension", "ünï.xlsx", "-rf", ";rm -rf *"} {
			body, ct := upload("file", `filename="`+name+`"`, "content of "+name)
			exact(t, s.do(t, "POST", "/sandboxes/"+id+"/upload", body, ct), 200,
				fmt.Sprintf(`{"message":"File '%s' uploaded to sandbox","filename":"%s","size":%d,"path":"/uploaded_files/%s"}`, name, name, len("content of "+name), name))
			sb, ok := s.Fleet.BySeedID(id)
			if !ok {
				t.Fatal("no sandbox")
			}
			if got := s.do(t, "GET", fileURL(string(sb.ID()), "/uploaded_files/"+name), nil); string(got.Body) != "content of "+name {
				t.Errorf("%s holds %q", name, got.Body)
			}
		}
		a := s.do(t, "GET", "/sandboxes/"+id+"/files", nil)
		var files struct{ Files string }
		if err := json.Unmarshal(a.Body, &files); err != nil || !strings.HasPrefix(files.Files, "total ") || !strings.Contains(files.Files, " data.csv\n") {
			t.Errorf("files = %s", a.Body)
		}
		a = s.send(t, "POST", "/sandboxes/"+id+"/execute", map[string]string{"code": "print(open('../uploaded_files/data.csv').read())"})
		if !strings.Contains(string(a.Body), "content of data.csv") {
			t.Errorf("the kernel reads %s", a.Body)
		}
	}},
	{"original: bad file names are refused, and cut uploads leave nothing", func(t *testing.T, s *Server, _ string) {
		id := s.seedCreate(t)
		for _, name := range []string{"..", ".", "../../etc/passwd", "/etc/passwd", "a/b", `a\\b`, strings.Repeat("n", 300), ""} {
			body, ct := upload("file", `filename="`+name+`"`, "x")
			a := s.do(t, "POST", "/sandboxes/"+id+"/upload", body, ct)
			if a.Status != 400 && !(name == "" && a.Status == 422) || !strings.HasPrefix(string(a.Body), `{"detail":`) {
				t.Errorf("%q = %d %s, want 400", name, a.Status, a.Body)
			}
		}
		body, ct := upload("file", `filename*=UTF-8''a%00b`, "x")
		if a := s.do(t, "POST", "/sandboxes/"+id+"/upload", body, ct); a.Status != 400 {
			t.Errorf("NUL = %d %s, want 400", a.Status, a.Body)
		}
		body, ct = upload("data", `filename="a.csv"`, "x")
		exact(t, s.do(t, "POST", "/sandboxes/"+id+"/upload", body, ct), 422, `{"detail":[{"type":"missing","loc":["body","file"],"msg":"Field required","input":null}]}`)

		body, ct = upload("file", `filename="cut.csv"`, strings.Repeat("x", 1<<20))
		whole, _ := io.ReadAll(body)
		if a := s.do(t, "POST", "/sandboxes/"+id+"/upload", bytes.NewReader(whole[:len(whole)/2]), ct); a.Status != 400 {
			t.Errorf("a form that ends too early = %d %s, want 400", a.Status, a.Body)
		}
		sb, _ := s.Fleet.BySeedID(id)
		s.awaitListing(t, string(sb.ID()), "/uploaded_files")
	}},
	{"original: a session has one sandbox, and a new one when it is gone", func(t *testing.T, s *Server, _ string) {
		session := "5f0c6f1e-0000-4000-8000-" + fmt.Sprintf("%012d", time.Now().UnixNano()%1e12)
		path := "/api/sessions/" + session + "/initialize"
		type reply struct {
			Status    string `json:"status"`
			SandboxID string `json:"sandbox_id"`
		}
		answers := make(chan answer, 3)
		for range 3 {
			go func() { answers <- s.do(t, "POST", path, nil) }()
		}
		states, id := map[string]int{}, ""
		for range 3 {
			a := <-answers
			r := into[reply](t, a, 200)
			states[r.Status]++
			if id != "" && id != r.SandboxID {
				t.Errorf("two sandboxes for one session: %s, %s", id, r.SandboxID)
			}
			id = r.SandboxID
			if r.Status == "created" {
				exact(t, a, 200, `{"status":"created","session_id":"`+session+`","sandbox_id":"`+id+`","message":"Sandbox environment initialized successfully"}`)
			}
		}
		if states["created"] != 1 || states["exists"] != 2 {
			t.Errorf("answers = %v", states)
		}
		exact(t, s.do(t, "POST", path, nil), 200, `{"status":"exists","session_id":"`+session+`","sandbox_id":"`+id+`"}`)
		body, ct := upload("file", `filename="a.txt"`, "hello")
		exact(t, s.do(t, "POST", "/api/sandboxes/upload?session_id="+session, body, ct), 200,
			`{"message":"File 'a.txt' uploaded to sandbox","filename":"a.txt","size":5,"path":"/uploaded_files/a.txt"}`)
		s.do(t, "DELETE", "/sandboxes/"+id, nil)
		exact(t, s.do(t, "POST", "/api/sandboxes/upload?session_id="+session, nil), 404, `{"detail":"No active sandbox for this session"}`)
		again := into[reply](t, s.do(t, "POST", path, nil), 200)
		if again.Status != "created" || again.SandboxID == id {
			t.Errorf("after the sandbox is gone = %+v", again)
		}
		s.do(t, "DELETE", "/sandboxes/"+again.SandboxID, nil)
		failed := s.do(t, "POST", "/api/sessions/"+strings.Repeat("s", 500)+"/initialize", nil)
		if failed.Status != http.StatusOK || !strings.HasPrefix(string(failed.Body), `{"status":"failed","session_id":"sss`) ||
			!strings.HasSuffix(string(failed.Body), `"message":"Sandbox initialization failed, will create on first code execution"}`) {
			t.Errorf("failed = %d %s", failed.Status, failed.Body)
		}
	}},
	{"original and /v1 see the same sandboxes", func(t *testing.T, s *Server, _ string) {
		id := s.seedCreate(t)
		s.send(t, "POST", "/sandboxes/"+id+"/execute", map[string]string{"code": "shared = 'both'"})
		sb, _ := s.Fleet.BySeedID(id)
		if got := s.run(t, string(sb.ID()), "shared"); result(t, got) != "'both'" {
			t.Errorf("through /v1 = %+v", got)
		}
		if a := s.do(t, "GET", "/sandboxes/"+string(sb.ID()), nil); a.Status != 200 {
			t.Errorf("by its own id = %d", a.Status)
		}
	}},
}
