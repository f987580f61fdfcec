package httpapi

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
)

// Bounds of what writes or reads a sandbox's memory. A gigabyte takes a few
// seconds on a usual disk; what takes longer than this hangs.
const (
	saveTimeout = 2 * time.Minute
	forkTimeout = 5 * time.Minute
)

// bounded gives a context for a long operation. It also ends when the client
// goes: copies are then deleted, while a pause or a snapshot that has begun goes
// on to its end without anybody waiting.
func bounded(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, most, errdefs.New(errdefs.ErrUnavailable, "save-timeout", "This took longer than %s, and was no longer waited for.", most).
		WithHint("GET the sandbox to see how it ended. Look at the load and the disk of the server's machine."))
}

func (a *API) sleepRoutes() {
	tags := []string{tagSandboxes}
	const path = "/v1/sandboxes/{sandbox_id}"
	register(a, huma.Operation{
		OperationID: "pause-sandbox", Method: http.MethodPost, Path: path + "/pause", Tags: tags,
		Summary: "Put a sandbox to sleep",
		Description: "Memory and files are saved on disk, and the memory is free when this answers. Variables, open files and background threads are there again when it wakes, which every call that needs it does by itself. " +
			"A sandbox that sleeps already stays as it is. An unused one goes to sleep by itself after `pause_after_ms`.\n\nFailures: 409 `sandbox-busy` while something runs; 501 `pause-unsupported`; 507 `host-disk-full`, `disk-quota`. The sandbox then goes on as it was.",
	}, func(ctx context.Context, in *SandboxPath) (*answer[v1.Sandbox], error) {
		return a.sleepOrWake(ctx, in.SandboxID, (*fleet.Sandbox).Pause)
	})
	register(a, huma.Operation{
		OperationID: "resume-sandbox", Method: http.MethodPost, Path: path + "/resume", Tags: tags,
		Summary:     "Wake a sandbox",
		Description: "Nobody has to: every call that needs a sleeping sandbox wakes it. This hides the time that takes. `restarted` is set when its variables could not be brought back: then it was started anew with its files.\n\nFailures: 429 `too-many-sandboxes`, `host-memory-short` when there is no room for one more that is awake; 503 `resume-timeout`. It then still sleeps.",
	}, func(ctx context.Context, in *SandboxPath) (*answer[v1.Sandbox], error) {
		return a.sleepOrWake(ctx, in.SandboxID, (*fleet.Sandbox).Resume)
	})
	register(a, huma.Operation{
		OperationID: "fork-sandbox", Method: http.MethodPost, Path: path + "/fork", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Copy a sandbox with memory and files",
		Description: "Each copy has all variables, files and background threads, an id and random numbers of its own, and a full life before it. What runs in the sandbox goes on there and is interrupted in the copies. Either all copies are made or none.\n\n" +
			"Failures: 409 `sandbox-busy` while a file is being transferred; 429 `too-many-sandboxes` when not all have room, `host-memory-short` when the server has too little memory for all; 501 `fork-unsupported`; 507 `host-disk-full`.",
	}, func(ctx context.Context, in *struct {
		SandboxPath
		Body *v1.ForkSandbox
	},
	) (*answer[v1.SandboxList], error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		body := v1.ForkSandbox{}
		if in.Body != nil {
			body = *in.Body
		}
		ctx, cancel := bounded(ctx, forkTimeout)
		defer cancel()
		copies, err := s.Fork(ctx, body.Count, body.Labels)
		if err != nil {
			return nil, s.Explain(err)
		}
		list := v1.SandboxList{Sandboxes: []v1.Sandbox{}}
		for _, c := range copies {
			list.Sandboxes = append(list.Sandboxes, viewSandbox(c))
		}
		return &answer[v1.SandboxList]{list}, nil
	})
	register(a, huma.Operation{
		OperationID: "snapshot-sandbox", Method: http.MethodPost, Path: path + "/snapshot", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Save the state of a sandbox",
		Description: "The sandbox goes on, with all that runs in it. `snapshot` of POST /v1/sandboxes makes others from that state, on another day too. A name is free for the next snapshot that asks for it; the one that had it keeps its id.\n\n" +
			"Failures: 400 `snapshot-name-invalid`; 409 `sandbox-busy` while a file is being transferred; 501 `snapshot-unsupported`; 507 `disk-quota`, `host-disk-full`.",
	}, func(ctx context.Context, in *struct {
		SandboxPath
		Body *v1.SnapshotSandbox
	},
	) (*created[v1.Snapshot], error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		name := ""
		if in.Body != nil {
			name = in.Body.Name
		}
		ctx, cancel := bounded(ctx, saveTimeout)
		defer cancel()
		snap, err := s.Snapshot(ctx, name)
		if err != nil {
			return nil, s.Explain(err)
		}
		note(ctx, slog.String("snapshot_id", string(snap.ID)))
		return &created[v1.Snapshot]{"/v1/snapshots/" + string(snap.ID), viewSnapshot(snap)}, nil
	})
}

func (a *API) sleepOrWake(ctx context.Context, id string, do func(*fleet.Sandbox, context.Context) error) (*answer[v1.Sandbox], error) {
	s, err := a.sandbox(ctx, id)
	if err != nil {
		return nil, err
	}
	ctx, cancel := bounded(ctx, saveTimeout)
	defer cancel()
	if err := do(s, ctx); err != nil {
		return nil, s.Explain(err)
	}
	return &answer[v1.Sandbox]{viewSandbox(s)}, nil
}
