package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/image"
)

// imageCmd groups the commands on images. They work on the data directory, whether
// a server runs on it or not.
type imageCmd struct {
	Build   imageBuildCmd   `cmd:"" help:"Build the default image."`
	Import  imageImportCmd  `cmd:"" help:"Take an image that was made elsewhere."`
	Ls      imageLsCmd      `cmd:"" help:"List the images." aliases:"list"`
	Inspect imageInspectCmd `cmd:"" help:"Show all that is known of an image."`
	Rm      imageRmCmd      `cmd:"" help:"Remove images." aliases:"delete"`
}

// Help implements kong.HelpProvider.
func (*imageCmd) Help() string {
	return `Examples:
  caesarion image build
  caesarion image import jupyter/scipy-notebook:latest
  caesarion image ls
  caesarion image rm scipy-notebook`
}

type imageBuildCmd struct {
	Name   string `help:"Name of the image." default:"python"`
	Force  bool   `help:"Build it although this recipe was built before."`
	Mirror string `help:"Debian mirror, as mmdebstrap takes it." placeholder:"URL" env:"CAESARION_DEBIAN_MIRROR"`
}

// Help implements kong.HelpProvider.
func (*imageBuildCmd) Help() string {
	return `Makes Debian with Python and the libraries people with data expect, in about
a minute. It needs root, some packages of the host (it says which), and the
network of apt and pip. The same recipe is built once.

Examples:
  caesarion image build
  caesarion image build --force
  caesarion image build --json | jq -r .digest`
}

// Run builds the default image.
func (c *imageBuildCmd) Run(ctx context.Context, g *globals) error {
	return withImages(ctx, g, func(ctx context.Context, store *image.Store) error {
		show := newImageProgress(g)
		img, built, err := store.Build(ctx, image.BuildOptions{Name: c.Name, Force: c.Force, Mirror: c.Mirror}, show.update)
		show.end()
		if err != nil {
			return err
		}
		verb := "built"
		if !built {
			verb = "already built:"
		}
		return printImage(g, verb, img, show.begun)
	})
}

type imageImportCmd struct {
	Source  string       `arg:"" help:"OCI layout, docker archive, tar of a root file system, or registry reference."`
	Name    string       `help:"Name of the image (default: made from the source)." placeholder:"NAME"`
	MaxSize config.Bytes `help:"Refuse what is larger when unpacked." default:"32GiB" placeholder:"SIZE"`
}

// Help implements kong.HelpProvider.
func (*imageImportCmd) Help() string {
	return `The image needs Python 3.9 or newer with IPython. What it says about user,
environment and working directory is kept; sandboxes run as uid 1000 all the same.

Examples:
  caesarion image import jupyter/scipy-notebook:latest
  docker save my-image -o my-image.tar && caesarion image import my-image.tar
  caesarion image import ./oci-layout --name team
  caesarion image import rootfs.tar.zst --name plain`
}

// Run imports an image.
func (c *imageImportCmd) Run(ctx context.Context, g *globals) error {
	return withImages(ctx, g, func(ctx context.Context, store *image.Store) error {
		show := newImageProgress(g)
		img, err := store.Import(ctx, c.Source, image.ImportOptions{Name: c.Name, MaxBytes: int64(c.MaxSize)}, show.update)
		show.end()
		if err != nil {
			return err
		}
		return printImage(g, "imported", img, show.begun)
	})
}

func printImage(g *globals, verb string, img image.Image, begun time.Time) error {
	if g.JSON {
		return printJSON(g.Stdout, img)
	}
	_, err := fmt.Fprintf(g.Stdout, "%s %s (%s), Python %s, IPython %s, %s, %d s\n", verb, img.Name, shortDigest(img.Digest),
		img.Python.Version, img.Python.IPython, sizeText(img.EROFSBytes), int(time.Since(begun).Seconds()))
	return err
}

type imageLsCmd struct {
	Quiet bool `short:"q" help:"Print digests only."`
}

// Help implements kong.HelpProvider.
func (*imageLsCmd) Help() string {
	return "Examples:\n  caesarion image ls\n  caesarion image ls --json | jq -r '.images[].name'"
}

