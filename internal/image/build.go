package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/images/python"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// BuildOptions configures Build. The zero value builds the default image.
type BuildOptions struct {
	Name   string // in the store; default "python", the default template's image
	Force  bool   // build although the same recipe was built before
	Mirror string // of Debian, as mmdebstrap takes it; default: its own choice
}

const (
	// buildSpace is what a build needs on disk at its peak, in bytes: unpacked
	// system, wheels, spool and both forms of the result.
	buildSpace = 6 << 30
	// maxBuildBytes bounds the result; the recipe gives 1.2 GB.
	maxBuildBytes = 16 << 30
)

// Build makes the image of the recipe in images/python and enters it in the store.
// If that recipe was built before, it does nothing and built is false.
//
// It needs HostTools, network for Debian and PyPI packages, and either root or
// user namespaces. Everything is downloaded by the host's own apt and pip, with
// their configuration (proxies, mirrors, certificates).
func (s *Store) Build(ctx context.Context, opts BuildOptions, progress Progress) (img Image, built bool, err error) {
	if opts.Name == "" {
		opts.Name = python.Name
	}
	if err := checkName(opts.Name); err != nil {
		return Image{}, false, err
	}
	key, err := recipeKey()
	if err != nil {
		return Image{}, false, err
	}
	if img, ok, err := s.built(opts, key); ok || err != nil {
		return img, false, err
	}
	if err := CheckHost(ctx); err != nil {
		return Image{}, false, err
	}
	waited := false
	lock, err := s.lock(ctx, func(u Update) {
		waited = true
		progress.report(u)
	})
	if err != nil {
		return Image{}, false, err
	}
	defer lock.Close()
	// Whom we waited for has perhaps made the very image.
	if img, ok, err := s.built(opts, key); waited && (ok || err != nil) {
		return img, false, err
	}
	if err := s.checkSpace(buildSpace); err != nil {
		return Image{}, false, err
	}
	img, err = s.build(ctx, opts, key, progress)
	return img, err == nil, err
}

// built finds the image if it was made from this recipe already.
func (s *Store) built(opts BuildOptions, key string) (Image, bool, error) {
	if opts.Force {
		return Image{}, false, nil
	}
	img, err := s.Resolve(opts.Name)
	if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrUnavailable) {
		return Image{}, false, nil
	}
	return img, err == nil && img.Recipe == key, err
}

func (s *Store) checkSpace(need uint64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if free := st.Bavail * uint64(st.Bsize); free < need {
		return errdefs.New(errdefs.ErrExhausted, "disk-full",
			"building an image needs %.1f GB in %s, %.1f GB are free", float64(need)/1e9, s.dir, float64(free)/1e9)
	}
	return nil
}

func (s *Store) build(ctx context.Context, opts BuildOptions, key string, progress Progress) (Image, error) {
	logFile := s.path("build.log")
	log, err := os.Create(logFile)
	if err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}
	defer log.Close()
	work, err := os.MkdirTemp(s.path("tmp"), "build-")
	if err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}
	defer os.RemoveAll(work)
	// Without root, mmdebstrap works as another user, who must get in.
	if err := os.Chmod(work, 0o755); err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}
	b := &builder{store: s, work: work, log: log, logFile: logFile, progress: progress}
	if err := writeRecipe(work); err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}
	if err := b.wheels(ctx); err != nil {
		return Image{}, err
	}
	sp, err := newSpool(s.path("tmp"), maxBuildBytes)
	if err != nil {
		return Image{}, fmt.Errorf("image: %w", err)
	}
	defer sp.Close()
	t, err := b.system(ctx, opts.Mirror, sp)
	if err != nil {
		return Image{}, err
	}

	created := python.SourceDate
	cfg := &v1.ConfigFile{
		Architecture: runtime.GOARCH,
		OS:           "linux",
		Author:       "caesarion",
		Created:      v1.Time{Time: created},
		Config: v1.Config{
			User:       python.User,
			WorkingDir: python.WorkingDir,
			Env:        python.Env(),
			Labels:     map[string]string{"org.opencontainers.image.title": "Caesarion " + python.Name, "dev.caesarion.recipe": key},
		},
	}
	img, err := describe(t, sp, cfg)
	if err != nil {
		return Image{}, err
	}
	_, size := t.totals()
	desc, err := s.writeImage(ctx, t, sp, cfg, func(done int64) {
		progress.report(Update{Stage: StageLayer, Done: done, Total: size})
	})
	if err != nil {
		return Image{}, err
	}
	img.Digest, img.Source, img.Recipe = desc.Digest.String(), "recipe", key
	return s.keep(ctx, img, opts.Name, t, sp, created, progress)
}

