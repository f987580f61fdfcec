package httpapi

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
)

// KernelPath is the part of an input that names a kernel.
type KernelPath struct {
	SandboxPath
	KernelID string `path:"kernel_id" maxLength:"64" doc:"Identifier of the kernel, or \"default\"" example:"default"`
}

// kernel finds the sandbox and the kernel's id of a request; "default" stands
// for the default kernel, which is started if need be.
func (a *API) kernel(ctx context.Context, p KernelPath) (*fleet.Sandbox, string, error) {
	s, err := a.sandbox(ctx, p.SandboxID)
	if err != nil {
		return nil, "", err
	}
	note(ctx, slog.String("kernel_id", p.KernelID))
	if p.KernelID != "default" {
		return s, p.KernelID, nil
	}
	id, err := s.DefaultKernel(ctx)
	return s, id, s.Explain(err)
}

func viewKernel(s *fleet.Sandbox, k agentapi.Kernel) v1.Kernel {
	return v1.Kernel{
		ID: k.ID, Default: s.IsDefaultKernel(k.ID), Language: k.Language, State: string(k.State), Dir: k.Dir,
		ExecutionCount: k.ExecutionCount, Queued: k.Queued, Restarts: k.Restarts, Reason: k.Reason,
		StartedAt: k.StartedAt, LastActivity: k.LastActivity,
	}
}

func (a *API) kernelRoutes() {
	tags := []string{tagKernels}
	const path = "/v1/sandboxes/{sandbox_id}/kernels"
	register(a, huma.Operation{
		OperationID: "list-kernels", Method: http.MethodGet, Path: path, Tags: tags, Summary: "List the kernels of a sandbox",
	}, func(ctx context.Context, in *SandboxPath) (*answer[v1.KernelList], error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		kernels, err := s.Agent().Kernels(ctx)
		list := v1.KernelList{Kernels: []v1.Kernel{}}
		for _, k := range kernels {
			list.Kernels = append(list.Kernels, viewKernel(s, k))
		}
		return &answer[v1.KernelList]{list}, s.Explain(err)
	})
	register(a, huma.Operation{
		OperationID: "create-kernel", Method: http.MethodPost, Path: path, Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Start one more kernel", Description: "Answers when it is ready to run code. Kernels of one sandbox share its files and not their variables.",
	}, func(ctx context.Context, in *struct {
		SandboxPath
		Body *v1.CreateKernel
	},
	) (*created[v1.Kernel], error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		start := agentapi.StartKernel{Language: "python"}
		if in.Body != nil {
			start.Dir, start.Env = in.Body.Dir, in.Body.Env
		}
		k, err := s.StartKernel(ctx, start)
		if err != nil {
			return nil, s.Explain(err)
		}
		return &created[v1.Kernel]{"/v1/sandboxes/" + in.SandboxID + "/kernels/" + k.ID, viewKernel(s, k)}, nil
	})
	register(a, huma.Operation{
		OperationID: "get-kernel", Method: http.MethodGet, Path: path + "/{kernel_id}", Tags: tags, Summary: "Get a kernel",
	}, func(ctx context.Context, in *KernelPath) (*answer[v1.Kernel], error) {
		s, id, err := a.kernel(ctx, *in)
		if err != nil {
			return nil, err
		}
		k, err := s.Agent().Kernel(ctx, id)
		return &answer[v1.Kernel]{viewKernel(s, k)}, s.Explain(err)
	})
	register(a, huma.Operation{
		OperationID: "delete-kernel", Method: http.MethodDelete, Path: path + "/{kernel_id}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "End a kernel", Description: "Its variables are gone. If it was the default kernel, the next execution without a kernel_id starts a fresh one.",
	}, func(ctx context.Context, in *KernelPath) (*struct{}, error) {
		s, id, err := a.kernel(ctx, *in)
		if err != nil {
			return nil, err
		}
		return nil, s.Explain(s.DeleteKernel(ctx, id))
	})
	register(a, huma.Operation{
		OperationID: "interrupt-kernel", Method: http.MethodPost, Path: path + "/{kernel_id}/interrupt", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Interrupt what a kernel runs", Description: "As Ctrl-C does; if that does not help, again, and then the kernel is replaced. Each step is an event of the execution.",
	}, func(ctx context.Context, in *KernelPath) (*struct{}, error) {
		s, id, err := a.kernel(ctx, *in)
		if err != nil {
			return nil, err
		}
		defer s.Use()()
		return nil, s.Explain(s.Agent().InterruptKernel(ctx, id))
	})
	register(a, huma.Operation{
		OperationID: "restart-kernel", Method: http.MethodPost, Path: path + "/{kernel_id}/restart", Tags: tags,
		Summary: "Give a kernel a fresh process", Description: "Its variables are gone; what ran or waited ends with status killed or aborted and reason kernel_restarted.",
	}, func(ctx context.Context, in *KernelPath) (*answer[v1.Kernel], error) {
		s, id, err := a.kernel(ctx, *in)
		if err != nil {
			return nil, err
		}
		defer s.Use()()
		k, err := s.Agent().RestartKernel(ctx, id)
		return &answer[v1.Kernel]{viewKernel(s, k)}, s.Explain(err)
	})
	a.requestRoutes(path, tags)
}

