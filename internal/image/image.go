package image

import (
	"time"
)

// Image is one image of the store.
type Image struct {
	Name         string    `json:"name,omitempty"` // empty when no name points to it any more
	Digest       string    `json:"digest"`         // of the OCI manifest, "sha256:…"
	EROFSPath    string    `json:"erofs_path"`     // absolute
	EROFSBytes   int64     `json:"erofs_bytes"`
	OCIBytes     int64     `json:"oci_bytes"` // manifest, configuration and compressed layers
	Files        int       `json:"files"`     // entries of all sorts
	Created      time.Time `json:"created"`   // when it came into this store, UTC
	Architecture string    `json:"architecture"`
	Source       string    `json:"source"` // "recipe", or what was imported
	Recipe       string    `json:"recipe,omitempty"`
	Config       Config    `json:"config"`
	Python       Python    `json:"python"`
}

// Config is what the image says about running in it.
//
// The gVisor driver runs everything as uid 1000 whatever User says; /workspace
// and /uploaded_files are always there and belong to it.
type Config struct {
	User       string   `json:"user"` // as written in the image, e.g. "jovyan" or "1000:100"; empty is root
	UID        int      `json:"uid"`  // of User
	GID        int      `json:"gid"`  // of User
	Home       string   `json:"home"` // of uid 1000 by /etc/passwd; empty when the image has no such user
	WorkingDir string   `json:"working_dir"`
	Env        []string `json:"env"` // NAME=value; always has a PATH
}

// Python is the interpreter that the probe found.
type Python struct {
	Path      string `json:"path"`    // absolute, inside the image
	Version   string `json:"version"` // major.minor
	IPython   string `json:"ipython"`
	IPyKernel string `json:"ipykernel,omitempty"` // empty when it is not installed
}

// Details is an Image with what only its OCI manifest knows.
type Details struct {
	Image
	Names     []string          `json:"names"` // every name of this digest
	MediaType string            `json:"media_type"`
	Layers    []Layer           `json:"layers"`
	Labels    map[string]string `json:"labels,omitempty"`
}

// Layer is one layer of an OCI image.
type Layer struct {
	Digest    string `json:"digest"`
	MediaType string `json:"media_type"`
	Bytes     int64  `json:"bytes"` // compressed
}

// Stage names a part of a build or an import.
type Stage string

// The stages, in the order in which they come.
const (
	StageWaiting  Stage = "waiting"  // for another process that writes to the store
	StageWheels   Stage = "wheels"   // downloading; counts wheels
	StageSystem   Stage = "system"   // mmdebstrap and setup.sh; no total
	StageDownload Stage = "download" // of layers; counts bytes
	StageUnpack   Stage = "unpack"   // reading tar entries; counts bytes
	StageLayer    Stage = "layer"    // writing the OCI layer; counts bytes
	StageEROFS    Stage = "erofs"    // writing the EROFS file; counts bytes
	StageDone     Stage = "done"
)

// Update is one step of progress.
type Update struct {
	Stage  Stage
	Detail string // for a person; may be empty
	Done   int64  // in the stage's unit
	Total  int64  // 0 when unknown
}

// Progress is told about each step, one call at a time. It must return quickly.
// A nil Progress is allowed.
type Progress func(Update)

func (p Progress) report(u Update) {
	if p != nil {
		p(u)
	}
}

// String gives the stage's name.
func (s Stage) String() string { return string(s) }
