package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// maxFileBytes is far beyond any real settings file; what is larger was named
// by mistake, and reading a device or a log whole would not end well.
const maxFileBytes = 1 << 20

// File is a settings file. It implements kong.Resolver: a value of the file
// counts unless a flag or an environment variable gives one.
type File struct {
	Path      string
	Templates map[string]Template // complete: defaults filled in, DefaultTemplate there
	Models    []Model
	Egress    Egress
	SignIn    SignIn
	Limits    Limits

	values map[string]yaml.Node
}

// ReadFile reads the file at path; an empty path means DefaultFile, which need
// not exist.
func ReadFile(path string) (*File, error) {
	optional := path == ""
	if optional {
		path = DefaultFile()
	}
	f, err := os.Open(path)
	if optional && (path == "" || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission)) {
		return parse("", nil)
	}
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("config: %s: larger than %s, which is no settings file", path, Bytes(maxFileBytes))
	}
	return parse(path, text)
}

func parse(path string, text []byte) (*File, error) {
	file := &File{Path: path}
	if err := yaml.Unmarshal(text, &file.values); err != nil {
		return nil, fmt.Errorf("config: %s: %s", path, yamlMessage(err))
	}
	known := Keys()
	for _, key := range slices.Sorted(maps.Keys(file.values)) {
		if key != templatesKey && key != modelsKey && key != egressKey && key != signInKey && key != limitsKey && !slices.Contains(known, key) {
			return nil, fmt.Errorf("config: %s:%d: unknown key %q; allowed are %s, %s, %s, %s, %s and %s",
				path, file.values[key].Line, key, strings.Join(known, ", "), egressKey, limitsKey, signInKey, modelsKey, templatesKey)
		}
	}
	if err := errors.Join(file.readModels(text), file.readEgress(text), file.readSignIn(text), file.readLimits(text)); err != nil {
		return nil, err
	}
	return file, file.readTemplates(text)
}

// Into puts into settings what only the file has, and flags don't.
func (f *File) Into(srv *Server) {
	srv.Templates, srv.Models, srv.Egress, srv.SignIn, srv.Limits = f.Templates, f.Models, f.Egress, f.SignIn, f.Limits
}

const templatesKey = "templates"

// readTemplates decodes the templates a second time from the whole text, so
// that messages have the line numbers of the file.
func (f *File) readTemplates(text []byte) error {
	var doc struct {
		Templates map[string]yaml.Node `yaml:"templates"`
	}
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return fmt.Errorf("config: %s: %s", f.Path, yamlMessage(err))
	}
	standard := DefaultLimits()
	standard.Preload = DefaultPreload()
	f.Templates = map[string]Template{DefaultTemplate: standard}
	for name, node := range doc.Templates {
		t := DefaultLimits()
		if err := checkEntryKeys[Template](node, "template"); err != nil {
			return fmt.Errorf("config: %s:%w", f.Path, err)
		}
		if err := node.Decode(&t); err != nil {
			return fmt.Errorf("config: %s: %s.%s: %s", f.Path, templatesKey, name, yamlMessage(err))
		}
		// Another image need not have the modules.
		if t.Preload == nil && name == DefaultTemplate && t.Image == standard.Image {
			t.Preload = DefaultPreload()
		}
		f.Templates[name] = t
	}
	return nil
}

// goTypes matches what yaml.v3 says of Go types, which is no help to the
// person who wrote the file.
var goTypes = regexp.MustCompile(` into (config\.\w+|(map\[string\]|\[\])\S+|\S*\bint(64)?\b|\bfloat64\b|\bbool\b)`)

func yamlMessage(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:\n  ")
	return strings.ReplaceAll(goTypes.ReplaceAllString(text, ""), "\n", ";")
}

// Keys gives the keys that a file may have at its top, besides models and
// templates.
func Keys() []string {
	var keys []string
	for _, t := range []reflect.Type{reflect.TypeFor[Base](), reflect.TypeFor[Server]()} {
		for field := range t.Fields() {
			if name := flagName(field); name != "" && name != "config" {
				keys = append(keys, strings.ReplaceAll(name, "-", "_"))
			}
		}
	}
	return keys
}

// flagName is the name kong gives the flag of a field: TLSCert → tls-cert.
func flagName(field reflect.StructField) string {
	if field.Tag.Get("kong") == "-" {
		return ""
	}
	return strings.ToLower(wordStart.ReplaceAllString(field.Name, "$1-$2"))
}

var wordStart = regexp.MustCompile(`([a-z]|TLS|URL)([A-Z])`)

// Validate implements kong.Resolver; ReadFile has checked the keys already.
func (f *File) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver. Kong asks for every flag that is not on
// the command line, also for those the environment gives.
func (f *File) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	for _, env := range flag.Envs {
		if _, ok := os.LookupEnv(env); ok {
			return nil, nil
		}
	}
	key := strings.ReplaceAll(flag.Name, "-", "_")
	node, ok := f.values[key]
	if !ok || !slices.Contains(Keys(), key) {
		return nil, nil
	}
	switch node.Kind {
	case yaml.ScalarNode:
		if node.Value == "" { // as if the key were not there
			return nil, nil
		}
		return node.Value, nil
	case yaml.SequenceNode:
		var list []string
		if err := node.Decode(&list); err != nil || !flag.IsSlice() {
			return nil, fmt.Errorf("config: %s:%d: %s: a list is not allowed here", f.Path, node.Line, key)
		}
		if len(list) == 0 {
			return nil, nil
		}
		return strings.Join(list, ","), nil
	default:
		return nil, fmt.Errorf("config: %s:%d: %s: a single value is expected", f.Path, node.Line, key)
	}
}

// printYAML writes the settings as YAML, with the keys of the file.
func printYAML(w io.Writer, base Base, srv Server) error {
	var doc yaml.Node
	doc.Kind = yaml.MappingNode
	add := func(key string, value any) error {
		var k, v yaml.Node
		if err := errors.Join(k.Encode(key), v.Encode(value)); err != nil {
			return fmt.Errorf("config: print %s: %w", key, err)
		}
		doc.Content = append(doc.Content, &k, &v)
		return nil
	}
	for _, s := range []any{base, srv} {
		value := reflect.ValueOf(s)
		for field := range value.Type().Fields() {
			name := flagName(field)
			if name == "" || name == "config" {
				continue
			}
			if err := add(strings.ReplaceAll(name, "-", "_"), value.FieldByIndex(field.Index).Interface()); err != nil {
				return err
			}
		}
	}
	if err := errors.Join(add(egressKey, srv.Egress), add(limitsKey, srv.Limits), add(signInKey, srv.SignIn), add(modelsKey, srv.Models), add(templatesKey, srv.Templates)); err != nil {
		return err
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := errors.Join(enc.Encode(&doc), enc.Close()); err != nil {
		return fmt.Errorf("config: print: %w", err)
	}
	_, err := w.Write(out.Bytes())
	return err
}
