package main

import "golang.org/x/sys/unix"

const nativeArch = unix.AUDIT_ARCH_X86_64

// refusedHere are those that only this processor has.
var refusedHere = []uint32{unix.SYS_MODIFY_LDT}
