package main

import (
	"github.com/caesarion/caesarion/internal/httpapi"
)

// openapiCmd prints the description of the HTTP API. `make generate` writes it
// to api/openapi.yaml.
type openapiCmd struct{}

// Help implements kong.HelpProvider.
func (openapiCmd) Help() string {
	return "A running server has it at /openapi.yaml and /openapi.json, and as a page at /docs.\n\nExamples:\n  caesarion openapi > openapi.yaml\n  caesarion openapi | openapi-generator-cli generate -g typescript-fetch -i /dev/stdin"
}

// apiVersion stands in the description instead of the build's version, or the
// file that is checked in would change with every commit.
const apiVersion = "0"

// Run prints the description. No call is made, so no fleet is needed.
func (openapiCmd) Run(g *globals) error {
	_, err := g.Stdout.Write(httpapi.New(nil, httpapi.Options{Version: apiVersion}).OpenAPI())
	return err
}
