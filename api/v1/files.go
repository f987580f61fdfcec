package v1

import "time"

// File is one file or folder of a sandbox.
type File struct {
	Name       string    `json:"name" doc:"Base name"`
	Path       string    `json:"path" doc:"Absolute path in the sandbox; bytes that are no UTF-8 appear as U+FFFD" example:"/workspace/data.csv"`
	Escaped    string    `json:"escaped_path,omitempty" doc:"The path percent-encoded, if it is not UTF-8: usable as path parameter as it is"`
	Type       string    `json:"type" enum:"file,directory,symlink,other"`
	SizeBytes  int64     `json:"size_bytes"`
	Mode       string    `json:"mode" example:"-rw-r--r--"`
	ModifiedAt time.Time `json:"modified_at"`
	Target     string    `json:"target,omitempty" doc:"Where a symlink points"`
	Entries    []File    `json:"entries,omitzero" doc:"Of a folder, sorted by name"`
	Truncated  bool      `json:"truncated,omitempty" doc:"The folder has more entries than are listed"`
	Kept       *bool     `json:"kept,omitempty" doc:"Of a session's files, false: it is lost when the sandbox ends"`
	Notice     string    `json:"notice,omitempty" doc:"Of a session's top folders: which files are not kept, as a sentence for people"`
}

// MakeFolder asks for a folder and its parents.
type MakeFolder struct {
	Path string `json:"path" minLength:"1" doc:"Absolute, or relative to /workspace"`
}

// MoveFile renames, also across folders.
type MoveFile struct {
	From      string `json:"from" minLength:"1"`
	To        string `json:"to" minLength:"1"`
	Overwrite bool   `json:"overwrite,omitempty" doc:"Replace what is at the target"`
}

// RunProcess asks for a process beside the kernels.
type RunProcess struct {
	Command          string            `json:"command,omitempty" doc:"Run by a shell; or args" example:"ls -la /workspace"`
	Args             []string          `json:"args,omitempty" doc:"Program and arguments, run without a shell"`
	Dir              string            `json:"cwd,omitempty" maxLength:"4096" doc:"Default /workspace"`
	Env              map[string]string `json:"env,omitempty"`
	Stdin            string            `json:"stdin,omitempty"`
	TimeoutMS        int64             `json:"timeout_ms,omitempty" minimum:"0" doc:"Default and maximum: the sandbox's execution_timeout_ms"`
	OutputLimitBytes int64             `json:"output_limit_bytes,omitempty" minimum:"0" maximum:"16777216"`
}

// Process is a process that ended, with what it wrote.
type Process struct {
	ID         string  `json:"id" example:"prc_3q5s7u2w4y6a2c4e6g2i4kabcd"`
	Status     string  `json:"status" enum:"ok,error,timeout,killed"`
	ExitCode   int     `json:"exit_code" doc:"-1 when a signal ended it"`
	Signal     string  `json:"signal,omitempty" example:"SIGKILL"`
	Stdout     string  `json:"stdout"`
	Stderr     string  `json:"stderr"`
	Truncated  bool    `json:"truncated,omitempty" doc:"It wrote more than output_limit_bytes"`
	DurationMS float64 `json:"duration_ms"`
}
