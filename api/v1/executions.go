package v1

import (
	"encoding/json"
	"time"
)

// Kernel is one Python process that runs cells and keeps their variables.
type Kernel struct {
	ID             string    `json:"id" example:"krn_6w4l2n5c7yq3zt5kd6m2xhabce"`
	Default        bool      `json:"default" doc:"Runs the executions that name no kernel"`
	Language       string    `json:"language" example:"python"`
	State          string    `json:"state" enum:"starting,idle,busy,restarting,dead"`
	Dir            string    `json:"cwd" doc:"Where it was started"`
	ExecutionCount int       `json:"execution_count"`
	Queued         int       `json:"queued" doc:"Executions that wait for it"`
	Restarts       int       `json:"restarts"`
	Reason         string    `json:"reason,omitempty" doc:"Why it last died" example:"out_of_memory"`
	StartedAt      time.Time `json:"started_at"`
	LastActivity   time.Time `json:"last_activity"`
}

// KernelList is the kernels of a sandbox.
type KernelList struct {
	Kernels []Kernel `json:"kernels"`
}

// CreateKernel asks for one more kernel. Every field may be left out.
type CreateKernel struct {
	Language string            `json:"language,omitempty" enum:"python" doc:"Default: python"`
	Dir      string            `json:"cwd,omitempty" maxLength:"4096" doc:"Where it starts; default /workspace"`
	Env      map[string]string `json:"env,omitempty" doc:"Added to the sandbox's environment"`
}

// Execute asks for code to be run.
type Execute struct {
	Code             string          `json:"code" doc:"Python; UTF-8, at most 4 MiB" example:"print(1 + 1)"`
	KernelID         string          `json:"kernel_id,omitempty" maxLength:"64" doc:"Default: the sandbox's default kernel"`
	TimeoutMS        int64           `json:"timeout_ms,omitempty" minimum:"0" doc:"Running time after which it is interrupted; default and maximum: the sandbox's execution_timeout_ms"`
	AllowStdin       bool            `json:"allow_stdin,omitempty" doc:"input() asks the caller by an input.requested event; otherwise it raises"`
	StopOnError      bool            `json:"stop_on_error,omitempty" doc:"If it raises, executions queued behind it are aborted"`
	StoreHistory     *bool           `json:"store_history,omitempty" doc:"Default true: count it and keep In and Out"`
	Silent           bool            `json:"silent,omitempty" doc:"No result output and no history, as Jupyter's silent"`
	UserExpressions  json.RawMessage `json:"user_expressions,omitempty" doc:"Name → Python expression, evaluated afterwards"`
	OutputLimitBytes int64           `json:"output_limit_bytes,omitempty" minimum:"0" maximum:"16777216" doc:"Output beyond it goes to a file in the sandbox; default 10 MiB"`
}

// Execution is one run of code, with all it gave so far.
type Execution struct {
	ID              string          `json:"id" example:"exe_2n3p5r7t4vxz6bdfhj2kmqabcf"`
	SandboxID       string          `json:"sandbox_id"`
	KernelID        string          `json:"kernel_id"`
	Status          string          `json:"status" enum:"queued,running,ok,error,interrupted,timeout,killed,aborted" doc:"queued and running are not the end; error means the code raised"`
	Reason          string          `json:"reason,omitempty" doc:"What stopped it when the code did not: out_of_memory, disk_full, process_limit, kernel_died, kernel_protocol, kernel_restarted, sandbox_lost, output_limit" example:"out_of_memory"`
	Message         string          `json:"message,omitempty" doc:"A sentence for people: what happened and what to do"`
	Ahead           int             `json:"ahead,omitempty" doc:"While queued: executions before it on the same kernel, when it was queued"`
	ExecutionCount  int             `json:"execution_count"`
	Outputs         []Output        `json:"outputs" doc:"nbformat 4.5 outputs: text of one stream joined, display updates and clear_output applied"`
	Input           *InputRequest   `json:"input,omitempty" doc:"Set while the code waits in input()"`
	LastSeq         int64           `json:"last_seq" doc:"Number of the last event so far"`
	CreatedAt       time.Time       `json:"created_at"`
	StartedAt       *time.Time      `json:"started_at,omitempty"`
	FinishedAt      *time.Time      `json:"finished_at,omitempty"`
	DurationMS      float64         `json:"duration_ms" doc:"Running time"`
	OutputBytes     int64           `json:"output_bytes" doc:"What the code wrote"`
	DroppedBytes    int64           `json:"dropped_bytes" doc:"Of these, left out of outputs and events"`
	OutputFile      string          `json:"output_file,omitempty" doc:"File in the sandbox with the whole output, when some was left out"`
	Payload         json.RawMessage `json:"payload,omitempty" doc:"Jupyter's payload, e.g. of the ? magic"`
	UserExpressions json.RawMessage `json:"user_expressions,omitempty"`
}

