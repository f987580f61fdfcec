// Package kube attacks the wall around pods with the table of test/escape, under
// runc and under gVisor.
package kube
