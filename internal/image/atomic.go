package image

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// pending is a file that gets its final name only when it is whole and on disk.
type pending struct {
	*os.File
	done bool
}

func (s *Store) newPending(pattern string) (*pending, error) {
	f, err := os.CreateTemp(s.path("tmp"), pattern)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	return &pending{File: f}, nil
}

// commit puts the file in its place, over an older one.
func (p *pending) commit(name string, mode fs.FileMode) error {
	if err := errors.Join(p.Chmod(mode), p.Sync()); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := p.Close(); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := os.Rename(p.Name(), name); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	p.done = true
	return syncDir(filepath.Dir(name))
}

// discard removes the file unless it was committed.
func (p *pending) discard() {
	if !p.done {
		_ = p.Close()
		_ = os.Remove(p.Name())
	}
}

// syncDir makes a rename outlive a power cut.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// writeFile replaces a small file.
func (s *Store) writeFile(name string, content []byte) error {
	p, err := s.newPending("file-")
	if err != nil {
		return err
	}
	defer p.discard()
	if _, err := p.Write(content); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return p.commit(s.path(name), 0o644)
}

// blob is content on its way to its digest's name.
type blob struct {
	store *Store
	file  *pending
	buf   *bufio.Writer
	sum   hash.Hash
	size  int64
}

func (s *Store) newBlob() (*blob, error) {
	p, err := s.newPending("blob-")
	if err != nil {
		return nil, err
	}
	return &blob{store: s, file: p, buf: bufio.NewWriterSize(p, 1<<18), sum: sha256.New()}, nil
}

func (b *blob) Write(p []byte) (int, error) {
	n, err := b.buf.Write(p)
	b.sum.Write(p[:n])
	b.size += int64(n)
	return n, err
}

// commit stores the blob and gives its digest and size.
func (b *blob) commit() (v1.Descriptor, error) {
	if err := b.buf.Flush(); err != nil {
		return v1.Descriptor{}, fmt.Errorf("image: %w", err)
	}
	d := v1.Descriptor{Digest: hashOf(b.sum), Size: b.size}
	return d, b.file.commit(b.store.blobPath(d.Digest.Hex), 0o644)
}

func (b *blob) discard() { b.file.discard() }
