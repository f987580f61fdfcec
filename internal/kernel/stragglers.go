package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
)

// stragglerRounds bounds the search: a process that forks faster than we look
// gets this many rounds, then the caller has to end the whole sandbox.
const stragglerRounds = 20

// killStragglers ends processes that carry the kernel's marker in their
// environment or are still in its session: daemons, children of a shell, forks.
func (p *Process) killStragglers() error {
	for range stragglerRounds {
		found, err := p.stragglers()
		if err != nil || len(found) == 0 {
			return err
		}
		for _, pid := range found {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("kernel: kill %d: %w", pid, err)
			}
		}
	}
	return fmt.Errorf("kernel: kill: processes of the kernel keep coming back")
}

func (p *Process) stragglers() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("kernel: kill: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("kernel: kill: %w", err)
	}
	marker := []byte(markerVariable + "=" + p.marker)
	session := strconv.Itoa(p.Pid())
	var found []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		// A process that ends while we look at it gives errors: it is gone, which is what we want.
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		// pid (comm) state ppid pgrp session …; comm may contain anything.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 4 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
			continue
		}
		if string(fields[3]) == session {
			found = append(found, pid)
			continue
		}
		env, err := os.ReadFile("/proc/" + name + "/environ")
		if err != nil {
			continue
		}
		for variable := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(variable, marker) {
				found = append(found, pid)
				break
			}
		}
	}
	return found, nil
}
