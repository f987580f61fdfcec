package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// registry is in every image's name. There is none: the images are there
// already, and a pull of another one fails.
const registry = "registry.test/caesarion/"

// image is one that pods may use.
type image struct {
	Name      string `json:"name"`
	Reference string `json:"reference"` // by digest, for a pod's spec
	Tag       string `json:"tag"`       // the same by tag
	Digest    string `json:"digest"`    // of the manifest
	Layout    string `json:"layout"`    // folder, an OCI image layout
}

func newImage(name, digest, layout string) image {
	return image{
		Name: name, Digest: digest, Layout: layout,
		Reference: registry + name + "@" + digest,
		Tag:       registry + name + ":test",
	}
}

func readImages(list string) ([]image, error) {
	raw, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	var images []image
	if err := json.Unmarshal(raw, &images); err != nil {
		return nil, fmt.Errorf("%s: %w", list, err)
	}
	return images, nil
}

// recipe is an image of static binaries.
type recipe struct {
	name       string
	files      map[string]string // path in the image → path here
	entrypoint []string
	user       string
}

// buildImages writes the images' layouts and their list.
func buildImages(d dirs) error {
	var images []image
	for _, r := range []recipe{
		{name: "pause", files: map[string]string{"probe": d.slotBin("probe")}, entrypoint: []string{"/probe", "pause"}},
		{name: "probe", files: map[string]string{"probe": d.slotBin("probe")}, entrypoint: []string{"/probe"}, user: "65532:65532"},
		{name: "dns", files: map[string]string{"dns": d.bin("dns")}, entrypoint: []string{"/dns"}},
		{
			name: "server", files: map[string]string{"caesarion": d.slotBin("caesarion"), "caesarion-agent": d.slotBin("caesarion-agent")},
			entrypoint: []string{"/caesarion"}, user: "65532:65532",
		},
	} {
		i, err := r.write(filepath.Join(d.layouts(), r.name))
		if err != nil {
			return fmt.Errorf("image %s: %w", r.name, err)
		}
		images = append(images, i)
	}
	python, err := sandboxImage()
	if err != nil {
		return err
	}
	images = append(images, python)
	return writeJSON(d.images(), images)
}

// sandboxImage is the one that the product has built on this machine.
func sandboxImage() (image, error) {
	data := os.Getenv("CAESARION_DATA_DIR")
	if data == "" {
		data = "/var/lib/caesarion"
	}
	layout := filepath.Join(data, "images")
	raw, err := os.ReadFile(filepath.Join(layout, "index.json"))
	if err != nil {
		return image{}, errors.New("the sandbox image is not built, run `make image`")
	}
	var index indexManifest
	if err := json.Unmarshal(raw, &index); err != nil {
		return image{}, fmt.Errorf("%s: %w", layout, err)
	}
	for _, m := range index.Manifests {
		if m.Annotations["org.opencontainers.image.ref.name"] == "python" {
			return newImage("python", m.Digest, layout), nil
		}
	}
	return image{}, errors.New("there is no image named python, run `make image`")
}

// The parts of the OCI image specification that are needed here.
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
		Platform    *platform         `json:"platform,omitempty"`
	}
	platform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	}
	indexManifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType,omitempty"`
		Manifests     []descriptor `json:"manifests"`
	}
	imageManifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType,omitempty"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}
)

const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
)

// write makes the image below dir, unless it is there. The same binaries give the
// same digest.
func (r recipe) write(dir string) (image, error) {
	h := sha256.New()
	size, err := r.layer(h)
	if err != nil {
		return image{}, err
	}
	diff := fmt.Sprintf("sha256:%x", h.Sum(nil))
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Entrypoint": r.entrypoint, "Env": []string{"PATH=/"}, "WorkingDir": "/", "User": r.user},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diff}},
	})
	if err != nil {
		return image{}, err
	}
	manifest, err := json.Marshal(imageManifest{
		SchemaVersion: 2, MediaType: typeManifest,
		Config: descriptor{MediaType: typeConfig, Digest: digestOf(config), Size: int64(len(config))},
		Layers: []descriptor{{MediaType: typeLayer, Digest: diff, Size: size}},
	})
	if err != nil {
		return image{}, err
	}
	layout := filepath.Join(dir, hexOf(digestOf(manifest))[:12])
	i := newImage(r.name, digestOf(manifest), layout)
	if _, err := os.Stat(layout); err == nil {
		return i, nil
	}
	if err := removeOld(dir); err != nil {
		return image{}, err
	}
	tmp, err := os.MkdirTemp(dir, "new-") // another slot may be making it, too
	if err != nil {
		return image{}, err
	}
	defer os.RemoveAll(tmp)
	blob := func(digest string) string { return filepath.Join(tmp, "blobs", "sha256", hexOf(digest)) }
	if err := os.MkdirAll(filepath.Dir(blob(diff)), 0o755); err != nil {
		return image{}, err
	}
	f, err := os.Create(blob(diff))
	if err != nil {
		return image{}, err
	}
	_, err = r.layer(f)
	err = errors.Join(err, f.Close(),
		os.WriteFile(blob(digestOf(config)), config, 0o644), os.WriteFile(blob(i.Digest), manifest, 0o644))
	if err == nil {
		err = os.Rename(tmp, layout)
	}
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return i, err
}

