// Package web has the page, built from the sources beside it by make web.
package web

import (
	"embed"
	"io/fs"
)

//go:embed all:dist
var dist embed.FS

// Dist gives the built page: index.html, assets/ and frame/.
func Dist() fs.FS {
	sub, err := fs.Sub(dist, "dist")
	if err != nil {
		panic(err) // the folder is embedded, so this can't happen
	}
	return sub
}
