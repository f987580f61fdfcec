package agent

import (
	"bufio"
	"errors"
	"os"
	"path"
	"syscall"

	"github.com/caesarion/caesarion/internal/agentapi"
)

// outputsDir is where whole outputs go that are too large for events,
// relative to the workspace.
const outputsDir = ".caesarion/outputs"

// maxSpill bounds the file of one output: a cell that prints for ever must
// not fill the disk that its own user works on.
const maxSpill = 1 << 30

var errSpillFull = errors.New("it would be larger than 1 GiB")

// spill is the file that holds the whole of an output. A disk that is full
// ends the file and nothing else.
type spill struct {
	path string // in the sandbox
	file *os.File
	w    *bufio.Writer
	size int64
	err  error
}

// openSpill makes the file for id, or gives nil if that is not possible. The
// folder belongs to user code, so nothing in it is trusted: the file must be
// new and inside the workspace.
func (a *Agent) openSpill(id string) *spill {
	if a.disk.over.Load() {
		return nil
	}
	root, err := os.OpenRoot(a.real(agentapi.WorkspaceDir))
	if err != nil {
		return nil
	}
	defer root.Close()
	if err := root.MkdirAll(outputsDir, 0o755); err != nil {
		return nil
	}
	name := outputsDir + "/" + id + ".txt"
	f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY|syscall.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil
	}
	return &spill{path: path.Join(agentapi.WorkspaceDir, name), file: f, w: bufio.NewWriterSize(f, 64<<10)}
}

func (s *spill) write(p []byte) {
	if s.err != nil {
		return
	}
	if s.size += int64(len(p)); s.size > maxSpill {
		s.err = errSpillFull
		_ = s.w.Flush()
		return
	}
	if _, err := s.w.Write(p); err != nil {
		s.fail(err)
	}
}

func (s *spill) fail(err error) {
	s.err = err
	if errors.Is(err, syscall.ENOSPC) {
		s.err = errors.New("the disk is full")
		_ = s.file.Truncate(0) // the space is worth more to the user than half an output
	}
}

func (s *spill) close() {
	if s.err == nil {
		if err := s.w.Flush(); err != nil {
			s.fail(err)
		}
	}
	if err := s.file.Close(); err != nil && s.err == nil {
		s.err = err
	}
	s.w = nil
}
