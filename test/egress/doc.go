// Package egress lets programs of real sandboxes out through the one door, and
// tries what must not get out.
//
// What is not in its tests serves those of a cluster, too (test/kube/egress).
package egress
