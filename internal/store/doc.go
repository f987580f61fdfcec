// Package store keeps sessions in SQLite: typed rows in, typed rows out, no
// decisions.
//
//	session ──Submit(Batch)──▶ queue ──▶ writer ──one transaction──▶ caesarion.db
//	session ◀──done(err)────────────────────┘           ▲
//	readers ──Items, Events, List, …────────────────────┘ a pool of their own
//
// There is one writer. It takes all that waits in its queue into one
// transaction and calls back when that is committed, so that many small
// batches cost one commit: the session publishes its events only then.
//
// The database is in WAL mode with synchronous=NORMAL. What was committed
// survives the process, however it ends. A loss of power or a crash of the
// host's kernel can take back the last moments before it (what the operating
// system had not written yet), but never leaves the file damaged or half of a
// batch. In return a commit costs no fsync, and outputs reach their readers
// within a millisecond.
//
// All methods may be called concurrently. Goroutines: the writer, which Close
// ends and awaits.
package store
