package main

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refusedCalls are those that no program of a sandbox needs, and whose parts of
// the kernel had holes again and again.
var refusedCalls = append([]uint32{
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
}, refusedHere...)

// families of sockets that programs may open. Of the others some lead past
// whatever guards the network: those of virtual machines reach what runs the node.
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// Offsets in the kernel's struct seccomp_data.
const (
	atNumber   = 0
	atArch     = 4
	atArgument = 16
	// otherNumbers is where the numbers of x32 begin, another set of calls.
	otherNumbers = 0x40000000
)

// callFilter is a program of the kernel's that refuses them, and all calls by
// the numbers of another processor.
func callFilter() []unix.SockFilter {
	const load, equal, least, answer = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	refuse := func(err unix.Errno) unix.SockFilter {
		return unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ERRNO | uint32(err)}
	}
	allow := unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW}
	program := []unix.SockFilter{
		{Code: load, K: atArch},
		{Code: equal, K: nativeArch, Jt: 1},
		refuse(unix.ENOSYS),
		{Code: load, K: atNumber},
		{Code: least, K: otherNumbers, Jf: 1},
		refuse(unix.ENOSYS),
	}
	for _, number := range refusedCalls {
		program = append(program, unix.SockFilter{Code: equal, K: number, Jf: 1}, refuse(unix.EPERM))
	}
	program = append(program,
		unix.SockFilter{Code: equal, K: unix.SYS_SOCKET, Jt: 2},
		unix.SockFilter{Code: equal, K: unix.SYS_SOCKETPAIR, Jt: 1},
		allow,
		unix.SockFilter{Code: load, K: atArgument},
	)
	for _, family := range families {
		program = append(program, unix.SockFilter{Code: equal, K: family, Jf: 1}, allow)
	}
	return append(program, refuse(unix.EAFNOSUPPORT))
}

// filterCalls refuses system calls to this process and to all that it starts,
// beside whatever the node's runtime refuses: what that is differs from node to
// node. gVisor has a kernel of its own, where a filter would only cost time.
func filterCalls() error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	if strings.Contains(unix.ByteSliceToString(name.Release[:]), "gvisor") {
		return nil
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	program := callFilter()
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	// For all threads at once. The answer is the thread that could not be brought along.
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog))) //nolint:gosec // the kernel only reads it
	runtime.KeepAlive(program)
	if errno != 0 || thread != 0 {
		return fmt.Errorf("filter of system calls: %w (thread %d)", errno, thread)
	}
	return nil
}
