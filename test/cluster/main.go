package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

const usage = `usage: cluster run [--tier=node|fake] -- COMMAND…
       cluster up [--tier=node|fake] | exec -- COMMAND… | down
       cluster image ls [--json] | build`

func main() {
	err := run(os.Args[1:])
	if status, ok := errors.AsType[commandStatus](err); ok {
		os.Exit(int(status))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// commandStatus is the exit status of a command that ran in the cluster.
type commandStatus int

func (s commandStatus) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

func run(args []string) error {
	if len(args) == 0 {
		return errors.New(usage)
	}
	name, args := args[0], args[1:]
	switch name { // the parts of a running cluster, see doc.go
	case "init":
		return initMain(args)
	case "node":
		return nodeMain(args)
	case "sweep":
		return sweepMain(args)
	}

	dirs, err := findDirs()
	if err != nil {
		return err
	}
	t, args, err := tierFlag(args)
	if err != nil {
		return err
	}
	switch name {
	case "run", "hold":
		command, err := commandOf(args)
		if err != nil {
			return err
		}
		if name == "run" && len(command) == 0 {
			return errors.New("run needs a command after --; up starts a cluster without one")
		}
		return runMain(dirs, t, command)
	case "up":
		return upMain(dirs, t)
	case "exec":
		command, err := commandOf(args)
		if err != nil {
			return err
		}
		return execMain(dirs, command)
	case "down":
		return downMain(dirs)
	case "build": // for both tiers
		if err := checkDisk(dirs, tierNode); err != nil {
			return err
		}
		return compile(dirs, tierNode, tierFake)
	case "image":
		return listImages(dirs, args)
	}
	return errors.New(usage)
}

// tier is how much of a cluster is real.
type tier string

const (
	tierNode tier = "node" // with a real node
	tierFake tier = "fake" // pods are only pretended to run
)

func tierFlag(args []string) (tier, []string, error) {
	if len(args) == 0 || !strings.HasPrefix(args[0], "--tier=") {
		return tierNode, args, nil
	}
	t := tier(strings.TrimPrefix(args[0], "--tier="))
	if t != tierNode && t != tierFake {
		return "", nil, fmt.Errorf("--tier=%s: it is node or fake", t)
	}
	return t, args[1:], nil
}

func commandOf(args []string) ([]string, error) {
	if len(args) > 0 && args[0] == "--" {
		return args[1:], nil
	}
	if len(args) > 0 {
		return nil, fmt.Errorf("unknown argument %q; the command stands after --", args[0])
	}
	return nil, nil
}

func listImages(d dirs, args []string) error {
	if len(args) == 0 || args[0] != "ls" {
		return errors.New(usage)
	}
	images, err := readImages(d.images())
	if err != nil {
		return fmt.Errorf("%w; the first `cluster up` or `cluster run` makes them", err)
	}
	if len(args) > 1 && args[1] == "--json" {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(images)
	}
	for _, i := range images {
		fmt.Printf("%-8s %s\n", i.Name, i.Reference)
	}
	return nil
}
