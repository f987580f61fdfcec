package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// upload copies a local file or folder into a sandbox, as cp -r does: into
// remote if that is a folder or ends with a slash, else under that name.
func upload(ctx context.Context, g *globals, c *client.Client, sandbox, local, remote string) error {
	info, err := os.Stat(local)
	if errors.Is(err, fs.ErrNotExist) {
		return errdefs.New(errdefs.ErrNotFound, "file-not-found", "there is no file or folder %s", local).WithHint("check the path")
	}
	if err != nil {
		return err
	}
	target, err := target(ctx, c, sandbox, filepath.Base(absolute(local)), remote)
	if err != nil {
		return err
	}
	wait := startProgress(g, "uploading "+filepath.Base(local))
	defer wait.Done()
	if !info.IsDir() {
		if !info.Mode().IsRegular() {
			return errdefs.New(errdefs.ErrInvalid, "not-a-file", "%s is neither a file nor a folder", local).WithHint("copy it to a file first")
		}
		wait.Expect(info.Size())
		return uploadFile(ctx, c, sandbox, os.DirFS(filepath.Dir(local)), filepath.Base(local), target, wait)
	}
	tree := os.DirFS(local)
	var total int64
	_ = fs.WalkDir(tree, ".", func(_ string, d fs.DirEntry, err error) error {
		if info, infoErr := d.Info(); err == nil && infoErr == nil && info.Mode().IsRegular() {
			total += info.Size()
		}
		return nil // what can't be read is said below
	})
	wait.Expect(total)
	return fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := path.Join(target, name)
		switch {
		case d.IsDir():
			_, err := c.MakeFolder(ctx, sandbox, to)
			return err
		case d.Type().IsRegular():
			return uploadFile(ctx, c, sandbox, tree, name, to, wait)
		default: // links, sockets, devices: not what a folder of data is about
			fmt.Fprintf(g.Stderr, "left out: %s is not a regular file\n", filepath.Join(local, name))
			return nil
		}
	})
}

func absolute(p string) string {
	if abs, err := filepath.Abs(p); err == nil {
		return abs
	}
	return p
}

// target says under which name something called base arrives.
func target(ctx context.Context, c *client.Client, sandbox, base, remote string) (string, error) {
	into := strings.HasSuffix(remote, "/")
	remote = path.Clean(remotePath(remote))
	if !into {
		info, err := c.Stat(ctx, sandbox, remote)
		if p, ok := errors.AsType[*v1.Problem](err); ok && p.Status == 404 && p.Code != "sandbox-not-found" {
			err = nil
		}
		if err != nil {
			return "", err
		}
		into = info.Type == "directory"
	}
	if into {
		return path.Join(remote, base), nil
	}
	return remote, nil
}

func uploadFile(ctx context.Context, c *client.Client, sandbox string, tree fs.FS, name, target string, wait *progress) error {
	f, err := tree.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	// What is written to the file meanwhile does not belong to this copy.
	content := io.TeeReader(io.LimitReader(f, info.Size()), wait)
	_, err = c.Upload(ctx, sandbox, target, content, info.Size())
	return err
}
