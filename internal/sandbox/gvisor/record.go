package gvisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/sandbox"
)

const recordFile = "record.json"

// record is what is kept of a sandbox on disk.
type record struct {
	ID        sandbox.ID        `json:"id"`
	Template  string            `json:"template"`
	Image     string            `json:"image"`
	Limits    sandbox.Limits    `json:"limits"`
	Labels    map[string]string `json:"labels"`
	CreatedAt time.Time         `json:"created_at"`
	Token     string            `json:"token"`
	Env       map[string]string `json:"env,omitempty"`  // for a start with its files only
	Args      []string          `json:"args,omitempty"` // of its agent
	Pooled    bool              `json:"pooled,omitempty"`
	// PausedAt is set from when it is saved until it is awake again.
	PausedAt time.Time `json:"paused_at,omitzero"`
	// The sentry and gofer, each with its start time in clock ticks since
	// boot, so that a number the host gave to another process is not taken
	// for ours.
	Sentry process `json:"sentry"`
	Gofer  process `json:"gofer"`
}

// process names one process of the host for good.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // field 22 of /proc/<pid>/stat
}

// currentProcess names the process that has this number now.
func currentProcess(pid int) (process, error) {
	start, err := startTime(pid)
	return process{PID: pid, Start: start}, err
}

// alive reports whether the process still runs; a zombie does not.
func (p process) alive() bool {
	if p.PID <= 0 {
		return false
	}
	start, err := startTime(p.PID)
	return err == nil && start == p.Start
}

var errZombie = errors.New("process has ended")

// startTime reads when a process started. A process that has ended but was
// not yet waited for gives errZombie.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The second field is the name in parentheses and may hold anything.
	_, rest, ok := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: unexpected form", pid)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, errZombie
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// save writes the record so that a crash leaves the old or the new one; a
// durable one is also there after a crash of the machine.
func (r *record) save(dir string, durable bool) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, recordFile), b, durable); err != nil || !durable {
		return err
	}
	return syncDir(dir)
}

// writeFile replaces a file at once, by a new one that only we can read.
func writeFile(path string, data []byte, durable bool) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone after the rename
	_, err = tmp.Write(data)
	if err == nil && durable {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// loadRecord reads a sandbox's record; one that is missing or damaged gives
// fs.ErrNotExist, because both mean that nothing can be adopted.
func loadRecord(dir string) (*record, error) {
	b, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		return nil, err
	}
	r := &record{}
	if err := json.Unmarshal(b, r); err != nil || string(r.ID) != filepath.Base(dir) {
		return nil, fmt.Errorf("%s is damaged: %w", filepath.Join(dir, recordFile), fs.ErrNotExist)
	}
	return r, nil
}
