// Package kerneltest is the corpus of what a kernel owes its users: cells and requests, and the
// messages that they lead to.
//
// A case is one txtar file in testdata. Its files, in the order of the archive:
//
//	N.py            a cell: one execute_request
//	N.json          another request: {"type": "complete_request", "content": {…}, "channel": "shell"}
//	N.options.json  how step N is run, see Options; before or after N.py
//	want.jsonl      the messages of our kernel, normalised, one a line
//	ipykernel.jsonl the messages of ipykernel, if they differ …
//	difference.txt  … and why they do
//	alone.txt       why ipykernel is not asked: it hangs, or does now this, now that
//
// The same cases run against the kernel alone (package kernel), against ipykernel (there too) and
// in real sandboxes; Run and Normalise are all that is needed for that.
package kerneltest
