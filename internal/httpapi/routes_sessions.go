package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/session"
)

const tagSessions = "Sessions"

// SessionPath is the part of an input that names a session.
type SessionPath struct {
	SessionID string `path:"session_id" maxLength:"64" doc:"Identifier of the session" example:"ses_7m2q4v6xz3b5d7f9h2j4kmabcd"`
}

// ItemPath is the part of an input that names an item of a session.
type ItemPath struct {
	SessionPath
	ItemID string `path:"item_id" maxLength:"64" doc:"Identifier of the item"`
}

func errNoSessions() error {
	return errdefs.New(errdefs.ErrUnsupported, "sessions-off", "This server keeps no sessions.").
		WithHint("'caesarion serve' does; a server that belongs to one command does not.")
}

func (a *API) sessions() (*session.Service, error) {
	if a.opts.Sessions == nil {
		return nil, errNoSessions()
	}
	return a.opts.Sessions, nil
}

type listSessionsInput struct {
	Query   string `query:"query" maxLength:"200" doc:"Words that all are in the title, or in messages and code"`
	Limit   int    `query:"limit" minimum:"1" maximum:"200" default:"50"`
	Cursor  string `query:"cursor" maxLength:"300" doc:"\"next\" of the page before"`
	Deleted bool   `query:"deleted" doc:"Those that are deleted and can be restored, instead"`
}

func (a *API) sessionRoutes() {
	tags := []string{tagSessions}
	const path = "/v1/sessions"
	register(a, huma.Operation{
		OperationID: "list-sessions", Method: http.MethodGet, Path: path, Tags: tags,
		Summary: "List or search the sessions: pinned ones first, then the latest",
	}, func(ctx context.Context, in *listSessionsInput) (*answer[v1.SessionList], error) {
		svc, err := a.sessions()
		if err != nil {
			return nil, err
		}
		filter := identity.From(ctx).Filter()
		list, err := svc.List(ctx, session.ListRequest{Query: in.Query, Limit: in.Limit, Cursor: in.Cursor, Deleted: in.Deleted, Filter: &filter})
		return &answer[v1.SessionList]{list}, err
	})
	register(a, huma.Operation{
		OperationID: "create-session", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Create a session", Description: "It has no sandbox until one is needed or asked for.\n\nFailures: 400 `template-unknown`, `title-too-long`.",
	}, func(ctx context.Context, in *struct{ Body *v1.CreateSession }) (*created[v1.Session], error) {
		svc, err := a.sessions()
		if err != nil {
			return nil, err
		}
		var req v1.CreateSession
		if in.Body != nil {
			req = *in.Body
		}
		s, err := svc.Create(ctx, req)
		if err != nil {
			return nil, err
		}
		note(ctx, slog.String("session_id", s.ID()))
		return &created[v1.Session]{path + "/" + s.ID(), s.View()}, nil
	})
	register(a, huma.Operation{
		OperationID: "get-session", Method: http.MethodGet, Path: path + "/{session_id}", Tags: tags,
		Summary:     "Get a session with its list",
		Description: "One consistent state: the events after last_seq continue it. One value of an output above 64 KiB is shortened (text) or absent, and refs says so.\n\nFailures, here and wherever a session is named: 404 `session-not-found`.",
		Responses:   jsonResponse[v1.SessionDetail](a, "The session"),
	}, func(ctx context.Context, in *struct {
		SessionPath
		Raw
	},
	) (*huma.StreamResponse, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		return stream(func() {
			body := s.DetailJSON()
			h := in.w.Header()
			h.Set("Content-Type", v1.MediaJSON)
			h.Set("Content-Length", strconv.Itoa(len(body)))
			in.w.WriteHeader(http.StatusOK)
			_, _ = in.w.Write(body) // the client may have left
		}), nil
	})
	register(a, huma.Operation{
		OperationID: "update-session", Method: http.MethodPatch, Path: path + "/{session_id}", Tags: tags,
		Summary: "Rename a session, pin it, choose its model",
	}, func(ctx context.Context, in *struct {
		SessionPath
		Body v1.UpdateSession
	},
	) (*answer[v1.Session], error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		out, err := s.Update(in.Body)
		return &answer[v1.Session]{out}, err
	})
	register(a, huma.Operation{
		OperationID: "delete-session", Method: http.MethodDelete, Path: path + "/{session_id}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Delete a session", Description: "What runs is stopped and its sandbox is freed. For a day it can be restored with its files.",
	}, func(ctx context.Context, in *SessionPath) (*struct{}, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		return nil, s.Delete(ctx)
	})
	register(a, huma.Operation{
		OperationID: "restore-session", Method: http.MethodPost, Path: path + "/{session_id}/restore", Tags: tags,
		Summary: "Undo the deletion of a session",
	}, func(ctx context.Context, in *SessionPath) (*answer[v1.Session], error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		err = s.Undelete()
		return &answer[v1.Session]{s.View()}, err
	})
	register(a, huma.Operation{
		OperationID: "duplicate-session", Method: http.MethodPost, Path: path + "/{session_id}/duplicate", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Make a session with the same list and files", Description: "Alternatives that are not shown are left out; so are variables, since it gets a sandbox of its own.",
	}, func(ctx context.Context, in *SessionPath) (*created[v1.Session], error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		to, err := s.Duplicate(ctx)
		if err != nil {
			return nil, err
		}
		return &created[v1.Session]{path + "/" + to.ID(), to.View()}, nil
	})
	register(a, huma.Operation{
		OperationID: "get-session-events", Method: http.MethodGet, Path: path + "/{session_id}/events", Tags: tags,
		Summary: "Follow a session",
		Description: "Everything that happens in it, numbered, from the beginning or after Last-Event-ID or ?after=: session.changed, item.added, item.changed (a merge patch), item.delta, item.removed, thread.changed, turn.started, turn.finished, sandbox.changed, files.changed, and what executions do, with item_id and execution_id. " +
			"A number that was seen is never taken back, not even by a kill of the server. Without a number: stream.gap (older events are no longer kept: get the session again), stream.interrupted (come back after data.after), sessions.changed (the list of sessions changed, as the reader sees it).",
		Responses: eventResponses("The events", false),
	}, a.sessionEvents)
	a.notebookRoutes(tags, path)
	a.itemRoutes(tags, path+"/{session_id}")
	a.sessionRunRoutes(tags, path+"/{session_id}")
	a.sessionSandboxRoutes(tags, path+"/{session_id}")
}

type sessionEventsInput struct {
	SessionPath
	Raw
	Accept      string `header:"Accept" doc:"text/event-stream (default) or application/x-ndjson"`
	LastEventID string `header:"Last-Event-ID" doc:"Resume after this number"`
	After       int64  `query:"after" minimum:"0" doc:"The same, for clients that can't send the header"`
}

func (a *API) sessionEvents(ctx context.Context, in *sessionEventsInput) (*huma.StreamResponse, error) {
	after, err := resumeAfter(in.LastEventID, in.After)
	if err != nil {
		return nil, err
	}
	s, err := a.session(ctx, in.SessionID)
	if err != nil {
		return nil, err
	}
	form := accepted(in.Accept, v1.MediaSSE)
	if form == v1.MediaJSON {
		form = v1.MediaNDJSON // who asks for JSON wants no SSE
	}
	return stream(func() {
		r := s.ReaderFor(after, identity.From(ctx).Owns)
		defer r.Close()
		a.streamRecords(in.w, in.r, r, after, form)
	}), nil
}