// builder runs the host's programs for one build.
type builder struct {
	store    *Store
	work     string // recipe files and, later, wheels
	log      io.Writer
	logFile  string
	progress Progress
}

// wheels puts the locked wheels into <work>/wheels, from the cache if a build
// downloaded the same list before.
func (b *builder) wheels(ctx context.Context) error {
	arch, err := machine()
	if err != nil {
		return err
	}
	count, err := wheelCount()
	if err != nil {
		return err
	}
	locked, err := python.Files.ReadFile("requirements.txt")
	if err != nil {
		return fmt.Errorf("image: recipe: %w", err)
	}
	sum := sha256.Sum256(append(locked, arch...))
	cache := b.store.path("cache/wheels-" + hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(cache); err != nil {
		if err := b.download(ctx, arch, count, cache); err != nil {
			return err
		}
	}
	b.progress.report(Update{Stage: StageWheels, Done: int64(count), Total: int64(count)})
	// A folder of links would do on one file system; mmdebstrap copies it anyway.
	return os.Symlink(cache, filepath.Join(b.work, "wheels"))
}

// download fetches the wheels with the host's pip, which knows the way out of this
// network, for the image's Python.
func (b *builder) download(ctx context.Context, arch string, count int, cache string) error {
	dir, err := os.MkdirTemp(b.store.path("tmp"), "wheels-")
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	defer os.RemoveAll(dir)
	args := []string{
		"-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--progress-bar=off",
		"--only-binary=:all:", "--no-deps", "--require-hashes",
		"--implementation=cp", "--python-version=" + python.PythonVersion,
		"--abi=cp" + strings.ReplaceAll(python.PythonVersion, ".", ""), "--abi=abi3", "--abi=none",
		"--dest=" + dir, "--requirement=" + filepath.Join(b.work, "requirements.txt"),
	}
	// pip takes these tags literally: one for every glibc up to the image's, and
	// the names they had before.
	for minor := 5; minor <= python.GlibcMinor; minor++ {
		args = append(args, "--platform=manylinux_2_"+strconv.Itoa(minor)+"_"+arch)
	}
	for _, old := range []string{"manylinux1", "manylinux2010", "manylinux2014", "linux"} {
		args = append(args, "--platform="+old+"_"+arch)
	}
	done := int64(0)
	tail := &tailWriter{each: func(line string) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Saved "); ok {
			done++
			b.progress.report(Update{Stage: StageWheels, Detail: filepath.Base(name), Done: done, Total: int64(count)})
		} else if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Downloading "); ok {
			b.progress.report(Update{Stage: StageWheels, Detail: name, Done: done, Total: int64(count)})
		}
	}}
	b.progress.report(Update{Stage: StageWheels, Total: int64(count)})
	runtime.LockOSThread() // see command
	defer runtime.UnlockOSThread()
	cmd := command(ctx, "python3", args...)
	cmd.Stdout = io.MultiWriter(b.log, tail)
	cmd.Stderr = cmd.Stdout
	if err := cmd.Run(); err != nil {
		return hostError(ctx, "pip download", b.logFile, tail, err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := os.Rename(dir, cache); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return syncDir(filepath.Dir(cache))
}

const stepWheels = "installing the Python packages, compiling, testing"

// systemSteps are the lines of mmdebstrap that mean something to who waits.
var systemSteps = map[string]string{
	"I: running apt-get update":           "reading Debian's lists",
	"I: downloading packages":             "downloading Debian packages",
	"I: extracting archives":              "unpacking the base system",
	"I: installing essential packages":    "installing the base system",
	"I: installing remaining packages":    "installing Debian packages",
	"I: running --customize-hook in shel": stepWheels,
	"I: removing tempdir":                 "cleaning up",
}

// system runs mmdebstrap and reads the tar it writes.
func (b *builder) system(ctx context.Context, mirror string, sp *spool) (*tree, error) {
	packages, err := debianPackages()
	if err != nil {
		return nil, err
	}
	quoted := "'" + strings.ReplaceAll(b.work, "'", `'\''`) + "'"
	const inside = `chroot "$1" /usr/bin/env -i LANG=C.UTF-8 HOME=/root ` +
		`PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin `
	args := []string{
		"--variant=apt", "--format=tar", "--include=" + strings.Join(packages, ","),
		// A build that the machine's crash interrupts is begun anew.
		"--dpkgopt=force-unsafe-io",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/lintian/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-include=/usr/share/locale/locale.alias",
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-include=/usr/share/doc/*/copyright",
		`--customize-hook=cp -rL ` + quoted + ` "$1/build"`,
		"--customize-hook=" + inside + "sh /build/setup.sh",
		`--customize-hook=rm -rf "$1/build"`,
		python.Suite, "-",
	}
	if mirror != "" {
		args = append(args, mirror)
	}
	tail := &tailWriter{each: func(line string) {
		for start, detail := range systemSteps {
			if strings.HasPrefix(line, start) && (detail != stepWheels || strings.Contains(line, "setup.sh")) {
				b.progress.report(Update{Stage: StageSystem, Detail: detail})
			}
		}
	}}
	b.progress.report(Update{Stage: StageSystem})
	// Not below work, which the first hook copies.
	temp, err := os.MkdirTemp(b.store.path("tmp"), "system-")
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	defer os.RemoveAll(temp)
	if err := os.Chmod(temp, 0o755); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	runtime.LockOSThread() // see command
	defer runtime.UnlockOSThread()
	cmd := command(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(),
		"TMPDIR="+temp, "SOURCE_DATE_EPOCH="+strconv.FormatInt(python.SourceDate.Unix(), 10))
	cmd.Env = append(cmd.Env, aptProxies(ctx)...)
	cmd.Stderr = io.MultiWriter(b.log, tail)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("image: mmdebstrap: %w", err)
	}
	u := &unpacker{
		tree:     newTree(),
		spool:    sp,
		maxTime:  python.SourceDate,
		skipRoot: []string{"dev", "proc", "sys", "run"}, // the runtime mounts them
		progress: func(done int64) { b.progress.report(Update{Stage: StageUnpack, Done: done}) },
	}
	readErr := u.apply(ctx, out, 0, false)
	if readErr != nil {
		// Its writer would wait forever for a reader.
		_, _ = io.Copy(io.Discard, out)
	}
	if err := cmd.Wait(); err != nil {
		return nil, hostError(ctx, "mmdebstrap", b.logFile, tail, err)
	}
	if readErr != nil {
		return nil, readErr
	}
	if err := sp.flush(); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	u.tree.provide()
	u.tree.finish()
	return u.tree, nil
}

// aptProxies gives the host's apt proxies as environment: mmdebstrap reads no
// apt.conf of the host, and an option to it would stay in the image.
func aptProxies(ctx context.Context) []string {
	var env []string
	for _, scheme := range []string{"http", "https"} {
		if os.Getenv(scheme+"_proxy") != "" {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		out, err := exec.CommandContext(ctx, "apt-config", "dump", "--format=%v", "Acquire::"+scheme+"::Proxy").Output()
		cancel()
		if proxy := strings.TrimSpace(string(out)); err == nil && proxy != "" && proxy != "DIRECT" {
			env = append(env, scheme+"_proxy="+proxy)
		}
	}
	return env
}
