package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// memory measures what idle sandboxes with a started kernel cost this machine.
func memory(ctx context.Context, subjects []Subject, opts Options, report func(Result)) error {
	for _, subject := range subjects {
		c, ok := subject.(*Caesarion)
		if !ok {
			continue
		}
		var sessions []Session
		err := func() error {
			total := int64(0)
			for range opts.Idle {
				s, err := c.Create(ctx)
				if err != nil {
					return err
				}
				sessions = append(sessions, s)
				if _, err := s.Run(ctx, "1+1"); err != nil {
					return err
				}
			}
			for _, s := range sessions {
				bytes, err := sandboxMemory(s.(*caesarionSession).id) //nolint:forcetypeassert // Create gives no other
				if err != nil {
					return err
				}
				total += bytes
			}
			report(Result{Scenario: "memory per idle sandbox", Subject: c.Name(), N: len(sessions), Value: float64(total) / float64(len(sessions)) / (1 << 20), Unit: "MiB"})
			if c.PID == 0 {
				return nil
			}
			server, err := memoryOf(c.PID)
			if err != nil {
				return err
			}
			report(Result{Scenario: "memory of the server", Subject: c.Name(), N: 1, Value: float64(server) / (1 << 20), Unit: "MiB", Note: fmt.Sprintf("with %d sandboxes", len(sessions))})
			return nil
		}()
		for _, s := range sessions {
			err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// memoryOf gives a process's resident memory in bytes; 0 for process 0.
func memoryOf(pid int) (int64, error) {
	if pid == 0 {
		return 0, nil
	}
	return procField(pid, "status", "VmRSS:")
}

// sandboxMemory adds up the proportional memory of a sandbox's host processes:
// pages that sandboxes share count once over all of them.
//
// Source: Pss of /proc/<pid>/smaps_rollup, for each process whose cgroup or
// command line names the sandbox. The sandbox's own pages are the sentry's.
func sandboxMemory(id string) (int64, error) {
	total, found := int64(0), false
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, err
	}
	for _, dir := range dirs {
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if !strings.Contains(string(cgroup), id) && !(strings.HasPrefix(string(cmdline), "runsc") && strings.Contains(string(cmdline), id)) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		pss, err := procField(pid, "smaps_rollup", "Pss:")
		if err != nil {
			continue // it ended meanwhile
		}
		total += pss
		found = true
	}
	if !found {
		return 0, fmt.Errorf("no process of %s on this machine: memory can only be measured beside the server, as root", id)
	}
	return total, nil
}

// procField reads a field of a /proc file that is given in kB.
func procField(pid int, file, field string) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/%s has no %s", pid, file, field)
}
