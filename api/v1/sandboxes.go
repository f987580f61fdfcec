package v1

import "time"

// Sandbox is an isolated machine-like environment with its own file system and
// Python kernels whose variables survive from one execution to the next.
type Sandbox struct {
	ID                 string            `json:"id" doc:"Random identifier" example:"sbx_4kq2m7v6xqz5wd3hn2rjt0abcd"`
	Template           string            `json:"template" doc:"What it was made from" example:"python"`
	Image              string            `json:"image" doc:"Digest of the image that was started"`
	State              string            `json:"state" enum:"starting,running,stopped" doc:"What the driver observes: starting, running, or stopped for good"`
	Reason             string            `json:"reason,omitempty" doc:"Why it stopped, when known" example:"out_of_memory"`
	Limits             Limits            `json:"limits" doc:"What it may use"`
	Labels             map[string]string `json:"labels" doc:"The caller's own labels"`
	KernelID           string            `json:"kernel_id,omitempty" doc:"The default kernel, which runs executions that name none; empty until the first use starts it"`
	ExecutionTimeoutMS int64             `json:"execution_timeout_ms" doc:"Longest running time of one execution"`
	IdleTimeoutMS      int64             `json:"idle_timeout_ms" doc:"Deleted when unused for so long"`
	CreatedAt          time.Time         `json:"created_at"`
	LastUsedAt         time.Time         `json:"last_used_at" doc:"Last call that used it; running executions count as use"`
	ExpiresAt          time.Time         `json:"expires_at" doc:"Deleted at this time whatever it does; extend moves it"`
}

// Limits bounds what a sandbox may use. Zero means the driver's own bound.
type Limits struct {
	MemoryBytes int64   `json:"memory_bytes,omitempty" minimum:"0" doc:"Memory of all processes together"`
	CPUs        float64 `json:"cpus,omitempty" minimum:"0" doc:"CPUs, fractions allowed"`
	Processes   int     `json:"processes,omitempty" minimum:"0" doc:"Processes and threads at once"`
	DiskBytes   int64   `json:"disk_bytes,omitempty" minimum:"0" doc:"All that is written, together"`
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

// Capabilities says which limits hold on this host.
type Capabilities struct {
	Enforces map[string]string `json:"enforces" doc:"Limit → what enforces it"`
	Missing  map[string]string `json:"missing" doc:"Limit → why it is not enforced here"`
}

// Template is what a sandbox is made from.
type Template struct {
	Name               string `json:"name" example:"python"`
	Default            bool   `json:"default" doc:"Used when a create names no template"`
	Image              string `json:"image"`
	Limits             Limits `json:"limits"`
	ExecutionTimeoutMS int64  `json:"execution_timeout_ms"`
	IdleTimeoutMS      int64  `json:"idle_timeout_ms"`
	LifetimeMS         int64  `json:"lifetime_ms"`
}

// ServerLimits is what one request or the whole installation may ask for.
type ServerLimits struct {
	MaxSandboxes int   `json:"max_sandboxes" doc:"Sandboxes at once; 0: no bound but the host's"`
	CodeBytes    int64 `json:"code_bytes" doc:"Code of one execution"`
	BodyBytes    int64 `json:"body_bytes" doc:"JSON body of one request"`
}

// SandboxesCount counts the sandboxes that exist.
type SandboxesCount struct {
	Alive int `json:"alive"`
}

// Health says that the server answers.
type Health struct {
	Status    string  `json:"status" example:"healthy"`
	Timestamp float64 `json:"timestamp" doc:"Unix time in seconds"`
}
