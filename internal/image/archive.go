package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// plain wraps a stream so that gzip and zstd are undone; anything else passes.
func plain(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		// Windows beyond 128 MB are for archives nobody makes of images.
		d, err := zstd.NewReader(b, zstd.WithDecoderMaxWindow(128<<20), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	default:
		return io.NopCloser(b), nil
	}
}

// layer reads one stored layer into the tree and checks its uncompressed digest.
func (im *importer) layer(ctx context.Context, u *unpacker, i int, l v1.Descriptor, diffID v1.Hash) error {
	f, err := os.Open(im.store.blobPath(l.Digest.Hex))
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer f.Close()
	r, err := plain(f)
	if err != nil {
		return badTar(err)
	}
	defer r.Close()
	sum := sha256.New()
	// The root is layer 0, so that a whiteout in the lowest layer hides nothing.
	if err := u.apply(ctx, io.TeeReader(r, sum), i+1, true); err != nil {
		return err
	}
	if got := hashOf(sum); got != diffID {
		return badTar(fmt.Errorf("layer %d unpacks to %s, not %s", i, got, diffID))
	}
	return nil
}

// archive reads a tar of any of the three sorts; what it is shows in its entries.
func (im *importer) archive(ctx context.Context, file string) (*v1.ConfigFile, *v1.Descriptor, error) {
	sort, err := im.sniff(ctx, file)
	if err != nil {
		return nil, nil, err
	}
	switch sort {
	case "oci":
		dir, err := os.MkdirTemp(im.store.path("tmp"), "layout-")
		if err != nil {
			return nil, nil, fmt.Errorf("image: %w", err)
		}
		defer os.RemoveAll(dir)
		if err := im.extractLayout(ctx, file, dir); err != nil {
			return nil, nil, err
		}
		img, err := layoutImage(dir)
		if err != nil {
			return nil, nil, err
		}
		return im.image(ctx, img)
	case "docker":
		img, err := im.dockerArchive(file)
		if err != nil {
			return nil, nil, err
		}
		return im.image(ctx, img)
	default:
		cfg, err := im.rootFS(ctx, file)
		return cfg, nil, err
	}
}

// opener opens an archive, undoes compression and bounds what comes out of it.
func (im *importer) opener(file string) tarball.Opener {
	return func() (io.ReadCloser, error) {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		r, err := plain(f)
		if err != nil {
			return nil, errors.Join(badTar(err), f.Close())
		}
		return &archiveReader{
			Reader: &cappedReader{r: r, left: im.max + im.max/2 + 64<<20, max: im.max},
			close:  func() error { return errors.Join(r.Close(), f.Close()) },
		}, nil
	}
}

type archiveReader struct {
	io.Reader
	close func() error
}

func (a *archiveReader) Close() error { return a.close() }

// each calls visit for every entry of an archive.
func (im *importer) each(ctx context.Context, file string, visit func(name string, h *tar.Header, r io.Reader) error) error {
	r, err := im.opener(file)()
	if err != nil {
		return err
	}
	defer r.Close()
	tr := tar.NewReader(r)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return badTar(err)
		}
		if err := visit(path.Clean("/" + h.Name)[1:], h, tr); err != nil {
			return err
		}
	}
}

// errSeen ends a walk early.
var errSeen = errors.New("seen enough")

// sniff tells an OCI layout and a docker archive from a root file system. Newer
// `docker save` writes both of the first; the layout has the true digests.
func (im *importer) sniff(ctx context.Context, file string) (string, error) {
	var index, manifest, entries bool
	err := im.each(ctx, file, func(name string, h *tar.Header, _ io.Reader) error {
		entries = true
		switch name {
		case "index.json", "oci-layout":
			index = index || h.Typeflag == tar.TypeReg
		case "manifest.json":
			manifest = manifest || h.Typeflag == tar.TypeReg
		case "etc/passwd", "usr/bin", "bin/sh", "usr":
			return errSeen // no archive of layers has these
		}
		return nil
	})
	if err != nil && !errors.Is(err, errSeen) {
		return "", err
	}
	switch {
	case !entries:
		return "", errdefs.New(errdefs.ErrInvalid, "image-not-an-image", "%q is empty or no tar", file)
	case errors.Is(err, errSeen):
		return "rootfs", nil
	case index:
		return "oci", nil
	case manifest:
		return "docker", nil
	}
	return "rootfs", nil
}

