package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// adoptCode makes a kernel that was started for nobody in particular somebody's.
// Many sandboxes may wake from one saved kernel, so its random generators start anew.
// It runs in a namespace of its own; %s are JSON strings, which are Python's too.
const adoptCode = `exec('''
import os, random, sys
os.environ.update(env)
os.chdir(cwd)
random.seed()
if "numpy" in sys.modules:
    sys.modules["numpy"].random.seed()
''', {"env": %s, "cwd": %s})`

// adopt gives the kernel that was started beforehand the environment, folder
// and limits of the request it is handed to.
func (k *keeper) adopt(ctx context.Context, req agentapi.StartKernel) error {
	a := k.agent
	k.mu.Lock()
	k.env = req.Env
	if req.Dir != "" {
		k.dir = req.Dir
	}
	dir := a.realDir(k.dir)
	k.mu.Unlock()
	inc, err := k.ready(ctx)
	if err != nil {
		return err
	}
	a.limitProcess(inc.owner.pid)
	all := make(map[string]string)
	if conf := a.conf.Load(); conf != nil {
		maps.Copy(all, conf.Env)
	}
	maps.Copy(all, req.Env)
	env, err := json.Marshal(all)
	if err != nil {
		return err
	}
	cwd, err := json.Marshal(dir)
	if err != nil {
		return err
	}
	content, err := json.Marshal(map[string]any{
		"code": fmt.Sprintf(adoptCode, env, cwd), "silent": true, "store_history": false,
		"user_expressions": map[string]string{}, "allow_stdin": false, "stop_on_error": false,
	})
	if err != nil {
		return err
	}
	m, err := inc.ask(ctx, "execute_request", content)
	if err != nil {
		return err
	}
	var reply executeReply
	if err := json.Unmarshal(m.Content, &reply); err != nil || reply.Status != "ok" {
		return errdefs.New(errdefs.ErrUnavailable, "kernel-start-failed", "the kernel could not be set up: %.500s", reply.Value).WithCause(err)
	}
	return nil
}
