// Package agentapi is what the server and the agent inside a sandbox say to
// each other: HTTP/1.1 with JSON bodies and NDJSON streams over the
// connections of sandbox.Driver's Dial.
//
// Every call but GET /health, GET /ready and the first POST /configure carries
// "Authorization: Bearer <token>"; the token is unique to the sandbox.
// An agent starts without one (so that a saved sandbox can be woken many
// times) and takes it from the first POST /configure, before any user code.
// One that others could reach first, as in a pod, is started with the token's
// digest, and takes no call without it.
//
//	GET    /health                       Health
//	GET    /ready                        Health; 503 until what was to be started beforehand is there
//	POST   /configure                    Configure → Health
//	GET    /usage                        Usage
//	POST   /trim                         204: memory that is not needed is given back
//	GET    /kernels                      []Kernel
//	POST   /kernels                      StartKernel → Kernel (201)
//	GET    /kernels/{id}                 Kernel
//	DELETE /kernels/{id}                 204
//	POST   /kernels/{id}/check           204: an idle kernel ran an inert cell; 409 when it is busy
//	POST   /kernels/{id}/interrupt       204
//	POST   /kernels/{id}/restart         Kernel
//	POST   /kernels/{id}/request         Request → Reply
//	POST   /kernels/{id}/comm            Comm → 204
//	POST   /kernels/{id}/executions      Execute → NDJSON of event.Event
//	GET    /executions                   []Execution
//	GET    /executions/{id}/events       ?after=SEQ → NDJSON of event.Event
//	POST   /executions/{id}/interrupt    204
//	POST   /executions/{id}/input        Input → 204
//	GET    /files?path=                  File, with Entries for a folder
//	GET    /files/content?path=          the bytes; Range is honoured
//	PUT    /files/content?path=          bytes → File; all or nothing
//	GET    /files/archive?path=          the folder as zip
//	GET    /files/tree?path=&skip=&limit= Tree, of several folders
//	POST   /files/pack                   PackRequest → tar of the files
//	PUT    /files/unpack                 tar → Unpacked
//	POST   /files/table                  TableRequest → a page of rows
//	POST   /files/mkdir                  PathRequest → File
//	POST   /files/move                   MoveRequest → File
//	DELETE /files?path=                  204; folders with all they hold
//	POST   /processes                    Run → NDJSON of event.Event
//	DELETE /processes/{id}               204: kills the process and its children
//	POST   /egress                       Egress → 101, then HTTP/2 with the agent as the client, see EgressProtocol
//
// Failures are RFC 9457 problems with the same codes the product's own API
// uses (Problem). What an agent says is foreign: the Client caps sizes and
// checks the JSON of every line before anybody else sees it.
package agentapi

import (
	"encoding/json"
	"time"
)

// Port is where the agent listens on the sandbox's own loopback.
const Port = 44772

// ProxyPort is where programs of the sandbox find the agent's proxy, on the
// same loopback: their only way out, see EgressProtocol.
const ProxyPort = 44773

// ReadyLine is what the agent writes on its standard output, as one line,
// once it listens. Drivers wait for it: dialling earlier would be refused,
// and a refused dial spoils gVisor checkpoints.
const ReadyLine = "caesarion-agent ready"

// Directories every sandbox has.
const (
	WorkspaceDir = "/workspace"      // where kernels start and relative paths begin
	UploadsDir   = "/uploaded_files" // where the original put uploads
)

// Health says that the agent answers and what it is.
type Health struct {
	Version    string  `json:"version"`
	Configured bool    `json:"configured"`
	KernelID   string  `json:"kernel_id,omitempty"` // of Configure: the kernel that was handed over and can run code; empty: none
	UptimeMS   float64 `json:"uptime_ms"`
}

// Configure gives an agent who it is. It is accepted once without a token,
// unless the agent was started with the digest of one, and later only with the
// token it set.
type Configure struct {
	Token         string            `json:"token"`
	SandboxID     string            `json:"sandbox_id"`
	Env           map[string]string `json:"env"`
	MemoryBytes   int64             `json:"memory_bytes"` // kernels are killed beyond it; 0: no watch
	Processes     int               `json:"processes"`    // processes and threads beyond which kernels are killed; 0: no watch
	DiskBytes     int64             `json:"disk_bytes"`
	DataBytes     int64             `json:"data_bytes"` // RLIMIT_DATA of kernels and processes; 0: none
	UnixTimeNanos int64             `json:"unix_time_nanos"`
	// KernelID hands over the kernel that was started beforehand, if there is
	// one, under this name: as StartKernel does, but in the same call.
	KernelID string `json:"kernel_id,omitempty"`
	// Clone says that this sandbox is a copy of another: what runs is
	// interrupted, executions are forgotten, and every kernel's random
	// generators start anew. What kernels run is not waited for.
	Clone bool `json:"clone,omitempty"`
}

// Usage is one reading of a sandbox's resource counters.
//
// Source: /proc of the sandbox and statfs of /, read by the agent.
type Usage struct {
	MemoryBytes      int64     `json:"memory_bytes"`
	MemoryLimitBytes int64     `json:"memory_limit_bytes"`
	CPUNanos         int64     `json:"cpu_nanos"` // CPU time since start, all cores together
	DiskBytes        int64     `json:"disk_bytes"`
	DiskLimitBytes   int64     `json:"disk_limit_bytes"`
	Processes        int       `json:"processes"`
	At               time.Time `json:"at"` // UTC
}

