package escape

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

const groupFiles = "Files on their way in and out"

// swaps exchanges a folder and a link to another folder without end, so that
// whoever checks a path and then uses it is fooled at times.
const swaps = `
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
exchange = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
os.makedirs("/workspace/race/d", exist_ok=True)
for name in ("f", "environ", "maps", "status", "passwd"):
    open("/workspace/race/d/" + name, "w").write("inside")
os.symlink("OUTSIDE", "/workspace/race/l")
print("ready", flush=True)
while True:
    if libc.syscall(exchange, -100, b"/workspace/race/d", -100, b"/workspace/race/l", 2) == 0:
        continue
    try: # where a file system can't exchange
        os.rename("/workspace/race/d", "/workspace/race/x"); os.rename("/workspace/race/l", "/workspace/race/d")
        os.rename("/workspace/race/d", "/workspace/race/l"); os.rename("/workspace/race/x", "/workspace/race/d")
    except OSError:
        pass
`

// rounds is how often a race is run: enough for a check that a use follows to
// lose some in gVisor.
const rounds = 300

// race makes attempts while a folder and a link to outside change places.
func race(t testing.TB, b Box, outside string, attempt func(ctx context.Context, n int) string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	output(ctx, t, b, "rm -rf /workspace/race")
	_, stop := begin(t, b, strings.ReplaceAll(swaps, "OUTSIDE", outside))
	defer stop()
	for n := range rounds {
		if bad := attempt(ctx, n); bad != "" {
			return bad
		}
	}
	if ctx.Err() != nil {
		return "it took too long"
	}
	return ""
}

// refused tells an answer that is a failure with a code from one that is none.
func refused(err error) bool {
	e, ok := errors.AsType[*errdefs.Error](err)
	return ok && e.Code != "" && !errors.Is(err, errdefs.ErrUnavailable)
}

// told is refused for calls that may be caught in the middle of a change.
func told(err error) bool {
	e, ok := errors.AsType[*errdefs.Error](err)
	return ok && e.Code != "" && e.Code != "sandbox-unreachable" && e.Code != "sandbox-bad-answer"
}

func content(ctx context.Context, b Box, path string) (string, error) {
	c, err := b.Download(ctx, path, "")
	if err != nil {
		return "", err
	}
	defer c.Body.Close()
	text, err := io.ReadAll(io.LimitReader(c.Body, 1<<20))
	return string(text), err
}