// InputRequest is a question of the code.
type InputRequest struct {
	Prompt   string `json:"prompt"`
	Password bool   `json:"password" doc:"getpass(): do not echo"`
}

// ExecutionList is the executions the server remembers of a sandbox, without
// their outputs, newest first.
type ExecutionList struct {
	Executions []Execution `json:"executions"`
}

// Output is one nbformat 4.5 output; which fields are set follows from Type.
type Output struct {
	Type           string                     `json:"output_type" enum:"stream,display_data,execute_result,error"`
	Name           string                     `json:"name,omitempty" doc:"stream: stdout or stderr"`
	Text           string                     `json:"text,omitempty" doc:"stream: the text"`
	ExecutionCount *int                       `json:"execution_count,omitempty" doc:"execute_result"`
	Data           map[string]json.RawMessage `json:"data,omitzero" doc:"display_data, execute_result: mime type → value; binary types are base64 text"`
	Metadata       json.RawMessage            `json:"metadata,omitempty" doc:"display_data, execute_result"`
	ErrorName      string                     `json:"ename,omitempty" doc:"error: class of the exception"`
	ErrorValue     string                     `json:"evalue,omitempty" doc:"error: its text"`
	Traceback      []string                   `json:"traceback,omitzero" doc:"error: lines with ANSI colours"`
	DisplayID      string                     `json:"display_id,omitempty" doc:"In sessions: the name under which code may update a display later"`
	Refs           map[string]OutputRef       `json:"refs,omitempty" doc:"In sessions: values that were shortened or left out here, by mime type, \"text\" for a stream; GET …/outputs/{index} gives them whole"`
}

// OutputRef tells of a value that is fetched by itself.
type OutputRef struct {
	Bytes int64 `json:"bytes"`
}

// Input answers an input.requested event.
type Input struct {
	Value string `json:"value" maxLength:"1048576" doc:"The line, without its newline"`
}

// Complete asks what could be written at a place in code. Content of Jupyter's
// complete_request.
type Complete struct {
	Code      string `json:"code"`
	CursorPos *int   `json:"cursor_pos,omitempty" minimum:"0" doc:"In Unicode characters; default: the end"`
}

// Inspect asks for the documentation of what stands at a place in code.
type Inspect struct {
	Code        string `json:"code"`
	CursorPos   *int   `json:"cursor_pos,omitempty" minimum:"0" doc:"In Unicode characters; default: the end"`
	DetailLevel int    `json:"detail_level,omitempty" minimum:"0" maximum:"1"`
}

// IsComplete asks whether code is ready to run as it stands.
type IsComplete struct {
	Code string `json:"code"`
}

// Comm is a comm message for the kernel, as Jupyter's comm_open, comm_msg and
// comm_close.
type Comm struct {
	Type    string          `json:"msg_type" enum:"comm_open,comm_msg,comm_close"`
	Content json.RawMessage `json:"content" doc:"Jupyter's content: comm_id, data, target_name"`
}
