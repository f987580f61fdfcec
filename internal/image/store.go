package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Store is the images of one data directory. See the package's comment for its
// folders and its rules of concurrency.
type Store struct {
	dir string
}

// Open opens the store in <dataDir>/images and makes it if need be. What a killed
// writer left is removed, unless another writer is at work.
func Open(dataDir string) (*Store, error) {
	dir, err := filepath.Abs(filepath.Join(dataDir, "images"))
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	s := &Store{dir: dir}
	if err := s.prepare(); err != nil {
		// Somebody who may only read can still list and resolve.
		if _, statErr := os.Stat(s.path(catalogName)); statErr == nil && errors.Is(err, fs.ErrPermission) {
			return s, nil
		}
		return nil, fmt.Errorf("image: open store: %w", err)
	}
	return s, nil
}

func (s *Store) prepare() error {
	for _, sub := range []string{"", "blobs", "blobs/sha256", "erofs", "tmp", "cache"} {
		if err := os.MkdirAll(s.path(sub), 0o755); err != nil {
			return err
		}
	}
	lock, err := s.tryLock()
	if errors.Is(err, errLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	return s.sweep()
}

// OCILayout is the folder that other tools can read as an OCI image layout; its
// images carry their names as org.opencontainers.image.ref.name.
func (s *Store) OCILayout() string { return s.dir }

func (s *Store) path(name string) string { return filepath.Join(s.dir, filepath.FromSlash(name)) }

func (s *Store) blobPath(hex string) string  { return s.path("blobs/sha256/" + hex) }
func (s *Store) erofsPath(hex string) string { return s.path("erofs/" + hex + ".erofs") }

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }

// List gives every image, by name; an image with two names comes twice, one
// without a name once.
func (s *Store) List() ([]Image, error) {
	c, err := s.load()
	if err != nil {
		return nil, err
	}
	var list []Image
	for _, digest := range c.digests() {
		names := c.namesOf(digest)
		if len(names) == 0 {
			names = []string{""}
		}
		for _, name := range names {
			list = append(list, s.view(c.Images[digest], name))
		}
	}
	slices.SortStableFunc(list, func(a, b Image) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Digest, b.Digest))
	})
	return list, nil
}

// view completes a catalog entry with what depends on where the store is and by
// which name it was asked for.
func (s *Store) view(img Image, name string) Image {
	img.Name = name
	img.EROFSPath = s.erofsPath(hexOf(img.Digest))
	return img
}

var digestPrefix = regexp.MustCompile(`^[0-9a-f]{4,64}$`)

// Resolve finds an image by its name, its digest, or the beginning of its digest
// (4 hex digits or more, with or without "sha256:"). A name wins over a digest. An
// unknown image gives errdefs.ErrNotFound, a prefix of several ErrInvalid.
func (s *Store) Resolve(nameOrDigest string) (Image, error) {
	c, err := s.load()
	if err != nil {
		return Image{}, err
	}
	digest, name, err := c.resolve(nameOrDigest)
	if err != nil {
		return Image{}, err
	}
	img := s.view(c.Images[digest], name)
	if _, err := os.Stat(img.EROFSPath); err != nil {
		return Image{}, errdefs.New(errdefs.ErrUnavailable, "image-damaged", "the image %q has lost its file", nameOrDigest).
			WithHint("remove it with `caesarion image rm` and build or import it again").WithCause(err)
	}
	return img, nil
}

// Inspect is Resolve with what the OCI manifest says.
func (s *Store) Inspect(nameOrDigest string) (Details, error) {
	img, err := s.Resolve(nameOrDigest)
	if err != nil {
		return Details{}, err
	}
	c, err := s.load()
	if err != nil {
		return Details{}, err
	}
	m, err := s.manifest(img.Digest)
	if err != nil {
		return Details{}, err
	}
	d := Details{Image: img, Names: c.namesOf(img.Digest), MediaType: string(m.MediaType)}
	for _, l := range m.Layers {
		d.Layers = append(d.Layers, Layer{Digest: l.Digest.String(), MediaType: string(l.MediaType), Bytes: l.Size})
	}
	var cfg v1.ConfigFile
	raw, err := os.ReadFile(s.blobPath(m.Config.Digest.Hex))
	if err != nil {
		return Details{}, fmt.Errorf("image: %w", err)
	}
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return Details{}, fmt.Errorf("image: configuration of %s: %w", img.Digest, err)
	}
	d.Labels = cfg.Config.Labels
	return d, nil
}

func (s *Store) manifest(digest string) (*v1.Manifest, error) {
	raw, err := os.ReadFile(s.blobPath(hexOf(digest)))
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	m := &v1.Manifest{}
	if err := json.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("image: manifest %s: %w", digest, err)
	}
	return m, nil
}

// Remove takes an image away: the name only, when it has another one, else its
// files too. inUse, which may be nil, is asked about the digest before files go; an
// image in use gives errdefs.ErrConflict and stays.
func (s *Store) Remove(ctx context.Context, nameOrDigest string, inUse func(digest string) bool, progress Progress) error {
	lock, err := s.lock(ctx, progress)
	if err != nil {
		return err
	}
	defer lock.Close()
	c, err := s.load()
	if err != nil {
		return err
	}
	digest, name, err := c.resolve(nameOrDigest)
	if err != nil {
		return err
	}
	byName := nameOrDigest == name
	if byName && len(c.namesOf(digest)) > 1 {
		delete(c.Names, name)
		return s.save(c)
	}
	if inUse != nil && inUse(digest) {
		return errdefs.New(errdefs.ErrConflict, "image-in-use", "the image %q is in use by a sandbox", nameOrDigest).
			WithHint("delete its sandboxes first: `caesarion sandbox ls`")
	}
	for _, n := range c.namesOf(digest) {
		delete(c.Names, n)
	}
	delete(c.Images, digest)
	if err := s.save(c); err != nil {
		return err
	}
	return s.sweep()
}

var errLocked = errors.New("another process writes to the image store")

// tryLock takes the store's lock or gives errLocked at once. The kernel releases
// it when the process ends, however that happens.
func (s *Store) tryLock() (*os.File, error) {
	f, err := os.OpenFile(s.path("lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, err
	}
	return f, nil
}

// lockPoll is how often a waiting writer tries again: waits last minutes.
const lockPoll = 200 * time.Millisecond

// lock waits for the store's lock, then removes what a killed writer left. Closing
// the file releases it.
func (s *Store) lock(ctx context.Context, progress Progress) (*os.File, error) {
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("image: open store: %w", err)
	}
	told := false
	for {
		f, err := s.tryLock()
		if err == nil {
			if err := s.sweep(); err != nil {
				return nil, errors.Join(err, f.Close())
			}
			return f, nil
		}
		if !errors.Is(err, errLocked) {
			return nil, fmt.Errorf("image: lock: %w", err)
		}
		if !told {
			progress.report(Update{Stage: StageWaiting, Detail: "another process is building or importing an image"})
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}