// removeOld removes images that no cluster is importing any more.
func removeOld(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		info, ierr := e.Info()
		if ierr == nil && time.Since(info.ModTime()) > time.Hour {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// layer writes the only layer and gives its size.
func (r recipe) layer(out io.Writer) (int64, error) {
	counted := &counter{out: out}
	w := tar.NewWriter(counted)
	add := func(name string, mode int64, uid int, content io.Reader, size int64) error {
		h := &tar.Header{Name: name, Mode: mode, Uid: uid, Gid: uid, Size: size, Typeflag: tar.TypeReg}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(w, content)
		return err
	}
	const passwd = "root:x:0:0:root:/:/nologin\nnonroot:x:65532:65532:nonroot:/data:/nologin\n"
	err := errors.Join(
		add("etc/", 0o755, 0, strings.NewReader(""), 0),
		add("tmp/", 0o1777, 0, strings.NewReader(""), 0),
		add("data/", 0o755, 65532, strings.NewReader(""), 0),
		add("etc/passwd", 0o644, 0, strings.NewReader(passwd), int64(len(passwd))),
	)
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		f, ferr := os.Open(r.files[name])
		if ferr != nil {
			return 0, ferr
		}
		info, ferr := f.Stat()
		if ferr == nil {
			ferr = add(name, 0o755, 0, f, info.Size())
		}
		_ = f.Close()
		err = errors.Join(err, ferr)
	}
	err = errors.Join(err, w.Close())
	return counted.n, err
}

type counter struct {
	out io.Writer
	n   int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	c.n += int64(n)
	return n, err
}

// archive writes the image as containerd imports it.
func (i image) archive(out io.Writer) error {
	read := func(digest string) ([]byte, error) {
		return os.ReadFile(filepath.Join(i.Layout, "blobs", "sha256", hexOf(digest)))
	}
	raw, err := read(i.Digest)
	if err != nil {
		return err
	}
	var m imageManifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return fmt.Errorf("manifest of %s: %w", i.Name, err)
	}
	if m.MediaType == "" {
		m.MediaType = typeManifest
	}
	index, err := json.Marshal(indexManifest{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{{
		MediaType: m.MediaType, Digest: i.Digest, Size: int64(len(raw)),
		Platform:    &platform{Architecture: "amd64", OS: "linux"},
		Annotations: map[string]string{"io.containerd.image.name": i.Tag},
	}}})
	if err != nil {
		return err
	}
	w := tar.NewWriter(out)
	bytesOf := func(name string, content []byte) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		_, err := w.Write(content)
		return err
	}
	if err := bytesOf("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := bytesOf("index.json", index); err != nil {
		return err
	}
	if err := bytesOf("blobs/sha256/"+hexOf(i.Digest), raw); err != nil {
		return err
	}
	for _, blob := range append([]descriptor{m.Config}, m.Layers...) {
		f, err := os.Open(filepath.Join(i.Layout, "blobs", "sha256", hexOf(blob.Digest)))
		if err != nil {
			return err
		}
		err = w.WriteHeader(&tar.Header{Name: "blobs/sha256/" + hexOf(blob.Digest), Mode: 0o644, Size: blob.Size, Typeflag: tar.TypeReg})
		if err == nil {
			_, err = io.Copy(w, f)
		}
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return w.Close()
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

func hexOf(digest string) string { return strings.TrimPrefix(digest, "sha256:") }
