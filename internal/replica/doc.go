// Package replica says which replica of the server owns what, where several
// serve one installation.
//
//	httpapi ──Own──▶ Registry ──memory──▶ mine: serve it │ another's: forward it
//	                    │ ▲
//	  Holder ◀──Take────┘ └── Postgres: replicas (who lives), owners (who has what)
//
// A key is the id of a session, or of a sandbox without one. All that concerns
// a key happens in the one process that owns it, so that locks, logs and queues
// in memory are enough there, as on one machine. A nil *Registry is that one
// machine: it owns everything and costs nothing.
//
// What is true stands in two tables:
//
//	replicas  a row as long as its process lives. The process renews seen_at;
//	          any other deletes the row when seen_at is older than TTL. That row's
//	          end is the death of the replica: it never comes back under its id.
//	owners    key ──▶ replica. It counts while the replica has a row.
//	gone      sandbox ──▶ why it is gone and whose it was, for a day.
//
// What is new is its maker's before it has a row of owners: it says itself who
// that is (Record). As long as the maker has a row of replicas nobody takes it,
// and whoever is asked for it writes the maker's name.
//
// So nobody compares clocks but the database its own, and a death is one event
// in one place: the update that renews and the delete that declares dead are
// about the same row, and one of them comes first. Whoever takes a key from a
// dead replica names that replica in its update; of two, one finds it changed.
//
//	joining ──row──▶ serving ◀──renewed──▶ stale ──row deleted──▶ fenced
//	                    └──Close: row deleted──▶ gone
//
// A replica that could not renew for TTL/2, by its own monotonic clock and
// counted from before it asked, is stale: it answers nothing, long before
// another may take what it has. After TTL its streams end too (Term). When the
// database was away for all, everybody comes back and nothing has changed
// hands: nobody is declared dead by one who was not fresh for a while itself,
// nor by an order that was long on its way. A replica that finds its row gone is
// Fenced for good, and its process ends.
// What a paused process still does with a session after that the store refuses,
// since each of its writes asks for the row of owners.
//
// The path of a request asks memory only: keys that are owned stay owned as
// long as the replica is fresh, and owners elsewhere are remembered for a
// moment, which a replica that is asked wrongly corrects.
//
// All exported methods may be called concurrently. Goroutines: the heartbeat,
// one that looks after orphans, one for each key on its way; Close ends and
// awaits them.
package replica
