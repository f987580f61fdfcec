// Package kernel starts Python kernels and speaks to them.
//
// Its place in the picture: agent ──▶ kernel. The agent is the parent of every
// kernel; it sends requests and receives what comes back:
//
//	agent                                     kernel (Python, one thread runs code)
//	  Conn.Send ────── frames ──────▶ fd 3 ─▶ requests, input replies, comms
//	  Conn.Receive ◀── frames ─────── fd 3 ◀─ replies, output, status
//	  Process.Stdout, Stderr ◀─ pipes ─ fd 1, 2 ◀─ child processes and C code
//	  Process.Interrupt ──── SIGINT ──────▶
//
// The messages are Jupyter's (protocol 5.3, https://jupyter-client.readthedocs.io/en/stable/messaging.html);
// the transport is one stream socket pair instead of ZeroMQ's five sockets,
// because inside gVisor each hop and each thread wake-up costs more than the
// work itself. See docs/adr/0003-kernel-on-ipython-shell.md.
//
// # A frame
//
//	u32be  length of the JSON part
//	u32be  number of buffers
//	bytes  JSON: {"channel","header","parent_header","metadata","content"}
//	then for each buffer: u32be length, bytes
//
// # Life of a kernel
//
//	Start ─▶ status "starting" ─▶ status "idle", parent {} ─▶ requests … ─▶ exit
//	         (program runs)       (ready, preload done)
//
// The first "idle" carries metadata {"ready": true, "preload": {module: error or null}}.
// A request sent earlier is not lost: it waits in the socket.
//
// # What the kernel answers
//
// Requests are answered one after the other, also those on the control channel: while a cell
// runs nothing else is answered. Whoever wants to stop a cell calls Process.Interrupt; whoever
// wants to end a kernel that does not answer calls Process.Kill. The order of frames is the
// order of events: execute_reply always comes before the idle status, and every output of the
// cell's own thread before both.
//
// # Trust
//
// User code runs in the kernel process, so what arrives is foreign. Receive
// limits sizes, checks the JSON and answers a frame that breaks the rules with
// a ProtocolError; the connection is then of no use and the kernel has to go.
package kernel
