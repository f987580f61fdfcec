// Package store keeps sessions in a database: typed rows in, typed rows out,
// no decisions. The database is SQLite for one server, and Postgres for one or
// more.
//
//	session ──Submit(Batch)──▶ queue ──▶ writer ──one transaction──▶ caesarion.db, or Postgres
//	session ◀──done(err)────────────────────┘           ▲
//	readers ──Items, Events, List, …────────────────────┘ a pool of their own
//
// There is one writer. It takes all that waits in its queue into one
// transaction and calls back when that is committed, so that many small
// batches cost one commit: the session publishes its events only then.
//
// SQLite is in WAL mode with synchronous=NORMAL. What was committed survives
// the process, however it ends. A loss of power or a crash of the host's kernel
// can take back the last moments before it (what the operating system had not
// written yet), but never leaves the file damaged or half of a batch. In return
// a commit costs no fsync, and outputs reach their readers within a
// millisecond.
//
// Postgres keeps what it has acknowledged as its administrator has set it. A
// connection that is cut, a server that restarts and one that takes over are
// waited for, for a time; no batch is lost or kept twice (postgresWriter says
// how). With Options.Replica a batch is refused unless the table owners has the
// session as that replica's, and the owner can't change before the batch is
// committed. The bytes of files are there, too, and notices to other servers go
// through it (Notify, Listen).
//
// The queries are the same for both (dialect has those that differ), and so
// are the tests.
//
// All methods may be called concurrently. Goroutines: the writer, which Close
// ends and awaits.
package store
