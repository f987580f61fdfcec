// Package event is the record of what an execution does: numbered events in
// order, kept in a bounded log that any number of readers follow.
//
// The types are shared by the agent, which makes the events, and the server,
// which checks and keeps them; the bytes of an event's data are passed on as
// they came, never re-encoded.
//
// Source of the output types: nbformat 4.5 and the Jupyter messaging protocol
// 5.4; their names and fields are Jupyter's.
package event

import (
	"encoding/json"
	"time"
)

// Type names what happened.
type Type string

// The types, and what their data holds.
const (
	ExecutionQueued   Type = "execution.queued"   // Queued: another execution holds the kernel
	ExecutionStarted  Type = "execution.started"  // Started: the kernel has the code
	ExecutionFinished Type = "execution.finished" // Finished: always last but for late output
	OutputStream      Type = "output.stream"      // Stream
	OutputDisplay     Type = "output.display_data"
	OutputUpdate      Type = "output.update_display_data"
	OutputResult      Type = "output.execute_result"
	OutputError       Type = "output.error" // Error
	OutputClear       Type = "output.clear" // {"wait":bool}
	OutputTruncated   Type = "output.truncated"
	InputRequested    Type = "input.requested"  // {"prompt","password"}
	CommOpen          Type = "comm.open"        // content of Jupyter's comm_open
	CommMessage       Type = "comm.message"     // content of comm_msg
	CommClose         Type = "comm.close"       // content of comm_close
	KernelInterrupted Type = "kernel.interrupt" // Interrupt: one rung of the ladder was taken
	KernelRestarted   Type = "kernel.restarted" // Restarted: a fresh kernel, variables are gone
	ProcessStarted    Type = "process.started"  // {"pid"}
	ProcessFinished   Type = "process.finished" // ProcessExit: always last
)

// The types that only the log of a session has; there the events of an
// execution carry item_id and execution_id beside them.
const (
	SessionChanged  Type = "session.changed"  // the session, without its items
	SessionsChanged Type = "sessions.changed" // without a number: the list of sessions changed
	ItemAdded       Type = "item.added"       // {"item","after"}
	ItemChanged     Type = "item.changed"     // merge patch of an item
	ItemDelta       Type = "item.delta"       // {"field","append"}
	ItemRemoved     Type = "item.removed"     // {}
	ThreadChanged   Type = "thread.changed"   // {"order","items"}
	TurnStarted     Type = "turn.started"     // the turn
	TurnFinished    Type = "turn.finished"    // the turn
	SandboxChanged  Type = "sandbox.changed"  // the session's sandbox
	FilesChanged    Type = "files.changed"    // {"changes"}
)

// Event is one numbered entry of a log.
type Event struct {
	Seq  int64           `json:"seq"`  // from 1, without gaps
	Time time.Time       `json:"time"` // UTC, when the agent saw it
	Type Type            `json:"type"`
	Data json.RawMessage `json:"data"`
}

// Status says how an execution ended.
type Status string

// The statuses of execution.finished.
const (
	StatusOK          Status = "ok"
	StatusError       Status = "error" // the code raised
	StatusInterrupted Status = "interrupted"
	StatusTimeout     Status = "timeout"
	StatusKilled      Status = "killed"  // the kernel or the sandbox is gone; Reason says why
	StatusAborted     Status = "aborted" // never ran: an earlier one in the queue failed, or the kernel restarted
)

// Reason says what stopped an execution when the user's code did not.
type Reason string

// The reasons that a person and a model can act on.
const (
	ReasonOutOfMemory  Reason = "out_of_memory"
	ReasonDiskFull     Reason = "disk_full"
	ReasonProcessLimit Reason = "process_limit"
	ReasonKernelDied   Reason = "kernel_died"
	ReasonKernelBroken Reason = "kernel_protocol" // it wrote what is no message to its own socket
	ReasonSandboxLost  Reason = "sandbox_lost"
	ReasonOutputLimit  Reason = "output_limit"
	ReasonRestarted    Reason = "kernel_restarted"
)

// Queued is the data of execution.queued.
type Queued struct {
	Ahead int `json:"ahead"` // executions before this one on the same kernel
}

// Started is the data of execution.started.
type Started struct {
	KernelID string `json:"kernel_id"`
}

// Stream is the data of output.stream.
type Stream struct {
	Name string `json:"name"` // "stdout" or "stderr"
	Text string `json:"text"`
}

// Display is the data of output.display_data, output.update_display_data and
// output.execute_result.
type Display struct {
	Data           json.RawMessage `json:"data"` // mime type → value
	Metadata       json.RawMessage `json:"metadata"`
	Transient      json.RawMessage `json:"transient,omitempty"`       // {"display_id"}
	ExecutionCount *int            `json:"execution_count,omitempty"` // execute_result only
}

// ID gives the display_id under which later updates change what is shown; ""
// if there is none.
func (d *Display) ID() string {
	var t struct {
		ID string `json:"display_id"`
	}
	_ = json.Unmarshal(d.Transient, &t) // absent or without an id: none
	return t.ID
}

// Bundle gives the values by their mime types, and metadata that is an object.
// Both were checked when they came from the agent.
func (d *Display) Bundle() (data map[string]json.RawMessage, metadata json.RawMessage) {
	data = map[string]json.RawMessage{}
	_ = json.Unmarshal(d.Data, &data) // an object, or the agent's client had refused it
	if metadata = d.Metadata; len(metadata) == 0 {
		metadata = json.RawMessage("{}")
	}
	return data, metadata
}

// Error is the data of output.error.
type Error struct {
	Name      string   `json:"ename"`
	Value     string   `json:"evalue"`
	Traceback []string `json:"traceback"` // lines with ANSI colours
}

// Truncated is the data of output.truncated: from here on output is only
// written to File, until the tail that precedes execution.finished.
type Truncated struct {
	LimitBytes int64  `json:"limit_bytes"`
	File       string `json:"file,omitempty"` // path in the sandbox with the whole output
}

// Input is the data of input.requested.
type Input struct {
	Prompt   string `json:"prompt"`
	Password bool   `json:"password"`
}

// Interrupt is the data of kernel.interrupt.
type Interrupt struct {
	Step   string `json:"step"`   // "sigint", "sigint_again", "kill"
	Reason string `json:"reason"` // "requested" or "timeout"
}

// Restarted is the data of kernel.restarted.
type Restarted struct {
	KernelID string `json:"kernel_id"`
	Reason   Reason `json:"reason,omitempty"`
}

// Finished is the data of execution.finished.
type Finished struct {
	Status          Status          `json:"status"`
	Reason          Reason          `json:"reason,omitempty"`
	Message         string          `json:"message,omitempty"` // a sentence for people: what happened and what to do
	ExecutionCount  int             `json:"execution_count"`
	DurationMS      float64         `json:"duration_ms"`
	OutputBytes     int64           `json:"output_bytes"`  // what the code wrote
	DroppedBytes    int64           `json:"dropped_bytes"` // of these, left out of the events
	OutputFile      string          `json:"output_file,omitempty"`
	Payload         json.RawMessage `json:"payload,omitempty"`
	UserExpressions json.RawMessage `json:"user_expressions,omitempty"`
}

// ProcessExit is the data of process.finished.
type ProcessExit struct {
	ExitCode   int     `json:"exit_code"`        // -1 when a signal ended it
	Signal     string  `json:"signal,omitempty"` // "SIGKILL", …
	Status     Status  `json:"status"`           // ok, error, timeout or killed
	DurationMS float64 `json:"duration_ms"`
}
