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
//	<StateDir>/overlay/                  where gVisor makes its (unlinked) overlay files
//	<StateDir>/sandboxes/<id>/           one folder a sandbox:
//	      record.json                    what List needs after a restart; 0600, has the agent's token
//	      bundle/config.json             the OCI spec
//	      saved/                         its state while it sleeps
//	<StateDir>/snapshots/<id>/           states with a name of their own
//	<RunDir>/                            runsc's state files and control sockets, and what was claimed
//	                                     but is not in the record yet; gone with a reboot
//	<AgentDir>/<sha256>/caesarion-agent  the agent, mounted read-only at /opt/caesarion
//	cgroup /caesarion-<instance>/<id>    limits, and the mark by which strays are found
//
// A saved state is a folder:
//
//	checkpoint.img pages_meta.img pages.img   memory and processes, by gVisor
//	files/                                    what was written over the image, by gVisor; good for a cold start
//	manifest.json                             of what it is, the agent's token and arguments, sizes and
//	                                          sums of the others; 0600, written last
//
// It has a name that begins with ".tmp-" while it is made or deleted; what a
// kill leaves of that is removed by New.
//
// # Sleeping and waking
//
//	Pause:  freeze ─▶ save to .tmp-saved ─▶ sync, rename to saved ─▶ record says paused ─▶ kill
//	Resume: check sums ─▶ restore ─▶ agent answers ─▶ record says running ─▶ delete saved
//
// The sandbox stays frozen from the first step to the last, so what is saved
// and what is there never differ; a step that fails deletes what is saved
// and thaws it. After a kill between two steps New finds
//
//	record  saved  processes  and takes it for
//	running  no     frozen    running: thawed, once gVisor's own save has ended
//	running  yes    frozen    running: thawed, saved is deleted
//	running  yes    gone      paused: frozen to the end, it had nothing newer
//	paused   yes    any       paused: the processes are ended, nobody has used them
//	running  yes    awake     running: saved is deleted (a Resume that was cut at its end)
//
// # After a crash
//
// Sandboxes outlive the server. New reads the records, adopts what is running
// and complete or asleep, and removes everything else: half-made sandboxes,
// cgroups, processes and state files that no record claims.
//
// # Concurrency
//
// All methods may be called concurrently. mu guards the maps only; nothing
// blocks under it. Of one sandbox box.op orders what saves, wakes and deletes
// it; Delete ends its processes first, so that it never waits for a save.
package gvisor
