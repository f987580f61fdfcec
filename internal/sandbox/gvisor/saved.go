package gvisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	manifestFile = "manifest.json"
	filesDir     = "files" // what the sandbox wrote over its image
	// tmpPrefix begins the names of folders that are being made or deleted:
	// what a kill leaves of them is removed by New.
	tmpPrefix = ".tmp-"
)

var (
	// memoryFiles and filesFiles are what gVisor writes.
	memoryFiles = []string{"checkpoint.img", "pages_meta.img", "pages.img"}
	filesFiles  = []string{filesDir + "/fscheckpoint.pb", filesDir + "/multitar.img", filesDir + "/pages_meta.img", filesDir + "/pages.img"}
)

// manifest describes a saved state. It is the last file of its folder to be
// written.
type manifest struct {
	ID        sandbox.SnapshotID `json:"id,omitempty"` // of a snapshot; a sleeping sandbox's state has none
	Name      string             `json:"name,omitempty"`
	Template  string             `json:"template"`
	Image     string             `json:"image"`
	Limits    sandbox.Limits     `json:"limits"`
	Labels    map[string]string  `json:"labels,omitempty"`
	Sandbox   sandbox.ID         `json:"sandbox"`
	Key       string             `json:"key"`
	CreatedAt time.Time          `json:"created_at"`
	Token     string             `json:"token"`         // that the saved agent asks for
	Args      []string           `json:"args"`          // of the saved agent
	Env       map[string]string  `json:"env,omitempty"` // of what it starts
	Files     []savedFile        `json:"files"`
}

type savedFile struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	CRC32C uint32 `json:"crc32c"`
}

// saved is a saved state on disk.
type saved struct {
	dir string
	manifest

	// use is held for reading by restores and for writing by deletions.
	use      sync.RWMutex
	verified bool // the memory is as it was written; guarded by verify
	verify   sync.Mutex
}

func (s *saved) path(name string) string { return filepath.Join(s.dir, name) }

func (m *manifest) file(name string) (savedFile, bool) {
	for _, f := range m.Files {
		if f.Name == name {
			return f, true
		}
	}
	return savedFile{}, false
}

// sizes gives the bytes of memory and of files.
func (m *manifest) sizes() (memory, files int64) {
	for _, f := range m.Files {
		if strings.HasPrefix(f.Name, filesDir+"/") {
			files += f.Bytes
		} else {
			memory += f.Bytes
		}
	}
	return memory, files
}

func (s *saved) sizes() (memory, files int64) {
	if s == nil {
		return 0, 0
	}
	return s.manifest.sizes()
}

// errors of restoring

func errIncompatible() error {
	return errdefs.New(errdefs.ErrConflict, sandbox.CodeIncompatible, "the saved memory is of another version, processor, image or disk limit").
		WithHint("its files can still be used")
}

func errDamaged(cause error) error {
	return errdefs.New(errdefs.ErrUnavailable, sandbox.CodeDamaged, "the saved state is damaged").WithHint("its files may still be whole").WithCause(cause)
}

func errNoMemory() error {
	return errdefs.New(errdefs.ErrConflict, sandbox.CodeNoMemory, "only the files were kept, the memory is gone").WithHint("its files can still be used")
}

func errNoFiles() error {
	return errdefs.New(errdefs.ErrConflict, "snapshot-no-files", "the files were not kept apart from the memory").WithHint("make a new sandbox")
}

func errRestoreFailed(cause error) error {
	return errdefs.New(errdefs.ErrUnavailable, sandbox.CodeRestoreFailed, "gVisor could not restore the saved memory").WithHint("its files can still be used").WithCause(cause)
}

// check refuses what can't be restored: files that are not there, and with
// sums also those whose bytes have changed.
func (s *saved) check(filesOnly bool) error {
	s.verify.Lock()
	defer s.verify.Unlock()
	names := memoryFiles
	if filesOnly {
		names = filesFiles
	} else if s.verified {
		return nil
	}
	var g errgroup.Group
	for _, name := range names {
		want, ok := s.file(name)
		if !ok && filesOnly {
			return errNoFiles()
		}
		if !ok {
			return errNoMemory()
		}
		g.Go(func() error {
			got, err := sum(s.dir, name, false)
			if err == nil && got != want {
				err = fmt.Errorf("%s: %d bytes with sum %08x, want %d with %08x", name, got.Bytes, got.CRC32C, want.Bytes, want.CRC32C)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		for _, passing := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EINTR} {
			if errors.Is(err, passing) { // says nothing of the state, which must not be given up for it
				return errdefs.New(errdefs.ErrUnavailable, "host-short", "the server can't open more files or has no memory left").
					WithHint("try again; the saved state is kept").WithCause(err)
			}
		}
		return errDamaged(err)
	}
	s.verified = s.verified || !filesOnly
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sum reads a file, and on wish waits until it is on disk.
func sum(dir, name string, durable bool) (savedFile, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return savedFile{}, err
	}
	defer f.Close()
	out := savedFile{Name: name}
	buf := make([]byte, 256<<10)
	for {
		n, err := f.Read(buf)
		out.Bytes += int64(n)
		out.CRC32C = crc32.Update(out.CRC32C, castagnoli, buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out, err
		}
	}
	if durable {
		return out, f.Sync()
	}
	return out, nil
}

// seal completes a folder of files that gVisor wrote: sums, the manifest, all
// of it on disk. It may then be renamed.
func seal(dir string, m *manifest, files bool) error {
	names := memoryFiles
	if files {
		names = slices.Concat(memoryFiles, filesFiles)
	}
	m.Files = make([]savedFile, len(names))
	var g errgroup.Group
	for i, name := range names {
		g.Go(func() (err error) {
			m.Files[i], err = sum(dir, name, true)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if files {
		if err := syncDir(filepath.Join(dir, filesDir)); err != nil {
			return err
		}
	}
	return m.write(dir)
}

// write writes the manifest so that a crash leaves the old or the new one.
func (m *manifest) write(dir string) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, manifestFile), b, true); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// publish gives a sealed folder its name.
func publish(tmp, dir string) error {
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// loadSaved reads a saved state; its bytes are checked when they are used.
func loadSaved(dir string) (*saved, error) {
	b, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return nil, err
	}
	s := &saved{dir: dir}
	if err := json.Unmarshal(b, &s.manifest); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, manifestFile), err)
	}
	return s, nil
}

// withoutMemory deletes the memory and keeps the files: first said, then done.
func (s *saved) withoutMemory() (*saved, error) {
	next := &saved{dir: s.dir, manifest: s.manifest}
	next.Files = slices.DeleteFunc(slices.Clone(s.Files), func(f savedFile) bool { return slices.Contains(memoryFiles, f.Name) })
	if err := next.write(s.dir); err != nil {
		return nil, diskError(err)
	}
	for _, name := range memoryFiles {
		if err := os.Remove(s.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("gvisor: %w", err)
		}
	}
	return next, nil
}
