// Package gvisor is the sandbox.Driver for one machine: every sandbox is a
// gVisor container whose root is a read-only EROFS image under a writable,
// size-limited overlay.
//
// gVisor is linked into the program. Its "runsc" is started by running this
// same executable with an argv[0] that begins with "runsc": main calls
// MaybeRunsc first, which then never returns.
//
//	server ──runsc run --detach──▶ sentry (own pid, mount, ipc, uts, net, user namespaces)
//	   │                             └─ agent (uid 1000, no capabilities) ─▶ kernels
//	   ├──PortForward (control socket)─▶ agent's port on the sandbox's loopback
//	   └──pidfd──▶ tells at once that the sentry is gone
//
// # What is kept where
//
//	<StateDir>/lock                      held while a driver uses the folder
//	<StateDir>/sandboxes/<id>/           one folder a sandbox:
//	      record.json                    what List needs after a restart; 0600, has the agent's token
//	      bundle/config.json             the OCI spec
//	      overlay/                       where gVisor makes its (unlinked) overlay file
//	<RunDir>/                            runsc's state files and control sockets; gone with a reboot
//	<AgentDir>/<sha256>/caesarion-agent  the agent, mounted read-only at /opt/caesarion
//	cgroup /caesarion-<instance>/<id>    limits, and the mark by which strays are found
//
// # After a crash
//
// Sandboxes outlive the server. New reads the records, adopts what is running
// and complete, and removes everything else: half-made sandboxes, cgroups,
// processes and state files that no record claims.
//
// # Concurrency
//
// All methods may be called concurrently. mu guards the map only; nothing
// blocks under it.
package gvisor
