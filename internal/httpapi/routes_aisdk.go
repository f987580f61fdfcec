package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/chat"
	"github.com/caesarion/caesarion/internal/chat/aisdk"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/jsonsize"
	"github.com/caesarion/caesarion/internal/session"
	"github.com/caesarion/caesarion/internal/workspace"
)

// Clients send their whole history with each message: pictures they attached,
// and in the original's case all outputs.
const (
	maxChatBody    = 64 << 20
	maxChatEntries = 1_000_000 // some 100 MiB of memory
)

func (a *API) aisdkRoutes() {
	tags := []string{tagOriginal}
	id := []*huma.Param{{Name: "chat_id", In: "path", Required: true, Schema: &huma.Schema{Type: "string"}}}
	a.plain(huma.Operation{
		OperationID: "aisdk-chat", Method: http.MethodPost, Path: "/api/chat", Tags: tags, RequestBody: jsonBody(`{"id":"my-chat","messages":[{"id":"1","role":"user","parts":[{"type":"text","text":"What is 6 * 7?"}]}]}`),
		Summary:     "Ask the model, as clients of the Vercel AI SDK do",
		Description: "Answers with the UI message stream (ai 5 and later) or the data stream (ai 4, and the original), as the request's shape or ?protocol=ui|data says. The chat is a session; see docs/chat.md.",
	}, a.aisdkChat)
	a.plain(huma.Operation{
		OperationID: "aisdk-resume", Method: http.MethodGet, Path: "/api/chat/{chat_id}/stream", Tags: tags, Parameters: id,
		Summary:   "Follow the answer that is being given, from its start",
		Responses: map[string]*huma.Response{"200": {Description: "UI message stream"}, "204": {Description: "The model is not at work"}},
	}, a.aisdkResume)
	a.plain(huma.Operation{
		OperationID: "aisdk-stop", Method: http.MethodPost, Path: "/api/chat/{chat_id}/stop", Tags: tags, Parameters: id,
		Summary: "Stop the model, and the code it runs", Responses: map[string]*huma.Response{"204": {Description: "Stopped, or nothing ran"}},
	}, a.aisdkStop)
}

// aisdkError answers before a stream has begun: clients show the text. Those
// of the original know FastAPI's shape.
func aisdkError(w http.ResponseWriter, r *http.Request, p aisdk.Protocol, err error) {
	if p == aisdk.Data {
		writeDetail(w, r, err)
		return
	}
	problem := problemFor(r.Context(), err)
	maps.Copy(w.Header(), problem.header)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(problem.Status)
	_, _ = io.WriteString(w, strings.TrimSpace(problem.Detail+" "+problem.Hint)) // the client may have left
}

func (a *API) aisdkChat(w http.ResponseWriter, r *http.Request) {
	protocol := aisdk.Protocol(r.URL.Query().Get("protocol"))
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxChatBody))
	if err != nil {
		aisdkError(w, r, protocol, errdefs.New(errdefs.ErrTooLarge, "body-too-large", "The request is larger than %d MiB.", maxChatBody>>20).
			WithHint("Upload large files instead of attaching them."))
		return
	}
	if jsonsize.Count(raw).All() > maxChatEntries {
		aisdkError(w, r, protocol, errdefs.New(errdefs.ErrTooLarge, "body-too-large", "The request has more than %d values.", maxChatEntries).
			WithHint("Send the last messages only: the server has the ones before."))
		return
	}
	req, err := aisdk.ParseRequest(raw, protocol)
	if bad, ok := errors.AsType[*aisdk.ValidationError](err); ok {
		if bad.Protocol == aisdk.Data {
			writeSeed(w, http.StatusUnprocessableEntity, detail{bad.Fields})
			return
		}
		aisdkError(w, r, bad.Protocol, errdefs.New(errdefs.ErrInvalid, "invalid-request", "The request can't be read: %v", bad).WithHint("docs/chat.md has the shapes that are understood."))
		return
	}
	if req.ClientID == "" && req.Protocol == aisdk.Data {
		writeSeed(w, http.StatusBadRequest, detail{"No session ID"})
		return
	}
	sess, sent, err := a.aisdkStart(r.Context(), req)
	if err != nil {
		aisdkError(w, r, req.Protocol, err)
		return
	}
	note(r.Context(), slog.String("session_id", sess.ID()), slog.String("turn_id", sent.run.TurnID))
	a.aisdkStream(w, r, sess, req.Protocol, sent)
}

