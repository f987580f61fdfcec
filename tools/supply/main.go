package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "supply:", err)
		os.Exit(1)
	}
}

const usage = "usage: supply licences|locks|sbom|audit [flags]; -h after each lists its flags"

func run(ctx context.Context, args []string, out io.Writer) error {
	if len(args) == 0 {
		return fmt.Errorf("%s", usage)
	}
	flags := flag.NewFlagSet("supply "+args[0], flag.ContinueOnError)
	root := flags.String("root", ".", "the repository")
	switch args[0] {
	case "licences":
		check := flags.Bool("check", false, "write nothing; fail if the files are not what the sources say")
		images := flags.String("images", defaultImages, "the image store; without it the image's list is compared by names and versions")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return licences(ctx, *root, *images, *check, out)
	case "locks":
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		return locks(*root, out)
	case "sbom":
		var o sbomOptions
		flags.StringVar(&o.out, "out", "", "the folder to write to")
		flags.StringVar(&o.images, "images", defaultImages, "the image store")
		flags.StringVar(&o.image, "image", "python", "the image's name there; empty leaves the image out")
		flags.StringVar(&o.version, "version", "0.0.0-dev", "the version of the programs")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		o.root = *root
		return writeSBOMs(ctx, o, out)
	case "audit":
		var o auditOptions
		flags.StringVar(&o.goDB, "go-db", os.Getenv("CAESARION_VULNDB"), "the Go vulnerability database: a URL, or a folder: a checkout of golang.org/x/vulndb, or a copy of the published files (default: the public one)")
		flags.StringVar(&o.pypi, "pypi", "https://pypi.org/pypi", "the JSON interface of the package index")
		flags.BoolVar(&o.strict, "strict", false, "what could not be checked is a failure too")
		if err := flags.Parse(args[1:]); err != nil {
			return err
		}
		o.root = *root
		return audit(ctx, o, out)
	default:
		return fmt.Errorf("there is no %q; %s", args[0], usage)
	}
}
