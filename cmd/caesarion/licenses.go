package main

import (
	"errors"
	"io"
	"io/fs"

	"github.com/caesarion/caesarion/licenses"
	"github.com/caesarion/caesarion/web"
)

type licensesCmd struct{}

// Help implements kong.HelpProvider.
func (licensesCmd) Help() string {
	return "Caesarion itself is under the Apache License 2.0.\n\nExamples:\n  caesarion licenses | less"
}

// Run prints the licences of what is in this binary: Go modules, then the
// packages of the page. Those of a sandbox image are in the image.
func (licensesCmd) Run(g *globals) error {
	page, err := fs.ReadFile(web.Dist(), "assets/licenses.txt")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := io.WriteString(g.Stdout, licenses.ThirdParty+"\n"); err != nil {
		return err
	}
	_, err = g.Stdout.Write(page)
	return err
}
