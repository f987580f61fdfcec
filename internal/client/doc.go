// Package client calls Caesarion's own HTTP API, /v1.
//
//	cmd/caesarion ──▶ client ──HTTP──▶ httpapi
//
// Answers are the types of api/v1. A failure that the server explained is a
// *v1.Problem; one on the way there is an errdefs.Error of kind
// ErrUnavailable. Both say what to do.
//
// Executions and processes are streams of internal/event's events. A stream
// of an execution that breaks is resumed after the last event that arrived, so
// its reader sees every event once, in order, or an error.
//
// A Client may be used by many goroutines; a Stream belongs to one, but for Close.
package client
