// Package egress lets programs of pods out through the one door of an
// installation with two servers, and tries what must not get out.
package egress
