package crash

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/llm/llmtest"
	"github.com/caesarion/caesarion/internal/session"
	"github.com/caesarion/caesarion/test/servertest"
)

const sessionKills = 15

// The model talks slowly, runs code and talks again, so that a kill meets it
// anywhere.
const crashScript = `
scenarios:
  - match: count
    steps:
      - text: I count for you now, one after the other, slowly.
        drip: 20ms
        calls:
          - {name: python_interpreter, arguments: {code: "import time\nfor i in range(40):\n    print(i, flush=True)\n    time.sleep(0.01)"}}
      - text: That was all there is to count, and it took a while.
        drip: 20ms
`

// counting prints numbered lines for longer than a server lives here.
const (
	countTo  = 400
	counting = "import time\nfor i in range(%d):\n    print(i, flush=True)\n    time.sleep(0.01)"
)

// line is what the test looks at in an event.
type line struct {
	Seq         int64           `json:"seq"`
	Type        event.Type      `json:"type"`
	ItemID      string          `json:"item_id"`
	ExecutionID string          `json:"execution_id"`
	Data        json.RawMessage `json:"data"`
}

// kept is a session, and what the server has shown and acknowledged of it.
type kept struct {
	id string

	mu    sync.Mutex
	lines map[int64]string // by number, as a reader got them
	last  int64
}

func (k *kept) path() string { return "/v1/sessions/" + k.id }

// read follows the session's events after a number until stop says so, and
// compares them with those read before.
func (k *kept) read(ctx context.Context, t *testing.T, s *servertest.Server, after int64, stop func(line) bool) error {
	resp, err := s.Open(ctx, http.MethodGet, k.path()+"/events?after="+strconv.FormatInt(after, 10), nil, [2]string{"Accept", v1.MediaSSE})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	for next := after + 1; ; {
		text, err := r.ReadString('\n')
		if err != nil {
			return err
		}
		data, ok := strings.CutPrefix(strings.TrimSuffix(text, "\n"), "data: ")
		if !ok {
			continue
		}
		var l line
		if err := json.Unmarshal([]byte(data), &l); err != nil {
			t.Errorf("%s: an event is no JSON: %v: %.200s", k.id, err, data)
			return err
		}
		if l.Seq == 0 {
			if l.Type == "stream.gap" {
				t.Errorf("%s: a gap after %d", k.id, next-1)
			}
			continue
		}
		k.mu.Lock()
		switch old, known := k.lines[l.Seq]; {
		case l.Seq != next:
			t.Errorf("%s: event %d comes after %d", k.id, l.Seq, next-1)
		case known && old != data:
			t.Errorf("%s: event %d was\n%s\nand now is\n%s", k.id, l.Seq, old, data)
		case !known:
			k.lines[l.Seq] = data
		}
		k.last = max(k.last, l.Seq)
		k.mu.Unlock()
		next = l.Seq + 1
		if stop(l) {
			return nil
		}
	}
}

// check reads everything again from a server that has just started: nothing
// that was seen may be missing or different, and the events must lead to what
// the detail shows.
func (k *kept) check(t *testing.T, s *servertest.Server) v1.SessionDetail {
	t.Helper()
	var d v1.SessionDetail
	if err := s.JSON(t.Context(), http.MethodGet, k.path(), nil, &d); err != nil {
		t.Fatalf("%s: %v", k.id, err)
	}
	if d.LastSeq < k.last {
		t.Errorf("%s: the last number is %d, and %d was seen", k.id, d.LastSeq, k.last)
		return d
	}
	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	if err := k.read(ctx, t, s, 0, func(l line) bool { return l.Seq >= d.LastSeq }); err != nil {
		t.Errorf("%s: reading again: %v", k.id, err)
		return d
	}
	view := session.NewView(v1.SessionDetail{})
	turns := map[string]v1.Turn{}
	for seq := int64(1); seq <= d.LastSeq; seq++ {
		text := []byte(k.lines[seq])
		if err := view.Apply(text); err != nil {
			t.Errorf("%s: event %d: %v", k.id, seq, err)
		}
		var l line
		_ = json.Unmarshal(text, &l) // was read before
		if l.Type == event.TurnStarted || l.Type == event.TurnFinished {
			var turn v1.Turn
			_ = json.Unmarshal(l.Data, &turn)
			turns[turn.ID] = turn
		}
	}
	if got, want := summary(view.Items()), summary(d.Items); got != want {
		t.Errorf("%s: the events give\n%s\nand the server has\n%s", k.id, got, want)
	}
	for id, turn := range turns {
		if turn.Status == "running" && (d.Turn == nil || d.Turn.ID != id) {
			t.Errorf("%s: turn %s neither runs nor has ended", k.id, id)
		}
	}
	return d
}

