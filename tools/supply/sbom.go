package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/xeipuuv/gojsonschema"
)

type sbomOptions struct {
	root, out, images, image, version string
}

// specVersion is what most readers take.
const specVersion = cdx.SpecVersion1_6

// writeSBOMs writes one file for each program, for the page and for the image.
// What is written follows from what was built alone, so that two builds of the same
// give the same bill.
func writeSBOMs(ctx context.Context, o sbomOptions, out io.Writer) error {
	if o.out == "" {
		return errors.New("sbom needs -out")
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	p, err := readPolicy(o.root)
	if err != nil {
		return err
	}
	schemas, err := schemaDir(ctx, o.root)
	if err != nil {
		return err
	}
	write := func(name string, subject cdx.Component, list []Component) error {
		file := filepath.Join(o.out, name+".cdx.json")
		raw, err := encodeSBOM(subject, p, list)
		if err != nil {
			return err
		}
		if err := validate(schemas, raw); err != nil {
			return wrap(file, err)
		}
		if err := os.WriteFile(file, raw, 0o644); err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: %d components\n", file, len(list))
		return nil
	}

	sources, err := goModules(ctx, o.root)
	if err != nil {
		return err
	}
	for _, program := range programs {
		subject, linked, err := linkedModules(filepath.Join(o.root, "bin", program), sources)
		if err != nil {
			return fmt.Errorf("%w; make build builds it", err)
		}
		subject.Name, subject.Version = program, o.version
		if err := write(program, subject, linked); err != nil {
			return err
		}
	}
	packages, err := npmPackages(o.root)
	if err != nil {
		return err
	}
	if err := write("page", cdx.Component{Type: cdx.ComponentTypeApplication, Name: "caesarion-web", Version: o.version}, packages); err != nil {
		return err
	}
	if o.image == "" {
		return nil
	}
	image, err := openImage(o.images, o.image)
	if err != nil {
		return err
	}
	defer image.close()
	installed, err := wheels(image)
	if err != nil {
		return err
	}
	debian, err := debianPackages(image)
	if err != nil {
		return err
	}
	return write("image-"+o.image, cdx.Component{
		Type: cdx.ComponentTypeContainer, Name: o.image, Version: image.digest,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: strings.TrimPrefix(image.digest, "sha256:")}},
	}, slices.Concat(debian, installed))
}

// linkedModules reads what a program says of itself, and takes the licences from
// the sources of the same modules.
func linkedModules(file string, sources []Component) (cdx.Component, []Component, error) {
	info, err := buildinfo.ReadFile(file)
	if err != nil {
		return cdx.Component{}, nil, err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return cdx.Component{}, nil, err
	}
	sum := sha256.Sum256(content)
	subject := cdx.Component{
		Type: cdx.ComponentTypeApplication, PackageURL: "pkg:golang/" + info.Main.Path,
		Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: hex.EncodeToString(sum[:])}},
	}
	list := []Component{{Kind: "go", Name: "std", Version: info.GoVersion}}
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		list = append(list, Component{Kind: "go", Name: dep.Path, Version: dep.Version})
	}
	for i := range list {
		at := slices.IndexFunc(sources, func(s Component) bool {
			return s.Name == list[i].Name && (s.Version == list[i].Version || s.Name == "std")
		})
		if at < 0 {
			return cdx.Component{}, nil, fmt.Errorf("%s has %s %s, which the sources here don't: it is an older build", file, list[i].Name, list[i].Version)
		}
		list[i].Texts = sources[at].Texts
	}
	return subject, list, nil
}

func encodeSBOM(subject cdx.Component, p policy, list []Component) ([]byte, error) {
	subject.BOMRef = "subject"
	components := []cdx.Component{}
	refs := []string{}
	for _, c := range list {
		item := cdx.Component{BOMRef: c.purl(), Type: cdx.ComponentTypeLibrary, Name: c.Name, Version: c.Version, PackageURL: c.purl()}
		if licence, _ := p.judge(c); licence != "" {
			item.Licenses = &cdx.Licenses{{Expression: licence}}
		}
		if sum := c.Hashes["SHA-512"]; sum != "" {
			item.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA512, Value: sum}}
		}
		components = append(components, item)
		refs = append(refs, item.BOMRef)
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &subject}
	bom.Components = &components
	bom.Dependencies = &[]cdx.Dependency{{Ref: subject.BOMRef, Dependencies: &refs}}
	// A serial number that follows from the content: the form of a UUID, version 8.
	plain, err := json.Marshal(bom)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(plain)
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80
	bom.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16])
	var b bytes.Buffer
	err = cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(bom, specVersion)
	return b.Bytes(), err
}

// schemaDir is where the library keeps the schemas of the specification.
func schemaDir(ctx context.Context, root string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go")
	cmd.Dir = filepath.Join(root, "tools/supply")
	out, err := cmd.Output()
	return filepath.Join(strings.TrimSpace(string(out)), "schema"), wrap("go list -m cyclonedx-go", err)
}

// validate compares a bill with the schema of its specification.
func validate(schemas string, raw []byte) error {
	loader := gojsonschema.NewSchemaLoader()
	// Named by addresses that nothing is fetched from.
	for id, file := range map[string]string{"spdx.schema.json": "spdx.schema.json", "jsf-0.82.schema.json": "jsf-0.82.schemax.json"} {
		if err := loader.AddSchema("http://cyclonedx.org/schema/"+id, schemaFile(schemas, file)); err != nil {
			return wrap(id, err)
		}
	}
	schema, err := loader.Compile(schemaFile(schemas, "bom-"+specVersion.String()+".schema.json"))
	if err != nil {
		return err
	}
	result, err := schema.Validate(gojsonschema.NewBytesLoader(raw))
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range result.Errors() {
		errs = append(errs, errors.New(e.String()))
	}
	return errors.Join(errs...)
}

func schemaFile(dir, name string) gojsonschema.JSONLoader {
	return gojsonschema.NewReferenceLoader((&url.URL{Scheme: "file", Path: filepath.Join(dir, name)}).String())
}
