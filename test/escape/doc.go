// Package escape attacks the wall around a sandbox from inside, as hostile code
// would: the host's files and kernel, other sandboxes, the agent, the server.
//
// Attacks is one table for every driver. A driver gives a World: sandboxes, and
// a host that has something to lose. Each attack answers in a few words, which
// must be among those it expects; docs/security/attacks.md is made of the table
// and of what was measured (go test ./test/escape -update).
//
// What other tests prove already is not done again: such rows name the test.
package escape
