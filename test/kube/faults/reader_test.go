package faults

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// What people have running: it counts until it is told to stop, so that no
// fault is too slow for it.
const counting = `import os, time
i = 0
while not os.path.exists("/workspace/stop"):
    print(i, flush=True)
    i += 1
    time.sleep(0.1)
print("end", i)`

// stream is a running execution and somebody who reads what it writes.
type stream struct {
	w       *world
	name    string
	path    string // of the events
	key     string // what the servers own: a session, or a sandbox without one
	session string // "": the execution is a sandbox's own
	cell    string // item of the session
	box     string // sandbox

	done chan struct{} // closed when the execution has ended, or err is set

	mu      sync.Mutex
	last    int64 // number of the last event
	lines   strings.Builder
	count   int
	breaks  int           // how often the stream ended before the execution
	refused int           // how often the reader was told to come back later
	gap     time.Duration // longest time without an event
	heard   time.Time
	status  string
	err     error
}

// inSession runs code as a cell of a new session, as the page does.
func (w *world) inSession(t *testing.T, code string) *stream {
	t.Helper()
	var sess v1.Session
	w.call(t, http.MethodPost, "/v1/sessions", v1.CreateSession{}, 201, &sess)
	var cell v1.Item
	w.call(t, http.MethodPost, "/v1/sessions/"+sess.ID+"/items", v1.CreateItem{Kind: "cell", Code: code}, 201, &cell)
	w.call(t, http.MethodPost, "/v1/sessions/"+sess.ID+"/run", v1.RunItems{Items: []string{cell.ID}}, 202, nil)
	s := &stream{w: w, name: "session " + sess.ID, path: "/v1/sessions/" + sess.ID + "/events", key: sess.ID, session: sess.ID, cell: cell.ID}
	s.follow(t)
	s.wantMore(t, 1)
	var detail v1.SessionDetail
	w.call(t, http.MethodGet, "/v1/sessions/"+sess.ID, nil, 200, &detail)
	if s.box = detail.Sandbox.ID; s.box == "" {
		t.Fatalf("a session that runs has no sandbox: %+v", detail.Sandbox)
	}
	return s
}

// inSandbox runs code in a new sandbox without a session, as programs do.
func (w *world) inSandbox(t *testing.T, code string) *stream {
	t.Helper()
	var box v1.Sandbox
	w.call(t, http.MethodPost, "/v1/sandboxes", v1.CreateSandbox{}, 201, &box)
	var exec v1.Execution
	w.call(t, http.MethodPost, "/v1/sandboxes/"+box.ID+"/executions", v1.Execute{Code: code}, 202, &exec, "Prefer", "respond-async")
	s := &stream{w: w, name: "sandbox " + box.ID, path: "/v1/sandboxes/" + box.ID + "/executions/" + exec.ID + "/events", key: box.ID, box: box.ID}
	s.follow(t)
	s.wantMore(t, 1)
	return s
}

// follow reads to the end of the execution, however often it has to come back.
func (s *stream) follow(t *testing.T) {
	s.done, s.heard = make(chan struct{}), time.Now()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(func() { cancel(); <-s.done })
	go func() {
		defer close(s.done)
		for !s.read(ctx) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond): // a browser waits longer
			}
		}
	}()
}

