package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
)

type runInput struct {
	SandboxPath
	Raw
	Accept string `header:"Accept" doc:"application/json (default): answers at the end; text/event-stream or application/x-ndjson: streams the events"`
	Body   v1.RunProcess
}

// Killing a process whose client left has its own short time.
const killTimeout = 10 * time.Second

func (a *API) processRoutes() {
	tags := []string{tagProcesses}
	const path = "/v1/sandboxes/{sandbox_id}/processes"
	register(a, huma.Operation{
		OperationID: "run-process", Method: http.MethodPost, Path: path, Tags: tags,
		Summary: "Run a command beside the kernels",
		Description: "Its output is streamed as events, or gathered for application/json. Unlike an execution it belongs to the request: when the connection is closed before its end, it is killed with its children. " +
			"Its identifier is in the header Caesarion-Process-Id. Failures: 400 `invalid-command`, `invalid-cwd`, `invalid-env`, `limit-too-high`.",
		Responses: processResponses(),
	}, a.runProcess)
	register(a, huma.Operation{
		OperationID: "kill-process", Method: http.MethodDelete, Path: path + "/{process_id}", Tags: tags, DefaultStatus: http.StatusNoContent,
		Summary: "Kill a process and its children", Description: "Failures: 404 `process-not-found`.",
	}, func(ctx context.Context, in *struct {
		SandboxPath
		ProcessID string `path:"process_id" maxLength:"64"`
	},
	) (*struct{}, error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		return nil, s.Explain(s.Agent().KillProcess(ctx, in.ProcessID))
	})
}

func (a *API) runProcess(ctx context.Context, in *runInput) (*huma.StreamResponse, error) {
	s, err := a.sandbox(ctx, in.SandboxID)
	if err != nil {
		return nil, err
	}
	run, err := planProcess(s, in.Body)
	if err != nil {
		return nil, err
	}
	note(ctx, slog.String("process_id", run.ID))
	done := s.Use()
	// The stream to the agent must outlive the request by the moment it takes
	// to kill the process.
	agentCtx := context.WithoutCancel(ctx)
	src, err := s.Agent().Run(agentCtx, run)
	if err != nil {
		done()
		return nil, s.Explain(err)
	}
	h := in.w.Header()
	h[v1.HeaderProcessID] = []string{run.ID}
	h["Location"] = []string{"/v1/sandboxes/" + in.SandboxID + "/processes/" + run.ID}
	log := event.NewLog(event.LogOptions{})
	joined := make(chan struct{})
	go func() {
		defer close(joined)
		pumpProcess(src, log)
	}()
	finish := func() {
		defer done()
		select {
		case <-joined:
			return
		default:
		}
		kctx, cancel := context.WithTimeout(agentCtx, killTimeout)
		defer cancel()
		if err := s.Agent().KillProcess(kctx, run.ID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			a.log.Warn("process can't be killed", "sandbox_id", in.SandboxID, "process_id", run.ID, "err", err)
		}
		_ = src.Close() // ends the pump if the kill did not
		<-joined
	}
	form := accepted(in.Accept, v1.MediaJSON)
	if form != v1.MediaJSON {
		return stream(func() {
			defer finish()
			a.streamRecords(in.w, in.r, log.Subscribe(0), 0, form)
		}), nil
	}
	defer finish()
	out, err := gatherProcess(ctx, run.ID, log)
	if err != nil {
		return nil, s.Explain(err)
	}
	return stream(func() { writeJSON(in.w, http.StatusOK, out) }), nil
}

func planProcess(s *fleet.Sandbox, in v1.RunProcess) (agentapi.Run, error) {
	run := agentapi.Run{
		ID: "prc_" + sandbox.RandomSuffix(), Command: in.Command, Args: in.Args, Dir: in.Dir, Env: in.Env,
		Stdin: in.Stdin, TimeoutMS: in.TimeoutMS, OutputLimitBytes: in.OutputLimitBytes,
	}
	if strings.TrimSpace(in.Command) == "" && (len(in.Args) == 0 || in.Args[0] == "") {
		return run, errdefs.New(errdefs.ErrInvalid, "invalid-command", "There is no command.").WithHint("Send \"command\" for a shell, or \"args\" with program and arguments.")
	}
	most := s.View().ExecutionTimeout.Milliseconds()
	if run.TimeoutMS > most {
		return run, errdefs.New(errdefs.ErrInvalid, "limit-too-high", "timeout_ms is %d, and this sandbox allows at most %d.", run.TimeoutMS, most).WithHint("Ask for less; the template decides.")
	}
	if run.TimeoutMS == 0 {
		run.TimeoutMS = most
	}
	return run, nil
}

// pumpProcess moves events to log. A stream that breaks ends with an event
// that says so: the process can't be found again.
func pumpProcess(src *agentapi.Stream, log *event.Log) {
	defer log.Close(nil)
	defer func() { _ = src.Close() }()
	for {
		rec, err := src.Next()
		if err == nil {
			if err = log.AppendRaw(rec); err == nil {
				if rec.Type == event.ProcessFinished {
					return
				}
				continue
			}
		}
		if !errors.Is(err, io.EOF) || log.Last() == 0 {
			_, _ = log.Append(event.ProcessFinished, event.ProcessExit{ExitCode: -1, Status: event.StatusKilled})
		}
		return
	}
}

func gatherProcess(ctx context.Context, id string, log *event.Log) (v1.Process, error) {
	p := v1.Process{ID: id}
	var stdout, stderr strings.Builder
	for r := log.Subscribe(0); ; {
		batch, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			p.Stdout, p.Stderr = stdout.String(), stderr.String()
			return p, nil
		}
		if err != nil {
			return p, err
		}
		for _, rec := range batch {
			var ev event.Event
			_ = json.Unmarshal(rec.Line, &ev) // checked when it came
			switch rec.Type {
			case event.OutputStream:
				var d event.Stream
				_ = json.Unmarshal(ev.Data, &d)
				if d.Name == "stderr" {
					stderr.WriteString(d.Text)
				} else {
					stdout.WriteString(d.Text)
				}
			case event.OutputTruncated:
				p.Truncated = true
			case event.ProcessFinished:
				var d event.ProcessExit
				_ = json.Unmarshal(ev.Data, &d)
				p.Status, p.ExitCode, p.Signal, p.DurationMS = string(d.Status), d.ExitCode, d.Signal, d.DurationMS
			}
		}
	}
}
