package main

import "golang.org/x/sys/unix"

const nativeArch = unix.AUDIT_ARCH_AARCH64

// refusedHere are those that only this processor has.
var refusedHere []uint32
