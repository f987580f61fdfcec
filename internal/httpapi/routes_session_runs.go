package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

type ranItems struct {
	Items []v1.Item `json:"items"`
}

// sessionRunRoutes has what people do with the cells of a session.
func (a *API) sessionRunRoutes(tags []string, path string) {
	register(a, huma.Operation{
		OperationID: "run-items", Method: http.MethodPost, Path: path + "/run", Tags: tags, DefaultStatus: http.StatusAccepted, MaxBodyBytes: maxExecBody,
		Summary:     "Run cells, one after the other",
		Description: "Answers when they wait in the queue; what happens then is in the events. The sandbox is made if there is none. Failures: 400 `not-a-cell`; 409 `item-running`, `item-writing`.",
	}, func(ctx context.Context, in *struct {
		SessionPath
		Body v1.RunItems
	},
	) (*answer[ranItems], error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		items, err := s.Run(in.Body)
		return &answer[ranItems]{ranItems{items}}, err
	})
	register(a, huma.Operation{
		OperationID: "interrupt-session", Method: http.MethodPost, Path: path + "/interrupt", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Interrupt the cell that runs, and take back those that wait",
	}, func(ctx context.Context, in *SessionPath) (*struct{}, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		s.Interrupt()
		return nil, nil
	})
	register(a, huma.Operation{
		OperationID: "interrupt-item", Method: http.MethodPost, Path: path + "/items/{item_id}/interrupt", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Interrupt one cell, whether it runs or waits",
	}, func(ctx context.Context, in *ItemPath) (*struct{}, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		return nil, s.InterruptItem(in.ItemID)
	})
	register(a, huma.Operation{
		OperationID: "answer-item-input", Method: http.MethodPost, Path: path + "/items/{item_id}/input", Tags: tags, DefaultStatus: http.StatusNoContent, MaxBodyBytes: 8 << 20,
		Summary: "Answer input() or getpass() of a cell", Description: "Question and answer become part of the output, a password as dots. Failures: 409 `no-input-requested`.",
	}, func(ctx context.Context, in *struct {
		ItemPath
		Body v1.Input
	},
	) (*struct{}, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		return nil, s.Input(ctx, in.ItemID, in.Body.Value)
	})
}

// sessionSandboxRoutes has the sandbox of a session and its kernel.
func (a *API) sessionSandboxRoutes(tags []string, path string) {
	register(a, huma.Operation{
		OperationID: "ensure-session-sandbox", Method: http.MethodPost, Path: path + "/sandbox", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Have a sandbox made if there is none", Description: "Answers at once; sandbox.changed tells the rest. Sent with the first keystroke, it hides the start behind typing.",
	}, func(ctx context.Context, in *SessionPath) (*answer[v1.SessionSandbox], error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		sb, err := s.EnsureSandbox()
		return &answer[v1.SessionSandbox]{sb}, err
	})
	register(a, huma.Operation{
		OperationID: "free-session-sandbox", Method: http.MethodDelete, Path: path + "/sandbox", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "End the sandbox", Description: "Files are kept, variables are not.",
	}, func(ctx context.Context, in *SessionPath) (*struct{}, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		return nil, s.FreeSandbox(ctx)
	})
	register(a, huma.Operation{
		OperationID: "reset-session-sandbox", Method: http.MethodPost, Path: path + "/sandbox/reset", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "End the sandbox and have a new one made with the session's files",
	}, func(ctx context.Context, in *SessionPath) (*answer[v1.SessionSandbox], error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		sb, err := s.ResetSandbox(ctx)
		return &answer[v1.SessionSandbox]{sb}, err
	})
	register(a, huma.Operation{
		OperationID: "restart-session-kernel", Method: http.MethodPost, Path: path + "/kernel/restart", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Give the session a fresh kernel", Description: "Variables are gone, files stay.",
	}, func(ctx context.Context, in *SessionPath) (*struct{}, error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		return nil, s.RestartKernel(ctx)
	})
	register(a, huma.Operation{
		OperationID: "get-session-usage", Method: http.MethodGet, Path: path + "/usage", Tags: tags,
		Summary: "Read the resource counters of the session's sandbox", Description: "A sleeping sandbox is not woken. Failures: 409 `no-sandbox`.",
	}, func(ctx context.Context, in *SessionPath) (*answer[v1.Usage], error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		sb, ok := s.LiveSandbox()
		if !ok {
			return nil, errNoSandbox()
		}
		u, err := usage(ctx, sb)
		return &answer[v1.Usage]{u}, err
	})
	const busy = " A busy kernel answers after its cell; after 10 s the answer is 503 `kernel-busy`. Without a sandbox one is made first; if that takes more than 20 s: 503 `sandbox-starting`."
	register(a, huma.Operation{
		OperationID: "complete-in-session", Method: http.MethodPost, Path: path + "/complete", Tags: tags,
		Summary: "Complete code", Description: "Content of Jupyter's complete_reply." + busy,
	}, func(ctx context.Context, in *struct {
		SessionPath
		Body v1.Complete
	},
	) (*answer[json.RawMessage], error) {
		return a.sessionRequest(ctx, in.SessionID, "complete_request", completeContent(in.Body))
	})
	register(a, huma.Operation{
		OperationID: "inspect-in-session", Method: http.MethodPost, Path: path + "/inspect", Tags: tags,
		Summary: "Show the documentation of what stands in code", Description: "Content of Jupyter's inspect_reply." + busy,
	}, func(ctx context.Context, in *struct {
		SessionPath
		Body v1.Inspect
	},
	) (*answer[json.RawMessage], error) {
		return a.sessionRequest(ctx, in.SessionID, "inspect_request", inspectContent(in.Body))
	})
	register(a, huma.Operation{
		OperationID: "is-complete-in-session", Method: http.MethodPost, Path: path + "/is-complete", Tags: tags,
		Summary: "Tell whether code is ready to run", Description: "Content of Jupyter's is_complete_reply." + busy,
	}, func(ctx context.Context, in *struct {
		SessionPath
		Body v1.IsComplete
	},
	) (*answer[json.RawMessage], error) {
		return a.sessionRequest(ctx, in.SessionID, "is_complete_request", map[string]any{"code": in.Body.Code})
	})
}

func errNoSandbox() error {
	return errdefs.New(errdefs.ErrConflict, "no-sandbox", "The session has no sandbox now.").
		WithHint("POST …/sandbox has one made.")
}

// helpStartTimeout is how long a question about code waits for a sandbox. A
// start takes a second or so, and nobody looks at a tooltip that comes later.
const helpStartTimeout = 20 * time.Second

// sessionRequest asks the session's kernel something that has one reply.
func (a *API) sessionRequest(ctx context.Context, id, typ string, content map[string]any) (*answer[json.RawMessage], error) {
	s, err := a.session(ctx, id)
	if err != nil {
		return nil, err
	}
	// Who asks for help writes code, and will need the sandbox anyway.
	wait, cancel := context.WithTimeoutCause(ctx, helpStartTimeout,
		errdefs.New(errdefs.ErrUnavailable, "sandbox-starting", "The session's sandbox is still starting.").WithHint("Ask again in a moment."))
	defer cancel()
	sb, err := s.Sandbox(wait)
	if err != nil {
		return nil, err
	}
	defer sb.Use()()
	kernel, err := sb.DefaultKernel(ctx)
	if err != nil {
		return nil, sb.Explain(err)
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	reply, err := sb.Agent().Request(ctx, kernel, agentapi.Request{Type: typ, Content: raw})
	if err != nil {
		return nil, sb.Explain(err)
	}
	return &answer[json.RawMessage]{reply.Content}, nil
}
