package agent_test

import (
	"context"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/agent"
	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// The disk below is the machine's, so that only the agent keeps the limit.
func TestTheAgentKeepsTheDiskLimit(t *testing.T) {
	client, _ := configured(t, agentapi.Configure{DiskBytes: 64 << 20}, func(o *agent.Options) {
		withPython(t)(o)
		o.OwnDisk = true
	})
	s := agenttest.New(t, client)
	ctx, cancel := context.WithTimeout(t.Context(), agenttest.Patience)
	defer cancel()
	t.Run("one file", func(t *testing.T) {
		s.Run("f = open('one', 'wb')\nwhile True: f.write(b'x' * (8 << 20))").Expect(t, event.StatusError, event.ReasonDiskFull)
		if err := client.Remove(ctx, "one"); err != nil {
			t.Error(err)
		}
		s.Run("f.close()")
	})
	t.Run("many files", func(t *testing.T) {
		r := s.Run(`
import time
for n in range(1000):
    open('many%d' % n, 'wb').write(b'x' * (8 << 20))
    time.sleep(0.05)`).Expect(t, event.StatusError, event.ReasonDiskFull)
		if r.Finished.Message == "" {
			t.Error("no sentence")
		}
		_, err := client.Upload(ctx, "more", strings.NewReader("x"), 1)
		if errdefs.CodeOf(err) != "disk-full" {
			t.Errorf("upload to a full disk: %v", err)
		}
	})
	t.Run("and again when there is room", func(t *testing.T) {
		s.Run("import glob, os\nfor f in glob.glob('many*'): os.unlink(f)").Expect(t, event.StatusOK, "")
		s.Run(`
for _ in range(200):
    try:
        open('small', 'w').write('x' * 100)
        break
    except OSError as e: time.sleep(0.05)
print(os.path.getsize('small'))`).Expect(t, event.StatusOK, "")
		s.Usable()
	})
}
