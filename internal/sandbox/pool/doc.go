// Package pool keeps sandboxes ready, so that a start is a matter of
// milliseconds.
//
//	fleet ──Lease──▶ Pool ──Restore, Create, Claim──▶ sandbox.Driver
package pool
