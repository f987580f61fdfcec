// Package workspace keeps the files of sessions beyond the life of their
// sandboxes.
//
//	sandbox ──Tree, Pack──▶ Sync ──▶ Blobs       (bytes, by SHA-256)
//	   ▲                     └─────▶ store.files (paths, modes, times, hashes)
//	   └──Unpack── Restore ◀──────────┘
//	browser ──PUT──▶ uploads/ ──▶ Blobs, store, and the sandbox if there is one
//
// Blobs is a folder on one machine, blobs/ab/cd…, or the Postgres database of
// several servers. Bytes arrive on the local disk either way, and so do
// uploads: an unfinished one begins anew when its server is lost.
//
// Kept is what is below /workspace and /uploaded_files, except caches. Names
// come from sandboxes and are hostile: they stand in the database and in
// archives for sandboxes, and never name a file of this machine.
//
// A file counts as changed when its size or its time of modification did. What
// is too large is not kept: its entry stands in the list and says why.
//
// Each session has a lock that is held over whatever reads or changes its
// files, so two syncs of one session never overlap. Bytes are written to a
// temporary name, synced and renamed, and only then does the store name them:
// whatever the moment of a crash, each path has its old bytes or its new ones.
// Blobs that nobody names are swept at the start and now and then.
//
// A session's files belong to one sandbox at a time. In any other they are
// missing, not deleted: Sync puts them there first.
//
// All methods may be called concurrently. Goroutines: one that sweeps, which
// Close ends and awaits.
package workspace
