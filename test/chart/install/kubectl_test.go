package install

import (
	"context"
	"os/exec"
)

// kubectl runs kubectl, which may fail, and gives what it wrote.
func kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "kubectl", args...).CombinedOutput()
	return string(out), err
}
