// Package httpapi is Caesarion's HTTP side: routes, authentication, JSON,
// streams and problem details. It decides nothing about sandboxes; that is
// internal/fleet's work.
//
//	request ──▶ request id, log, panics ──▶ Host ──▶ Origin ──▶ token ──▶ route
//	                                                                       │
//	        /v1/…  by huma (types of api/v1, OpenAPI)      ◀───────────────┤
//	        the original's API: /sandboxes…, /api/… (seed*.go) ◀───────────┤
//	        /docs, /openapi.json, /openapi.yaml, /health   ◀───────────────┘
//
// Every failure of /v1 is an RFC 9457 problem (problem.go); every failure of
// the original's API has FastAPI's shape (seed.go). What a request may cost is
// bounded before it is read. Streams are written as bytes from the event log,
// all available records with one write (stream.go).
//
// huma and humago are used in this package only; deps_test.go keeps it so.
// Sources of the formats: api/openapi.yaml, WHATWG HTML 9.2 (server-sent
// events), and for the original's API docs/compatibility.md.
package httpapi