// started is what a stream follows: a turn, or the one that will answer a
// message that waits.
type started struct {
	run     chat.Running
	message string // that waits; "" once there is a turn
}

// aisdkSession finds the session of a chat: what its client calls it, or our
// own name for it.
func (a *API) aisdkSession(ctx context.Context, name string, create bool) (*session.Session, error) {
	if a.opts.Sessions == nil || a.opts.Chat == nil {
		return nil, errNoSessions()
	}
	if strings.HasPrefix(name, "ses_") {
		if s, err := a.session(ctx, name); err == nil {
			return s, nil
		}
	}
	return a.named(ctx, name, create)
}

func (a *API) aisdkStart(ctx context.Context, req aisdk.Request) (*session.Session, started, error) {
	sess, err := a.aisdkSession(ctx, req.ClientID, true)
	if err != nil {
		return nil, started{}, err
	}
	// These clients stop by closing the connection, which the server can't tell
	// from a lost one. When they say something new, they no longer wait for
	// what ran.
	sess.StopTurn()
	d := sess.Detail()
	step, err := aisdk.Align(d.Items, req)
	if err != nil {
		return nil, started{}, errdefs.New(errdefs.ErrInvalid, "message-missing", "There is no message of the user in the request.").WithHint("Send messages whose last one of the user has text or files.")
	}
	if len(step.Import) > 0 {
		if err := sess.Extend(step.Import); err != nil {
			return nil, started{}, err
		}
	}
	after := sess.View().LastSeq
	var sent chat.Sent
	if step.Message == nil {
		sent, err = a.opts.Chat.Regenerate(ctx, sess.ID(), step.Regenerate, req.Model)
	} else {
		var files []string
		if files, err = a.aisdkFiles(ctx, sess, step.Message.Files); err == nil {
			sent, err = a.opts.Chat.Send(ctx, sess.ID(), v1.SendMessage{Text: step.Message.Text, Files: files, Model: req.Model, Replaces: step.Replaces})
		}
	}
	out := started{run: chat.Running{TurnID: sent.TurnID, After: after}}
	if sent.Queued != nil {
		out.message = sent.Queued.ID
	}
	return sess, out, err
}

// aisdkFiles makes files of attachments, where uploads are.
func (a *API) aisdkFiles(ctx context.Context, sess *session.Session, files []aisdk.File) ([]string, error) {
	var paths []string
	for _, f := range files {
		name := agentapi.UploadsDir + "/" + f.Name
		size := int64(len(f.Data))
		if a.opts.Files == nil {
			sb, err := sess.Sandbox(ctx)
			if err != nil {
				return nil, err
			}
			if _, err := sb.Agent().Upload(ctx, name, bytes.NewReader(f.Data), size); err != nil {
				return nil, sb.Explain(err)
			}
			paths = append(paths, name)
			continue
		}
		part := workspace.Part{Path: name, Length: size, Total: size, Body: bytes.NewReader(f.Data)}
		p, changes, err := a.opts.Files.Upload(ctx, sess.ID(), part, func() *fleet.Sandbox { return liveSandbox(sess) })
		if err != nil {
			return nil, err
		}
		sess.FilesChanged(changes)
		if p.File != nil {
			name = p.File.Path
		}
		paths = append(paths, name)
	}
	return paths, nil
}

