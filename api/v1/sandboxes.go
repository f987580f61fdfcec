package v1

import "time"

// Sandbox is an isolated machine-like environment with its own file system and
// Python kernels whose variables survive from one execution to the next.
type Sandbox struct {
	ID                 string            `json:"id" doc:"Random identifier" example:"sbx_4kq2m7v6xqz5wd3hn2rjt0abcd"`
	Template           string            `json:"template" doc:"What it was made from" example:"python"`
	Image              string            `json:"image" doc:"Digest of the image that was started"`
	State              string            `json:"state" enum:"starting,running,pausing,paused,resuming,stopped" doc:"starting, running, on the way to sleep, asleep, on the way back, or stopped for good. Every call that needs a paused sandbox wakes it"`
	Reason             string            `json:"reason,omitempty" doc:"Why it stopped, when known" example:"out_of_memory"`
	Limits             Limits            `json:"limits" doc:"What it may use"`
	Labels             map[string]string `json:"labels" doc:"The caller's own labels"`
	Owner              *Owner            `json:"owner,omitempty" doc:"Whose it is; absent: nobody's, as where there is one user"`
	KernelID           string            `json:"kernel_id,omitempty" doc:"The default kernel, which runs executions that name none; empty until the first use starts it"`
	ExecutionTimeoutMS int64             `json:"execution_timeout_ms" doc:"Longest running time of one execution"`
	IdleTimeoutMS      int64             `json:"idle_timeout_ms" doc:"Deleted when unused for so long"`
	PauseAfterMS       int64             `json:"pause_after_ms,omitempty" doc:"Put to sleep when unused for so long; absent: never"`
	Start              string            `json:"start,omitempty" enum:"warm,restore,cold" doc:"How it came to be: taken from the pool, restored from a snapshot, or started from nothing"`
	PausedAt           *time.Time        `json:"paused_at,omitempty" doc:"Since when it sleeps"`
	SavedBytes         int64             `json:"saved_bytes,omitempty" doc:"What it takes on disk while it sleeps"`
	Restarted          *Restarted        `json:"restarted,omitempty" doc:"Set when it was started anew with its files because its memory could not be brought back"`
	CreatedAt          time.Time         `json:"created_at"`
	LastUsedAt         time.Time         `json:"last_used_at" doc:"Last call that used it; running executions count as use"`
	ExpiresAt          time.Time         `json:"expires_at" doc:"Deleted at this time whatever it does; extend moves it"`
}

// Owner says whose something is.
type Owner struct {
	UserID           string `json:"user_id,omitempty" example:"usr_4kq2m7v6xqz5wd3h"`
	Email            string `json:"email,omitempty" doc:"Of the user, in lists that admins ask for"`
	OrganisationID   string `json:"organisation_id,omitempty" doc:"In which the user acted" example:"org_4kq2m7v6xqz5wd3h"`
	OrganisationName string `json:"organisation_name,omitempty" doc:"In lists that admins ask for"`
}

// Limits bounds what a sandbox may use. Zero means the driver's own bound.
type Limits struct {
	MemoryBytes int64   `json:"memory_bytes,omitempty" minimum:"0" doc:"Memory of all processes together"`
	CPUs        float64 `json:"cpus,omitempty" minimum:"0" doc:"CPUs, fractions allowed"`
	Processes   int     `json:"processes,omitempty" minimum:"0" doc:"Processes and threads at once"`
	DiskBytes   int64   `json:"disk_bytes,omitempty" minimum:"0" doc:"All that is written, together"`
}

// Restarted says that a sandbox lost its variables and kept its files.
type Restarted struct {
	At      time.Time `json:"at"`
	Reason  string    `json:"reason" example:"snapshot-damaged"`
	Message string    `json:"message" doc:"What happened, for people"`
}

// ForkSandbox asks for copies of a sandbox. Every field may be left out.
type ForkSandbox struct {
	Count  int               `json:"count,omitempty" minimum:"0" maximum:"16" doc:"How many; default 1"`
	Labels map[string]string `json:"labels,omitempty" doc:"Of the copies; default: the sandbox's own"`
}

// SnapshotSandbox names a state of a sandbox.
type SnapshotSandbox struct {
	Name string `json:"name,omitempty" maxLength:"63" doc:"A name to create sandboxes by: letters, digits, '.', '_' and '-'. A snapshot that had it before loses it"`
}

// Snapshot is a saved state of a sandbox, memory and files, that others can be
// created from.
type Snapshot struct {
	ID          string    `json:"id" example:"snp_4kq2m7v6xqz5wd3hn2rjt0abcd"`
	Name        string    `json:"name,omitempty"`
	Template    string    `json:"template"`
	Image       string    `json:"image"`
	SandboxID   string    `json:"sandbox_id" doc:"What it was made of"`
	Memory      bool      `json:"memory" doc:"It has memory; false: its files are left"`
	MemoryBytes int64     `json:"memory_bytes" doc:"On disk, for the memory"`
	FilesBytes  int64     `json:"files_bytes" doc:"On disk, for the files"`
	CreatedAt   time.Time `json:"created_at"`
}

// SnapshotList is the snapshots of this installation, newest first.
type SnapshotList struct {
	Snapshots []Snapshot `json:"snapshots"`
}

// SandboxList is the sandboxes of this installation, newest first.
type SandboxList struct {
	Sandboxes []Sandbox `json:"sandboxes"`
}

