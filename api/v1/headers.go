package v1

// Headers of the API beyond HTTP's own.
const (
	HeaderExecutionID    = "Caesarion-Execution-Id" // on every answer to POST …/executions
	HeaderProcessID      = "Caesarion-Process-Id"   // on every answer to POST …/processes
	HeaderRequestID      = "X-Request-Id"           // on every answer
	HeaderIdempotencyKey = "Idempotency-Key"        // POST …/executions: the same key gives the same execution
	HeaderLastEventID    = "Last-Event-ID"          // GET …/events: resume after this number
)

// Media types of the API.
const (
	MediaJSON    = "application/json"
	MediaNDJSON  = "application/x-ndjson"
	MediaSSE     = "text/event-stream"
	MediaProblem = "application/problem+json"
)
