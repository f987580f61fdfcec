// Package session has what a person comes back to: a list of messages and
// cells, a sandbox that is there when needed, and one numbered log of all that
// happens.
//
//	httpapi, chat ──▶ Session ──runs──▶ fleet.Sandbox ──▶ executions
//	                    │  ▲                                 │
//	                    │  └────────── pump, one a run ◀─────┘
//	                    ▼
//	              pending commit ──▶ store ──committed──▶ event.Log ──▶ readers
//
// A change is made in memory under the session's lock and noted in the commit
// that waits; while one commit is under way the next one gathers. Readers see
// an event only when it is in the store, so a kill never takes back a number
// that was seen. Rows of items hold what their events gave up to a number; what
// came after it (a cell that still runs) is folded again from the stored
// events when the session is loaded.
//
// The items are a tree: siblings are alternatives, one of which is selected,
// and the path of the selected ones is the thread that people see (tree.go).
// View folds a log into that thread as a reader does; its rules and those of
// the page are tested with the same testdata/reduce.
//
// The sandbox of a session:
//
//	             resuming ◀── paused ◀── pausing
//	                 └──────▶┐     ┌──────▶┘
//	none ──▶ starting ──▶ ready ◀──▶ busy
//	  ▲                     │          │
//	  └── idle, deleted ────┴──────────┴──▶ lost (with the reason) ──▶ starting
//
// One that is paused sleeps on disk with all it has, and the next who needs it
// wakes it (sleep.go). When only its files could be brought back, an item of
// the thread says so to people and to the model.
//
// A session that nobody reads and in which nothing runs leaves memory after a
// while. All exported methods may be called concurrently. Goroutines: one for
// the runs of a session while there are some, one that starts or watches its
// sandbox, one for all that is done now and then; Service.Close ends and
// awaits them.
package session
