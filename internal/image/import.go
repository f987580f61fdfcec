package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// DefaultMaxBytes bounds an imported image, unpacked: the largest data science
// images are half of it.
const DefaultMaxBytes = 32 << 30

// ImportOptions configures Import.
type ImportOptions struct {
	Name     string // in the store; default: made from the source
	MaxBytes int64  // of all files together, unpacked; default DefaultMaxBytes
}

// Import takes an image that was made elsewhere. source is a path to an OCI image
// layout (folder or tar), a docker archive (`docker save`), or the tar of a root
// file system, each tar plain or compressed by gzip or zstd; or it is a registry
// reference such as "jupyter/scipy-notebook:latest", for which the host's
// docker credentials are used.
//
// The image must be for this machine's architecture and have Python 3.9 or newer
// with IPython; otherwise the error is errdefs.ErrInvalid or ErrUnsupported, with a
// code that names the reason. It keeps its digest, and its user, environment and
// working directory.
func (s *Store) Import(ctx context.Context, source string, opts ImportOptions, progress Progress) (Image, error) {
	if opts.MaxBytes == 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.Name == "" {
		opts.Name = nameFor(source)
	}
	if err := checkName(opts.Name); err != nil {
		return Image{}, err
	}
	lock, err := s.lock(ctx, progress)
	if err != nil {
		return Image{}, err
	}
	defer lock.Close()

	img, err := s.importLocked(ctx, source, opts, progress)
	if err != nil {
		// What was stored already leads nowhere; the next writer would remove it
		// too, but layers are large.
		return Image{}, errors.Join(err, s.sweep())
	}
	return img, nil
}

func (s *Store) importLocked(ctx context.Context, source string, opts ImportOptions, progress Progress) (Image, error) {
	sp, err := newSpool(s.path("tmp"), opts.MaxBytes)
	if err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}
	defer sp.Close()
	im := &importer{
		store:    s,
		max:      opts.MaxBytes,
		progress: progress,
		spool:    sp,
		tree:     newTree(),
	}
	cfg, desc, err := im.read(ctx, source)
	if err != nil {
		return Image{}, err
	}
	img, err := describe(im.tree, sp, cfg)
	if err != nil {
		return Image{}, err
	}
	if desc == nil { // a bare root file system has no OCI form yet
		_, size := im.tree.totals()
		d, err := s.writeImage(ctx, im.tree, sp, cfg, func(done int64) {
			progress.report(Update{Stage: StageLayer, Done: done, Total: size})
		})
		if err != nil {
			return Image{}, err
		}
		desc = &d
	}
	img.Digest, img.Source = desc.Digest.String(), source
	created := cfg.Created.Time
	if created.Unix() < 0 {
		created = time.Unix(0, 0)
	}
	return s.keep(ctx, img, opts.Name, im.tree, sp, created, progress)
}

var notInName = regexp.MustCompile(`[^a-z0-9]+`)

// nameFor makes a name from a source: of "jupyter/scipy-notebook:latest"
// and of "/tmp/scipy-notebook.tar.gz" it is "scipy-notebook".
func nameFor(source string) string {
	base := path.Base(filepath.ToSlash(strings.TrimRight(source, "/")))
	base, _, _ = strings.Cut(base, "@")
	base, _, _ = strings.Cut(base, ":")
	base = strings.ToLower(base)
	for _, ext := range []string{".gz", ".zst", ".tgz", ".tar", ".oci"} {
		base = strings.TrimSuffix(base, ext)
	}
	return strings.Trim(notInName.ReplaceAllString(base, "-"), "-")
}

// importer reads one source into a tree.
type importer struct {
	store    *Store
	max      int64
	progress Progress
	spool    *spool
	tree     *tree
}

// read fills the tree. The descriptor is that of the manifest, which is in the
// store with all its blobs; it is nil for a bare root file system.
func (im *importer) read(ctx context.Context, source string) (*v1.ConfigFile, *v1.Descriptor, error) {
	info, err := os.Stat(source)
	switch {
	case err == nil && info.IsDir():
		img, err := layoutImage(source)
		if err != nil {
			return nil, nil, err
		}
		return im.image(ctx, img)
	case err == nil:
		return im.archive(ctx, source)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid):
		return nil, nil, errdefs.New(errdefs.ErrInvalid, "image-source-unreadable", "%q can't be read", source).WithCause(err)
	case looksLikePath(source):
		return nil, nil, errdefs.New(errdefs.ErrNotFound, "image-source-not-found", "there is no file %q", source)
	}
	img, err := pull(ctx, source)
	if err != nil {
		return nil, nil, err
	}
	return im.image(ctx, img)
}

func looksLikePath(source string) bool {
	return strings.HasPrefix(source, "/") || strings.HasPrefix(source, ".") ||
		strings.HasSuffix(source, ".tar") || strings.HasSuffix(source, ".tgz") ||
		strings.HasSuffix(source, ".tar.gz") || strings.HasSuffix(source, ".tar.zst")
}

