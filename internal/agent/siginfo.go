package agent

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// siginfoPID gives si_pid, which follows si_signo, si_errno, si_code and, on
// 64-bit machines, four bytes of padding. The x/sys package has no name for it.
//
// Source: sigaction(2), asm-generic/siginfo.h.
func siginfoPID(info *unix.Siginfo) int {
	const offset = 12 + 4*(unsafe.Sizeof(uintptr(0))/8)
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), offset))) //nolint:gosec // inside the struct
}