// fileRaces are attacks in which the server moves files meanwhile. The agent is
// the same user as the code: what it can be led to, the code can do itself. So
// the links lead to what is the agent's alone, and to what is nobody's.
var fileRaces = []Attack{
	{
		Group: groupFiles, Name: "a folder becomes a link while files are read",
		Does: "exchanges a folder and a link to `/proc/self` without end, while the server downloads files below it, packs them and downloads the folder as zip, 300 times in all: followed, it would be the agent's own",
		Want: []string{"inside, or refused"},
		Go: func(t testing.TB, _ World, b Box) string {
			bad := race(t, b, "/proc/self", func(ctx context.Context, n int) string {
				switch n % 10 {
				case 8:
					return packed(ctx, b)
				case 9:
					return archived(ctx, b)
				}
				text, err := content(ctx, b, "/workspace/race/d/"+[]string{"environ", "maps", "status"}[n%3])
				if err == nil && text != "inside" || err != nil && !refused(err) {
					return fmt.Sprintf("got %q, %v", text, err)
				}
				return ""
			})
			return cmp.Or(bad, "inside, or refused")
		},
	},
	{
		Group: groupFiles, Name: "a folder becomes a link while files are written",
		Does: "exchanges a folder and a link to `/etc` without end, while the server uploads, makes folders, moves, unpacks and deletes below it, 300 times",
		Want: []string{"nothing outside has changed"},
		Go: func(t testing.TB, _ World, b Box) string {
			ctx, cancel := context.WithTimeout(t.Context(), Patience)
			defer cancel()
			const look = "ls -lA /etc | sha256sum; sha256sum /etc/passwd"
			before := output(ctx, t, b, look)
			bad := race(t, b, "/etc", func(ctx context.Context, n int) string {
				name := fmt.Sprintf("/workspace/race/d/new-%d", n)
				var err error
				switch n % 5 {
				case 0:
					_, err = b.Upload(ctx, name, strings.NewReader("x"), 1)
				case 1:
					_, err = b.Mkdir(ctx, name)
				case 2:
					if _, err = b.Upload(ctx, "/workspace/moved", strings.NewReader("x"), 1); err == nil {
						_, err = b.Move(ctx, agentapi.MoveRequest{From: "/workspace/moved", To: name, Overwrite: true})
					}
				case 3:
					_, err = b.Unpack(ctx, archive(entry{name: name, body: "x"}, entry{name: name + "-dir/f", body: "x"}))
				case 4:
					path := "/workspace/race/d/passwd"
					if n%50 == 49 {
						path = "/workspace/race/d"
					}
					err = b.Remove(ctx, path)
				}
				if err != nil && !told(err) {
					return err.Error()
				}
				return ""
			})
			if after := output(ctx, t, b, look); bad == "" && after != before {
				bad = "CHANGED"
			}
			return cmp.Or(bad, "nothing outside has changed")
		},
	},
	{
		Group: groupFiles, Name: "a file becomes a pipe",
		Does: "exchanges a file and a FIFO without end, while the server reads, lists, archives and replaces it",
		Want: []string{"nobody waits"},
		Go: func(t testing.TB, _ World, b Box) string {
			ctx, cancel := context.WithTimeout(t.Context(), Patience)
			defer cancel()
			_, stop := begin(t, b, `
import os
os.makedirs("/workspace/fifo", exist_ok=True)
print("ready", flush=True)
while True:
    try:
        os.mkfifo("/workspace/fifo/p")
        os.rename("/workspace/fifo/p", "/workspace/fifo/f")
        open("/workspace/fifo/q", "w").write("x")
        os.rename("/workspace/fifo/q", "/workspace/fifo/f")
    except OSError:
        pass
`)
			defer stop()
			for n := range rounds {
				var err error
				switch n % 4 {
				case 0:
					_, err = content(ctx, b, "/workspace/fifo/f")
				case 1:
					_, err = b.Stat(ctx, "/workspace/fifo")
				case 2:
					_, err = b.Upload(ctx, "/workspace/fifo/f", strings.NewReader("y"), 1)
				case 3:
					var z *agentapi.Content
					if z, err = b.Archive(ctx, "/workspace/fifo"); err == nil {
						_, err = io.Copy(io.Discard, z.Body)
						_ = z.Body.Close()
					}
				}
				if err != nil && !refused(err) {
					return err.Error()
				}
			}
			return "nobody waits"
		},
	},
	{
		Group: groupFiles, Name: "a file grows without end while it is read",
		Does: "appends to a file as fast as it can, while the server downloads it",
		Want: []string{"ends where its header says"},
		Go: func(t testing.TB, _ World, b Box) string {
			ctx, cancel := context.WithTimeout(t.Context(), Patience)
			defer cancel()
			_, stop := begin(t, b, `
f = open("/workspace/grows", "wb", buffering=0)
f.write(b"x" * (1 << 20))
print("ready", flush=True)
while True:
    if f.tell() > 512 << 20:
        f.seek(0)
        f.truncate(1 << 20)
    f.write(b"x" * (1 << 16))
`)
			defer stop()
			for range 10 {
				c, err := b.Download(ctx, "/workspace/grows", "")
				if err != nil {
					return err.Error()
				}
				n, err := io.Copy(io.Discard, c.Body)
				_ = c.Body.Close()
				if err == nil && n != c.Size || n > c.Size {
					return fmt.Sprintf("%d bytes of %d", n, c.Size)
				}
			}
			return "ends where its header says"
		},
	},
	{
		Group: groupFiles, Name: "a file of a terabyte, and a folder of them",
		Does: "makes sparse files of a terabyte; the server downloads one, and the folder as zip, and leaves after 64 MiB and 1 MiB",
		Want: []string{"streamed, in bounded memory", "not possible on this disk"},
		Go: func(t testing.TB, _ World, b Box) string {
			ctx, cancel := context.WithTimeout(t.Context(), Patience)
			defer cancel()
			if got := output(ctx, t, b, "mkdir -p sparse && for n in 1 2 3; do truncate -s 1T sparse/$n || echo refused; done"); strings.Contains(got, "refused") {
				return "not possible on this disk"
			}
			defer output(context.WithoutCancel(ctx), t, b, "rm -rf sparse")
			before := heap()
			for _, part := range []struct {
				open func(context.Context, string) (*agentapi.Content, error)
				path string
				most int64
			}{
				{func(ctx context.Context, path string) (*agentapi.Content, error) { return b.Download(ctx, path, "") }, "/workspace/sparse/1", 64 << 20},
				{b.Archive, "/workspace/sparse", 1 << 20},
			} {
				c, err := part.open(ctx, part.path)
				if err != nil {
					return err.Error()
				}
				_, err = io.CopyN(io.Discard, c.Body, part.most)
				_ = c.Body.Close()
				if err != nil {
					return err.Error()
				}
			}
			if grown := heap() - before; grown > 16<<20 {
				return fmt.Sprintf("%d MiB more memory", grown>>20)
			}
			return "streamed, in bounded memory"
		},
	},
	{
		Group: groupFiles, Name: "an archive that leads out",
		Does: "an archive with `..`, absolute paths, NUL, links and files through them, hard links, devices and a FIFO is unpacked",
		Want: []string{"refused one by one, nothing outside"},
		Go:   unpackTraversal,
	},
	{
		Group: groupFiles, Name: "an archive that says it is larger than any disk",
		Does: "a header of an exabyte, and one of a size that its bytes don't have",
		Want: []string{"refused"},
		Go: func(t testing.TB, _ World, b Box) string {
			ctx, cancel := context.WithTimeout(t.Context(), Patience)
			defer cancel()
			for _, size := range []int64{1 << 60, 1 << 50, 4096} {
				var buf bytes.Buffer
				w := tar.NewWriter(&buf)
				if err := w.WriteHeader(&tar.Header{Name: "/workspace/huge", Size: size, Mode: 0o600, Format: tar.FormatPAX}); err != nil {
					t.Fatal(err)
				}
				_, _ = w.Write([]byte("little"))
				_ = w.Flush() // the size is wrong on purpose
				done, err := b.Unpack(ctx, &buf)
				if err == nil && done.Failed == 0 {
					return fmt.Sprintf("%d bytes: taken, %+v", size, done)
				}
				if _, err := content(ctx, b, "/workspace/huge"); err == nil {
					return fmt.Sprintf("%d bytes: half of it stayed", size)
				}
			}
			return "refused"
		},
	},
	{
		Group: groupFiles, Name: "names that lead out where an archive is unpacked",
		Does: "names files `..\\..\\x`, `C:x`, with line breaks and with 250 letters, links to `/etc/passwd`, and downloads the folder",
		Want: []string{"no entry leads out"},
		Go: func(t testing.TB, _ World, b Box) string {
			ctx, cancel := context.WithTimeout(t.Context(), Patience)
			defer cancel()
			output(ctx, t, b, `rm -rf names && mkdir -p names && cd names && touch -- '..\..\x' 'C:x' '-rf' '...' "$(printf 'a\nb')" "$(printf 'x%.0s' $(seq 250))" && ln -s /etc/passwd link && ln -s ../../../etc/passwd up`)
			c, err := b.Archive(ctx, "/workspace/names")
			if err != nil {
				return err.Error()
			}
			defer c.Body.Close()
			data, err := io.ReadAll(io.LimitReader(c.Body, 1<<20))
			if err != nil {
				return err.Error()
			}
			z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
			if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
				return err.Error()
			}
			if len(z.File) != 8 {
				return fmt.Sprintf("%d entries", len(z.File))
			}
			for _, f := range z.File {
				parts := strings.FieldsFunc(f.Name, func(r rune) bool { return r == '/' || r == '\\' })
				if strings.HasPrefix(f.Name, "/") || slices.Contains(parts, "..") {
					return fmt.Sprintf("an entry %q", f.Name)
				}
				if f.Mode().IsRegular() && f.UncompressedSize64 > 0 {
					return fmt.Sprintf("%q has the bytes of what it leads to", f.Name)
				}
			}
			return "no entry leads out"
		},
	},
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse) //nolint:gosec // memory of a process fits
}