// pull finds an image in a registry; its layers come when they are read.
func pull(ctx context.Context, source string) (v1.Image, error) {
	ref, err := name.ParseReference(source)
	if err != nil {
		return nil, errdefs.New(errdefs.ErrInvalid, "image-source-invalid",
			"%q is neither a file nor an image reference", source).WithCause(err)
	}
	img, err := remote.Image(ref,
		remote.WithContext(ctx),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}),
	)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, errdefs.New(errdefs.ErrUnavailable, "image-pull-failed", "%s can't be had from its registry", ref).
			WithHint("check the name and the network; `docker login` stores credentials where they are looked for").WithCause(err)
	}
	return img, nil
}

// image stores an OCI or docker image blob by blob, then reads its layers.
func (im *importer) image(ctx context.Context, img v1.Image) (*v1.ConfigFile, *v1.Descriptor, error) {
	raw, err := img.RawManifest()
	if err != nil {
		return nil, nil, damaged(ctx, err)
	}
	manifest, err := img.Manifest()
	if err != nil {
		return nil, nil, damaged(ctx, err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, nil, damaged(ctx, err)
	}
	if manifest.Config.MediaType != types.OCIConfigJSON && manifest.Config.MediaType != types.DockerConfigJSON {
		return nil, nil, errdefs.New(errdefs.ErrInvalid, "image-not-an-image",
			"it holds no container image but %q", manifest.Config.MediaType)
	}
	if cfg.OS != "" && cfg.OS != "linux" || cfg.Architecture != runtime.GOARCH {
		return nil, nil, errdefs.New(errdefs.ErrUnsupported, "image-architecture",
			"the image is for %s/%s, this machine is linux/%s", cfg.OS, cfg.Architecture, runtime.GOARCH)
	}
	layers, err := im.storeLayers(ctx, img, manifest)
	if err != nil {
		return nil, nil, err
	}
	rawConfig, err := img.RawConfigFile()
	if err != nil {
		return nil, nil, damaged(ctx, err)
	}
	if d, err := im.store.putBlob(rawConfig); err != nil {
		return nil, nil, err
	} else if d.Digest != manifest.Config.Digest {
		return nil, nil, badTar(fmt.Errorf("configuration is %s, not %s", d.Digest, manifest.Config.Digest))
	}
	desc, err := im.store.putBlob(raw)
	if err != nil {
		return nil, nil, err
	}
	if err := im.unpack(ctx, layers, cfg); err != nil {
		return nil, nil, err
	}
	return cfg, &desc, nil
}

// damaged is an error of reading a source: ours only if ctx ended.
func damaged(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return badTar(err)
}

// storeLayers copies every layer into the store and checks its digest.
func (im *importer) storeLayers(ctx context.Context, img v1.Image, m *v1.Manifest) ([]v1.Descriptor, error) {
	layers, err := img.Layers()
	if err != nil {
		return nil, damaged(ctx, err)
	}
	if len(layers) != len(m.Layers) {
		return nil, badTar(errors.New("manifest and configuration have different layers"))
	}
	var total, done int64
	for _, l := range m.Layers {
		if l.Size < 0 || l.Size > im.max-total {
			return nil, tooLarge(im.max)
		}
		total += l.Size
	}
	for i, l := range layers {
		err := func() error {
			r, err := l.Compressed()
			if err != nil {
				return damaged(ctx, err)
			}
			defer r.Close()
			blob, err := im.store.newBlob()
			if err != nil {
				return err
			}
			defer blob.discard()
			// One byte more than it should have is enough to see that it is wrong.
			src := io.LimitReader(r, m.Layers[i].Size+1)
			if err := copyCtx(ctx, blob, src, func(n int64) {
				done += n
				im.progress.report(Update{Stage: StageDownload, Done: done, Total: total})
			}); err != nil {
				return err
			}
			d, err := blob.commit()
			if err != nil {
				return err
			}
			if d.Digest != m.Layers[i].Digest || d.Size != m.Layers[i].Size {
				return badTar(fmt.Errorf("layer %d is %s, not %s", i, d.Digest, m.Layers[i].Digest))
			}
			return nil
		}()
		if err != nil {
			return nil, err
		}
	}
	return m.Layers, nil
}

func copyCtx(ctx context.Context, w io.Writer, r io.Reader, step func(n int64)) error {
	buf := make([]byte, 256<<10)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				return fmt.Errorf("image: %w", werr)
			}
			step(int64(n))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return damaged(ctx, err)
		}
	}
}

// unpack reads the stored layers into the tree, lowest first.
func (im *importer) unpack(ctx context.Context, layers []v1.Descriptor, cfg *v1.ConfigFile) error {
	if len(cfg.RootFS.DiffIDs) != len(layers) {
		return badTar(errors.New("manifest and configuration have different layers"))
	}
	u := im.unpacker()
	for i, l := range layers {
		if err := im.layer(ctx, u, i, l, cfg.RootFS.DiffIDs[i]); err != nil {
			return err
		}
	}
	return im.finish()
}

func (im *importer) unpacker() *unpacker {
	return &unpacker{
		tree:     im.tree,
		spool:    im.spool,
		skipRoot: []string{"proc", "sys"}, // the runtime mounts them
		progress: func(done int64) { im.progress.report(Update{Stage: StageUnpack, Done: done}) },
	}
}

func (im *importer) finish() error {
	if err := im.spool.flush(); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	im.tree.provide()
	im.tree.finish()
	return nil
}
