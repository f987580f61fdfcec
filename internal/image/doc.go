// Package image makes and keeps sandbox images, each in two forms: one EROFS
// file, which the gVisor driver mounts, and an OCI image, which Kubernetes pulls.
//
//	recipe ──mmdebstrap, pip──▶ tar ─┐                    ┌──▶ OCI layer (zstd) ──▶ blobs/sha256/…
//	root file system tar ────────────┼──▶ tree + spool ───┤
//	OCI, docker archive, registry ───┘     (probe)        └──▶ EROFS ─────────────▶ erofs/….erofs
//
// Whatever comes in is a stream of tar entries. They become a tree in memory
// (names and attributes) and a spool on disk (the bytes of the files, end to end),
// never files on the host: so a hostile tar finds no host file system to escape
// into, no image needs root to be imported, and no form needs an open file per
// entry.
//
// The store is one folder:
//
//	oci-layout, index.json, blobs/   an OCI image layout that other tools can read
//	erofs/<digest>.erofs             root file systems for the gVisor driver
//	catalog.json                     the truth: what is not named here does not exist
//	cache/                           downloaded wheels; may be deleted at any time
//	tmp/                             work in progress
//	lock                             held by the one process that writes
//
// Files get their final name only when they are complete and on disk, and
// catalog.json is replaced after them. So a writer that is killed leaves files that
// nobody believes in; the next Open or writer removes them.
//
// Concurrency: a Store may be used by many goroutines, and the folder by many
// processes. Readers take no lock. Writers (Build, Import, Remove) wait for each
// other and report StageWaiting meanwhile.
//
// Formats: the OCI image specification, and EROFS as described in the Linux
// kernel's Documentation/filesystems/erofs.rst.
package image
