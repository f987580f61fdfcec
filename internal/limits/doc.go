// Package limits says how much users and organisations may use, counts what
// they have used, and refuses what is beyond it with the figures and the time
// when it frees.
//
//	fleet: starts, executions, CPU time ─┐                 ┌─▶ nil, or *Error: which limit, used, of how much, until when
//	chat: tokens of models ──────────────┼─▶ Service ──────┤
//	egress: bytes ───────────────────────┤    │ counters   └─▶ Usage, for people
//	httpapi: uploads ────────────────────┘    ▼
//	                                       store: limit_counters, one row for each subject, limit and window
//
// There are two sorts of limits. What exists at a moment (sandboxes, their
// memory and disk) is counted by the fleet from its own list, over all
// replicas; this package only compares. What is used up in a window of time
// (a minute, or a day, UTC) is counted here.
//
// A counter is in memory, and one goroutine exchanges with the store what was
// used: so no request waits for a query. A server that is alone admits by its
// own counters, which it read when it started. Where there are replicas,
// numbers of requests are handed out in blocks: a replica sets some aside in
// the store, uses them without asking, asks for more before they are gone, and
// gives back what it did not need. All replicas together never admit more than
// the limit but for a 64th of it for each of them, which makes that the first
// requests of a minute need not wait. What is only known afterwards (bytes,
// tokens, CPU time) is told within a quarter of a second and refused when it is
// over the limit, so that it can be somewhat more.
//
// Who is limited by what is decided by Rules: the default, then the role, then
// the user himself, each limit for itself; organisations have their own, for
// all of their users together.
//
// If the store can't be written, each server goes on with what it knows.
package limits