// read follows one answer and says whether no more is wanted.
func (s *stream) read(ctx context.Context) (over bool) {
	s.mu.Lock()
	header := []string{"Accept", v1.MediaSSE}
	if s.last > 0 {
		header = append(header, "Last-Event-ID", strconv.FormatInt(s.last, 10))
	}
	s.mu.Unlock()
	resp, err := s.w.open(ctx, s.w.service, http.MethodGet, s.path, nil, header...)
	if err != nil {
		return ctx.Err() != nil
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s.refusal(resp)
	}
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(nil, 16<<20)
	var id string
	for scan.Scan() {
		line := scan.Text()
		if value, ok := strings.CutPrefix(line, "id: "); ok {
			id = value
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok && id != "" {
			if over = s.take(id, data); over {
				return true
			}
			id = ""
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.breaks++
	return ctx.Err() != nil
}

func (s *stream) refusal(resp *http.Response) (over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused++
	if resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "" {
		return false
	}
	var p v1.Problem
	_ = json.NewDecoder(resp.Body).Decode(&p) // what there is of it
	s.err = fmt.Errorf("the events are refused: %d %+v", resp.StatusCode, p)
	return true
}

// take notes one event, which has to be the next.
func (s *stream) take(id, data string) (over bool) {
	var e struct {
		Seq    int64  `json:"seq"`
		Type   string `json:"type"`
		ItemID string `json:"item_id"`
		Data   struct {
			Text   string `json:"text"`
			Status string `json:"status"`
		} `json:"data"`
	}
	// Other events have other data.
	var wrong *json.UnmarshalTypeError
	if err := json.Unmarshal([]byte(data), &e); err != nil && !errors.As(err, &wrong) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = fmt.Errorf("event %s is %q: %w", id, data, err)
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if id != strconv.FormatInt(s.last+1, 10) || e.Seq != s.last+1 {
		s.err = fmt.Errorf("event %s (%d, %s) comes after %d", id, e.Seq, e.Type, s.last)
		return true
	}
	s.last = e.Seq
	s.gap = max(s.gap, time.Since(s.heard))
	s.heard = time.Now()
	if e.ItemID != s.cell {
		return false
	}
	switch e.Type {
	case "output.stream":
		s.lines.WriteString(e.Data.Text)
		s.count += strings.Count(e.Data.Text, "\n")
	case "execution.finished":
		s.status = e.Data.Status
		return true
	}
	return false
}

// so gives how many lines there are so far.
func (s *stream) so() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// wantMore waits for more lines than there are now.
func (s *stream) wantMore(t *testing.T, n int) {
	t.Helper()
	seen := s.so()
	s.w.eventually(t, "output of "+s.name, func(context.Context) error {
		select {
		case <-s.done:
			s.mu.Lock()
			defer s.mu.Unlock()
			t.Fatalf("%s ended with %q after %d lines: %v", s.name, s.status, s.count, s.err)
		default:
		}
		if s.so() < seen+n {
			return errNotYet
		}
		return nil
	})
}

// finish ends the execution by its own will, and checks that its reader has
// all of it, each event once, and that the server's own record says the same.
func (s *stream) finish(t *testing.T) {
	t.Helper()
	s.w.ok(t, http.MethodPut, "/v1/sandboxes/"+s.box+"/files/content?path=/workspace/stop", "x", "Content-Type", "application/octet-stream")
	select {
	case <-s.done:
	case <-time.After(patience):
		t.Fatalf("%s does not end", s.name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.Logf("%s: %d events, %d breaks, %d times refused, longest silence %v", s.name, s.last, s.breaks, s.refused, s.gap.Round(time.Millisecond))
	if s.err != nil {
		t.Fatalf("%s: %v", s.name, s.err)
	}
	want := expected(s.count - 1)
	if got := s.lines.String(); s.status != "ok" || got != want {
		t.Errorf("%s ended with %q and wrote %d lines, which are not the numbers to its end: %.300s…%.300s", s.name, s.status, s.count, got, got[max(0, len(got)-300):])
	}
	if s.session == "" {
		return
	}
	var detail v1.SessionDetail
	s.w.call(t, http.MethodGet, "/v1/sessions/"+s.session, nil, 200, &detail)
	for _, item := range detail.Items {
		var text strings.Builder
		for _, o := range item.Outputs {
			text.WriteString(o.Text)
		}
		if item.ID == s.cell && (item.Status != "ok" || text.String() != want) {
			t.Errorf("%s: the cell is %s (%s) and has %d bytes of %d", s.name, item.Status, item.Message, text.Len(), len(want))
		}
	}
	if detail.Sandbox.ID != s.box {
		t.Errorf("%s has sandbox %s, had %s", s.name, detail.Sandbox.ID, s.box)
	}
}

// expected is what counting writes when it counts to n.
func expected(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintln(&b, i)
	}
	fmt.Fprintln(&b, "end", n)
	return b.String()
}

// python runs code in a sandbox, to its end.
func (w *world) python(ctx context.Context, box, code string) (string, error) {
	a, err := w.try(ctx, w.service, http.MethodPost, "/v1/sandboxes/"+box+"/executions", v1.Execute{Code: code}, "Accept", v1.MediaJSON)
	if err != nil {
		return "", err
	}
	var exec v1.Execution
	if err := json.Unmarshal(a.body, &exec); err != nil || a.status >= 300 || exec.Status != "ok" {
		return "", fmt.Errorf("%d %.500s: %w", a.status, a.body, err)
	}
	var text strings.Builder
	for _, o := range exec.Outputs {
		text.WriteString(o.Text)
	}
	return text.String(), nil
}