func packed(ctx context.Context, b Box) string {
	paths := []string{"/workspace/race/d/environ", "/workspace/race/l/environ", "/workspace/race/d/maps", "/workspace/race/l/status"}
	body, err := b.Pack(ctx, agentapi.PackRequest{Paths: paths})
	if err != nil {
		return err.Error()
	}
	defer body.Close()
	for in := tar.NewReader(body); ; {
		_, err := in.Next()
		if errors.Is(err, io.EOF) {
			return ""
		}
		if err != nil {
			return err.Error()
		}
		if text, err := io.ReadAll(in); err != nil || string(text) != "inside" {
			return fmt.Sprintf("packed %q, %v", text, err)
		}
	}
}

func archived(ctx context.Context, b Box) string {
	for _, path := range []string{"/workspace/race", "/workspace/race/d"} {
		c, err := b.Archive(ctx, path)
		if err != nil {
			continue // refused, or said not to be whole
		}
		data, err := io.ReadAll(c.Body)
		_ = c.Body.Close()
		if err != nil {
			continue
		}
		z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return err.Error()
		}
		for _, f := range z.File {
			if !f.Mode().IsRegular() {
				continue
			}
			r, err := f.Open()
			if err != nil {
				return err.Error()
			}
			text, err := io.ReadAll(r)
			if err != nil || string(text) != "inside" {
				return fmt.Sprintf("%s in the archive: %q %v", f.Name, text, err)
			}
		}
	}
	return ""
}

