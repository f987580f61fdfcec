package gvisor

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/cleanup"
	"gvisor.dev/gvisor/runsc/container"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// source is what a sandbox starts from. The zero value is a cold start with
// nothing but the image.
type source struct {
	saved     *saved
	filesOnly bool // of saved
}

// memory says that the start is a restore.
func (s source) memory() bool { return s.saved != nil && !s.filesOnly }

// Create starts a sandbox cold. See sandbox.Driver.
func (d *Driver) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Info, error) {
	return d.create(ctx, spec, source{})
}

var errStartTimeout = errdefs.New(errdefs.ErrUnavailable, "sandbox-start-timeout", "the sandbox did not start within %v", startTimeout).
	WithHint("the machine may be overloaded; try again")

func (d *Driver) create(ctx context.Context, spec sandbox.Spec, from source) (sandbox.Info, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errStartTimeout)
	defer cancel()
	d.busy.Add(1)
	defer d.busy.Done()
	if spec.ID == "" {
		spec.ID = sandbox.NewID()
	}
	if !spec.ID.Valid() {
		return sandbox.Info{}, errdefs.New(errdefs.ErrInvalid, "invalid-id", "%.80q is not a sandbox id", spec.ID)
	}
	root, err := d.opts.Rootfs(ctx, spec.Image)
	if err != nil {
		return sandbox.Info{}, err
	}
	args := d.agentArgs(spec)
	if from.memory() {
		args = from.saved.Args
		if key := d.key(root, args, spec.Limits.DiskBytes); key != from.saved.Key {
			return sandbox.Info{}, errIncompatible()
		}
	}
	dir := filepath.Join(d.sandboxesDir(), string(spec.ID))
	if err := os.Mkdir(dir, 0o711); err != nil {
		if errors.Is(err, os.ErrExist) {
			return sandbox.Info{}, errdefs.New(errdefs.ErrConflict, "sandbox-exists", "there is a sandbox %s already", spec.ID)
		}
		return sandbox.Info{}, diskError(err)
	}
	// From here on everything is found by the folder: remove undoes all of it.
	cu := cleanup.Make(func() {
		if err := d.remove(spec.ID, nil); err != nil {
			d.log.Error("could not remove a sandbox that failed to start", "sandbox_id", spec.ID, "err", err)
		}
	})
	defer cu.Clean()

	b := &box{dir: dir, lost: make(chan struct{}), record: record{
		ID: spec.ID, Template: spec.Template, Image: root.Digest, Limits: spec.Limits, Env: maps.Clone(spec.Env),
		Labels: maps.Clone(spec.Labels), CreatedAt: time.Now().UTC(), Token: rand.Text() + rand.Text(),
		Args: args, Pooled: spec.Pooled,
	}}
	if b.life, err = d.launch(ctx, &b.record, root, from); err != nil {
		return sandbox.Info{}, err
	}
	stop := cleanup.Make(b.life.close)
	defer stop.Clean()
	if err := d.introduce(ctx, &b.record, b.life, from); err != nil {
		return sandbox.Info{}, err
	}
	if err := b.record.save(dir, false); err != nil {
		return sandbox.Info{}, diskError(err)
	}
	d.mu.Lock()
	d.boxes[spec.ID] = b
	d.mu.Unlock()
	go d.watchLoss(b, b.life)
	cu.Release()
	stop.Release()
	return b.info(), nil
}

// agentArgs are the arguments of the agent for a cold start of spec.
func (d *Driver) agentArgs(spec sandbox.Spec) []string {
	args := append([]string{}, d.opts.AgentArgs...)
	if spec.Prestart {
		args = append(args, "--prestart")
		if len(spec.Preload) > 0 {
			args = append(args, "--preload="+strings.Join(spec.Preload, ","))
		}
	}
	return args
}

// launch starts the processes of a sandbox and returns when its agent listens.
func (d *Driver) launch(ctx context.Context, r *record, root Rootfs, from source) (*life, error) {
	dir := filepath.Join(d.sandboxesDir(), string(r.ID))
	spec := d.ociSpec(dir, r.ID, root, r.Limits, r.Args)
	if err := writeBundle(dir, spec); err != nil {
		return nil, diskError(err)
	}
	r.Sentry, r.Gofer = process{}, process{} // those of an earlier life
	l := &life{words: &agentLog{}}
	out, err := d.runsc(ctx, r, l.words, from)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if err := d.attach(r, l); err != nil {
		return nil, err
	}
	if limits := r.Limits; limits.MemoryBytes > 0 {
		raised := limits.MemoryBytes + sentryMemory + int64(limits.Processes)*processMemory
		if err := d.cgroups.raiseMemory(string(r.ID), raised); err != nil {
			d.log.Warn("the host's memory limit stays low: a fork bomb may end the sandbox", "sandbox_id", r.ID, "err", err)
		}
	}
	if from.memory() {
		return l, nil // it listened when it was saved
	}
	if err := waitReady(ctx, out, l.sentry); err != nil {
		l.close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, errdefs.New(errdefs.ErrUnavailable, "agent-start-failed", "the sandbox started but its agent did not").
			WithHint("the image may lack what the agent needs; try `caesarion image inspect`").
			WithCause(fmt.Errorf("%w: %s", err, l.words.String()))
	}
	return l, nil
}

