// Package bench measures a running server over HTTP, as its users see it, and
// peers beside it in the same run.
//
//	caesarion bench ──▶ Plan.Run ──▶ scenario ──▶ Subject: a Caesarion server | jupyter-server | kernel gateway | …
//	                       │                          └▶ Session: one sandbox or kernel, which runs code
//	                       └▶ Target: a server with the setting that the scenario needs
//
// The clock runs from the request to the last byte of the answer, in the
// client, on the same machine. Subjects take turns in rounds, so that a machine
// whose speed drifts is unkind to all alike, and a ratio compares what was
// measured in the same round. A run that gives a wrong value, loses a line or
// starts another way than the scenario says is a failure and has no time. Speed
// is never a test: nothing here passes or fails.
//
// A scenario is a function over subjects. What only some subjects can do is a
// second interface (Readier, Interrupter, …), found by type assertion; a
// subject without it is not measured, and where the server under test lacks
// something, the result says so in Skipped.
package bench
