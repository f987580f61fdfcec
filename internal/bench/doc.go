// Package bench measures a running server over HTTP, as its users see it, and
// a peer beside it in the same run.
//
//	caesarion bench ──▶ bench ──▶ Subject: a Caesarion server | a Jupyter server
//
// The clock runs from the request to the last byte of the answer, in the
// client, on the same machine. Blocks of samples of the two subjects alternate,
// so that a machine whose speed drifts is unkind to both alike. Speed is never a test:
// nothing here passes or fails.
package bench
