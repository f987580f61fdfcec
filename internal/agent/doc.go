// Package agent is what runs inside each sandbox: the parent of its kernels,
// reached over HTTP with the types of internal/agentapi.
//
//	agentapi.Client ──HTTP──▶ Agent ──▶ keeper ──▶ incarnation ──▶ kernel (Python)
//	                            │         │ queue       ├─ socket: Jupyter messages
//	                            │         ▼             └─ pipes: C code, children
//	       events ◀── event.Log ◀──── execution ◀── output (caps, file, tail)
//	                            ├──▶ files, by os.Root
//	                            ├──▶ processes
//	                            └──▶ watch: memory and process counts, only while something runs
//
// A keeper keeps one kernel alive: it queues executions, and when a kernel
// process ends it makes the next incarnation.
//
//	starting ──▶ idle ◀──▶ busy
//	   ▲          └────┬────┘
//	   │               ▼ the process ends, or restart
//	   └────────── restarting ──▶ dead (it ended several times at once; restart tries again)
//
// An execution belongs to the agent, not to the HTTP request that brought it:
// a broken connection ends the stream, never the code.
//
// # Interrupt
//
// An interrupt climbs: SIGINT at once, SIGINT again after two seconds, and
// after five SIGKILL to all that the kernel started and a fresh kernel. Each
// step is an event. A timeout climbs the same ladder.
//
// # Order of output
//
// Python's output comes over the socket and that of C code and children over
// two pipes. Before a message from the socket is taken, the pipes are read
// empty: what was written before it stays before it. Text is gathered for a
// few milliseconds, so that a million prints become a few thousand events.
//
// # Trust
//
// User code has the agent's own user id. It may kill kernels, fill the disk
// and connect to the agent's port; so connections without the token are few,
// kernels' messages are checked, user paths are opened through os.Root, and
// whatever grows has a bound.
//
// # Concurrency
//
// keeper.mu guards a kernel and its executions; output.mu one execution's
// gathering of text. output.mu may be taken while keeper.mu is held, never the
// other way round, and no call that can block is made under keeper.mu.
package agent
