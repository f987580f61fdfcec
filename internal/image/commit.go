package image

import (
	"context"
	"fmt"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// describe makes the catalog entry of a tree from its OCI configuration, and
// refuses one in which no kernel can start.
func describe(t *tree, s *spool, cfg *v1.ConfigFile) (Image, error) {
	env := make([]string, 0, len(cfg.Config.Env)+1)
	for _, kv := range cfg.Config.Env {
		if strings.IndexByte(kv, '=') > 0 && !strings.ContainsRune(kv, 0) {
			env = append(env, kv)
		}
	}
	if envValue(env, "PATH") == "" {
		env = append(env, "PATH="+defaultPath)
	}
	python, err := probe(t, s, env)
	if err != nil {
		return Image{}, err
	}
	files, _ := t.totals()
	img := Image{
		Architecture: cfg.Architecture,
		Files:        files,
		Python:       python,
		Config: Config{
			User:       cfg.Config.User,
			WorkingDir: cfg.Config.WorkingDir,
			Env:        env,
		},
	}
	if img.Config.WorkingDir == "" {
		img.Config.WorkingDir = "/"
	}
	img.Config.UID, img.Config.GID, img.Config.Home = account(t, s, cfg.Config.User)
	return img, nil
}

// keep writes the EROFS form of an image whose blobs are in place, and enters it
// under a name. The caller holds the lock.
func (s *Store) keep(ctx context.Context, img Image, name string, t *tree, sp *spool, created time.Time, progress Progress) (Image, error) {
	_, size := t.totals()
	f, err := s.newPending("erofs-")
	if err != nil {
		return Image{}, err
	}
	defer f.discard()
	err = writeEROFS(ctx, f.File, t, sp, created, func(done int64) {
		progress.report(Update{Stage: StageEROFS, Done: done, Total: size})
	})
	if err != nil {
		return Image{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}
	img.EROFSBytes = info.Size()
	if err := f.commit(s.erofsPath(hexOf(img.Digest)), 0o444); err != nil {
		return Image{}, err
	}

	m, err := s.manifest(img.Digest)
	if err != nil {
		return Image{}, err
	}
	img.OCIBytes = m.Config.Size
	for _, l := range m.Layers {
		img.OCIBytes += l.Size
	}
	img.Created = time.Now().UTC().Truncate(time.Second)

	c, err := s.load()
	if err != nil {
		return Image{}, err
	}
	img.Name, img.EROFSPath = "", ""
	c.Images[img.Digest] = img
	previous := c.Names[name]
	c.Names[name] = img.Digest
	// An image that was built before under the same name stays while sandboxes may
	// use it: without a name, until it is removed by its digest.
	if previous != "" && previous != img.Digest {
		progress.report(Update{Stage: StageDone, Detail: fmt.Sprintf("%s had the name %s before; it stays until `caesarion image rm`", hexOf(previous)[:12], name)})
	}
	if err := s.save(c); err != nil {
		return Image{}, err
	}
	return s.view(img, name), nil
}