// Run lists the images by name.
func (c *imageLsCmd) Run(ctx context.Context, g *globals) error {
	return withImages(ctx, g, func(_ context.Context, store *image.Store) error {
		list, err := store.List()
		if err != nil {
			return err
		}
		switch {
		case g.JSON:
			if list == nil {
				list = []image.Image{}
			}
			return printJSON(g.Stdout, map[string]any{"images": list})
		case c.Quiet:
			for _, img := range list {
				fmt.Fprintln(g.Stdout, img.Digest)
			}
			return nil
		case len(list) == 0:
			_, err := fmt.Fprintln(g.Stderr, "no images; caesarion image build makes the default one")
			return err
		}
		t := tabwriter.NewWriter(g.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "NAME\tDIGEST\tPYTHON\tIPYTHON\tSIZE\tCREATED\tSOURCE")
		for _, img := range list {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s ago\t%s\n", cmp.Or(img.Name, "-"), shortDigest(img.Digest), img.Python.Version,
				img.Python.IPython, sizeText(img.EROFSBytes), ageText(time.Since(img.Created)), img.Source)
		}
		return t.Flush()
	})
}

// shortDigest is enough of a digest to name an image by.
func shortDigest(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	return hex[:min(12, len(hex))]
}

type imageInspectCmd struct {
	Image string `arg:"" help:"Name, digest, or the beginning of a digest."`
}

// Help implements kong.HelpProvider.
func (*imageInspectCmd) Help() string {
	return "Examples:\n  caesarion image inspect python\n  caesarion image inspect 11a96878 --json | jq .config.env"
}

// Run shows one image.
func (c *imageInspectCmd) Run(ctx context.Context, g *globals) error {
	return withImages(ctx, g, func(_ context.Context, store *image.Store) error {
		d, err := store.Inspect(c.Image)
		if err != nil {
			return err
		}
		if g.JSON {
			return printJSON(g.Stdout, d)
		}
		t := tabwriter.NewWriter(g.Stdout, 0, 0, 2, ' ', 0)
		for _, row := range [][2]string{
			{"names", cmp.Or(strings.Join(d.Names, ", "), "-")},
			{"digest", d.Digest},
			{"source", d.Source},
			{"created", d.Created.Format(time.RFC3339)},
			{"architecture", d.Architecture},
			{"python", d.Python.Path + " " + d.Python.Version},
			{"ipython", d.Python.IPython},
			{"ipykernel", cmp.Or(d.Python.IPyKernel, "-")},
			{"user", fmt.Sprintf("%s (uid %d, gid %d)", cmp.Or(d.Config.User, "root"), d.Config.UID, d.Config.GID)},
			{"working directory", d.Config.WorkingDir},
			{"environment", strings.Join(d.Config.Env, "\n\t")},
			{"files", fmt.Sprint(d.Files)},
			{"erofs", fmt.Sprintf("%s (%s)", d.EROFSPath, sizeText(d.EROFSBytes))},
			{"oci", fmt.Sprintf("%s (%s)", store.OCILayout(), sizeText(d.OCIBytes))},
		} {
			fmt.Fprintf(t, "%s\t%s\n", row[0], row[1])
		}
		for _, l := range d.Layers {
			fmt.Fprintf(t, "layer\t%s (%s)\n", l.Digest, sizeText(l.Bytes))
		}
		return t.Flush()
	})
}

type imageRmCmd struct {
	Images []string `arg:"" name:"image" help:"Name, digest, or the beginning of a digest."`
}

// Help implements kong.HelpProvider.
func (*imageRmCmd) Help() string {
	return `An image that a sandbox of the running server was made from stays.

Examples:
  caesarion image rm scipy-notebook
  caesarion image rm $(caesarion image ls -q)`
}

// Run removes images; one that can't be removed does not keep the others.
func (c *imageRmCmd) Run(ctx context.Context, g *globals) error {
	return withImages(ctx, g, func(ctx context.Context, store *image.Store) error {
		used, err := g.imagesInUse(ctx)
		if err != nil {
			return err
		}
		show := newImageProgress(g)
		defer show.end()
		var errs []error
		for _, name := range c.Images {
			errs = append(errs, store.Remove(ctx, name, func(digest string) bool { return used[digest] }, show.update))
		}
		return errors.Join(errs...)
	})
}

