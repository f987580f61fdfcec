package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version is set by the linker (see Makefile); `go install` leaves it to the
// module's own.
var version = ""

// buildVersion gives the version of this binary.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.0.0-dev"
}

type versionCmd struct{}

// Help implements kong.HelpProvider.
func (versionCmd) Help() string {
	return "Examples:\n  caesarion version\n  caesarion version --json"
}

// Run prints the version of this binary and of what is linked into it.
func (versionCmd) Run(g *globals) error {
	v := struct {
		Version string `json:"version"`
		GVisor  string `json:"gvisor"`
		Go      string `json:"go"`
		OS      string `json:"os"`
		Arch    string `json:"arch"`
	}{buildVersion(), "unknown", runtime.Version(), runtime.GOOS, runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if dep.Path == "gvisor.dev/gvisor" {
				v.GVisor = dep.Version
			}
		}
	}
	if g.JSON {
		return printJSON(g.Stdout, v)
	}
	_, err := fmt.Fprintf(g.Stdout, "caesarion %s (gVisor %s, %s, %s/%s)\n", v.Version, v.GVisor, v.Go, v.OS, v.Arch)
	return err
}

// printJSON writes v for programs, indented for the people who debug them.
func printJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
