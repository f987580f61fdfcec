package egress

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	// ledgerDir holds, in Options.Dir, a file for each sandbox that has used its
	// network: how many bytes.
	ledgerDir = "used"
	// ledgerMost is how many bytes are written down before they are used. A server
	// that is killed then takes at most so much from a sandbox, and gives none.
	ledgerMost = 16 << 20
	// ledgerShare bounds it to a part of what the sandbox may use.
	ledgerShare = 64
)

// ledgerAhead is how much to write down before it is used.
func ledgerAhead(most int64) int64 {
	if most <= 0 {
		return ledgerMost
	}
	return max(1, min(ledgerMost, most/ledgerShare))
}

// ledger keeps what sandboxes have used beyond the life of this server: a
// bound on a sandbox's life must not end with ours.
type ledger struct {
	dir string // "": nothing is kept
}

func newLedger(dir string) ledger {
	if dir == "" {
		return ledger{}
	}
	return ledger{filepath.Join(dir, ledgerDir)}
}

// file is where a sandbox's figure is; "" if it is not kept.
func (l ledger) file(sandbox string) string {
	if l.dir == "" || sandbox == "" || strings.ContainsAny(sandbox, `/\.`) {
		return ""
	}
	return filepath.Join(l.dir, sandbox)
}

// read gives what is written of a sandbox, 0 if nothing is.
func (l ledger) read(sandbox string) (int64, error) {
	file := l.file(sandbox)
	if file == "" {
		return 0, nil
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("egress: what a sandbox has used: %w", err)
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("egress: what a sandbox has used: %s holds no number of bytes", file)
	}
	return n, nil
}

// write puts a figure in the place of another.
func (l ledger) write(sandbox string, n int64) error {
	file := l.file(sandbox)
	if file == "" {
		return nil
	}
	tmp := file + ".new"
	text := []byte(strconv.FormatInt(n, 10) + "\n")
	err := os.WriteFile(tmp, text, 0o600) //nolint:gosec // file lets no separator through
	if errors.Is(err, os.ErrNotExist) {   // the first of all
		if err = os.MkdirAll(l.dir, 0o700); err == nil {
			err = os.WriteFile(tmp, text, 0o600) //nolint:gosec // as above
		}
	}
	if err == nil {
		err = os.Rename(tmp, file) //nolint:gosec // as above
	}
	if err != nil {
		return fmt.Errorf("egress: what a sandbox has used: %w", err)
	}
	return nil
}

func (l ledger) remove(sandbox string) {
	if file := l.file(sandbox); file != "" {
		_ = os.Remove(file) //nolint:errcheck // most have none
	}
}

// sandboxes lists those that have a figure.
func (l ledger) sandboxes() ([]string, error) {
	if l.dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(l.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("egress: what sandboxes have used: %w", err)
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, strings.TrimSuffix(e.Name(), ".new"))
	}
	return ids, nil
}
