package chat

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/llm/llmtest"
	"github.com/caesarion/caesarion/internal/sandbox/fake/faketest"
	"github.com/caesarion/caesarion/internal/session"
	"github.com/caesarion/caesarion/internal/store"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// world is a server's inside with a scripted model.
type world struct {
	chat     *Service
	sessions *session.Service
	model    *llmtest.Server
	restart  func() // the process ends in good order and a new one starts
}

type worldOptions struct {
	chat   Options
	info   llm.Info
	kernel bool // there is Python
}

func newWorld(tb testing.TB, script string, opts worldOptions) *world {
	tb.Helper()
	w := &world{model: llmtest.Start(tb, script)}
	newHost := faketest.NewWithoutPython
	if opts.kernel {
		newHost = faketest.New
	}
	host := newHost(tb)
	if opts.info.Name == "" {
		opts.info.Name = "scripted"
	}
	transport := llm.NewTransport()
	tb.Cleanup(transport.CloseIdleConnections)
	model, err := llm.NewChatCompletions(llm.Endpoint{BaseURL: w.model.URL, Info: opts.info, Transport: transport})
	if err != nil {
		tb.Fatal(err)
	}
	path := filepath.Join(tb.TempDir(), "caesarion.db")
	start := func() (stop func()) {
		fl, err := fleet.New(context.WithoutCancel(tb.Context()), host.Driver(), nil, fleet.Options{Templates: map[string]fleet.Template{"python": {}}})
		if err != nil {
			tb.Fatal(err)
		}
		st, err := store.Open(tb.Context(), path, store.Options{})
		if err != nil {
			tb.Fatal(err)
		}
		if w.sessions, err = session.New(tb.Context(), fl, st, session.Options{}); err != nil {
			tb.Fatal(err)
		}
		if w.chat, err = New(w.sessions, llm.NewRegistry([]llm.Model{model}, llm.RegistryOptions{}), opts.chat); err != nil {
			tb.Fatal(err)
		}
		return func() {
			w.chat.Close()
			for _, c := range []interface{ Close() error }{w.sessions, fl, st} {
				if err := c.Close(); err != nil {
					tb.Error(err)
				}
			}
		}
	}
	stop := start()
	w.restart = func() {
		stop()
		stop = start()
	}
	tb.Cleanup(func() { stop() })
	return w
}

func (w *world) session(tb testing.TB) *session.Session {
	tb.Helper()
	s, err := w.sessions.Create(tb.Context(), v1.CreateSession{})
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

const patience = 60 * time.Second

// await waits until a session is as wanted.
func await(tb testing.TB, s *session.Session, what string, ready func(v1.SessionDetail) bool) v1.SessionDetail {
	tb.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		d := s.Detail()
		if ready(d) {
			return d
		}
		if time.Now().After(end) {
			text, _ := json.MarshalIndent(d, "", " ")
			tb.Fatalf("never came: %s: %.4000s", what, text)
		}
	}
}

func send(tb testing.TB, w *world, s *session.Session, text string) Sent {
	tb.Helper()
	sent, err := w.chat.Send(tb.Context(), s.ID(), v1.SendMessage{Text: text})
	if err != nil {
		tb.Fatal(err)
	}
	return sent
}

// ended waits for the end of a turn and gives it, with the session.
func ended(tb testing.TB, s *session.Session, turnID string) (v1.Turn, v1.SessionDetail) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	r := s.Reader(0)
	defer r.Close()
	for {
		batch, err := r.Next(ctx)
		if err != nil {
			text, _ := json.MarshalIndent(s.Detail(), "", " ")
			tb.Fatalf("turn %s did not end: %v: %.4000s", turnID, err, text)
		}
		for _, rec := range batch {
			if rec.Type != "turn.finished" {
				continue
			}
			var l struct {
				Data v1.Turn `json:"data"`
			}
			if err := json.Unmarshal(rec.Line, &l); err != nil {
				tb.Fatal(err)
			}
			if l.Data.ID == turnID {
				return l.Data, s.Detail()
			}
		}
	}
}

// ask sends a message and waits for the end of its turn.
func ask(tb testing.TB, w *world, s *session.Session, text string) (v1.Turn, v1.SessionDetail) {
	tb.Helper()
	return ended(tb, s, send(tb, w, s, text).TurnID)
}

// thread writes a thread as tests compare it, one item a line.
func thread(d v1.SessionDetail) string {
	var b strings.Builder
	for _, it := range d.Items {
		b.WriteString(it.Kind)
		switch it.Kind {
		case "cell":
			b.WriteString(" " + it.Code + " → " + it.Status)
			for _, o := range it.Outputs {
				b.WriteString(" " + o.Text + o.ErrorName)
			}
		case "tool":
			b.WriteString(" " + it.Tool.Name + " → " + it.Status)
		default:
			b.WriteString(" " + it.Text)
			if it.Status != "ok" && it.Status != "idle" {
				b.WriteString(" → " + it.Status)
			}
		}
		b.WriteString("\n")
	}
	return strings.ReplaceAll(strings.ReplaceAll(b.String(), "\n ", " "), "\n\n", "\n")
}
