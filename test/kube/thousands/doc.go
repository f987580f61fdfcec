// Package thousands runs one server, as a process of the node, in a cluster that
// only pretends to run its pods, and measures what many sandboxes cost it.
package thousands
