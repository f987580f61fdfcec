package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// writeTar writes the tree as a canonical tar: names in byte order, attributes
// from the tree alone.
func writeTar(ctx context.Context, w io.Writer, t *tree, s *spool, progress func(done int64)) error {
	tw := tar.NewWriter(w)
	var done int64
	err := t.walk(func(name string, n *node, first string) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h := &tar.Header{
			Name:    name,
			Mode:    int64(n.mode.Perm()),
			Uid:     n.uid,
			Gid:     n.gid,
			ModTime: n.mtime.Truncate(time.Second),
			Format:  tar.FormatPAX,
		}
		for bit, unix := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
			if n.mode&bit != 0 {
				h.Mode |= unix
			}
		}
		for k, v := range n.xattrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY.xattr."+k] = v
		}
		switch {
		case first != name:
			h.Typeflag, h.Linkname = tar.TypeLink, first
		case n.mode.IsDir():
			h.Typeflag, h.Name = tar.TypeDir, name+"/"
		case n.mode&fs.ModeSymlink != 0:
			h.Typeflag, h.Linkname = tar.TypeSymlink, n.link
		case n.mode&fs.ModeNamedPipe != 0:
			h.Typeflag = tar.TypeFifo
		default:
			h.Typeflag, h.Size = tar.TypeReg, n.size
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("image: write layer: %s: %w", name, err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := io.Copy(tw, s.open(n)); err != nil {
				return fmt.Errorf("image: write layer: %s: %w", name, err)
			}
			if done += n.size; progress != nil {
				progress(done)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

// writeImage stores the tree as an OCI image of one layer and gives its manifest's
// descriptor. The same tree and configuration give the same digest.
//
// zstd, because a node unpacks it three times as fast as gzip; containerd since
// 1.5 and CRI-O read it.
func (s *Store) writeImage(ctx context.Context, t *tree, sp *spool, cfg *v1.ConfigFile, progress func(done int64)) (v1.Descriptor, error) {
	blob, err := s.newBlob()
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer blob.discard()
	enc, err := zstd.NewWriter(blob, zstd.WithEncoderConcurrency(2))
	if err != nil {
		return v1.Descriptor{}, fmt.Errorf("image: zstd: %w", err)
	}
	diff := sha256.New()
	if err := writeTar(ctx, io.MultiWriter(enc, diff), t, sp, progress); err != nil {
		return v1.Descriptor{}, err
	}
	if err := enc.Close(); err != nil {
		return v1.Descriptor{}, fmt.Errorf("image: zstd: %w", err)
	}
	layer, err := blob.commit()
	if err != nil {
		return v1.Descriptor{}, err
	}
	layer.MediaType = types.OCILayerZStd

	cfg.RootFS = v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{hashOf(diff)}}
	cfg.History = []v1.History{{Created: cfg.Created, CreatedBy: cfg.Author, Comment: "one layer"}}
	rawConfig, err := json.Marshal(cfg)
	if err != nil {
		return v1.Descriptor{}, err
	}
	config, err := s.putBlob(rawConfig)
	if err != nil {
		return v1.Descriptor{}, err
	}
	config.MediaType = types.OCIConfigJSON

	rawManifest, err := json.Marshal(&v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		Config:        config,
		Layers:        []v1.Descriptor{layer},
	})
	if err != nil {
		return v1.Descriptor{}, err
	}
	manifest, err := s.putBlob(rawManifest)
	manifest.MediaType = types.OCIManifestSchema1
	return manifest, err
}

func (s *Store) putBlob(content []byte) (v1.Descriptor, error) {
	blob, err := s.newBlob()
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer blob.discard()
	if _, err := io.Copy(blob, bytes.NewReader(content)); err != nil {
		return v1.Descriptor{}, err
	}
	return blob.commit()
}

func hashOf(h hash.Hash) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
}
