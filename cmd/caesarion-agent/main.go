// Command caesarion-agent is the first process of every sandbox: it starts and
// watches kernels and answers the server's calls. See internal/agent.
package main

import (
	"context"
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
	if flags.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	stayHidden()
	staySmall()
	ignoreSignals()

	opts := agent.Options{
		Python: *python, Version: version, Init: os.Getpid() == 1,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
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

	l, err := new(net.ListenConfig).Listen(ctx, "tcp", *addr)
	if err != nil {
		return err
	}
	a := agent.New(opts)
	defer a.Close()
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
	if err := announce(stdout); err != nil {
		return err
	}
	debug.FreeOSMemory() // of starting up; a sandbox may idle for hours now
	return <-serving
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
