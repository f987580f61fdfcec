package workspace

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// folder is Blobs in a folder of one machine, each in a file named by its hash.
type folder struct{ dir string }

func (b folder) path(hash string) string {
	name := hex.EncodeToString([]byte(hash))
	return filepath.Join(b.dir, name[:2], name)
}

// file is a Blob of a folder.
type file struct {
	*os.File
	size int64
}

func (f *file) Size() int64 { return f.size }

func (b folder) Open(_ context.Context, hash string) (Blob, error) {
	f, err := os.Open(b.path(hash))
	if err != nil {
		return nil, errBlobLost(err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close() // read only
		return nil, errBlobLost(err)
	}
	return &file{f, info.Size()}, nil
}

func (b folder) Has(_ context.Context, hash string) (bool, error) {
	_, err := os.Stat(b.path(hash))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (b folder) Put(_ context.Context, hash string, size int64, from *os.File) error {
	target := b.path(hash)
	if info, err := os.Stat(target); err == nil && info.Size() == size {
		return nil // it is there already, by its pin it stays
	}
	if err := from.Sync(); err != nil {
		return err
	}
	if err := from.Close(); err != nil {
		return err
	}
	err := os.Rename(from.Name(), target)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(filepath.Dir(target), 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Rename(from.Name(), target)
		}
	}
	return err
}

// Sync makes the names of new blobs safe.
func (b folder) Sync(hashes []string) error {
	dirs := map[string]bool{b.dir: true}
	for _, h := range hashes {
		dirs[filepath.Dir(b.path(h))] = true
	}
	for dir := range dirs {
		f, err := os.Open(dir) //nolint:gosec // one of ours
		if err != nil {
			return diskError(err)
		}
		err = f.Sync()
		_ = f.Close() // read only
		if err != nil {
			return diskError(err)
		}
	}
	return nil
}

func (b folder) Delete(_ context.Context, hashes []string, used func(string) (bool, error)) error {
	for _, hash := range hashes {
		if in, err := used(hash); err != nil {
			return err
		} else if in {
			continue
		}
		if err := os.Remove(b.path(hash)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (b folder) List(_ context.Context, fn func(hash string) error) error {
	return filepath.WalkDir(b.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if d.IsDir() || strings.HasPrefix(d.Name(), tmpPrefix) {
			return nil
		}
		hash, err := hex.DecodeString(d.Name())
		if err != nil || len(hash) != sha256.Size {
			return nil //nolint:nilerr // not ours
		}
		return fn(string(hash))
	})
}
