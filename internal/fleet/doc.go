// Package fleet has the sandboxes of one installation: it makes them from
// templates, finds them again after a restart, runs code in them, remembers
// what executions gave, and removes sandboxes that nobody uses.
//
//	httpapi ──▶ Fleet ──Lease──▶ pool.Pool ──▶ sandbox.Driver
//	              │ └──List, Delete, Lost, Pause, Snapshot, …──▲
//	              └▶ Sandbox ──agentapi.Client──▶ agent ──▶ kernels, files, processes
//	                   │                            │
//	                   └▶ Execution ◀──event.Log────┘ one goroutine each (pump)
//
// The life of a sandbox, as this package sees it:
//
//	creating ──▶ alive ──▶ gone (deleted | expired | idle | lost, with the reason)
//
// A gone sandbox is remembered for a while, so that the answer can be "it is
// gone, because …" and its executions can still be read. One that is alive may
// sleep, where the driver is a sandbox.Pauser:
//
//	           idle for PauseAfter, Pause
//	  running ────────────────────────────▶ pausing: calls wait (agentapi.Client.Hold)
//	   ▲   ▲                                  │    │ saved
//	   │   └── it runs code, or it failed ────┘    ▼
//	   └──────────── resuming ◀─────────────── paused
//	woken, or started    │  Resume, any call    ▲  │ after KeepMemory its memory goes,
//	anew with its files  └─ it failed ──────────┘  ▼ after KeepFiles all of it
//	(Restarted)                                  gone
//
// Its life stands still meanwhile. Whoever saves it, wakes it or drops its
// memory holds its turn, so that these come one after the other; Delete waits
// for none of them.
//
// An execution belongs to its sandbox and not to the request that asked for
// it. Its events are made by the agent; the pump checks and keeps them as
// bytes. The server makes an event of its own only when the agent no longer
// can: an execution.finished with status "killed" when the sandbox is lost.
//
// Copies and new sandboxes come from snapshots (saved.go); what sleeps and what
// is saved share a quota (quota.go).
//
// Nothing here is written to disk. What a restart must know stands in the
// labels of the driver's sandbox (see labels.go) and in the agent, which
// remembers its executions.
//
// All exported methods may be called concurrently. Goroutines: one watch per
// sandbox, one pump per running execution, one for each way into sleep or out
// of it; Fleet.Close ends and awaits them.
package fleet