// CreateSandbox asks for a sandbox. Every field may be left out.
type CreateSandbox struct {
	Template           string            `json:"template,omitempty" maxLength:"63" doc:"Name of a template, see GET /v1/info; default: the installation's default template" example:"python"`
	Labels             map[string]string `json:"labels,omitempty" doc:"Kept with the sandbox and shown in lists: at most 32, keys up to 63 and values up to 255 characters"`
	Env                map[string]string `json:"env,omitempty" doc:"Added to the environment of kernels and processes"`
	Limits             *Limits           `json:"limits,omitempty" doc:"Lower limits than the template's; zero or absent fields keep the template's"`
	ExecutionTimeoutMS int64             `json:"execution_timeout_ms,omitempty" minimum:"0" doc:"Shorter than the template's longest running time of one execution"`
	IdleTimeoutMS      int64             `json:"idle_timeout_ms,omitempty" minimum:"0" doc:"Shorter than the template's idle time"`
	LifetimeMS         int64             `json:"lifetime_ms,omitempty" minimum:"0" doc:"Shorter than the template's life"`
	PauseAfterMS       int64             `json:"pause_after_ms,omitempty" minimum:"-1" doc:"Put to sleep when unused for so long; default: the template's; -1: never"`
	Snapshot           string            `json:"snapshot,omitempty" maxLength:"63" doc:"Id or name of a snapshot to create it from, with its template, memory and files"`
}

// ExtendSandbox moves the end of a sandbox's life.
type ExtendSandbox struct {
	LifetimeMS int64 `json:"lifetime_ms,omitempty" minimum:"0" doc:"It expires so long from now; default and maximum: the template's life"`
}

// Usage is one reading of a sandbox's resource counters, made inside it.
type Usage struct {
	MemoryBytes      int64     `json:"memory_bytes"`
	MemoryLimitBytes int64     `json:"memory_limit_bytes"`
	CPUNanos         int64     `json:"cpu_nanos" doc:"CPU time since start, all cores together, in nanoseconds"`
	DiskBytes        int64     `json:"disk_bytes"`
	DiskLimitBytes   int64     `json:"disk_limit_bytes"`
	Processes        int       `json:"processes"`
	At               time.Time `json:"at" doc:"When the counters were read"`
}

// Info says what this installation is and can do.
type Info struct {
	Version      string         `json:"version" example:"0.1.0"`
	Driver       string         `json:"driver" doc:"What makes the sandboxes" example:"gvisor"`
	Capabilities Capabilities   `json:"capabilities"`
	Templates    []Template     `json:"templates"`
	Limits       ServerLimits   `json:"limits"`
	Sandboxes    SandboxesCount `json:"sandboxes"`
}

// Capabilities says which limits hold on this host, and what can be done on it.
type Capabilities struct {
	Enforces map[string]string `json:"enforces" doc:"Limit → what enforces it"`
	Missing  map[string]string `json:"missing" doc:"Limit → why it is not enforced here"`
	Can      []string          `json:"can" enum:"pause,snapshot,fork" doc:"What it can do beyond running sandboxes"`
}

// Template is what a sandbox is made from.
type Template struct {
	Name               string   `json:"name" example:"python"`
	Default            bool     `json:"default" doc:"Used when a create names no template"`
	Image              string   `json:"image"`
	Limits             Limits   `json:"limits"`
	Network            string   `json:"network" enum:"none,packages,list,open" doc:"What programs may reach: nothing, what pip and uv install, certain hosts, or every public address"`
	ExecutionTimeoutMS int64    `json:"execution_timeout_ms"`
	IdleTimeoutMS      int64    `json:"idle_timeout_ms"`
	LifetimeMS         int64    `json:"lifetime_ms"`
	PauseAfterMS       int64    `json:"pause_after_ms,omitempty" doc:"Unused for so long, a sandbox is put to sleep; absent: never"`
	Preload            []string `json:"preload,omitempty" doc:"Modules that kernels have imported before they are handed out"`
	Pool               *Pool    `json:"pool,omitempty" doc:"Sandboxes kept ready"`
}

// Pool is the state of a template's warm pool.
type Pool struct {
	Size     int    `json:"size" doc:"How many are kept ready"`
	Ready    int    `json:"ready"`
	Starting int    `json:"starting"`
	Snapshot string `json:"snapshot" enum:"none,making,ready,failed" doc:"The template's snapshot, which restores are made from"`
	Message  string `json:"message,omitempty" doc:"Why there is no snapshot, or why fewer are kept than Size"`
	Hits     int64  `json:"hits" doc:"Creates that got a ready one"`
	Misses   int64  `json:"misses"`
}

// ServerLimits is what one request or the whole installation may ask for.
type ServerLimits struct {
	MaxSandboxes int   `json:"max_sandboxes" doc:"Sandboxes at once; 0: no bound but the host's"`
	CodeBytes    int64 `json:"code_bytes" doc:"Code of one execution"`
	BodyBytes    int64 `json:"body_bytes" doc:"JSON body of one request"`
}

// SandboxesCount counts the sandboxes that exist.
type SandboxesCount struct {
	Alive  int `json:"alive" doc:"Those that sleep included"`
	Paused int `json:"paused"`
}

// Health says that the server answers.
type Health struct {
	Status    string  `json:"status" example:"healthy"`
	Timestamp float64 `json:"timestamp" doc:"Unix time in seconds"`
}
