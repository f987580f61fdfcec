package main

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// sandboxCpCmd copies between this machine and a sandbox.
type sandboxCpCmd struct {
	From string `arg:"" help:"What to copy: a path here, or ID:PATH in a sandbox."`
	To   string `arg:"" help:"Where to: a path here, or ID:PATH in a sandbox."`
}

// Help implements kong.HelpProvider.
func (*sandboxCpCmd) Help() string {
	return `Folders are copied with all they hold. Relative paths in a sandbox start at /workspace.

Examples:
  caesarion sandbox cp sales.csv sbx_…:
  caesarion sandbox cp data/ sbx_…:/workspace/data
  caesarion sandbox cp sbx_…:plot.png .`
}

// Run copies.
func (c *sandboxCpCmd) Run(ctx context.Context, g *globals) error {
	fromID, from := splitRemote(c.From)
	toID, to := splitRemote(c.To)
	switch {
	case fromID == "" && toID == "":
		return errdefs.New(errdefs.ErrInvalid, "usage", "neither %s nor %s is in a sandbox", c.From, c.To).
			WithHint("write one of them as ID:PATH")
	case fromID != "" && toID != "":
		return errdefs.New(errdefs.ErrInvalid, "usage", "both paths are in sandboxes").
			WithHint("copy to this machine first, then to the other sandbox")
	}
	return g.withServer(ctx, func(ctx context.Context, conn *connection) error {
		if toID != "" {
			if to == "" {
				to = "./"
			}
			return upload(ctx, g, conn.Client, toID, from, to)
		}
		return download(ctx, g, conn.Client, fromID, remotePath(from), to)
	})
}

// splitRemote takes ID:PATH apart. Ids have a fixed prefix, so a local name
// with a colon is no pair.
func splitRemote(arg string) (id, p string) {
	if before, after, ok := strings.Cut(arg, ":"); ok && strings.HasPrefix(before, "sbx_") {
		return before, after
	}
	return "", arg
}

// download copies a file or folder of a sandbox here.
func download(ctx context.Context, g *globals, c *client.Client, sandbox, remote, local string) error {
	info, err := c.Stat(ctx, sandbox, remote)
	if err != nil {
		return err
	}
	base := path.Base(info.Path)
	if st, err := os.Stat(local); err == nil && st.IsDir() || strings.HasSuffix(local, "/") {
		if base == "/" || !filepath.IsLocal(base) {
			base = sandbox
		}
		local = filepath.Join(local, base)
	}
	wait := startProgress(g, "downloading "+oneLine(base))
	defer wait.Done()
	if info.Type == "directory" {
		return downloadFolder(ctx, g, c, sandbox, remote, local, wait)
	}
	content, size, err := c.Download(ctx, sandbox, remote)
	if err != nil {
		return err
	}
	defer content.Close()
	wait.Expect(max(0, size))
	return writeWhole(local, func(f *os.File) error {
		n, err := io.Copy(f, io.TeeReader(content, wait))
		if err == nil && size >= 0 && n != size {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
}

// writeWhole writes a file under its name only when all of it is there.
func writeWhole(name string, write func(*os.File) error) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".caesarion-")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	err = write(tmp)
	if err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}

// downloadFolder unpacks the archive of a folder. The archive was made by what
// runs in the sandbox, so its names are foreign: os.Root keeps them inside.
func downloadFolder(ctx context.Context, g *globals, c *client.Client, sandbox, remote, local string, wait *progress) error {
	content, err := c.Archive(ctx, sandbox, remote)
	if err != nil {
		return err
	}
	defer content.Close()
	// A zip is read from its end: it has to be here as a whole first.
	tmp, err := os.CreateTemp("", "caesarion-*.zip")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	size, err := io.Copy(tmp, io.TeeReader(content, wait))
	if err != nil {
		return err
	}
	archive, err := zip.NewReader(tmp, size)
	if err != nil {
		return fmt.Errorf("the archive of %s: %w", remote, err)
	}
	if err := os.MkdirAll(local, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(local)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, entry := range archive.File {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if err := unpack(root, entry, g.Stderr); err != nil {
			return fmt.Errorf("unpack %s: %w", oneLine(entry.Name), err)
		}
	}
	return nil
}

func unpack(root *os.Root, entry *zip.File, notes io.Writer) error {
	name := path.Clean(strings.TrimSuffix(entry.Name, "/"))
	switch {
	case !filepath.IsLocal(name):
		fmt.Fprintf(notes, "left out: %q leads out of the folder\n", entry.Name)
		return nil
	case entry.Mode().IsDir() || strings.HasSuffix(entry.Name, "/"):
		return root.MkdirAll(name, 0o755)
	case !entry.Mode().IsRegular():
		fmt.Fprintf(notes, "left out: %s is not a regular file\n", oneLine(name))
		return nil
	}
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	in, err := entry.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, fs.FileMode(0o644)|entry.Mode()&0o111)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in) //nolint:gosec // as large as the sandbox's disk limit lets it be
	return errors.Join(err, out.Close())
}
