// Command caesarion-agent is the first process of every sandbox: it starts and
// watches kernels and answers the server's calls. See internal/agent.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/agent"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/kernel"
)

// version is set by the linker.
var version = "dev"

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "caesarion-agent:", err)
		os.Exit(1)
	}
}

// prestartTimeout bounds how long the ready line waits for Python.
const prestartTimeout = 2 * time.Minute

func run(ctx context.Context, args []string, stdout *os.File) error {
	flags := flag.NewFlagSet("caesarion-agent", flag.ContinueOnError)
	addr := flags.String("listen", "127.0.0.1:"+strconv.Itoa(agentapi.Port), "address to listen on")
	preload := flags.String("preload", "", "modules that kernels import before they are ready, separated by commas")
	prestart := flags.Bool("prestart", false, "start a kernel at once, and be ready when it is")
	python := flags.String("python", "python3", "interpreter of the kernels")
	tokenHash := flags.String("token-sha256", "", "SHA-256, in hexadecimal, of the only token that the first configure may come with")
	limits := flags.String("limits", "", "JSON of the limits that hold until then: memory_bytes, processes, disk_bytes, data_bytes")
	ownDisk := flags.Bool("own-disk", false, "keep the disk limit and tell what is used by counting files, because the disk is also used by others")
	homeFrom := flags.String("home-from", "", "folder whose files an empty home directory begins with")
	filter := flags.Bool("filter-calls", false, "refuse system calls that no program needs, where the kernel is that of the node")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return err
	}
	if flags.Arg(0) == "version" {
		fmt.Fprintln(stdout, version)
		return nil
	}
	if flags.Arg(0) == "install" && flags.NArg() == 2 {
		return install(flags.Arg(1))
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	if *filter { // before there is anything that could be left out
		if err := filterCalls(); err != nil {
			return err
		}
	}
	stayHidden()
	staySmall()
	ignoreSignals()

	opts := agent.Options{
		Python: *python, Version: version, Init: os.Getpid() == 1,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), OwnDisk: *ownDisk,
	}
	var err error
	if *tokenHash != "" {
		if opts.TokenSHA256, err = hex.DecodeString(*tokenHash); err != nil || len(opts.TokenSHA256) != sha256.Size {
			return errors.New("--token-sha256 is no SHA-256 in hexadecimal")
		}
		// Kubernetes tells every container where its API server is.
		opts.Environ = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "KUBERNETES_") })
	}
	if *limits != "" {
		opts.Limits = &agentapi.Configure{}
		if err := json.Unmarshal([]byte(*limits), opts.Limits); err != nil {
			return fmt.Errorf("--limits: %w", err)
		}
	}
	if *homeFrom != "" {
		if err := fillHome(*homeFrom, os.Getenv("HOME")); err != nil {
			opts.Logger.Warn("the home directory lacks files", "err", err)
		}
	}
	if *preload != "" {
		opts.Preload = strings.Split(*preload, ",")
	}
	if opts.Init {
		opts.Reaper = agent.NewReaper()
		defer opts.Reaper.Close()
	}
	program, err := kernel.Unpack(filepath.Join(os.TempDir(), ".caesarion"))
	if err != nil {
		return err
	}
	opts.ProgramDir = program

	l, err := listen(ctx, *addr)
	if err != nil {
		return err
	}
	out, err := listen(ctx, "127.0.0.1:"+strconv.Itoa(agentapi.ProxyPort))
	if err == nil {
		opts.Proxy = out.Addr().String()
	} else {
		opts.Logger.Warn("programs have no proxy", "err", err)
	}
	a := agent.New(opts)
	defer a.Close()
	if out != nil {
		go func() { _ = a.ServeProxy(ctx, out) }() // ends with the agent
	}
	serving := make(chan error, 1)
	go func() { serving <- a.Serve(ctx, l) }()
	if *prestart {
		ctx, cancel := context.WithTimeoutCause(ctx, prestartTimeout, errors.New("the kernel was not ready in time"))
		err := a.Prestart(ctx)
		cancel()
		if err != nil {
			// Not the end: the first StartKernel will say the same to whoever asks.
			opts.Logger.Warn("kernel was not started", "err", err)
		}
	}
	a.Ready()
	if err := announce(stdout); err != nil {
		return err
	}
	debug.FreeOSMemory() // of starting up; a sandbox may idle for hours now
	return <-serving
}

