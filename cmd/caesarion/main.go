package main

import (
	"context"
	"os"

	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
)

func main() {
	// First of all: the processes of every sandbox are this binary too.
	gvisor.MaybeRunsc()
	os.Exit(run(context.Background(), os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}
