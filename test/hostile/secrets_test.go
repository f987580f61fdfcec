package hostile

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/llm/llmtest"
	"github.com/caesarion/caesarion/test/servertest"
)

// secretKey is what must be nowhere but in the server and at the model's.
const secretKey = "sk-proj-4f9QzSecretOfTheOperator7Tq"

// The model's servers repeat the key in failures, as some do.
const secretScript = `
scenarios:
  - match: run
    steps:
      - calls: [{name: python_interpreter, arguments: {code: "import os\nprint(dict(os.environ))"}}]
      - text: Done.
  - {match: refuse, steps: [{status: 403, error: {message: "The key ` + secretKey + ` may not do this, nor may Bearer ` + secretKey + `."}}]}
  - {match: wrong, steps: [{status: 401, error: {message: "Incorrect API key provided: ` + secretKey + `"}}]}
  - {match: midway, steps: [{text: Then, error: {message: "overloaded for ` + secretKey + `", type: server_error}}]}
`

// lookAround prints whatever of its surroundings code can read.
const lookAround = `
import os, sys
seen = [repr(dict(os.environ)), repr(sys.argv)]
places = ["/proc", "/etc", "/run", "/tmp", "/var/run", "/home", "/root", "/workspace", "/opt", "/dev", "/sys/fs/cgroup"]
for place in places:
    for folder, folders, files in os.walk(place):
        if folder.count("/") > 6:
            folders.clear()
        folders[:] = [f for f in folders if f not in ("self", "thread-self", "task")] if place == "/proc" else folders
        for name in files:
            path = os.path.join(folder, name)
            if name in ("kmsg", "kcore", "zero", "random", "urandom", "full", "tty", "ptmx", "stdin", "stdout", "stderr", "console") or "/fd" in folder:
                continue
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    seen.append(os.read(fd, 1 << 16).decode("utf-8", "replace"))
                finally:
                    os.close(fd)
            except OSError:
                pass
for pid in os.listdir("/proc"):
    for name in ("environ", "cmdline", "mounts"):
        try:
            seen.append(open(f"/proc/{pid}/{name}", errors="replace").read())
        except OSError:
            pass
text = "\n".join(seen)
print(len(seen), "texts;", "found" if "SecretOfThe" + "Operator" in text or "OPENAI" in text else "nothing")
`

