package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/caesarion/caesarion/internal/errdefs"
)

const (
	catalogName = "catalog.json"
	// catalogVersion changes when an older program could not use the files.
	catalogVersion = 1

	refNameAnnotation = "org.opencontainers.image.ref.name"
)

// catalog is the content of catalog.json: what is in the store.
type catalog struct {
	Version int               `json:"version"`
	Names   map[string]string `json:"names"`  // name → digest
	Images  map[string]Image  `json:"images"` // by digest; without name and path
}

func (s *Store) load() (*catalog, error) {
	c := &catalog{Version: catalogVersion, Names: map[string]string{}, Images: map[string]Image{}}
	raw, err := os.ReadFile(s.path(catalogName))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, fmt.Errorf("image: %s: %w", s.path(catalogName), err)
	}
	if c.Version != catalogVersion {
		return nil, errdefs.New(errdefs.ErrUnsupported, "image-store-version",
			"the image store has format %d, this program knows %d", c.Version, catalogVersion)
	}
	return c, nil
}

// save replaces the catalog: the moment from which a change counts.
func (s *Store) save(c *catalog) error {
	if err := s.writeJSON(catalogName, c); err != nil {
		return err
	}
	return s.writeIndex(c)
}

// writeIndex brings what other tools read in line with the catalog.
func (s *Store) writeIndex(c *catalog) error {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{}}
	for _, digest := range c.digests() {
		h, err := v1.NewHash(digest)
		if err != nil {
			return fmt.Errorf("image: catalog: %w", err)
		}
		m, err := s.manifest(digest)
		if err != nil {
			return err
		}
		info, err := os.Stat(s.blobPath(h.Hex))
		if err != nil {
			return fmt.Errorf("image: %w", err)
		}
		names := c.namesOf(digest)
		if len(names) == 0 {
			names = []string{""}
		}
		for _, name := range names {
			d := v1.Descriptor{
				MediaType: m.MediaType,
				Digest:    h,
				Size:      info.Size(),
				Platform:  &v1.Platform{OS: "linux", Architecture: c.Images[digest].Architecture},
			}
			if d.MediaType == "" {
				d.MediaType = types.OCIManifestSchema1 // the field is optional in OCI
			}
			if name != "" {
				d.Annotations = map[string]string{refNameAnnotation: name}
			}
			index.Manifests = append(index.Manifests, d)
		}
	}
	if err := s.writeJSON("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}); err != nil {
		return err
	}
	return s.writeJSON("index.json", index)
}

// writeJSON replaces a file unless it has that content.
func (s *Store) writeJSON(name string, content any) error {
	raw, err := json.MarshalIndent(content, "", "  ")
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	raw = append(raw, '\n')
	if old, err := os.ReadFile(s.path(name)); err == nil && bytes.Equal(old, raw) {
		return nil
	}
	return s.writeFile(name, raw)
}

func (c *catalog) digests() []string { return slices.Sorted(maps.Keys(c.Images)) }

func (c *catalog) namesOf(digest string) []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(c.Names)) {
		if c.Names[name] == digest {
			names = append(names, name)
		}
	}
	return names
}

// resolve gives the digest and one name (empty when it has none); a name that was
// asked for is the one given.
func (c *catalog) resolve(nameOrDigest string) (digest, name string, err error) {
	if digest, ok := c.Names[nameOrDigest]; ok {
		return digest, nameOrDigest, nil
	}
	notFound := errdefs.New(errdefs.ErrNotFound, "image-not-found", "there is no image %q", nameOrDigest).
		WithHint("`caesarion image ls` lists them, `caesarion image build` makes the default one")
	prefix := hexOf(nameOrDigest)
	if !digestPrefix.MatchString(prefix) {
		return "", "", notFound
	}
	for _, d := range c.digests() {
		if !strings.HasPrefix(hexOf(d), prefix) {
			continue
		}
		if digest != "" {
			return "", "", errdefs.New(errdefs.ErrInvalid, "image-ambiguous", "several images begin with %q", nameOrDigest).
				WithHint("give more digits")
		}
		digest = d
	}
	if digest == "" {
		return "", "", notFound
	}
	if names := c.namesOf(digest); len(names) > 0 {
		name = names[0]
	}
	return digest, name, nil
}

var nameRule = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*$`)

// checkName refuses names that could be taken for a digest, a path or an option.
func checkName(name string) error {
	if len(name) > 63 || !nameRule.MatchString(name) {
		return errdefs.New(errdefs.ErrInvalid, "image-name-invalid", "%q can't be an image's name", name).
			WithHint("use up to 63 lower-case letters and digits, with single dots, dashes or underscores between")
	}
	return nil
}

// sweep removes what the catalog does not lead to, and mends what it should lead
// to. The caller holds the lock.
func (s *Store) sweep() error {
	c, err := s.load()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for digest := range c.Images {
		keep[s.erofsPath(hexOf(digest))] = true
		keep[s.blobPath(hexOf(digest))] = true
		m, err := s.manifest(digest)
		if err != nil {
			// Its blobs can't be told from leftovers now: leave them all.
			return nil // Resolve and Inspect report the damage
		}
		keep[s.blobPath(m.Config.Digest.Hex)] = true
		for _, l := range m.Layers {
			keep[s.blobPath(l.Digest.Hex)] = true
		}
	}
	// A writer that was killed after it saved the catalog did not come to this.
	if err := s.writeIndex(c); err != nil {
		return err
	}
	for _, dir := range []string{"tmp", "erofs", "blobs/sha256"} {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil {
			return fmt.Errorf("image: sweep: %w", err)
		}
		for _, e := range entries {
			if name := s.path(dir + "/" + e.Name()); !keep[name] {
				if err := os.RemoveAll(name); err != nil {
					return fmt.Errorf("image: sweep: %w", err)
				}
			}
		}
	}
	return nil
}
