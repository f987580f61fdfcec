// Package fleet has the sandboxes of one installation: it makes them from
// templates, finds them again after a restart, runs code in them, remembers
// what executions gave, and removes sandboxes that nobody uses.
//
//	httpapi ──▶ Fleet ──Create, List, Delete, Lost──▶ sandbox.Driver
//	              │
//	              └▶ Sandbox ──agentapi.Client──▶ agent ──▶ kernels, files, processes
//	                   │                            │
//	                   └▶ Execution ◀──event.Log────┘ one goroutine each (pump)
//
// The life of a sandbox, as this package sees it:
//
//	creating ──▶ alive ──▶ gone (deleted | expired | idle | lost, with the reason)
//
// A gone sandbox is remembered for a while, so that the answer can be "it is
// gone, because …" and its executions can still be read.
//
// An execution belongs to its sandbox and not to the request that asked for
// it. Its events are made by the agent; the pump checks and keeps them as
// bytes. The server makes an event of its own only when the agent no longer
// can: an execution.finished with status "killed" when the sandbox is lost.
//
// Nothing here is written to disk. What a restart must know stands in the
// labels of the driver's sandbox (see labels.go) and in the agent, which
// remembers its executions.
//
// All exported methods may be called concurrently. Goroutines: one watch per
// sandbox, one pump per running execution; Fleet.Close ends and awaits them.
package fleet