func (a *API) aisdkResume(w http.ResponseWriter, r *http.Request) {
	sess, err := a.aisdkSession(r.Context(), r.PathValue("chat_id"), false)
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		aisdkError(w, r, aisdk.UI, err)
		return
	}
	if err == nil {
		if run, ok := a.opts.Chat.Running(sess); ok {
			protocol := aisdk.UI
			if r.URL.Query().Get("protocol") == string(aisdk.Data) {
				protocol = aisdk.Data
			}
			a.aisdkStream(w, r, sess, protocol, started{run: run})
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func (a *API) aisdkStop(w http.ResponseWriter, r *http.Request) {
	sess, err := a.aisdkSession(r.Context(), r.PathValue("chat_id"), false)
	if err == nil {
		sess.StopTurn()
	}
	if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		aisdkError(w, r, aisdk.UI, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// aisdkStream tells a client of a turn from its start. The turn belongs to its
// session and goes on when the client leaves.
func (a *API) aisdkStream(w http.ResponseWriter, r *http.Request, sess *session.Session, protocol aisdk.Protocol, what started) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no") // nginx would hold events back
	if protocol == aisdk.Data {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set(aisdk.HeaderData, "v1")
	} else {
		h.Set("Content-Type", v1.MediaSSE)
		h.Set(aisdk.HeaderUI, "v1")
	}
	w.WriteHeader(http.StatusOK)
	out := &streamWriter{w: w, rc: http.NewResponseController(w)}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(a.draining, func() { cancel(errDraining) })()

	follow := &aisdkFollower{sess: sess, protocol: protocol, what: what}
	if what.message == "" {
		follow.begin(v1.Turn{ID: what.run.TurnID, Model: sess.View().Model})
	}
	src := sess.Reader(what.run.After)
	defer src.Close()
	var beat heartbeat
	beat.start(ctx, a.opts.Heartbeat)
	defer func() { beat.stop() }()
	for {
		out.buf = follow.bytes(out.buf)
		if out.flush() != nil || follow.done() {
			return
		}
		batch, err := src.Next(beat.ctx)
		var gap *event.GapError
		switch {
		case err == nil:
			err = follow.take(batch)
		case errors.Is(err, errHeartbeat):
			beat.stop()
			beat.start(ctx, a.opts.Heartbeat)
			follow.keepAlive()
			err = nil
		case errors.As(err, &gap):
			// More than is remembered: the session as it is has the rest.
			d := sess.Detail()
			follow.sync(d)
			src.Skip(d.LastSeq + 1)
			err = nil
		case r.Context().Err() != nil:
			return
		}
		if err != nil {
			a.log.Debug("a chat's stream broke off", slog.String("session_id", sess.ID()), slog.Any("err", err))
			follow.fail("The server was restarted in the middle of this. Load the conversation again.")
		}
	}
}

// aisdkFollower waits for its turn and then tells of it.
type aisdkFollower struct {
	sess     *session.Session
	protocol aisdk.Protocol
	what     started
	stream   *aisdk.Stream // nil until the turn has begun
	over     bool
}

func (f *aisdkFollower) begin(t v1.Turn) {
	f.stream = aisdk.NewStream(f.protocol, f.sess.ID(), t)
}

func (f *aisdkFollower) take(batch []event.Record) error {
	for _, rec := range batch {
		if f.stream == nil {
			if rec.Type != event.TurnStarted {
				continue
			}
			var l struct {
				Data v1.Turn `json:"data"`
			}
			if err := json.Unmarshal(rec.Line, &l); err != nil {
				return fmt.Errorf("httpapi: event: %w", err)
			}
			if l.Data.MessageID == f.what.message {
				f.begin(l.Data)
			}
			continue
		}
		if rec.Seq == 0 {
			continue
		}
		if err := f.stream.Add(rec); err != nil {
			return err
		}
	}
	return nil
}

func (f *aisdkFollower) sync(d v1.SessionDetail) {
	if f.stream == nil && d.Turn != nil && d.Turn.MessageID == f.what.message {
		f.begin(*d.Turn)
	}
	if f.stream != nil {
		f.stream.Sync(d)
	}
}

func (f *aisdkFollower) keepAlive() {
	if f.stream != nil {
		f.stream.KeepAlive()
	}
}

func (f *aisdkFollower) fail(text string) {
	if f.stream == nil {
		f.begin(v1.Turn{})
	}
	f.stream.Fail(text)
	f.over = true
}

func (f *aisdkFollower) bytes(buf []byte) []byte {
	if f.stream == nil {
		return buf
	}
	return append(buf, f.stream.Bytes()...)
}

func (f *aisdkFollower) done() bool { return f.over || f.stream != nil && f.stream.Done() }