// runsc runs or restores the container and gives what the agent writes on its
// standard output.
func (d *Driver) runsc(ctx context.Context, r *record, words *agentLog, from source) (*os.File, error) {
	out, outFar, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("gvisor: %w", err)
	}
	near, far, err := os.Pipe()
	if err != nil {
		_ = out.Close()
		_ = outFar.Close()
		return nil, fmt.Errorf("gvisor: %w", err)
	}
	// The agent's standard output ends with its ready line; its standard
	// error stays open for a last word and is drained as long as we live.
	go words.drain(near)

	dir := filepath.Join(d.sandboxesDir(), string(r.ID))
	flags := []string{"--overlay2=root:" + d.overlayMedium()}
	args := []string{"run", "--detach"}
	switch {
	case from.memory():
		// Pages are read while the sandbox runs already.
		args = []string{"restore", "--detach", "--background", "--image-path=" + from.saved.dir}
	case from.saved != nil:
		args = append(args, "--fs-restore-image-path="+from.saved.path(filesDir))
	}
	cmd := d.runscCommand(ctx, flags, append(args, "--bundle="+filepath.Join(dir, "bundle"), string(r.ID))...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = outFar, far, []*os.File{d.netns}
	err = cmd.Run()
	_ = outFar.Close()
	_ = far.Close()
	if err == nil {
		return out, nil
	}
	_ = out.Close()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if from.memory() {
		return nil, errRestoreFailed(fmt.Errorf("runsc restore: %w: %s", err, words.String()))
	}
	return nil, errdefs.New(errdefs.ErrUnavailable, "sandbox-start-failed", "gVisor could not start the sandbox").
		WithHint("`caesarion doctor` checks this host; the log has gVisor's own words").
		WithCause(fmt.Errorf("runsc run: %w: %s", err, words.String()))
}

// attach loads the running container and watches its processes.
func (d *Driver) attach(r *record, l *life) (err error) {
	id := string(r.ID)
	l.container, err = container.Load(d.opts.RunDir, container.FullID{SandboxID: id, ContainerID: id}, container.LoadOpts{Exact: true, SkipCheck: true})
	if err != nil {
		return fmt.Errorf("gvisor: load container: %w", err)
	}
	if r.Sentry.PID == 0 {
		if r.Sentry, err = currentProcess(l.container.SandboxPid()); err != nil {
			return fmt.Errorf("gvisor: sentry: %w", err)
		}
		if r.Gofer, err = currentProcess(int(l.container.GoferPid.Load())); err != nil {
			return fmt.Errorf("gvisor: gofer: %w", err)
		}
	}
	if l.sentry, err = watch(r.Sentry); err != nil {
		return fmt.Errorf("gvisor: watch sentry: %w", err)
	}
	if l.gofer, err = watch(r.Gofer); err != nil {
		l.sentry.close()
		return fmt.Errorf("gvisor: watch gofer: %w", err)
	}
	return nil
}

// waitReady reads the agent's ready line. Dialling before it would be
// refused, and a refused dial spoils a later checkpoint.
func waitReady(ctx context.Context, out *os.File, sentry *watcher) error {
	ready := make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(io.LimitReader(out, 64<<10)).ReadString('\n')
		for err == nil && strings.TrimSpace(line) != agentapi.ReadyLine {
			err = fmt.Errorf("agent said %q", strings.TrimSpace(line))
		}
		ready <- err
	}()
	defer out.Close() // ends the reader too
	select {
	case err := <-ready:
		return err
	case <-sentry.done:
		return errors.New("the sandbox ended while starting")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// introduce tells the agent of a new sandbox who it is. The agent of a copy
// knows the token of what it was copied from, and gets its own.
func (d *Driver) introduce(ctx context.Context, r *record, l *life, from source) error {
	known := r.Token
	if from.memory() {
		known = from.saved.Token
	}
	client := agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return dialAgent(ctx, l.container) }, known)
	defer client.CloseIdle()
	_, err := client.Configure(ctx, agentapi.Configure{
		Token:         r.Token,
		SandboxID:     string(r.ID),
		Env:           r.Env,
		MemoryBytes:   r.Limits.MemoryBytes,
		Processes:     r.Limits.Processes,
		DiskBytes:     r.Limits.DiskBytes,
		DataBytes:     r.Limits.MemoryBytes,
		UnixTimeNanos: time.Now().UnixNano(),
		Clone:         from.memory(),
	})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case from.memory():
		return errRestoreFailed(fmt.Errorf("configure agent: %w: %s", err, l.words.String()))
	}
	return fmt.Errorf("gvisor: configure agent: %w", err)
}

// watchLoss notes why a sandbox ended by itself.
func (d *Driver) watchLoss(b *box, l *life) {
	select {
	case <-l.sentry.done:
	case <-d.closed: // it goes on, for the next process
		return
	}
	b.mu.Lock()
	asleep, id := l.asleep, b.record.ID
	b.mu.Unlock()
	if asleep {
		return
	}
	reason := "sandbox_lost"
	if d.cgroups.oomKilled(string(id)) {
		reason = "out_of_memory"
	}
	if b.end(reason) {
		d.log.Warn("sandbox ended by itself", "sandbox_id", id, "reason", reason, "agent", l.words.String())
	}
}
