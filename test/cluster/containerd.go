package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// containerd's folder holds unpacked images and stays. What pods add to it is
// taken away after each cluster: its databases are put back as they were after
// the last import, and all that they do not name is removed.
const (
	ctrdMeta      = "io.containerd.metadata.v1.bolt"
	ctrdContent   = "io.containerd.content.v1.content"
	ctrdOverlay   = "io.containerd.snapshotter.v1.overlayfs"
	ctrdSnapshots = ctrdOverlay + "/snapshots"
	ctrdBlobs     = ctrdContent + "/blobs/sha256"
)

var ctrdDatabases = []string{ctrdMeta + "/meta.db", ctrdOverlay + "/metadata.db"}

func (d dirs) containerd() string { return filepath.Join(d.slotDir(), "containerd") }
func (d dirs) pristine() string   { return filepath.Join(d.slotDir(), "containerd.pristine") }

// keptFiles are what the databases refer to: folders of snapshots, and contents.
func (d dirs) keptFiles() ([]string, error) {
	var list []string
	for _, dir := range []string{ctrdSnapshots, ctrdBlobs} {
		names, err := namesIn(filepath.Join(d.containerd(), dir))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			list = append(list, filepath.Join(dir, name))
		}
	}
	return list, nil
}

// savePristine remembers the folder; containerd must not run.
func savePristine(d dirs) error {
	files, err := d.keptFiles()
	if err != nil {
		return err
	}
	tmp := d.pristine() + ".new"
	if err := errors.Join(os.RemoveAll(tmp), os.MkdirAll(tmp, 0o755)); err != nil {
		return err
	}
	for _, db := range ctrdDatabases {
		if err := copyFile(filepath.Join(d.containerd(), db), filepath.Join(tmp, filepath.Base(db))); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(tmp, "files"), []byte(strings.Join(files, "\n")), 0o644); err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(d.pristine()), os.Rename(tmp, d.pristine()))
}

// restoreContainerd makes the folder what it was when savePristine saw it. Where
// there is nothing to go back to, as an import was cut short or a pod's image was
// removed, it begins anew.
func restoreContainerd(d dirs) error {
	list, err := os.ReadFile(filepath.Join(d.pristine(), "files"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	files, err := d.keptFiles()
	if err != nil {
		return err
	}
	surplus := map[string]bool{}
	for _, file := range files {
		surplus[file] = true
	}
	for file := range strings.SplitSeq(string(list), "\n") {
		if !surplus[file] {
			return errors.Join(os.RemoveAll(d.pristine()), os.RemoveAll(d.containerd()))
		}
		delete(surplus, file)
	}
	names, err := namesIn(d.containerd())
	for _, name := range names {
		if name != ctrdMeta && name != ctrdContent && name != ctrdOverlay {
			surplus[name] = true
		}
	}
	for name := range surplus {
		err = errors.Join(err, os.RemoveAll(filepath.Join(d.containerd(), name)))
	}
	for _, db := range ctrdDatabases {
		err = errors.Join(err, copyFile(filepath.Join(d.pristine(), filepath.Base(db)), filepath.Join(d.containerd(), db)))
	}
	return err
}

// wantedImages tells how containerd's images differ from those of the list.
func wantedImages(images []image) (missing []image, unwanted []string, err error) {
	out, err := ctr("images", "ls")
	if err != nil {
		return nil, nil, err
	}
	wanted := map[string]bool{}
	for _, i := range images {
		wanted[i.Digest] = true
	}
	have := map[string]bool{}
	for line := range strings.Lines(out) {
		f := strings.Fields(line) // REF TYPE DIGEST SIZE …
		if len(f) < 3 || f[0] == "REF" {
			continue
		}
		have[f[0]] = true
		if !wanted[f[2]] {
			unwanted = append(unwanted, f[0])
		}
	}
	for _, i := range images {
		if !have[i.Reference] || !have[i.Tag] {
			missing = append(missing, i)
		}
	}
	return missing, unwanted, nil
}

// importImage unpacks an image into containerd under both its names.
func importImage(i image) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	written := make(chan error, 1)
	go func() { written <- errors.Join(i.archive(w), w.Close()) }()
	var said bytes.Buffer
	cmd := ctrCommand("images", "import", "-")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, &said, &said
	err = cmd.Run()
	_ = r.Close()
	if err != nil {
		return fmt.Errorf("import of image %s: %w: %s", i.Name, err, said.Bytes())
	}
	if err := <-written; err != nil {
		return err
	}
	_, err = ctr("images", "tag", "--force", i.Tag, i.Reference)
	return err
}

func ctrCommand(args ...string) *exec.Cmd {
	return exec.Command("ctr", append([]string{"-a", ctrdSocket, "-n", "k8s.io"}, args...)...)
}

func ctr(args ...string) (string, error) {
	var said bytes.Buffer
	cmd := ctrCommand(args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ctr %s: %w: %s", strings.Join(args, " "), err, said.Bytes())
	}
	return string(out), nil
}

// namesIn lists a folder; one that does not exist is empty.
func namesIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