var blobName = regexp.MustCompile(`^blobs/sha256/[0-9a-f]{64}$`)

// extractLayout takes from a tar what belongs to an OCI layout, and nothing else.
func (im *importer) extractLayout(ctx context.Context, file, dir string) error {
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	left, done := im.max, int64(0)
	return im.each(ctx, file, func(name string, h *tar.Header, r io.Reader) error {
		if name != "index.json" && name != "oci-layout" && !blobName.MatchString(name) || h.Typeflag != tar.TypeReg {
			return nil
		}
		if left -= h.Size; left < 0 {
			return tooLarge(im.max)
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return badTar(fmt.Errorf("%s comes twice", name))
		}
		err = copyCtx(ctx, f, r, func(n int64) {
			done += n
			im.progress.report(Update{Stage: StageDownload, Detail: "reading the archive", Done: done, Total: max(done, info.Size())})
		})
		return errors.Join(err, f.Close())
	})
}

// layoutImage picks the image for this machine from an OCI layout.
func layoutImage(dir string) (v1.Image, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, errdefs.New(errdefs.ErrInvalid, "image-not-an-image", "%q is no OCI image layout", dir).
			WithHint("give a layout's folder, a tar, or a registry reference").WithCause(err)
	}
	images, err := platformImages(index, 0)
	if err != nil {
		return nil, err
	}
	switch len(images) {
	case 0:
		return nil, errdefs.New(errdefs.ErrUnsupported, "image-architecture",
			"the layout has no image for linux/%s", runtime.GOARCH)
	case 1:
		return images[0], nil
	}
	return nil, errdefs.New(errdefs.ErrInvalid, "image-ambiguous", "the layout has %d images for this machine", len(images)).
		WithHint("copy the one you want into a layout of its own, e.g. with `skopeo copy`")
}

// maxIndexDepth bounds indexes within indexes; real ones have two levels.
const maxIndexDepth = 4

func platformImages(index v1.ImageIndex, depth int) ([]v1.Image, error) {
	if depth > maxIndexDepth {
		return nil, badTar(errors.New("indexes within indexes without end"))
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, badTar(err)
	}
	var images []v1.Image
	seen := map[v1.Hash]bool{}
	for _, d := range m.Manifests {
		if seen[d.Digest] {
			continue // one image under two names
		}
		seen[d.Digest] = true
		if d.Platform != nil && (d.Platform.OS != "linux" || d.Platform.Architecture != runtime.GOARCH) {
			continue // also the "unknown" of build attestations
		}
		switch {
		case d.MediaType.IsIndex():
			inner, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, badTar(err)
			}
			more, err := platformImages(inner, depth+1)
			if err != nil {
				return nil, err
			}
			images = append(images, more...)
		case d.MediaType.IsImage():
			img, err := index.Image(d.Digest)
			if err != nil {
				return nil, badTar(err)
			}
			images = append(images, img)
		}
	}
	return images, nil
}

// dockerArchive opens what `docker save` wrote.
func (im *importer) dockerArchive(file string) (v1.Image, error) {
	open := im.opener(file)
	manifest, err := tarball.LoadManifest(open)
	if err != nil {
		return nil, badTar(err)
	}
	if len(manifest) != 1 {
		var tags []string
		for _, m := range manifest {
			tags = append(tags, strings.Join(m.RepoTags, " "))
		}
		return nil, errdefs.New(errdefs.ErrInvalid, "image-ambiguous",
			"the archive has %d images: %s", len(manifest), strings.Join(tags, ", ")).
			WithHint("save the one you want alone: `docker save NAME -o FILE`")
	}
	img, err := tarball.Image(open, nil)
	if err != nil {
		return nil, badTar(err)
	}
	return img, nil
}

// rootFS reads the tar of a bare root file system. It has no configuration, so it
// gets an empty one: root, Docker's PATH, and / as working directory.
func (im *importer) rootFS(ctx context.Context, file string) (*v1.ConfigFile, error) {
	r, err := im.opener(file)()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := im.unpacker().apply(ctx, r, 0, false); err != nil {
		return nil, err
	}
	if err := im.finish(); err != nil {
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	cfg := &v1.ConfigFile{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Created:      v1.Time{Time: info.ModTime().UTC().Truncate(time.Second)},
		Config:       v1.Config{Env: []string{"PATH=" + defaultPath}},
	}
	return cfg, nil
}
