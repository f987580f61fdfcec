package main

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/image"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
)

// openGVisor opens the driver that makes gVisor sandboxes on this machine. The
// images of all templates must be there: a server whose first call fails helps
// nobody.
func openGVisor(ctx context.Context, opts driverOptions) (sandbox.Driver, error) {
	agent, err := findAgent(opts.agent)
	if err != nil {
		return nil, err
	}
	store, err := image.Open(opts.dataDir)
	if err != nil {
		return nil, err
	}
	driver, err := gvisor.New(ctx, gvisor.Options{
		StateDir: opts.stateDir,
		AgentDir: filepath.Join(opts.dataDir, agentsDir),
		Agent:    agent,
		Rootfs: func(_ context.Context, name string) (gvisor.Rootfs, error) {
			img, err := store.Resolve(name)
			if err != nil {
				return gvisor.Rootfs{}, err
			}
			return gvisor.Rootfs{Digest: img.Digest, EROFS: img.EROFSPath, Env: img.Config.Env, Home: img.Config.Home}, nil
		},
		Logger: opts.log,
	})
	if err != nil {
		return nil, err
	}
	// After the driver, which says first what the host lacks altogether.
	if err := needImages(store, opts.images); err != nil {
		return nil, errors.Join(err, driver.Close())
	}
	return driver, nil
}

// needImages says which image is missing and how to get it.
func needImages(store *image.Store, names []string) error {
	for _, name := range names {
		_, err := store.Resolve(name)
		if errors.Is(err, errdefs.ErrNotFound) {
			return errdefs.New(errdefs.ErrUnsupported, "image-missing", "there is no sandbox image %q in %s", name, store.OCILayout()).
				WithHint("caesarion image build makes the default image (a few minutes, once), caesarion image import takes another")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