func TestTheModelsKeyIsNowhereElse(t *testing.T) {
	data := servertest.DataDir(t)
	model := llmtest.Start(t, secretScript)
	t.Setenv("OPENAI_API_KEY", secretKey)
	t.Setenv("OPENAI_BASE_URL", model.URL)
	t.Setenv("OPENAI_MODEL", "scripted")
	s := servertest.Start(t, data, "--log-level", "debug", "--log-format", "json")
	nowhere := func(where string, text []byte) {
		t.Helper()
		for _, secret := range []string{secretKey, secretKey[8:]} {
			if i := bytes.Index(text, []byte(secret)); i >= 0 {
				t.Errorf("the key is in %s: …%s…", where, text[max(i-200, 0):min(i+80, len(text))])
				return
			}
		}
	}
	get := func(path string) []byte {
		t.Helper()
		resp, err := s.Open(t.Context(), http.MethodGet, path, nil, [2]string{"Accept", "*/*"})
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode >= 500 {
			t.Errorf("GET %s: %s %v", path, resp.Status, err)
		}
		return text
	}

	var v v1.Session
	if err := s.JSON(t.Context(), http.MethodPost, "/v1/sessions", v1.CreateSession{}, &v); err != nil {
		t.Fatal(err)
	}
	path := "/v1/sessions/" + v.ID
	await := func(ready func(v1.SessionDetail) bool) v1.SessionDetail {
		t.Helper()
		for end := time.Now().Add(servertest.Patience); ; time.Sleep(20 * time.Millisecond) {
			var d v1.SessionDetail
			if err := s.JSON(t.Context(), http.MethodGet, path, nil, &d); err != nil {
				t.Fatal(err)
			}
			if ready(d) {
				return d
			}
			if time.Now().After(end) {
				t.Fatalf("never: %+v", d)
			}
		}
	}
	for _, text := range []string{"run", "refuse", "wrong", "midway"} {
		if err := s.JSON(t.Context(), http.MethodPost, path+"/messages", v1.SendMessage{Text: text}, nil); err != nil {
			t.Fatal(err)
		}
		d := await(func(d v1.SessionDetail) bool { return d.Turn == nil && d.LastTurn != nil })
		if text != "run" && (d.LastTurn.Status != "error" || d.LastTurn.Message == "") {
			t.Errorf("%s: %+v", text, d.LastTurn)
		}
	}
	if asked := model.Requests(); len(asked) == 0 || asked[0].Header.Get("Authorization") != "Bearer "+secretKey {
		t.Error("the model was not asked with the key, so this says nothing")
	}

	var cell v1.Item
	if err := s.JSON(t.Context(), http.MethodPost, path+"/items", v1.CreateItem{Kind: "cell", Code: lookAround}, &cell); err != nil {
		t.Fatal(err)
	}
	if err := s.JSON(t.Context(), http.MethodPost, path+"/run", v1.RunItems{Items: []string{cell.ID}}, nil); err != nil {
		t.Fatal(err)
	}
	d := await(func(d v1.SessionDetail) bool {
		last := d.Items[len(d.Items)-1]
		return last.ID == cell.ID && last.Status != "queued" && last.Status != "running"
	})
	last := d.Items[len(d.Items)-1]
	if last.Status != "ok" || len(last.Outputs) == 0 || !strings.HasSuffix(last.Outputs[0].Text, "texts; nothing\n") {
		t.Errorf("in the sandbox: %s %+v", last.Status, last.Outputs)
	} else {
		t.Log(last.Outputs[0].Text)
	}
	// Whoever breaks out of the sandbox is in these processes.
	mine := strconv.Itoa(s.PID)
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	looked := 0
	for _, file := range environs {
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "cmdline"))
		if pid := filepath.Base(filepath.Dir(file)); pid == mine || pid == strconv.Itoa(os.Getpid()) || !bytes.Contains(command, []byte("caesarion")) {
			continue
		}
		if text, err := os.ReadFile(file); err == nil {
			looked++
			nowhere("the environment of "+strings.ReplaceAll(string(command), "\x00", " "), text)
		}
	}
	t.Logf("%d processes of sandboxes", looked)

	for _, at := range []string{
		"/v1/models", "/v1/info", "/v1/sessions", path, path + "/export?format=ipynb", path + "/export?format=py", path + "/export?format=md", path + "/files?path=/workspace",
		path + "/variables", "/v1/sessions/none", "/v1/sandboxes", "/openapi.json", "/docs", "/", "/assets/index.js", "/frame/", "/health",
	} {
		nowhere(at, get(at))
	}
	resp, err := s.Open(t.Context(), http.MethodGet, path+"/events", nil, [2]string{"Accept", v1.MediaNDJSON})
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(resp.Body)
	for {
		var line struct {
			Seq int64 `json:"seq"`
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			t.Fatal(err)
		}
		nowhere("an event", raw)
		if _ = json.Unmarshal(raw, &line); line.Seq >= d.LastSeq {
			break
		}
	}
	_ = resp.Body.Close()

	s.DeleteAll(t)
	s.Stop(t)
	nowhere("the log", []byte(s.Log()))
	if !strings.Contains(s.Log(), `"level":"DEBUG"`) {
		t.Error("nothing of level debug was logged, so this says nothing")
	}
	for _, pattern := range []string{"*", "*/*"} {
		files, _ := filepath.Glob(filepath.Join(data, pattern))
		for _, file := range files {
			if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() || strings.Contains(file, "/images") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Error(err)
			}
			nowhere(file, text)
		}
	}
	servertest.WantNothingLeft(t, data)
}