// entry is one of an archive.
type entry struct {
	name, body, link string
	kind             byte
}

func archive(entries ...entry) io.Reader {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		h := &tar.Header{Name: e.name, Size: int64(len(e.body)), Mode: 0o6777, Typeflag: e.kind, Linkname: e.link, Format: tar.FormatPAX}
		if err := w.WriteHeader(h); err != nil {
			panic(err) // a mistake of the table
		}
		_, _ = w.Write([]byte(e.body))
	}
	_ = w.Close()
	return &buf
}

func unpackTraversal(t testing.TB, _ World, b Box) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	bad := []entry{
		{name: "/workspace/../etc/owned", body: "x"},
		{name: "/etc/owned", body: "x"},
		{name: "relative/owned", body: "x"},
		{name: "/dev/shm/owned", body: "x"},
		{name: "/workspace/out/owned", body: "x"}, // out is a link that leads out, see below
		{name: "/workspace/hard", kind: tar.TypeLink, link: "/etc/passwd"},
		{name: "/workspace/device", kind: tar.TypeBlock},
		{name: "/workspace/char", kind: tar.TypeChar},
		{name: "/workspace/pipe", kind: tar.TypeFifo},
		{name: "/workspace/" + strings.Repeat("n", 300), body: "x"},
		{name: "/proc/self/mem", body: "x"},
	}
	entries := append([]entry{{name: "/workspace/out", kind: tar.TypeSymlink, link: "/dev/shm"}}, bad...)
	done, err := b.Unpack(ctx, archive(entries...))
	if err != nil {
		return err.Error()
	}
	if done.Failed != len(bad) || done.Entries != 1 {
		return fmt.Sprintf("%d refused of %d: %+v", done.Failed, len(bad), done.Failures)
	}
	if got := strings.TrimSpace(output(ctx, t, b, "ls /etc/owned /dev/shm/owned /workspace/relative/owned /workspace/hard /workspace/device 2>/dev/null; rm -f /workspace/out")); got != "" {
		return "there is " + got
	}
	return "refused one by one, nothing outside"
}
