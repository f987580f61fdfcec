package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/llm/llmtest"
)

// devCmd has what helps to develop and to show Caesarion.
type devCmd struct {
	ScriptedLLM scriptedCmd `cmd:"" name:"scripted-llm" help:"Play a language model from a script."`
}

// scriptedCmd plays a script over HTTP.
type scriptedCmd struct {
	Script string `arg:"" help:"Script to play (YAML), such as examples/scripted/demo.yaml." type:"existingfile"`
	Listen string `help:"Address and port to listen on; port 0 takes a free one. Only loopback: there is no token." default:"127.0.0.1:0" placeholder:"HOST:PORT"`
}

// Help implements kong.HelpProvider.
func (*scriptedCmd) Help() string {
	return `An OpenAI-compatible server for tests and demonstrations, which answers from a file and costs nothing. It prints its base URL; docs/models.md says what a script can hold.

Examples:
  caesarion dev scripted-llm examples/scripted/demo.yaml --listen 127.0.0.1:9900
  OPENAI_API_KEY=none OPENAI_BASE_URL=http://127.0.0.1:9900/v1 caesarion serve`
}

// Run serves until a signal.
func (c *scriptedCmd) Run(ctx context.Context, g *globals) error {
	script, err := llmtest.Load(c.Script)
	if err != nil {
		return errdefs.New(errdefs.ErrInvalid, "script-invalid", "%v", err).WithHint("examples/scripted/demo.yaml is one that works")
	}
	if host, _, err := net.SplitHostPort(c.Listen); err != nil || !config.IsLoopback(host) {
		return errdefs.New(errdefs.ErrInvalid, "listen-failed", "%s is no address of loopback", c.Listen).WithHint("write it as 127.0.0.1:9900")
	}
	ctx, release := untilSignal(ctx)
	defer release()
	listener, _, err := listen(ctx, config.Server{Listen: c.Listen})
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: llmtest.NewServer(script), ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(listener) }()
	base := "http://" + listener.Addr().String() + "/v1"
	if g.JSON {
		err = printJSON(g.Stdout, map[string]any{"base_url": base, "models": script.Models})
	} else {
		_, err = fmt.Fprintln(g.Stdout, base)
	}
	if err == nil {
		select {
		case <-ctx.Done():
		case err = <-ended:
			return err
		}
	}
	err = errors.Join(err, srv.Close())
	if served := <-ended; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
