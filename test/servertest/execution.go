package servertest

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
)

// keptText bounds what a Result keeps of output: the tests' own memory matters too.
const keptText = 64 << 10

// Result is what an execution did.
type Result struct {
	event.Finished
	KernelID string
	Text     string        // of both streams, the first 64 KiB
	Shown    int64         // bytes of both streams that arrived
	Value    string        // text/plain of the execute_result
	Errors   []event.Error //
	Types    []event.Type  // of all events but output.stream, in order
	Steps    []string      // of the interrupt ladder
	Restarts []event.Restarted
}

// Run executes code and reads its events to the end.
func (s *Server) Run(ctx context.Context, id, code string) (Result, error) {
	return s.Follow(ctx, id, v1.Execute{Code: code}, nil)
}

// Follow executes code; with each event it calls seen, which may be nil, with
// the execution's id and what there is so far.
func (s *Server) Follow(ctx context.Context, id string, in v1.Execute, seen func(execution string, e event.Event, r *Result)) (Result, error) {
	var r Result
	stream, err := s.Execute(ctx, id, in)
	if err != nil {
		return r, err
	}
	defer stream.Close()
	for {
		e, err := stream.Next()
		if err != nil {
			return r, err
		}
		if err := r.add(e); err != nil {
			return r, fmt.Errorf("%s: %w", e.Type, err)
		}
		if seen != nil {
			seen(stream.ID, e, &r)
		}
		if e.Type == event.ExecutionFinished {
			return r, nil
		}
	}
}

func (r *Result) add(e event.Event) error {
	if e.Type != event.OutputStream {
		r.Types = append(r.Types, e.Type)
	}
	switch e.Type {
	case event.ExecutionStarted:
		var data event.Started
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return err
		}
		r.KernelID = data.KernelID
	case event.OutputStream:
		var data event.Stream
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return err
		}
		r.Shown += int64(len(data.Text))
		if room := keptText - len(r.Text); room > 0 {
			r.Text += strings.ToValidUTF8(data.Text[:min(room, len(data.Text))], "")
		}
	case event.OutputResult:
		var data struct {
			Data map[string]json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return err
		}
		return json.Unmarshal(data.Data["text/plain"], &r.Value)
	case event.OutputError:
		var data event.Error
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return err
		}
		r.Errors = append(r.Errors, data)
	case event.KernelInterrupted:
		var data event.Interrupt
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return err
		}
		r.Steps = append(r.Steps, data.Step)
	case event.KernelRestarted:
		var data event.Restarted
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return err
		}
		r.Restarts = append(r.Restarts, data)
	case event.ExecutionFinished:
		return json.Unmarshal(e.Data, &r.Finished)
	}
	return nil
}
