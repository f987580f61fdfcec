// Package v1 has the JSON types of Caesarion's own HTTP API, /v1.
//
// The server (internal/httpapi) answers with them, the Go client reads them,
// and api/openapi.yaml is generated from their tags; changing a field changes
// the public API, so fields are only ever added.
//
// Keys carry their unit (memory_bytes, timeout_ms), times are UTC in RFC 3339,
// identifiers are random with a prefix: sbx_ sandbox, krn_ kernel,
// exe_ execution, prc_ process.
//
// Streams of an execution or process are internal/event's events, one JSON
// object each: as NDJSON lines, or as SSE with "id:" the number, "event:" the
// type and "data:" the whole event.
package v1