// KernelState is what a kernel does right now.
type KernelState string

// The states of a kernel.
const (
	KernelStarting   KernelState = "starting"
	KernelIdle       KernelState = "idle"
	KernelBusy       KernelState = "busy"
	KernelRestarting KernelState = "restarting"
	KernelDead       KernelState = "dead" // could not be started again; the reason is in Kernel
)

// Kernel is one Python process that runs cells.
type Kernel struct {
	ID             string      `json:"id"` // "krn_…"
	Language       string      `json:"language"`
	State          KernelState `json:"state"`
	Dir            string      `json:"cwd"`
	ExecutionCount int         `json:"execution_count"`
	Queued         int         `json:"queued"`
	Restarts       int         `json:"restarts"`
	Reason         string      `json:"reason,omitempty"` // why it last died
	StartedAt      time.Time   `json:"started_at"`
	LastActivity   time.Time   `json:"last_activity"`
}

// StartKernel asks for a kernel.
type StartKernel struct {
	ID       string            `json:"id"`       // chosen by the server, "krn_…"
	Language string            `json:"language"` // "python"
	Dir      string            `json:"cwd"`      // default WorkspaceDir
	Env      map[string]string `json:"env"`
}

// Request is a Jupyter shell request that has one reply and no outputs:
// complete_request, inspect_request, is_complete_request, kernel_info_request,
// comm_info_request, history_request; and our own variables_request and
// table_request.
type Request struct {
	Type      string          `json:"msg_type"`
	Content   json.RawMessage `json:"content"`
	TimeoutMS int64           `json:"timeout_ms"` // default 10 s; a busy kernel answers after its cell
}

// Reply is the content of the kernel's answer.
type Reply struct {
	Type    string          `json:"msg_type"`
	Content json.RawMessage `json:"content"`
}

// Comm is a comm message for the kernel.
type Comm struct {
	Type    string          `json:"msg_type"` // comm_open, comm_msg, comm_close
	Content json.RawMessage `json:"content"`
	Buffers [][]byte        `json:"buffers,omitempty"` // base64; in events of comms "buffers" is in the data
}

// Execute asks a kernel to run code.
type Execute struct {
	ID               string          `json:"id"` // chosen by the server, "exe_…"
	Code             string          `json:"code"`
	Silent           bool            `json:"silent,omitempty"`
	StoreHistory     bool            `json:"store_history"`
	AllowStdin       bool            `json:"allow_stdin"`
	StopOnError      bool            `json:"stop_on_error,omitempty"` // abort what is queued behind it if it raises
	UserExpressions  json.RawMessage `json:"user_expressions,omitempty"`
	TimeoutMS        int64           `json:"timeout_ms"`         // running time, 0: none
	OutputLimitBytes int64           `json:"output_limit_bytes"` // of events' data; default 10 MiB
}

// Execution is one execution the agent still remembers.
type Execution struct {
	ID       string `json:"id"`
	KernelID string `json:"kernel_id"`
	LastSeq  int64  `json:"last_seq"`
	Finished bool   `json:"finished"`
}

// Input answers input.requested.
type Input struct {
	Value string `json:"value"`
}

// FileType says what a directory entry is.
type FileType string

// The file types.
const (
	TypeFile    FileType = "file"
	TypeDir     FileType = "directory"
	TypeSymlink FileType = "symlink"
	TypeOther   FileType = "other"
)

// File is one file or folder of a sandbox.
type File struct {
	Name       string    `json:"name"`                   // base name
	Path       string    `json:"path"`                   // absolute; bytes that are no UTF-8 appear as U+FFFD
	Escaped    string    `json:"escaped_path,omitempty"` // the path percent-encoded, if it is not UTF-8
	Type       FileType  `json:"type"`
	SizeBytes  int64     `json:"size_bytes"`
	Mode       string    `json:"mode"` // "-rw-r--r--"
	ModifiedAt time.Time `json:"modified_at"`
	Target     string    `json:"target,omitempty"` // of a symlink
	Entries    []File    `json:"entries,omitzero"` // of a folder, sorted by name
	Truncated  bool      `json:"truncated,omitempty"`
}

// PathRequest names a path.
type PathRequest struct {
	Path string `json:"path"`
}

// MoveRequest renames, also across folders.
type MoveRequest struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Overwrite bool   `json:"overwrite"`
}

// Run asks for a process beside the kernels.
type Run struct {
	ID               string            `json:"id"`      // chosen by the server, "prc_…"
	Command          string            `json:"command"` // run by /bin/sh -c (bash if the image has it); or Args
	Args             []string          `json:"args,omitempty"`
	Dir              string            `json:"cwd"`
	Env              map[string]string `json:"env"`
	Stdin            string            `json:"stdin"`
	TimeoutMS        int64             `json:"timeout_ms"`
	OutputLimitBytes int64             `json:"output_limit_bytes"`
}

// Problem is a failure as the agent puts it on the wire.
type Problem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Hint   string `json:"hint,omitempty"`
}
