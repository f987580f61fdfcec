package gvisor

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// installAgent copies the agent binary to a folder named after its content
// and gives that folder. Sandboxes mount the folder: an upgrade of the binary
// then never changes what is running.
func installAgent(binary, parent string) (string, error) {
	src, err := os.Open(binary)
	if err != nil {
		return "", errdefs.New(errdefs.ErrUnavailable, "agent-missing", "the agent binary is missing").
			WithHint("`make build` puts caesarion-agent beside caesarion; or name it with --agent").WithCause(err)
	}
	defer src.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, src); err != nil {
		return "", fmt.Errorf("gvisor: read agent: %w", err)
	}
	dir := filepath.Join(parent, hex.EncodeToString(sum.Sum(nil)))
	if _, err := os.Stat(filepath.Join(dir, agentName)); err == nil {
		return dir, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("gvisor: %w", err)
	}
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("gvisor: read agent: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", diskError(err)
	}
	tmp, err := os.CreateTemp(dir, agentName+".*")
	if err != nil {
		return "", diskError(err)
	}
	defer os.Remove(tmp.Name()) // gone after the rename
	_, err = io.Copy(tmp, src)
	if err == nil {
		err = tmp.Chmod(0o755)
	}
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return "", diskError(err)
	}
	if err := os.Rename(tmp.Name(), filepath.Join(dir, agentName)); err != nil {
		return "", diskError(err)
	}
	return dir, nil
}

// errDiskFull is for what gVisor says of a full disk, which is text.
var errDiskFull error = unix.ENOSPC

// diskError gives a full disk its name; other failures pass as they are.
func diskError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return errdefs.New(errdefs.ErrExhausted, "host-disk-full", "the server's disk is full").
			WithHint("free some room in the data directory and try again").WithCause(err)
	}
	return fmt.Errorf("gvisor: %w", err)
}

// lockFile takes the lock of a state folder for as long as the file is open.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, diskError(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errdefs.New(errdefs.ErrConflict, "state-in-use", "another process uses %s", filepath.Dir(path)).
				WithHint("stop it, or choose another data directory")
		}
		return nil, fmt.Errorf("gvisor: lock: %w", err)
	}
	return f, nil
}

// agentLog keeps the last words of an agent and drops the rest, so that a
// hostile one can fill neither disk nor memory.
type agentLog struct {
	mu   sync.Mutex
	tail tail // guarded by mu
}

// drain reads until the sandbox closes its end or the file is closed.
func (l *agentLog) drain(from *os.File) {
	defer from.Close()
	_, _ = io.Copy(l, from)
}

func (l *agentLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tail.max = agentLogBytes
	return l.tail.Write(p)
}

func (l *agentLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.String()
}
