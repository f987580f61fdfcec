// Command caesarion is the server and the command line of Caesarion.
//
//	main ─▶ gVisor, when re-executed as a sandbox's process
//	     └▶ run ─▶ serve:                   config ─▶ images ─▶ driver ─▶ fleet ─▶ httpapi ─▶ listener
//	            └▶ run, shell, sandbox …:   connect ─▶ client ─▶ a running server, or one of its own
//	            └▶ image, doctor, version …: on this machine alone
//
// It parses, wires in start order and exits; decisions are made in the
// packages it wires. Exit statuses are listed at exit.go.
package main