// requestRoutes has the Jupyter requests that have one reply and no outputs.
func (a *API) requestRoutes(path string, tags []string) {
	const busy = " A busy kernel answers after its cell; after 10 s the answer is 503 `kernel-busy`."
	register(a, huma.Operation{
		OperationID: "complete", Method: http.MethodPost, Path: path + "/{kernel_id}/complete", Tags: tags,
		Summary: "Complete code", Description: "Content of Jupyter's complete_reply: matches, cursor_start, cursor_end, metadata." + busy,
	}, func(ctx context.Context, in *struct {
		KernelPath
		Body v1.Complete
	},
	) (*answer[json.RawMessage], error) {
		return a.request(ctx, in.KernelPath, "complete_request", completeContent(in.Body))
	})
	register(a, huma.Operation{
		OperationID: "inspect", Method: http.MethodPost, Path: path + "/{kernel_id}/inspect", Tags: tags,
		Summary: "Show the documentation of what stands in code", Description: "Content of Jupyter's inspect_reply: found, data, metadata." + busy,
	}, func(ctx context.Context, in *struct {
		KernelPath
		Body v1.Inspect
	},
	) (*answer[json.RawMessage], error) {
		return a.request(ctx, in.KernelPath, "inspect_request", inspectContent(in.Body))
	})
	register(a, huma.Operation{
		OperationID: "is-complete", Method: http.MethodPost, Path: path + "/{kernel_id}/is_complete", Tags: tags,
		Summary: "Tell whether code is ready to run", Description: "Content of Jupyter's is_complete_reply: status (complete, incomplete, invalid, unknown), indent." + busy,
	}, func(ctx context.Context, in *struct {
		KernelPath
		Body v1.IsComplete
	},
	) (*answer[json.RawMessage], error) {
		return a.request(ctx, in.KernelPath, "is_complete_request", map[string]any{"code": in.Body.Code})
	})
	register(a, huma.Operation{
		OperationID: "send-comm", Method: http.MethodPost, Path: path + "/{kernel_id}/comm", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Send a comm message", Description: "What the kernel says over comms comes as comm.* events of executions.",
	}, func(ctx context.Context, in *struct {
		KernelPath
		Body v1.Comm
	},
	) (*struct{}, error) {
		s, id, err := a.kernel(ctx, in.KernelPath)
		if err != nil {
			return nil, err
		}
		defer s.Use()()
		return nil, s.Explain(s.Agent().Comm(ctx, id, agentapi.Comm{Type: in.Body.Type, Content: in.Body.Content}))
	})
}

// completeContent is the content of Jupyter's complete_request.
func completeContent(c v1.Complete) map[string]any {
	return map[string]any{"code": c.Code, "cursor_pos": cursor(c.Code, c.CursorPos)}
}

// inspectContent is the content of Jupyter's inspect_request.
func inspectContent(c v1.Inspect) map[string]any {
	return map[string]any{"code": c.Code, "cursor_pos": cursor(c.Code, c.CursorPos), "detail_level": c.DetailLevel}
}

// cursor gives the place in code, in characters as Jupyter counts.
func cursor(code string, pos *int) int {
	n := utf8.RuneCountInString(code)
	if pos == nil {
		return n
	}
	return min(*pos, n)
}

func (a *API) request(ctx context.Context, p KernelPath, typ string, content map[string]any) (*answer[json.RawMessage], error) {
	s, id, err := a.kernel(ctx, p)
	if err != nil {
		return nil, err
	}
	defer s.Use()()
	raw, err := json.Marshal(content)
	if err != nil {
		return nil, errdefs.New(errdefs.ErrInvalid, "", "The request can't be passed to the kernel.").WithHint("Check that it is JSON as Jupyter's messages have it.").WithCause(err)
	}
	reply, err := s.Agent().Request(ctx, id, agentapi.Request{Type: typ, Content: raw})
	if err != nil {
		return nil, s.Explain(err)
	}
	return &answer[json.RawMessage]{reply.Content}, nil
}
