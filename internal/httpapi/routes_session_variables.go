package httpapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
)

// How long a kernel that was idle a moment ago may take to answer.
const (
	variablesTimeout = 4 * time.Second
	tableTimeout     = 10 * time.Second
)

func (a *API) sessionVariableRoutes() {
	register(a, huma.Operation{
		OperationID: "list-session-variables", Method: http.MethodGet, Path: "/v1/sessions/{session_id}/variables", Tags: []string{tagSessions},
		Summary: "List the variables of the session's kernel", Description: "The names that code of the session defined, sorted, without modules and what begins with an underscore. It runs none of the session's code and starts no sandbox: without one the list is empty. Failures: 409 `kernel-busy`.",
	}, func(ctx context.Context, in *SessionPath) (*answer[v1.VariableList], error) {
		s, err := a.session(ctx, in.SessionID)
		if err != nil {
			return nil, err
		}
		list := v1.VariableList{Variables: []v1.Variable{}}
		sb := liveSandbox(s)
		if sb == nil || sb.View().KernelID == "" {
			return &answer[v1.VariableList]{list}, nil
		}
		reply, err := askIdle(ctx, sb, "variables_request", map[string]any{}, variablesTimeout)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(reply, &list); err != nil || list.Variables == nil {
			return nil, errBadKernel(err)
		}
		return &answer[v1.VariableList]{list}, nil
	})
}

func errBadKernel(err error) error {
	return errdefs.New(errdefs.ErrUnavailable, "kernel-bad-answer", "The kernel answered what cannot be right.").
		WithHint("Code may have broken it: restart the kernel.").WithCause(err)
}

func errKernelBusy() error {
	return errdefs.New(errdefs.ErrConflict, "kernel-busy", "The kernel runs code.").WithHint("Ask again when it has ended.")
}

// askIdle asks the default kernel of a sandbox, unless it runs something: it
// would answer after that only. It gives the content of the reply.
func askIdle(ctx context.Context, sb *fleet.Sandbox, typ string, content map[string]any, timeout time.Duration) (json.RawMessage, error) {
	defer sb.Use()()
	id := sb.View().KernelID
	k, err := sb.Agent().Kernel(ctx, id)
	if err != nil {
		return nil, sb.Explain(err)
	}
	if k.State != agentapi.KernelIdle || k.Queued > 0 {
		return nil, errKernelBusy()
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return nil, err
	}
	reply, err := sb.Agent().Request(ctx, id, agentapi.Request{Type: typ, Content: raw, TimeoutMS: timeout.Milliseconds()})
	if e, ok := errors.AsType[*errdefs.Error](err); ok && e.Code == "kernel-busy" {
		return nil, errKernelBusy() // it has begun something meanwhile
	}
	if err != nil {
		return nil, sb.Explain(err)
	}
	var status struct {
		Status  string           `json:"status"`
		Problem agentapi.Problem `json:"problem"`
	}
	if err := json.Unmarshal(reply.Content, &status); err != nil {
		return nil, errBadKernel(err)
	}
	if status.Status != "ok" {
		return nil, kernelProblem(status.Problem)
	}
	return reply.Content, nil
}

var goodCode = regexp.MustCompile(`^[a-z][a-z0-9-]{0,63}$`)

// kernelProblem turns a kernel's refusal into an error. Code of the session
// may have made it up, so it is only text.
func kernelProblem(p agentapi.Problem) error {
	kind := errdefs.ErrInvalid
	for _, k := range kinds {
		if k.status == p.Status {
			kind = k.kind
		}
	}
	if !goodCode.MatchString(p.Code) || p.Detail == "" {
		return errBadKernel(nil)
	}
	return errdefs.New(kind, p.Code, "%.1000s", p.Detail).WithHint("%.1000s", cmp.Or(p.Hint, "Compare the request with what is there, and try again."))
}