// listen opens a port that nobody else can have: Go allows addresses to be used
// again, and gVisor then gives another program that binds one of the sandbox's
// own, rather than all of them, what was meant for the agent.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
		var failed error
		err := conn.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 0) })
		return errors.Join(err, failed)
	}}
	return config.Listen(ctx, "tcp", addr)
}

// install puts this program into a folder that a sandbox mounts.
func install(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	src, err := os.Open(self)
	if err != nil {
		return err
	}
	defer src.Close()
	tmp, err := os.CreateTemp(dir, ".caesarion-agent-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) // gone after the rename
	_, err = io.Copy(tmp, src)
	if err == nil {
		err = tmp.Chmod(0o755)
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), filepath.Join(dir, "caesarion-agent"))
}

// fillHome gives a home directory that is an empty volume what the image
// prepared for its users.
func fillHome(from, home string) error {
	entries, err := os.ReadDir(home)
	if err != nil || len(entries) > 0 {
		return err
	}
	return os.CopyFS(home, os.DirFS(from))
}

// announce writes the ready line and then lets go of stdout: nothing else may
// be written where the driver looked for it, and a snapshot must not hold it.
func announce(stdout *os.File) error {
	if _, err := io.WriteString(stdout, agentapi.ReadyLine+"\n"); err != nil {
		return fmt.Errorf("ready line: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return stdout.Close()
	}
	defer null.Close()
	return unix.Dup3(int(null.Fd()), int(stdout.Fd()), 0)
}

// stayHidden keeps processes of the same user from tracing the agent and from
// reading its memory in /proc. Children become ordinary again by exec.
func stayHidden() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // a kernel without it has no ptrace to fear either
}

const (
	// softMemory makes the collector work harder instead of growing further:
	// the agent shares the sandbox's memory with the code it runs.
	softMemory = 96 << 20
	// gcPercent trades a little time for a heap that stays near what is live.
	gcPercent = 50
	// threads that run Go code. One: handing work from the goroutine that reads
	// the kernel to the one that answers then wakes nobody, and idle threads do
	// not spin on a processor that the kernel could use.
	threads = 1
)

func staySmall() {
	debug.SetMemoryLimit(softMemory)
	debug.SetGCPercent(gcPercent)
	runtime.GOMAXPROCS(threads)
}

// ignoreSignals makes whatever can be caught harmless: user code has the
// agent's user id, and the default action of most signals is to end it. What
// is not handled here cannot be; the driver's own shutdown is SIGKILL.
func ignoreSignals() {
	// The Go runtime keeps what it needs of these: notifying adds to it.
	sink := make(chan os.Signal, 1)
	for n := syscall.Signal(1); n < 65; n++ {
		switch n {
		case syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPROF, 32, 33, 34:
		default:
			signal.Notify(sink, n)
		}
	}
	// What the channel cannot take is dropped, which is all that is wanted.

	// The C library's own signals, which Go leaves at their default. Children
	// inherit that; a C library sets its own handler when it wants one.
	type action struct{ handler, flags, restorer, mask uintptr } // struct sigaction of 64-bit Linux
	ignore := action{handler: 1}                                 // SIG_IGN
	for _, n := range []uintptr{32, 33, 34} {
		_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, n, uintptr(unsafe.Pointer(&ignore)), 0, 8, 0, 0) //nolint:gosec // the kernel only reads it
	}
}