// summary is what must agree of items; text of streams is whole in both, since
// it is short here.
func summary(items []v1.Item) string {
	var b strings.Builder
	for _, it := range items {
		fmt.Fprintf(&b, "%s %s %s %q %q", it.ID, it.Kind, it.Status, it.Text, it.Code)
		for _, out := range it.Outputs {
			fmt.Fprintf(&b, " %s:%x", out.Type, sha256.Sum256([]byte(out.Text)))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// wantCounted checks that a cell's output is 0, 1, 2, … without a loss or a
// double, and all of it if the cell came to its end.
func wantCounted(t *testing.T, it v1.Item, to int) (n int) {
	t.Helper()
	var text strings.Builder
	for _, out := range it.Outputs {
		text.WriteString(out.Text)
	}
	for got := range strings.Lines(text.String()) {
		if got != fmt.Sprintln(n) && (it.Status != "running" || got != strconv.Itoa(n)) {
			t.Errorf("cell %s (%s): line %d is %q", it.ID, it.Status, n, got)
			return n
		}
		n++
	}
	if it.Status == "ok" && n != to {
		t.Errorf("cell %s is ok with %d of %d lines", it.ID, n, to)
	}
	return n
}

// world is all that the server holds over the kills.
type world struct {
	notebook, chat, files kept

	cell   string // counts
	edited string // is edited
	edits  int    // acknowledged

	upload upload
}

// upload is one file on its way.
type upload struct {
	n    int
	body []byte
	done map[string][32]byte // path → sum of what was acknowledged
}

const piece = 128 << 10

func (u *upload) name() string { return fmt.Sprintf("/workspace/up-%d.bin", u.n) }

func (u *upload) renew() {
	u.n++
	u.body = make([]byte, 12*piece+17)
	for i := range u.body {
		u.body[i] = byte(rand.Uint32())
	}
}

// offset asks how much of the upload is there; -1: there is none.
func (u *upload) offset(ctx context.Context, s *servertest.Server, k *kept) (int, error) {
	resp, err := s.Open(ctx, http.MethodHead, k.path()+"/files/upload?path="+u.name(), nil, [2]string{"Upload-Id", fmt.Sprintf("upload-%d-of-the-test", u.n)})
	if err != nil {
		return 0, err
	}
	_ = resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return -1, nil
	}
	return strconv.Atoi(resp.Header.Get("Upload-Offset"))
}

// work uploads files in pieces until the server is gone.
func (u *upload) work(ctx context.Context, t *testing.T, s *servertest.Server, k *kept) {
	for ctx.Err() == nil {
		from, err := u.offset(ctx, s, k)
		if err != nil {
			return
		}
		if from = max(from, 0); from > len(u.body) {
			t.Errorf("%s: %d bytes are there of %d", u.name(), from, len(u.body))
			return
		}
		to := min(from+piece, len(u.body))
		part := fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(u.body))
		if from == to { // all bytes came, and the kill came before the answer
			part = fmt.Sprintf("bytes */%d", len(u.body))
		}
		resp, err := s.Open(ctx, http.MethodPut, k.path()+"/files/content?overwrite=true&path="+u.name(), bytes.NewReader(u.body[from:to]),
			[2]string{"Upload-Id", fmt.Sprintf("upload-%d-of-the-test", u.n)}, [2]string{"Content-Type", "application/octet-stream"},
			[2]string{"Content-Range", part})
		if err != nil {
			return
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		switch resp.StatusCode {
		case http.StatusCreated:
			u.done[u.name()] = sha256.Sum256(u.body)
			u.renew()
		case http.StatusPermanentRedirect:
			time.Sleep(10 * time.Millisecond) // so that kills meet uploads half-way, and not many of them
		case http.StatusServiceUnavailable: // it stops
			return
		default:
			t.Errorf("%s: bytes %d to %d: %s %s", u.name(), from, to, resp.Status, text)
			return
		}
	}
}

func (u *upload) check(t *testing.T, s *servertest.Server, k *kept) {
	t.Helper()
	for name, want := range u.done {
		resp, err := s.Open(t.Context(), http.MethodGet, k.path()+"/files/content?path="+name, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK || sha256.Sum256(body) != want {
			t.Errorf("%s: %s, %d bytes that are not what was uploaded, %v", name, resp.Status, len(body), err)
		}
	}
}

// edit changes a cell's code until the server is gone.
func (w *world) edit(ctx context.Context, s *servertest.Server) {
	for ctx.Err() == nil {
		code := "# " + strconv.Itoa(w.edits+1)
		if s.JSON(ctx, http.MethodPatch, w.notebook.path()+"/items/"+w.edited, v1.UpdateItem{Code: &code}, nil) != nil {
			return
		}
		w.edits++
		time.Sleep(5 * time.Millisecond) // so that the log stays short enough to be read again
	}
}

// talk sends messages, now and then one that has to wait.
func (w *world) talk(ctx context.Context, t *testing.T, s *servertest.Server) {
	for ctx.Err() == nil {
		var d v1.Session
		if s.JSON(ctx, http.MethodGet, w.chat.path(), nil, &d) != nil {
			return
		}
		if d.Turn == nil || len(d.Queue) == 0 && rand.IntN(50) == 0 {
			err := s.JSON(ctx, http.MethodPost, w.chat.path()+"/messages", v1.SendMessage{Text: "count"}, nil)
			if p, ok := errors.AsType[*v1.Problem](err); ok && p.Status != http.StatusServiceUnavailable {
				t.Errorf("a message: %v", err)
			}
			if err != nil {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (w *world) start(t *testing.T, s *servertest.Server) {
	t.Helper()
	for _, k := range []*kept{&w.notebook, &w.chat, &w.files} {
		var v v1.Session
		if err := s.JSON(t.Context(), http.MethodPost, "/v1/sessions", v1.CreateSession{}, &v); err != nil {
			t.Fatal(err)
		}
		k.id, k.lines = v.ID, map[int64]string{}
	}
	for _, to := range []*string{&w.cell, &w.edited} {
		var it v1.Item
		if err := s.JSON(t.Context(), http.MethodPost, w.notebook.path()+"/items", v1.CreateItem{Kind: "cell", Code: fmt.Sprintf(counting, countTo)}, &it); err != nil {
			t.Fatal(err)
		}
		*to = it.ID
	}
	w.upload.done = map[string][32]byte{}
	w.upload.renew()
}

// counted is how runs of the counting cell ended, or went on.
type counted struct{ ended, followed, cut int }

func TestSessionsAreWholeWhenTheServerIsKilled(t *testing.T) {
	data := servertest.DataDir(t)
	model := llmtest.Start(t, crashScript)
	config := filepath.Join(data, "config.yaml")
	if err := os.WriteFile(config, []byte("models: [{name: scripted, base_url: \""+model.URL+"\"}]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var w world
	var count counted
	cut := 0 // turns
	for i := range sessionKills {
		s := servertest.Start(t, data, "--config", config)
		if i == 0 {
			w.start(t, s)
		}
		cut += w.check(t, s, &count)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, k := range []*kept{&w.notebook, &w.chat, &w.files} {
			wg.Go(func() { _ = k.read(ctx, t, s, k.last, func(line) bool { return false }) })
		}
		wg.Go(func() { w.upload.work(ctx, t, s, &w.files) })
		wg.Go(func() { w.edit(ctx, s) })
		wg.Go(func() { w.talk(ctx, t, s) })
		time.Sleep(time.Duration(rand.Int64N(int64(2500 * time.Millisecond)))) // the random moment is the test's input
		s.Kill()
		cancel()
		wg.Wait()
		if t.Failed() {
			return
		}
	}
	s := servertest.Start(t, data, "--config", config)
	cut += w.check(t, s, &count)
	t.Logf("%d edits, %d files, %d turns cut; of the counting cell %d runs ended, %d times it was followed, %d cut; %d, %d, %d events",
		w.edits, len(w.upload.done), cut, count.ended, count.followed, count.cut, w.notebook.last, w.chat.last, w.files.last)
	if cut == 0 || count.followed == 0 || w.edits == 0 || len(w.upload.done) == 0 {
		t.Error("the kills met too little for this to say anything")
	}
	for _, k := range []*kept{&w.notebook, &w.chat, &w.files} {
		if err := s.JSON(t.Context(), http.MethodDelete, k.path(), nil, nil); err != nil {
			t.Error(err)
		}
	}
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
	for _, problem := range model.Problems() {
		t.Errorf("the model was asked wrongly: %s", problem)
	}
}

// check looks at all sessions after a start, and gives how many turns were cut.
func (w *world) check(t *testing.T, s *servertest.Server, count *counted) (cut int) {
	t.Helper()
	w.upload.check(t, s, &w.files)
	w.files.check(t, s)

	d := w.chat.check(t, s)
	if d.LastTurn != nil && d.LastTurn.Status == "cut" {
		cut++
		if d.LastTurn.Code != "server-restarted" || d.LastTurn.Message == "" {
			t.Errorf("a turn that was cut says %+v", d.LastTurn)
		}
	}
	for _, it := range d.Items {
		if it.Kind == "cell" && it.Status != "writing" {
			wantCounted(t, it, 40)
		}
	}

	d = w.notebook.check(t, s)
	for _, it := range d.Items {
		switch it.ID {
		case w.edited:
			if n, _ := strconv.Atoi(strings.TrimPrefix(it.Code, "# ")); w.edits > 0 && n != w.edits && n != w.edits+1 {
				t.Errorf("edit %d was acknowledged, and the code is %q", w.edits, it.Code)
			} else if w.edits > 0 {
				w.edits = n
			}
		case w.cell:
			wantCounted(t, it, countTo)
			switch it.Status {
			case "running", "queued":
				count.followed++
				return cut
			case "cut":
				if count.cut++; it.Message == "" {
					t.Error("a cell that was cut does not say why")
				}
			case "ok":
				count.ended++
			case "idle":
			default:
				t.Errorf("the counting cell is %s %s: %s", it.Status, it.Reason, it.Message)
			}
			if err := s.JSON(t.Context(), http.MethodPost, w.notebook.path()+"/run", v1.RunItems{Items: []string{w.cell}}, nil); err != nil {
				t.Error(err)
			}
		}
	}
	return cut
}
