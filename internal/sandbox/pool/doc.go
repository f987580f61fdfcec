// Package pool makes sandboxes fast to get: it keeps some of each template
// ready, and a snapshot from which others are restored.
//
//	fleet ──Lease──▶ Pool ──Restore, Create, Claim──▶ sandbox.Driver
//	                   └──Configure, Check──▶ agentapi ──▶ agent
//
// A lease takes the best there is:
//
//	warm     a ready sandbox: one round trip to its agent, one note by the driver
//	restore  from the template's snapshot
//	cold     always possible; takes over when a restore fails
//
// A ready sandbox:
//
//	Restore ──▶ inert cells ──▶ ready ──Claim──▶ claimed ──Configure──▶ its owner's
//	   │ or Create               │  ▲ ▲              │
//	   │ (Prestart)              ▼  │ │ another      │ a failure, or the
//	   │                     checked┘ │ process's    │ caller leaves
//	   ▼                         │    │              ▼
//	 fails, again later          └────┴─▶ evicted ◀──┘
//
// A template's snapshot:
//
//	none ──▶ making ──▶ ready ──image or build changes, restores fail──▶ none
//	            │  ▲
//	            ▼  │ later
//	           failed: sandboxes start cold
//
// It is found again after a restart by its name, label and sandbox.Snapshot's
// Key; those with another key are deleted.
//
// Starts at once are bounded (gate): requests first, in the order they came, and
// a request that waits takes what becomes ready meanwhile. Refills, checks and the
// making of snapshots run one at a time and only when no request waits; so a
// burst is worked off by all slots and refilled afterwards, and under
// sustained load, which leaves slots free, refills go on.
//
// Concurrency: each template has one goroutine (tend) that does all its
// background work in turn. Leases run in their callers' goroutines. Pool.mu
// guards what they share and is never held over a call to driver or agent; an
// entry belongs to whoever took it out of the ready ones. Close joins all.
package pool