// imagesInUse are the digests that the sandboxes of the running server were made
// from. Without a server there are none that outlive this command.
func (g *globals) imagesInUse(ctx context.Context) (map[string]bool, error) {
	token, err := g.Token()
	if err != nil {
		return nil, err
	}
	conn, err := g.running(ctx, token.Reveal())
	if conn == nil || err != nil {
		return nil, err
	}
	defer conn.Close()
	list, err := conn.Sandboxes(ctx)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, sb := range list {
		used[sb.Image] = true
	}
	return used, nil
}

// withImages opens the image store, and ends what goes on in it at the first
// Ctrl-C: a build cleans up after itself.
func withImages(ctx context.Context, g *globals, do func(context.Context, *image.Store) error) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	store, err := image.Open(g.DataDir)
	if err != nil {
		if errors.Is(err, os.ErrPermission) {
			return errdefs.New(errdefs.ErrForbidden, "data-directory", "no access to %s", g.DataDir).
				WithHint("run it as root, or name another folder with --data-dir").WithCause(err)
		}
		return err
	}
	return do(ctx, store)
}

// imageProgress shows the stages of a build or import: a line that is rewritten on
// a terminal, a line for each step elsewhere, nothing with --json.
type imageProgress struct {
	w     io.Writer // nil: silent
	tty   bool
	begun time.Time
	last  image.Update
	shown time.Time // when the terminal's line was last written
	open  bool      // the terminal's line has something on it
}

func newImageProgress(g *globals) *imageProgress {
	p := &imageProgress{w: g.Stderr, tty: isTerminal(g.Stderr), begun: time.Now()}
	if g.JSON {
		p.w = nil
	}
	return p
}

var stageNames = map[image.Stage]string{
	image.StageWaiting:  "waiting",
	image.StageWheels:   "downloading Python packages",
	image.StageSystem:   "making the system",
	image.StageDownload: "downloading",
	image.StageUnpack:   "reading the files",
	image.StageLayer:    "writing the OCI image",
	image.StageEROFS:    "writing the EROFS image",
	image.StageDone:     "note",
}

func (p *imageProgress) update(u image.Update) {
	if p.w == nil {
		return
	}
	news := u.Stage != p.last.Stage
	if p.tty {
		// A terminal's line is rewritten often enough to look alive, no more.
		if finished := u.Total > 0 && u.Done >= u.Total; news || finished || time.Since(p.shown) >= progressEvery {
			if news && p.open {
				fmt.Fprintln(p.w)
			}
			fmt.Fprint(p.w, "\r\x1b[K"+imageLine(u))
			p.open, p.shown = true, time.Now()
		}
	} else if news || u.Stage == image.StageSystem && u.Detail != "" && u.Detail != p.last.Detail {
		fmt.Fprintf(p.w, "%4ds %s\n", int(time.Since(p.begun).Seconds()), imageLine(image.Update{Stage: u.Stage, Detail: u.Detail}))
	}
	p.last = u
}

// end leaves the terminal on a fresh line.
func (p *imageProgress) end() {
	if p.open {
		fmt.Fprintln(p.w)
		p.open = false
	}
}

func imageLine(u image.Update) string {
	const width = 20
	line := cmp.Or(stageNames[u.Stage], u.Stage.String())
	amount := sizeText
	if u.Stage == image.StageWheels {
		amount = func(n int64) string { return fmt.Sprint(n) }
	}
	switch {
	case u.Total > 0:
		full := int(min(width, max(0, u.Done*width/u.Total)))
		line += fmt.Sprintf(" %s%s %s of %s", strings.Repeat("█", full), strings.Repeat("░", width-full), amount(u.Done), amount(u.Total))
	case u.Done > 0:
		line += " " + amount(u.Done)
	}
	if u.Detail != "" && u.Total == 0 {
		line += ": " + oneLine(u.Detail)
	}
	return line
}
